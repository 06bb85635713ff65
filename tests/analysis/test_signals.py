"""The table of signals: hand-made runs, runs with parts missing, and a real tiny run."""

import json
import math
import shutil

import polars as pl
import pyarrow.parquet as pq
import pytest

from ilp_jax.analysis import signals
from ilp_jax.analysis.parts import opened
from ilp_jax.analysis.signal_columns import RANKED, SIGNALS_SCHEMA
from ilp_jax.data.tables import EXAMPLES_SCHEMA, PLAN_SCHEMA
from ilp_jax.fields.diagnose import diagnose_fields
from ilp_jax.stats.reader import read_examples, read_inference, read_plan, read_stats
from ilp_jax.stats.schema import INFERENCE_SCHEMA, STATS_SCHEMA

THRESHOLDS = diagnose_fields().to_dict()


def table(rows, schema, **more):
    schema = more | dict(pl.from_arrow(schema.empty_table()).schema)
    return pl.DataFrame(rows, schema=schema)


def example(i, prompt, response, options=(), role="train"):
    return {
        "example_id": i,
        "prompt": prompt,
        "response": response,
        "options": list(options),
        "answer_index": options.index(response) if options else None,
        "role": role,
        "n_prompt_tokens": 5,
        "n_target_tokens": 3,
        "truncated": False,
    }


def greedy(i, point, step, p, right):
    return {
        "example_id": i,
        "point": point,
        "step": step,
        "run": 0,
        "mode": "greedy",
        "prompt_variant": 0,
        "gold_logprob": 3 * math.log(p),
        "confidence": 0.5,
        "correct": right,
    }


def choice(i, point, step, logprobs):
    answer = greedy(i, point, step, 1.0, True)
    return answer | {"mode": "choice", "option_logprob_mean": logprobs}


def visit(i, step, number, loss, right, **more):
    return {
        "example_id": i,
        "kind": "train",
        "stage": 1 if step <= 4 else 2,
        "step": step,
        "visit": number,
        "loss_sum": 3 * loss,
        "n_tokens": 3,
        "n_correct": 3 * right,
        "prob_mean": math.exp(-loss),
        "grad_norm": loss,
        **more,
    }


def hand_made():
    """Stage 1 (steps 1-4): rows 1 and 2, which contradict each other; stage 2 (5-8): row 3.

    Row 1 is learned and lost; 4 is held out.
    """
    options = ("a", "b")
    examples = [
        example(1, "Which is it?", "a", options),
        example(2, "which is it", "b", options),
        example(3, "What else is there?", "c"),
        example(4, "Which is it ?", "a", options, "held_out"),
    ]
    plan = [
        {"example_id": i, "stage": stage, "position": position, "copies": 1}
        for i, stage, position in ((1, 1, 1.0), (2, 1, 0.0), (3, 2, 0.0))
    ]
    probs = {  # base, stage_1, final
        1: ((0.1, False), (0.9, True), (0.3, False)),
        2: ((0.1, False), (0.4, False), (0.2, False)),
        3: ((0.2, False), (0.2, False), (0.8, True)),
        4: ((0.1, False), (0.5, False), (0.3, False)),
    }
    points = {"base": 0, "stage_1": 4, "final": 8}
    answers = [
        greedy(i, point, step, *probs[i][k])
        for i in probs
        for k, (point, step) in enumerate(points.items())
    ]
    answers += [greedy(1, "epoch_1", 2, 0.6, True), greedy(3, "epoch_1", 6, 0.3, False)]
    answers += [choice(i, "base", 0, [0.0, math.log(3)]) for i in (1, 2, 4)]
    answers += [choice(i, "final", 8, [math.log(3), 0.0]) for i in (1, 2, 4)]
    stats = [
        visit(1, 1, 1, 2.0, False),
        visit(1, 3, 2, 1.0, True),
        visit(2, 2, 1, 2.0, False),
        visit(2, 4, 2, 3.0, False),
        visit(3, 5, 1, 4.0, False),
        visit(3, 7, 2, 1.0, False),
        visit(1, 0, 0, 4.0, False, kind="probe", grad_norm=8.0),
    ]
    return (
        table(stats, STATS_SCHEMA),
        table(answers, INFERENCE_SCHEMA, point=pl.String),
        table(examples, EXAMPLES_SCHEMA),
        table(plan, PLAN_SCHEMA),
    )


def at(rows, i, point):
    (row,) = rows.filter(pl.col("example_id") == i, pl.col("point") == point).to_dicts()
    return row


