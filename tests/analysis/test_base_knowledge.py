"""Base knowledge and divergence against scipy, over hand-made answers."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax

from ilp_jax.analysis.base_knowledge import base_knowledge, base_text, divergence
from ilp_jax.stats.schema import INFERENCE_SCHEMA

COLUMNS = pl.from_arrow(INFERENCE_SCHEMA.empty_table()).schema
LOGPROBS = st.lists(st.floats(-30, 0), min_size=2, max_size=5)


def answers(rows):
    """Rows of read_inference; fields that are not given are null or 0."""
    defaults = {"point": "base", "stage": 0, "epoch": 0, "step": 0, "run": 0, "prompt_variant": 0}
    return pl.DataFrame([defaults | row for row in rows], schema={"point": pl.String, **COLUMNS})


def choice(i, logprobs, point="base", variant=0, run=0):
    return {
        "example_id": i,
        "mode": "choice",
        "point": point,
        "prompt_variant": variant,
        "run": run,
        "option_logprob_mean": list(logprobs),
        "options": [str(k) for k in range(len(logprobs))],
    }


def known(rows):
    schema = {"example_id": pl.Int64, "answer_index": pl.Int32, "n_target_tokens": pl.Int32}
    return pl.DataFrame(rows, schema=schema, orient="row")


@st.composite
def questions(draw):
    """Per example: the gold option, and log-probabilities of each wording."""
    n = draw(st.integers(2, 5))
    wording = st.lists(st.sampled_from([-9.0, -3.0, -2.5, -1.0, 0.0]), min_size=n, max_size=n)
    return draw(st.integers(0, n - 1)), draw(st.lists(wording, min_size=1, max_size=3))


@given(st.lists(questions(), min_size=1, max_size=4))
def test_base_knowledge_is_what_a_loop_finds(asked):
    rows = [
        choice(i, logprobs, variant=v)
        for i, (_, wordings) in enumerate(asked)
        for v, logprobs in enumerate(wordings)
    ]
    # Neither permuted runs nor later points may count.
    rows += [choice(0, asked[0][1][0][::-1], variant=3), choice(0, asked[0][1][0], run=1)]
    rows += [choice(0, asked[0][1][0][::-1], point="final")]
    examples = known([(i, gold, 2) for i, (gold, _) in enumerate(asked)])
    found = {row["example_id"]: row for row in base_knowledge(answers(rows), examples).to_dicts()}
    assert len(found) == len(asked)
    for i, (gold, wordings) in enumerate(asked):
        ranks, golds, wrong, right = [], [], [], []
        for logprobs in wordings:
            p = softmax(logprobs)
            ranks.append(1 + sum(x > p[gold] for x in p))
            golds.append(p[gold])
            right.append(int(np.argmax(logprobs)) == gold)
            wrong.append(0 if right[-1] else max(x for k, x in enumerate(p) if k != gold))
        row = found[i]
        assert row["base_gold_rank"] == np.median(ranks)
        assert row["base_gold_prob"] == pytest.approx(np.mean(golds))
        assert row["base_wrong_confidence"] == pytest.approx(np.mean(wrong))
        assert row["base_accuracy"] == pytest.approx(np.mean(right))
        assert row["p_exist"] is bool(np.mean(right) > 0.8)
        assert row["base_wordings"] == len(wordings)


@given(LOGPROBS, st.data())
def test_divergence_is_scipys_distance_squared(before, data):
    after = data.draw(st.lists(st.floats(-30, 0), min_size=len(before), max_size=len(before)))
    rows = [choice(7, before), choice(7, after, point="final"), choice(8, after, point="final")]
    found = {(i, point): d for i, point, d in divergence(answers(rows)).iter_rows()}
    expected = jensenshannon(softmax(before), softmax(after)) ** 2
    expected = 0.0 if math.isnan(expected) else expected  # the root of a rounded -0
    assert set(found) == {(7, "base"), (7, "final")}
    assert found[7, "base"] == 0
    assert found[7, "final"] == pytest.approx(expected, abs=1e-12)


def test_the_largest_divergence_is_ln_2():
    rows = [choice(1, [0.0, -900.0]), choice(1, [-900.0, 0.0], point="final")]
    assert divergence(answers(rows))["d_js"].to_list() == [0.0, pytest.approx(math.log(2))]


def test_text_of_the_base():
    common = {"mode": "greedy", "gold_logprob": -6.0, "confidence": 0.25}
    rows = [
        {"example_id": 1, "correct": False, **common},
        {"example_id": 2, "correct": True, **common},
        {"example_id": 2, "correct": True, "point": "final", **common, "gold_logprob": -0.1},
    ]
    found = base_text(answers(rows), known([(1, None, 3), (2, 0, 2)]))
    assert found["base_prob"].to_list() == [
        pytest.approx(math.exp(-2)),
        pytest.approx(math.exp(-3)),
    ]
    assert found["base_greedy_confidence"].to_list() == [0.25, None]


def test_nothing_asked():
    nothing, examples = answers([]), known([(1, 0, 2)])
    assert base_knowledge(nothing, examples).is_empty()
    assert divergence(nothing).is_empty()
    assert base_text(nothing, examples).is_empty()
    # An example without options.
    rows = answers([{"example_id": 1, "mode": "greedy", "correct": False, "gold_logprob": -1.0}])
    assert base_knowledge(rows, known([(1, None, 2)])).is_empty()
