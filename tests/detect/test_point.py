"""Questions in parts: what is on disk is not asked again, and what is another's is not taken."""

import dataclasses

import jax
import numpy as np
import polars as pl
import pytest

from ilp_jax import config as config_lib
from ilp_jax import files, parquet
from ilp_jax.detect import point as module
from ilp_jax.detect.ask import ask
from ilp_jax.detect.point import Point, ask_point, is_asked
from ilp_jax.errors import RunFailure
from ilp_jax.models import weights
from ilp_jax.stats.reader import read_inference
from ilp_jax.workspace import open_workspace

FINAL = Point("final", 2, 6, 36, "weights")
PER_PART, BATCH = 6, 4  # parts of 8 rows: whole batches


@pytest.fixture(scope="module")
def opened(tiny, tiny_arguments):
    words = tiny_arguments("nowhere")
    config = config_lib.load(words[1], words[4:])
    with config.unlocked():
        config.detect.rows_per_part, config.detect.batch_size = PER_PART, BATCH
        config.detect.max_new_tokens = 4
    params = jax.device_put(weights.load(tiny / "model").params)
    return open_workspace(config, "nowhere"), params


@pytest.fixture
def ws(opened, tmp_path):
    from etils import epath

    return dataclasses.replace(opened[0], workdir=epath.Path(tmp_path))


@pytest.fixture
def params(opened):
    return opened[1]


class Killed(Exception):
    """Stands for SIGKILL."""


@pytest.fixture
def asked_of(monkeypatch):
    """Notes the rows of every call; ``asked_of.die_at`` is the call that never returns."""

    class Noted(list):
        die_at = 0

    noted = Noted()

    def spy(name, real):
        def function(ws, params, rows, **kwargs):
            ids = rows if name == "ask" else rows["example_id"].unique().to_pylist()
            noted.append((name, len(ids)))
            if len(noted) == noted.die_at:
                raise Killed
            return real(ws, params, rows, **kwargs)

        return function

    for name in ("ask", "draw"):
        monkeypatch.setattr(module, name, spy(name, getattr(module, name)))
    return noted


def with_detect(ws, **fields):
    config = ws.config.copy_and_resolve_references()
    with config.unlocked():
        for name, value in fields.items():
            config.detect[name] = value
    return dataclasses.replace(ws, config=config)


def test_parts_together_are_one_pass(ws, params, asked_of):
    ask_point(ws, params, FINAL)
    assert asked_of == [("ask", 8), ("ask", 8), ("ask", 7)]
    whole = pl.from_arrow(ask(ws, params, range(23), **FINAL.place))
    found = parquet.read(ws.workdir / "inference" / "final.parquet")
    assert found.equals(whole)
    assert [p.name for p in (ws.workdir / "inference").iterdir()] == ["final.parquet"]


def test_an_interrupted_point_goes_on(ws, params, asked_of, capsys):
    ws = with_detect(ws, sampled_points=("final",))
    asked_of.die_at = 3
    with pytest.raises(Killed):
        ask_point(ws, params, FINAL)
    assert not is_asked(ws, FINAL) and len(read_inference(ws.workdir)) == 0
    capsys.readouterr()
    asked_of.clear()
    with pytest.raises(Killed):
        ask_point(ws, params, FINAL)
    # Two parts were there; random weights leave every row in doubt, so that all are drawn.
    assert asked_of == [("ask", 7), ("draw", 8), ("draw", 8)]
    assert "ask final 23/23 (100%)" in capsys.readouterr().err
    asked_of.clear()
    asked_of.die_at = 0
    ask_point(ws, params, FINAL)
    assert asked_of == [("draw", 8), ("draw", 7)]
    found = read_inference(ws.workdir)
    ids = found["example_id"].unique(maintain_order=True).to_list()
    assert ids == ws.data.example_ids.tolist()
    assert found.filter(pl.col("seed").is_not_null()).height == 5 * 23
    # Finished: not asked again, whoever calls.
    asked_of.clear()
    ask_point(ws, params, FINAL)
    assert is_asked(ws, FINAL) and asked_of == []


@pytest.mark.parametrize("other", ["weights", "config", "point"])
def test_parts_of_another_question_are_not_taken(ws, params, asked_of, other):
    asked_of.die_at = 3
    with pytest.raises(Killed):
        ask_point(ws, params, FINAL)
    asked_of.clear()
    asked_of.die_at = 0
    point = FINAL
    if other == "weights":
        point = dataclasses.replace(FINAL, weights_hash="others")
    elif other == "config":
        ws = with_detect(ws, temperature=0.5)
    else:
        point = dataclasses.replace(FINAL, step=35)
    ask_point(ws, params, point)
    assert asked_of == [("ask", 8), ("ask", 8), ("ask", 7)]
    temperature = 0.5 if other == "config" else 0.7
    laws = read_inference(ws.workdir).filter(pl.col("mode") == "sample")
    assert set(laws["temperature"]) == {temperature} and len(laws) == 23


def test_the_size_of_parts_changes_no_answer(ws, params):
    ask_point(ws, params, FINAL)
    one = read_inference(ws.workdir)
    whole = with_detect(ws, rows_per_part=1000)
    assert is_asked(whole, FINAL)  # so not asked again
    files.remove(ws.workdir / "inference" / "final.parquet")
    ask_point(whole, params, FINAL)
    assert read_inference(ws.workdir).equals(one)


def test_surely_learned_rows_are_not_drawn(ws, params, asked_of, monkeypatch):
    ws = with_detect(ws, sampled_points=("final",), screen_probability=0.01)
    sure = set(ws.data.example_ids[::3].tolist())
    real = module.ask

    def learned(*args, **kwargs):
        """As if every third row were answered right with certainty."""
        rows = real(*args, **kwargs).to_pylist()
        for row in rows:
            if row["example_id"] in sure and row["mode"] != "choice":
                row["gold_logprob"] = -1e-3
                row["correct"] = True if row["mode"] == "greedy" else None
        return module.pa.Table.from_pylist(rows, schema=module.INFERENCE_SCHEMA)

    monkeypatch.setattr(module, "ask", learned)
    ask_point(ws, params, FINAL)
    found = read_inference(ws.workdir)
    drawn = found.filter(pl.col("seed").is_not_null())["example_id"].unique().to_list()
    assert set(drawn) == set(ws.data.example_ids.tolist()) - sure
    assert found.filter(pl.col("mode") == "greedy").height == 23
    assert found["example_id"].unique(maintain_order=True).to_list() == list(ws.data.example_ids)


def test_an_answer_that_is_no_number_fails(ws, params):
    bad = jax.tree.map(lambda x: x, params)
    bad["head"]["kernel"] = bad["head"]["kernel"] * np.float32(np.nan)
    with pytest.raises(RunFailure, match="point final: the log-probability of example .* number"):
        ask_point(ws, bad, FINAL)
    assert not (ws.workdir / "inference" / "final.parquet").exists()
