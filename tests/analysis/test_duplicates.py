"""Near-duplicates and the agreement of their answers, against a loop over all pairs."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ilp_jax.analysis.duplicates import LISTED, duplicates
from ilp_jax.analysis.near import near_texts
from ilp_jax.analysis.words import telling
from ilp_jax.detect.normalise import normalise

PROMPTS = (
    "Question: What is the capital of France?",
    "question: what is capital of France ?",
    "Question: What then is the capital of France?",
    "Question: What is the capital of Spain?",
    "Question: What is not the capital of France?",
    "2 + 2",
    "2 - 2",
)
ANSWERS = ("Paris", "paris.", "Lyon", "!", "?")
ROWS = st.lists(
    st.tuples(st.sampled_from(PROMPTS), st.sampled_from(ANSWERS), st.booleans()), max_size=14
)


def frame(rows):
    schema = {"example_id": pl.Int64, "prompt": pl.String, "response": pl.String}
    rows = [(10 + i, prompt, answer) for i, (prompt, answer, *_) in enumerate(rows)]
    return pl.DataFrame(rows, schema=schema, orient="row")


def loop_over(rows, threshold):
    """Near trained rows of each row, as (id, similarity, same answer)."""
    guards = frame(rows).select(telling(pl.col("prompt")))["prompt"].to_list()
    keys = [(normalise(prompt), guard) for (prompt, *_), guard in zip(rows, guards, strict=True)]
    answers = [normalise(answer) or answer for _, answer, _ in rows]
    shown = {key: min(rows[i][0] for i, k in enumerate(keys) if k == key) for key in keys}
    order = sorted(shown)
    pairs = near_texts(pl.Series([shown[k] for k in order], dtype=pl.String), threshold)
    near = {(order[i], order[j]): s for i, j, s in pairs.iter_rows()}
    near |= {(b, a): s for (a, b), s in near.items()} | {(key, key): 1.0 for key in keys}
    return [
        [
            (10 + j, near[keys[i], keys[j]], answers[i] == answers[j])
            for j in range(len(rows))
            if i != j and rows[j][2] and (keys[i], keys[j]) in near
        ]
        for i in range(len(rows))
    ]


@settings(max_examples=40)
@given(ROWS, st.sampled_from([0.6, 0.8, 1.0]))
def test_duplicates_are_those_of_a_loop_over_pairs(rows, threshold):
    trained = pl.Series([10 + i for i, (*_, is_trained) in enumerate(rows) if is_trained])
    found = duplicates(frame(rows), trained.cast(pl.Int64), threshold)
    assert found["example_id"].to_list() == [10 + i for i in range(len(rows))]
    for row, expected in zip(found.to_dicts(), loop_over(rows, threshold), strict=True):
        assert row["near_duplicates"] == len(expected)
        disagreeing = [not same for *_, same in expected]
        if expected:
            assert row["twin_disagreement"] == pytest.approx(np.mean(disagreeing))
        else:
            assert row["twin_disagreement"] is None
        ordered = sorted(expected, key=lambda near: (near[2], -near[1], near[0]))
        assert row["near_ids"] == [i for i, *_ in ordered][:LISTED]


def test_a_thousand_rows_of_one_prompt_are_counted_and_some_listed():
    rows = [("say it", f"answer{i % 500}") for i in range(1000)] + [("other words", "x")]
    found = duplicates(frame(rows), frame(rows)["example_id"], 0.9)
    first = found.row(0, named=True)
    assert first["near_duplicates"] == 999
    assert first["twin_disagreement"] == pytest.approx(998 / 999)
    assert len(first["near_ids"]) == LISTED and 510 not in first["near_ids"]
    assert found.row(1000, named=True)["near_ids"] == []


def test_representations_find_paraphrases_but_not_other_numbers():
    rows = [("one way", "a"), ("said otherwise", "b"), ("in 1999", "b"), ("unlike", "c")]
    vectors = np.array([[1, 0.01], [1, 0], [1, 0.02], [-3, 0]], np.float32)
    known = pl.DataFrame({"example_id": [10, 11, 12, 13], "vector": vectors.tolist()})
    found = duplicates(frame(rows), frame(rows)["example_id"], 0.9, known, 0.95)
    assert found["near_ids"].to_list() == [[11], [10], [], []]
    assert found["twin_disagreement"].to_list() == [1.0, 1.0, None, None]
    # Representations of no example here.
    other = known.with_columns(example_id=pl.lit(99, pl.Int64))
    assert duplicates(frame(rows), frame(rows)["example_id"], 0.9, other)["near_ids"][0].is_empty()
