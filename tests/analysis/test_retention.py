"""Own stages, drops and positions against loops over a run's moments."""

import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilp_jax.analysis.retention import moments, positions, retention, stage_ends
from ilp_jax.stats.schema import INFERENCE_SCHEMA, STATS_SCHEMA

ANSWER = pl.from_arrow(INFERENCE_SCHEMA.empty_table()).schema
VISIT = pl.from_arrow(STATS_SCHEMA.empty_table()).schema
N_TOKENS = 2


def frames(plan_rows, asked, probed):
    """Tables of a run: asked and probed are (example, point or stage, step, probability, right)."""
    inference = pl.DataFrame(
        [
            {
                "point": point,
                "example_id": i,
                "step": step,
                "mode": "greedy",
                "gold_logprob": N_TOKENS * math.log(p),
                "correct": right,
            }
            for i, point, step, p, right in asked
        ],
        schema={"point": pl.String, **ANSWER},
    )
    stats = pl.DataFrame(
        [
            {
                "example_id": i,
                "kind": "probe",
                "step": step,
                "loss_sum": -N_TOKENS * math.log(p),
                "n_tokens": N_TOKENS,
                "n_correct": N_TOKENS * right,
            }
            for i, step, p, right in probed
        ],
        schema=VISIT,
    )
    plan = pl.DataFrame(
        plan_rows,
        schema={"example_id": pl.Int64, "stage": pl.Int32, "position": pl.Float64},
        orient="row",
    )
    ids = range(9)
    examples = pl.DataFrame(
        {"example_id": ids, "n_target_tokens": N_TOKENS, "truncated": [i == 8 for i in ids]},
        schema_overrides={"example_id": pl.Int64},
    )
    return inference, stats, plan, examples


def kept(plan_rows, asked, probed):
    inference, stats, plan, examples = frames(plan_rows, asked, probed)
    known = moments(inference, stats, examples)
    points = inference.select("example_id", "point", "step")
    found = retention(points, known, plan, stage_ends(inference, stats))
    assert len(found) == len(points)
    return {(row["example_id"], row["point"]): row for row in found.to_dicts()}


PROB = st.sampled_from([0.1, 0.25, 0.5, 0.9])
POINTS = {"base": 0, "stage_1": 4, "stage_2": 8, "stage_3": 12, "final": 12}


@given(
    st.dictionaries(st.integers(0, 4), st.sets(st.integers(1, 3)), min_size=1),
    st.data(),
)
def test_retention_is_what_a_loop_finds(own, data):
    history = {i: {s: data.draw(PROB) for s in (0, 2, 4, 6, 8, 12)} for i in own}
    asked = [
        (i, pt, s, history[i][s], history[i][s] > 0.4) for i in own for pt, s in POINTS.items()
    ]
    probed = [(i, s, history[i][s], history[i][s] > 0.4) for i in own for s in (2, 6)]
    found = kept([(i, s, 0.0) for i, stages in own.items() for s in stages], asked, probed)
    for (i, point), row in found.items():
        now = POINTS[point]
        p = history[i][now]
        best = max(value for step, value in history[i].items() if step <= now)
        assert row["prob"] == pytest.approx(p, rel=1e-6)
        assert row["best_prob"] == pytest.approx(best, rel=1e-6)
        assert row["drop_from_best"] == pytest.approx(best - p, abs=1e-6)
        ended = [4 * stage for stage in own[i] if 4 * stage <= now]
        if ended:
            before = history[i][max(ended)]
            assert row["own_stage_prob"] == pytest.approx(before, rel=1e-6)
            assert row["own_drop"] == pytest.approx(before - p, abs=1e-6)
            assert row["learned_own_stage"] is (before > 0.4)
        else:
            assert row["own_stage_prob"] is row["own_drop"] is row["learned_own_stage"] is None


def test_a_probe_at_the_end_of_the_stage_stands_in_for_answers():
    training = {"example_id": 1, "kind": "train", "stage": 1, "step": 6, "n_tokens": 2}
    asked = [(i, "final", 9, 0.2, False) for i in (1, 8)]
    probed = [(i, 6, 0.8, True) for i in (1, 8)]
    inference, stats, plan, examples = frames([(1, 1, 0.0), (8, 1, 1.0)], asked, probed)
    stats = pl.concat([stats, pl.DataFrame([training], schema=VISIT)])
    known = moments(inference, stats, examples)
    points = inference.select("example_id", "point", "step")
    found = retention(points, known, plan, stage_ends(inference, stats)).sort("example_id")
    assert found["own_drop"].to_list() == [pytest.approx(0.6)] * 2
    assert found["learned_own_stage"].to_list() == [True, False]  # 8 is cut short


def test_without_training_only_the_probability_is_known():
    row = kept([], [(1, "base", 0, 0.2, False), (1, "final", 1, 0.6, True)], [])[1, "final"]
    assert row["best_prob"] == pytest.approx(0.6) and row["own_drop"] is None


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 3)), unique=True))
def test_positions_rank_first_visits_over_the_whole_sequence(rows):
    # Within a stage, by id from last to first.
    plan = [(i, stage, 1 - i / 30) for i, stage in rows]
    _, _, plan, _ = frames(plan, [], [])
    found = {i: (p, segment) for i, p, segment in positions(plan).iter_rows()}
    order = sorted(
        {i: min(s for j, s in rows if j == i) for i, _ in rows}.items(),
        key=lambda pair: (pair[1], -pair[0]),
    )
    assert len(found) == len(order)
    for rank, (i, _) in enumerate(order):
        p = rank / max(len(order) - 1, 1)
        segment = "first_10" if p <= 0.1 else "last_10" if p >= 0.9 else "middle"
        assert found[i] == (pytest.approx(p), segment)