def test_a_hand_made_run():
    rows = signals.assemble(*hand_made(), THRESHOLDS)
    assert rows.columns == SIGNALS_SCHEMA.names and len(rows) == 4 * 3 + 2
    base, end, final = (at(rows, 1, point) for point in ("base", "stage_1", "final"))
    # Visits up to each point.
    assert [row["presentations"] for row in (base, at(rows, 1, "epoch_1"), end, final)] == [
        0,
        1,
        2,
        2,
    ]
    assert at(rows, 3, "stage_1")["presentations"] == 0
    assert at(rows, 3, "epoch_1")["loss_last"] == 4 and at(rows, 3, "final")["loss_last"] == 1
    assert base["confidence"] is None and final["slope_end"] == pytest.approx(-1)
    assert (base["grad_norm_end"], final["grad_norm_end"]) == (8, 1)
    assert final["grad_norm_ratio"] == 1 / 8
    # What is kept.
    assert base["own_drop"] is None and end["own_drop"] == 0
    assert final["own_drop"] == final["drop_from_best"] == pytest.approx(0.6)
    assert final["learned_own_stage"] is True and at(rows, 2, "final")["learned_own_stage"] is False
    assert [at(rows, i, "final")["position"] for i in (2, 1, 3)] == [0, 0.5, 1]
    # The base model prefers b, with 3 to 1.
    assert final["base_gold_rank"] == 2 and final["p_exist"] is False
    assert final["base_wrong_confidence"] == pytest.approx(0.75)
    assert at(rows, 2, "final")["base_accuracy"] == 1
    assert base["d_js"] == 0 and final["d_js"] > 0.1 and at(rows, 3, "final")["d_js"] is None
    # Contradiction, seen from the held-out row too.
    for i, near in ((1, [2]), (2, [1]), (3, []), (4, [2, 1])):
        assert at(rows, i, "base")["near_ids"] == near
    assert final["twin_disagreement"] == 1 and at(rows, 4, "final")["twin_disagreement"] == 0.5
    # Held-out rows are in no sequence and no rank.
    held_out = at(rows, 4, "final")
    assert held_out["prob"] == pytest.approx(0.3)
    for name in ("own_stage_prob", "position", "pattern_rarity", "rank_prob", "confidence"):
        assert held_out[name] is None
    assert [at(rows, i, "final")["rank_prob"] for i in (2, 1, 3)] == pytest.approx(
        [1 / 6, 0.5, 5 / 6]
    )


def test_later_moments_change_nothing_earlier():
    stats, inference, *rest = hand_made()
    whole = signals.assemble(stats, inference, *rest, THRESHOLDS)
    until = signals.assemble(
        stats.filter(pl.col("step") <= 4),
        inference.filter(pl.col("step") <= 4),
        *rest,
        THRESHOLDS,
    )
    same = whole.join(until.select("example_id", "point"), on=("example_id", "point"), how="semi")
    # What epoch_1 ranks among depends on who has come there.
    same, until = (t.filter(pl.col("point") != "epoch_1") for t in (same, until))
    assert same.equals(until)


def test_a_run_without_training():
    stats, inference, examples, plan = hand_made()
    inference = inference.filter(pl.col("point").is_in(["base", "final"]))
    for some_plan in (plan, plan.clear()):
        rows = signals.assemble(stats.clear(), inference, examples, some_plan, THRESHOLDS)
        row = at(rows, 1, "final")
        assert row["presentations"] is None and row["own_drop"] is None
        assert row["prob"] == pytest.approx(0.3) and row["d_js"] > 0
        assert row["near_duplicates"] == (1 if len(some_plan) else 0)
        assert (row["rank_prob"] is None) == some_plan.is_empty()


def test_nothing_was_asked():
    stats, inference, examples, plan = hand_made()
    rows = signals.assemble(stats, inference.clear(), examples, plan, THRESHOLDS)
    assert rows.is_empty() and rows.columns == SIGNALS_SCHEMA.names


def test_replay_counts_at_the_end_alone():
    replay = pl.DataFrame(
        {"example_id": [1, 1, 2], "k": [1, 4, 4], "correct": [False, True, False]},
        schema_overrides={"k": pl.Int32},
    )
    rows = signals.assemble(*hand_made(), THRESHOLDS, replays=replay)
    found = rows.filter("replay_measured").select("example_id", "point", "replay_k")
    assert found.rows() == [(1, "final", 4), (2, "final", None)]


def test_a_real_run(finished_run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished_run, workdir, ignore=shutil.ignore_patterns("checkpoints"))
    config = json.loads((workdir / "run.json").read_text())["config"]
    with opened(workdir) as run:
        signals.compute(run, config)
    rows = signals.read_signals(workdir)
    stored = pq.read_schema(workdir / signals.FILE)
    for name in ("slope_end", "rank_d_js"):
        assert {b"meaning", b"unit"} <= set(stored.field(name).metadata)
    inference, plan = read_inference(workdir), read_plan(workdir)
    assert len(rows) == len(inference.select("example_id", "point").unique())
    # Brute force at one point whose moment differs by stage.
    visits = read_stats(workdir, kind="train")
    for i, step in set(inference.filter(point="epoch_2").select("example_id", "step").rows()):
        own = visits.filter(pl.col("example_id") == i, pl.col("step") <= step)
        assert at(rows, i, "epoch_2")["presentations"] == len(own) == 2
    trained = set(plan["example_id"])
    final = rows.filter(pl.col("point") == "final")
    for row in final.to_dicts():
        is_trained = row["example_id"] in trained
        assert (row["presentations"] > 0) == is_trained == (row["rank_prob"] is not None)
        parts = [row[f"grad_share_{g}_end"] for g in ("embed", "attn", "mlp", "norm", "head")]
        assert sum(part or 0 for part in parts) == pytest.approx(1)
    for name in RANKED:
        values = final[f"rank_{name}"].drop_nulls()
        assert values.is_between(0, 1).all() and len(values) <= len(trained)
    # Rows of the last stage end where the run ends.
    last = plan.filter(pl.col("stage") == 2)["example_id"].to_list()
    drops = final.filter(pl.col("example_id").is_in(last))["own_drop"]
    assert drops.to_list() == [0.0] * len(last)
    # No training happened: only the files that need none.
    shutil.rmtree(workdir / "stats")
    without = signals.assemble(
        read_stats(workdir), inference, read_examples(workdir), plan, THRESHOLDS
    )
    assert without["prob"].equals(rows["prob"]) and without["confidence"].null_count() == len(rows)
