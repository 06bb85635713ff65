"""Matrices, transfer, transitions, segments and events against loops over rows."""

import functools
import json
import math
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ilp_jax.analysis import dynamics
from ilp_jax.analysis.forgetting import summarise
from ilp_jax.analysis.shares import interval
from ilp_jax.analysis.transitions import by_guessing
from ilp_jax.analysis.unlearned import unlearned
from ilp_jax.analysis.visits import probabilities
from ilp_jax.stats.reader import read_examples, read_inference, read_plan, read_stats
from ilp_jax.stats.schema import INFERENCE_SCHEMA, STATS_SCHEMA

POINTS = ("base", "stage_1", "stage_2", "stage_3")
RIGHT = st.sampled_from([True, False, None])
ROW = st.tuples(
    st.sampled_from([(1,), (2,), (3,), (1, 3), (1, 2)]),
    st.sampled_from("ab"),
    st.integers(2, 4),
    st.tuples(*[RIGHT] * len(POINTS)),
)
ROWS = st.lists(ROW, min_size=1, max_size=20)


def empty(schema, **more):
    return pl.DataFrame(schema=more | dict(pl.from_arrow(schema.empty_table()).schema))


def summary_of(rows, detector="choice", points=POINTS, stats=None, inference=None):
    """The figures of rows (stages, source, number of options, right at each point)."""
    found = pl.DataFrame(
        [
            (i, point, detector, None if right is None else not right)
            for i, (*_, verdicts) in enumerate(rows)
            for point, right in zip(points, verdicts, strict=True)
        ],
        schema={"example_id": pl.Int64, "point": pl.String, "detector": pl.String,
                "unlearned": pl.Boolean},
        orient="row",
    )  # fmt: skip
    examples = pl.DataFrame(
        [(i, source, [""] * k, 2, False) for i, (_, source, k, _) in enumerate(rows)],
        schema={"example_id": pl.Int64, "source": pl.String, "options": pl.List(pl.String),
                "n_target_tokens": pl.Int32, "truncated": pl.Boolean},
        orient="row",
    )  # fmt: skip
    plan = pl.DataFrame(
        [(i, stage, i / 100, 1) for i, (stages, *_) in enumerate(rows) for stage in stages],
        schema={"example_id": pl.Int64, "stage": pl.Int32, "position": pl.Float64,
                "copies": pl.Int32},
        orient="row",
    )  # fmt: skip
    stats = empty(STATS_SCHEMA) if stats is None else stats
    inference = empty(INFERENCE_SCHEMA, point=pl.String) if inference is None else inference
    return whole(found, inference, examples, plan, stats)


def whole(found, inference, examples, plan, stats):
    of_detector = {
        name: functools.partial(found.filter, pl.col("detector") == name)
        for name in found["detector"].unique()
    }
    known = probabilities(inference, stats, examples, plan)
    out = summarise(of_detector, examples, plan, known, dynamics.events(stats))
    json.dumps(out, allow_nan=False)
    return out


def of(rows, stage=None, source=None, first=False):
    return [
        row
        for row in rows
        if stage in (None, max(row[0])) and source in (None, row[1])
        and not (first and len(row[0]) > 1)
    ]  # fmt: skip


@settings(max_examples=25)
@given(ROWS)
def test_matrices_count_each_row_in_its_last_stage(rows):
    for matrix in summary_of(rows)["matrices"]:
        for s, stage in enumerate(matrix["stages"]):
            for p, point in enumerate(matrix["points"]):
                known = [row[3][POINTS.index(point)] for row in of(rows, stage, matrix["source"])]
                known = [right for right in known if right is not None]
                assert matrix["n"][s][p] == len(known)
                if known:
                    assert matrix["right"][s][p] == pytest.approx(np.mean(known))
                    span = (matrix["low"][s][p], matrix["high"][s][p])
                    assert span == pytest.approx(interval(sum(known), len(known)))
                else:
                    assert matrix["right"][s][p] is matrix["low"][s][p] is None


