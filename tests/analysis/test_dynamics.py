"""Measures of training against loops over visits."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilp_jax.analysis.dynamics import gradients, learning, uncertainty
from ilp_jax.stats.schema import GROUPS, STATS_SCHEMA

COLUMNS = pl.from_arrow(STATS_SCHEMA.empty_table()).schema
POSITIVE = st.floats(0.015625, 8, width=32)
VISITS = st.lists(
    st.tuples(POSITIVE, st.floats(0, 1, width=32), POSITIVE, st.integers(0, 3)),
    min_size=0,
    max_size=9,
)


def stats(rows):
    defaults = {"kind": "train", "stage": 1, "epoch": 1, "step": 1, "n_tokens": 3, "n_correct": 0}
    return pl.DataFrame([defaults | row for row in rows], schema=COLUMNS)


def loop_over(visits):
    """The measures of one example's visits (loss, probability, entropy, tokens right)."""
    losses = [loss / 3 for loss, *_ in visits]
    probs = [p for _, p, *_ in visits]
    right = [n == 3 for *_, n in visits]
    out = {
        "presentations": len(visits),
        "confidence": np.mean(probs),
        "variability": np.std(probs),
        "correctness": sum(right),
        "forgetting_events": sum(a and not b for a, b in zip(right, right[1:], strict=False)),
        "first_learned": right.index(True) + 1 if any(right) else None,
        "presentations_to_learn": max((i + 1 for i, r in enumerate(right) if not r), default=0),
        "loss_last": losses[-1],
    }
    k = max(2, -(-len(visits) // 2))
    late, entropies = losses[-k:], [h for *_, h, _ in visits][-k:]
    if len(visits) > 1:
        x = np.arange(len(late))
        out["slope_end"] = np.polyfit(x, late, 1)[0]
        out["entropy_slope"] = np.polyfit(x, entropies, 1)[0]
        out["loss_fall_last"] = (late[0] - late[-1]) / late[0]
    else:
        out |= {"slope_end": None, "entropy_slope": None, "loss_fall_last": None}
    return out


@given(st.lists(VISITS, min_size=1, max_size=4), st.randoms())
def test_learning_is_what_a_loop_finds(examples, shuffler):
    rows = [
        {
            "example_id": i,
            "visit": v,
            "step": v,
            "loss_sum": loss,
            "prob_mean": p,
            "entropy_mean": entropy,
            "n_correct": right,
        }
        for i, visits in enumerate(examples)
        for v, (loss, p, entropy, right) in enumerate(visits, 1)
    ]
    # Probes are no visits.
    rows += [{"example_id": 0, "visit": 0, "kind": "probe", "loss_sum": 99.0, "n_correct": 3}]
    shuffler.shuffle(rows)
    found = {row.pop("example_id"): row for row in learning(stats(rows)).to_dicts()}
    assert set(found) == {i for i, visits in enumerate(examples) if visits}
    for i, row in found.items():
        expected = loop_over(examples[i])
        assert row.keys() == expected.keys()
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, abs=1e-9), name


def test_a_row_learned_forgotten_and_learned_again():
    right = [0, 3, 3, 1, 3, 3]
    rows = [
        {"example_id": 1, "visit": v, "n_correct": n, "loss_sum": 3.0 * (7 - v), "prob_mean": 0.5}
        for v, n in enumerate(right, 1)
    ]
    (row,) = learning(stats(rows)).to_dicts()
    assert (row["forgetting_events"], row["first_learned"], row["correctness"]) == (1, 2, 4)
    assert row["presentations_to_learn"] == 4
    assert row["slope_end"] == pytest.approx(-1)
    assert row["loss_fall_last"] == pytest.approx(2 / 3)
    assert row["entropy_slope"] is None


def test_entropy_changes_from_the_base_to_the_last_probe():
    rows = [
        {"example_id": i, "kind": "probe", "step": step, "entropy_mean": h}
        for i, step, h in ((1, 0, 2.0), (1, 9, 0.5), (1, 4, 3.0), (2, 0, 1.0), (3, 4, 1.0))
    ] + [{"example_id": 1, "step": 12, "entropy_mean": 9.0}]
    found = uncertainty(stats(rows))
    assert found.columns == ["example_id", "base_entropy", "entropy_now", "entropy_change"]
    assert found.rows() == [(1, 2.0, 0.5, -1.5), (2, 1.0, 1.0, 0.0)]


def test_the_last_norm_is_the_probe_after_the_update():
    def row(i, kind, step, norm, parts=(None,) * 5):
        groups = {f"grad_norm_{group}": p for group, p in zip(GROUPS, parts, strict=True)}
        return {"example_id": i, "kind": kind, "step": step, "grad_norm": norm, **groups}

    rows = [
        row(1, "probe", 0, 10.0, (10.0, 0.0, 0.0, 0.0, None)),
        row(1, "probe", 8, 5.0, (3.0, 0.0, 4.0, 0.0, None)),
        row(1, "train", 8, 7.0, (7.0, 0.0, 0.0, 0.0, None)),
        row(1, "probe", 9, None),
        row(2, "train", 3, 2.0, (0.0, 2.0, 0.0, 0.0, 0.0)),
        row(3, "probe", 0, 0.0, (0.0, 0.0, 0.0, 0.0, None)),
        row(4, "train", 3, None),
    ]
    found = {row.pop("example_id"): row for row in gradients(stats(rows)).to_dicts()}
    assert set(found) == {1, 2, 3}
    shares = [found[1][f"grad_share_{group}_end"] for group in GROUPS]
    assert shares == [pytest.approx(0.36), 0, pytest.approx(0.64), 0, None]
    assert [found[1][f"grad_norm_{x}"] for x in ("base", "end", "ratio")] == [10, 5, 0.5]
    assert [found[2][f"grad_norm_{x}"] for x in ("base", "end", "ratio")] == [None, 2, None]
    assert found[3]["grad_norm_ratio"] is None and found[3]["grad_share_mlp_end"] is None


def test_no_statistics():
    nothing = stats([])
    for measure in (learning, uncertainty, gradients):
        assert measure(nothing).is_empty()
