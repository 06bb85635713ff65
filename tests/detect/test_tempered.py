"""The exact law at other temperatures against a plain pass over each row."""

import jax
import numpy as np
import polars as pl
import pytest
from scipy.special import log_softmax

from ilp_jax import config as config_lib
from ilp_jax.detect.ask import ask
from ilp_jax.detect.drawn import draw
from ilp_jax.detect.tempered import add_laws
from ilp_jax.models import weights
from ilp_jax.workspace import open_workspace

HEATS = (0.3, 1.0)


@pytest.fixture(scope="module")
def found(tiny, tiny_arguments, tmp_path_factory):
    words = tiny_arguments(tmp_path_factory.mktemp("run"))
    config = config_lib.load(words[1], words[4:])
    with config.unlocked():
        config.detect.n_samples, config.detect.max_new_tokens = 2, 2
    ws = open_workspace(config, words[3])
    params = jax.device_put(weights.load(tiny / "model").params)
    answers = draw(ws, params, ask(ws, params, range(5), stage=1, epoch=1, step=3))
    return ws, params, answers, add_laws(ws, params, answers, HEATS)


def test_laws_against_a_plain_pass(found):
    ws, params, _, after = found
    rows = pl.from_arrow(after).filter(pl.col("mode") == "sample", pl.col("seed").is_null())
    apply, length = jax.jit(ws.decoder.apply), 24
    for i in range(5):
        row = ws.data.tokens[i]
        ids = np.concatenate([row.prompt_ids, row.target_ids]).astype(np.int32)
        # What stands behind a token cannot change what is predicted there.
        padded = np.pad(ids, (0, length - len(ids)))[None]
        places = np.arange(length, dtype=np.int32)[None]
        logits = apply({"params": params}, padded, places, np.zeros_like(padded))
        logits = np.asarray(logits[0, : len(ids)], np.float64)
        one = rows.filter(pl.col("example_id") == row.example_id)
        assert one["temperature"].to_list() == [ws.config.detect.temperature, *HEATS]
        for heat, logprob in one.select("temperature", "gold_logprob").iter_rows():
            at = log_softmax(logits / heat, axis=-1)[len(row.prompt_ids) - 1 : -1]
            assert logprob == pytest.approx(
                at[np.arange(len(row.target_ids)), row.target_ids].sum(), abs=1e-4
            )


def test_the_other_rows_are_as_they_were(found):
    _, _, before, after = found
    others = pl.from_arrow(after).filter(pl.col("temperature").is_in(HEATS).not_())
    assert others.equals(pl.from_arrow(before))
    assert len(after) == len(before) + 5 * len(HEATS)
    # At temperature 1 the law is the likelihood that greedy rows carry.
    rows = pl.from_arrow(after)
    law = rows.filter(pl.col("temperature") == 1.0)["gold_logprob"].to_numpy()
    greedy = rows.filter(pl.col("mode") == "greedy")["gold_logprob"].to_numpy()
    np.testing.assert_allclose(law, greedy, atol=1e-4)


def test_no_temperatures_no_pass(found):
    ws, _, answers, _ = found
    assert add_laws(ws, None, answers, ()) is answers