def change(rows, before, after):
    pairs = [(row[3][POINTS.index(before)], row[3][POINTS.index(after)]) for row in rows]
    pairs = [pair for pair in pairs if None not in pair]
    return np.mean([int(b) - int(a) for a, b in pairs]) if pairs else None


@settings(max_examples=25)
@given(ROWS)
def test_transfer_is_gems(rows):
    known = [row for row in rows if any(right is not None for right in row[3])]
    stages = sorted({max(row[0]) for row in known})
    asked = {
        p for row in rows for p, right in zip(POINTS, row[3], strict=True) if right is not None
    }
    (found,) = summary_of(rows)["transfer"] or [None]
    if len(stages) < 2 or f"stage_{stages[-1]}" not in asked:
        assert found is None or found["backward"] is None
        return
    last = f"stage_{stages[-1]}"
    back = [change(of(rows, t), f"stage_{t}", last) for t in stages[:-1]]
    ahead = [change(of(rows, t, first=True), "base", f"stage_{t - 1}") for t in stages[1:]]
    if None in back:
        assert found["backward"] is None
    else:
        assert found["backward"] == pytest.approx(np.mean(back))
        assert found["backward_with_last"] == pytest.approx(np.mean([*back, 0]))
        low, high = found["backward_interval"]
        assert low <= found["backward"] + 0.5 and high >= found["backward"] - 0.5
    if None in ahead:
        assert found["forward"] is None
    else:
        assert found["forward"] == pytest.approx(np.mean(ahead))


def test_intervals_of_matched_pairs():
    # Agresti & Min (2005), b = 2 gained, c = 12 lost of n = 40: by hand.
    right = [(True, False)] * 12 + [(False, True)] * 2 + [(True, True)] * 26
    rows = [((1,), "a", 2, (None, a, b, None)) for a, b in right]
    rows += [((2,), "a", 2, (None, None, True, None))]
    (found,) = summary_of(rows, "exact_match")["transfer"]
    d, n = (2.5 - 12.5) / 42, 42
    spread = 1.959964 * math.sqrt(2.5 + 12.5 - 100 / n) / n
    assert found["stages"][0]["interval"] == pytest.approx([d - spread, d + spread], abs=1e-6)
    assert found["backward"] == pytest.approx(-0.25)
    assert found["backward_interval"] == pytest.approx([d - spread, d + spread], abs=1e-6)


@settings(max_examples=25)
@given(ROWS)
def test_transitions_count_rows(rows):
    cells = summary_of(rows)["transitions"]
    pairs = Counter((c["before"], c["after"], c["stage"], c["source"]) for c in cells)
    assert set(pairs.values()) <= {1}
    for cell in cells:
        at = [POINTS.index(cell[moment]) for moment in ("before", "after")]
        both = [tuple(row[3][p] for p in at) for row in of(rows, cell["stage"], cell["source"])]
        counts = Counter(pair for pair in both if None not in pair)
        assert cell["n"] == counts.total()
        assert (cell["lost"], cell["gained"]) == (counts[True, False], counts[False, True])
        assert cell["lost_share"] == pytest.approx(counts[True, False] / counts.total())


def test_guessing_is_taken_off_what_guessers_do():
    """Simulated: known and guessed rows; without and with knowledge that lasts."""
    rng = np.random.default_rng(0)
    n = 400_000
    k = rng.integers(2, 6, n)

    def answers(knows):
        return knows | (rng.random(n) < 1 / k)

    def figures(before, after):
        rows = {"right": answers(before), "right_after": answers(after), "n_options": k}
        rows = pl.DataFrame(rows)
        observed = (rows["right"] & ~rows["right_after"]).mean()
        return observed, by_guessing(rows)

    # Nobody knows anything: all losses are luck.
    nobody = np.zeros(n, bool)
    observed, found = figures(nobody, nobody)
    assert found["expected"] == pytest.approx(observed, abs=2e-3)
    assert found["expected_joint"] == pytest.approx(observed, abs=2e-3)
    assert found["lost_adjusted"] < 3e-3
    # What is known stays known: again all losses are luck, which the joint form alone sees.
    lasting = rng.random(n) < 0.5
    observed, found = figures(lasting, lasting)
    assert found["expected_joint"] == pytest.approx(observed, abs=2e-3)
    assert found["expected"] < observed
    # Knowledge before and after independent: luck before, wrong after.
    before, after = rng.random(n) < 0.6, rng.random(n) < 0.3
    right_before = answers(before)
    lucky, wrong = right_before & ~before, ~answers(after)
    rows = pl.DataFrame({"right": right_before, "right_after": ~wrong, "n_options": k})
    assert by_guessing(rows)["expected"] == pytest.approx((lucky & wrong).mean(), abs=2e-3)


def test_only_choice_can_be_guessed():
    rows = [((1,), "a", 4, (False, True, None, None))] * 3
    assert "by_guessing" in summary_of(rows)["transitions"][0]
    assert "by_guessing" not in summary_of(rows, "exact_match")["transitions"][0]


def test_segments_and_events():
    rows = [((1,), "a", 2, (False, True, i > 4, None)) for i in range(21)]
    stats = pl.DataFrame(
        [
            {"example_id": i, "kind": "train", "visit": v, "loss_sum": 1.0, "n_tokens": 2,
             "n_correct": 2 * right, "prob_mean": 0.5}
            for i, history in enumerate(["0101", "0011", "0000", "1010"])
            for v, right in enumerate(map(int, history), 1)
        ],
        schema=empty(STATS_SCHEMA).schema,
    )  # fmt: skip
    found = summary_of(rows, stats=stats)
    at_end = {s["segment"]: s for s in found["segments"] if s["point"] == "stage_2"}
    assert [at_end[s]["n"] for s in ("first_10", "middle", "last_10")] == [3, 15, 3]
    assert at_end["first_10"]["right"] == 0 and at_end["middle"]["right"] == pytest.approx(13 / 15)
    whole, stage = found["forgetting_events"]
    assert (whole["stage"], stage["stage"]) == (None, 1)
    assert whole["events"] == {"0": 1, "1": 1, "2": 1} and whole["n"] == 4
    assert (whole["never_learned"], whole["unforgettable"]) == (1, 1)
    assert whole["mean"] == pytest.approx(3 / 4)


def test_one_stage_and_nothing_at_all():
    rows = [((1,), "a", 2, (False, True))] * 5
    found = summary_of(rows, points=("base", "final"))
    assert found["transfer"] == [] and found["forgetting_events"] == []
    assert found["matrices"][0]["points"] == ["base", "final"]
    nothing = summary_of([], points=())
    assert all(not value for name, value in nothing.items() if name != "rows_of")


def test_a_real_run(finished_run):
    inference, examples = read_inference(finished_run), read_examples(finished_run)
    plan, stats = read_plan(finished_run), read_stats(finished_run)
    detect = json.loads((finished_run / "run.json").read_text())["config"]["detect"]
    trained = plan["example_id"].unique().to_list()
    answers = inference.filter(pl.col("example_id").is_in(trained))
    found = unlearned(answers, examples, detect)
    out = whole(found, inference, examples, plan, stats)
    matrices = {(m["detector"], m["source"]): m for m in out["matrices"]}
    assert matrices["exact_match", None]["points"] == ["base", "stage_1", "stage_2"]
    assert [sum(row) for row in zip(*matrices["probability", None]["n"], strict=True)] == [19] * 3
    assert {t["detector"] for t in out["transfer"]} == set(found["detector"])
    assert out["forgetting_events"][0]["n"] == 19
    json.dumps(out, allow_nan=False)
