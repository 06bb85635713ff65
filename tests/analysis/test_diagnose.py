"""The phase ``diagnose`` on a run folder written by hand."""

import json

import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal

from ilp_jax import parquet
from ilp_jax.analysis import diagnose as phase
from ilp_jax.config import default_config, to_dict
from ilp_jax.data.tables import EXAMPLES_SCHEMA, PLAN_SCHEMA
from ilp_jax.stats.inference import put_inference
from ilp_jax.stats.reader import read_diagnosis, read_inference
from ilp_jax.stats.schema import DIAGNOSIS_SCHEMA, INFERENCE_SCHEMA, STATS_SCHEMA

N = 12
CONFLICT, FORGOTTEN, HELD_OUT = (0, 1), (2, 3, 4), 11
POINTS = {"base": (0, 0), "stage_1": (1, 4), "stage_2": (2, 8), "final": (2, 8)}


def exact(point, i):
    """Stage 1 has rows 0 to 5: one of the twins never wins, three are lost in stage 2."""
    if point == "base" or i == 0:
        return False
    stage = 1 if i < 6 else 2
    return i not in FORGOTTEN if point in ("stage_2", "final") else stage == 1


@pytest.fixture
def workdir(tmp_path):
    common = {
        "source_key": "k",
        "prompt": "what is it ?",
        "response": "old new",
        "truncated": False,
    }
    common |= {"options": [], "knowledge": [], "n_prompt_tokens": 4, "n_target_tokens": 3}
    examples = [
        common
        | {"example_id": i, "source": "a" if i < 6 else "b", "meta": "{}", "marks": "{}"}
        | {"role": "held_out" if i == HELD_OUT else "train"}
        for i in range(N)
    ]
    plan = [
        {"example_id": i, "stage": 1 if i < 6 else 2, "position": 0.5, "copies": 1}
        for i in range(N)
        if i != HELD_OUT
    ]
    for file, rows, schema in (
        ("examples.parquet", examples, EXAMPLES_SCHEMA),
        ("plan.parquet", plan, PLAN_SCHEMA),
    ):
        parquet.write(tmp_path / file, pa.Table.from_pylist(rows, schema=schema))
    for point, (stage, step) in POINTS.items():
        rows = [
            {
                "example_id": i,
                "stage": stage,
                "epoch": 1,
                "step": step,
                "run": 0,
                "prompt_variant": 0,
                "temperature": 0.7 if mode == "sample" else 0.0,
                "mode": mode,
                "correct": None if mode == "sample" else exact(point, i),
                "gold_logprob": -0.1 if exact(point, i) else -4.0,
            }
            for i in range(N)
            for mode in ("greedy", "sample")
        ]
        empty = pl.from_arrow(INFERENCE_SCHEMA.empty_table())
        table = pl.concat(
            [empty, pl.DataFrame(rows, schema_overrides=empty.schema)], how="diagonal"
        )
        put_inference(tmp_path, point, table, step)
    parquet.write(
        tmp_path / "stats" / "base.parquet", STATS_SCHEMA.empty_table(), schema=STATS_SCHEMA
    )
    return tmp_path


@pytest.fixture
def signals(signals_of):
    """What the run's signals would say; the base knew every response."""
    rows = []
    for point in POINTS:
        for i in range(N):
            begun = point != "base" and (i < 6 or point != "stage_1")
            own = begun and i < 11
            probability = 0.9 if exact(point, i) else 0.1
            rows.append(
                {
                    "example_id": i,
                    "point": point,
                    "presentations": 4 * begun,
                    "response_tokens": 2,
                    "near_duplicates": int(i in CONFLICT),
                    "twin_disagreement": 1.0 if i in CONFLICT else None,
                    "near_ids": [1 - i] if i in CONFLICT else [],
                    "learned_own_stage": (i != 0) if own else None,
                    "own_drop": 0.9 - probability if own else None,
                    "pattern_relative": 1.0,
                    "slope_end": 0.0,
                    "base_accuracy": 1.0,
                    "base_gold_prob": 0.9,
                    "base_wrong_confidence": 0.0,
                    "rank_base_wrong_confidence": 0.5,
                    "p_exist": True,
                    "d_js": 0.1,
                }
            )
    return signals_of(*rows)


@pytest.fixture
def run(workdir, signals, monkeypatch):
    """``run(**fields of config.diagnose)``: the phase with these signals; its summary."""
    seen = {}

    def summarise(*arguments):
        seen["forgetting"] = arguments
        return {"from": "forgetting"}

    monkeypatch.setattr(phase.signals, "compute", given(signals))
    monkeypatch.setattr(phase.forgetting, "summarise", summarise)

    def diagnose(**fields):
        config = default_config()
        config.diagnose.update(fields)
        return phase.diagnose(workdir, to_dict(config), {"weights": "w", "notes": []})

    diagnose.seen = seen
    return diagnose


def given(signals):
    """In place of the phase's signals: these."""

    def compute(parts, config):
        for point in parts.points:
            for k in range(len(parts)):
                rows = parts.of(signals, k).filter(pl.col("point") == point)
                parts.put(f"signals.{point}", k, rows)

    return compute


def told(workdir, method="rules", point="final", detector="exact_match"):
    rows = read_diagnosis(workdir).filter(
        method=method, point=point, detector=detector
    )  # fmt: skip
    return {row["example_id"]: row for row in rows.to_dicts()}


def test_every_trained_row_by_every_method(run, workdir):
    summary = run()
    rows = read_diagnosis(workdir)
    assert rows.columns == DIAGNOSIS_SCHEMA.names
    key = ["example_id", "point", "detector", "method"]
    assert not rows.select(key).is_duplicated().any()
    of_none = rows.filter(method="none")
    assert of_none["cause"].null_count() == len(of_none)
    assert set(of_none["example_id"]) == set(range(11))
    verdicts = of_none.select(*key[:3], "unlearned").sort(key[:3])
    for method in ("rules", "paper", "paper_second"):
        mine = rows.filter(method=method)
        assert mine.select(*key[:3], "unlearned").sort(key[:3]).equals(verdicts)
        lost = mine["unlearned"].fill_null(False)
        assert mine.filter(lost)["cause"].null_count() == 0
        assert mine.filter(lost)["evidence"].null_count() == 0
        assert mine.filter(~lost)["cause"].null_count() == (~lost).sum()
    final = told(workdir)
    assert {i: row["cause"] for i, row in final.items() if row["unlearned"]} == {
        0: "data_conflict",
        **dict.fromkeys(FORGOTTEN, "left_side_forgetting"),
    }
    assert final[0]["related_ids"] == [0, 1] and final[2]["related_ids"] is None
    # Not yet trained at the end of stage 1, hence unlearned without a cause.
    assert told(workdir, point="stage_1")[7]["cause"] == "unattributed"
    assert summary["forgetting"] == {"from": "forgetting"}
    assert summary["weights"] == "w"
    assert json.loads((workdir / "summary.json").read_text())["causes"] == summary["causes"]


def test_summary_counts_and_separation(run):
    summary = run()
    cells = {
        (c["detector"], c["point"], c["method"], c["stage"], c["source"]): c
        for c in summary["causes"]
    }
    cell = cells["default", "final", "rules", 1, None]
    assert cell["n"] == 4 and cell["causes"]["left_side_forgetting"]["count"] == 3
    assert not [key for key in cells if key[1] == "base"]  # nothing was trained by then
    assert cells["default", "stage_1", "rules", None, None]["n"] == 1
    found = {(s["detector"], s["point"], s["cause"]): s for s in summary["separation"]}
    forgotten = found["exact_match", "final", "left_side_forgetting"]
    # Among the ten learned at their own stage's end: all 3 lost ones dropped, no kept one did.
    assert (forgotten["n_unlearned"], forgotten["n_learned"]) == (3, 7)
    assert forgotten["verdict"] == "separates"
    assert found["exact_match", "final", "base_conflict"]["verdict"] == "never raised"
    assert "planted worlds" in summary["causes_note"] and "SmolLM2-135M" in summary["causes_note"]


def test_a_flag_as_frequent_among_learned_rows_decides_nothing(run, workdir):
    fields = {"separation_min_rows": 1, "forgotten_drop": 0.15}
    run(**fields)
    # One of 4 unlearned and one of 7 learned rows have a twin: no difference to be seen.
    assert told(workdir)[0]["cause"] == "unattributed"
    assert "decides nothing" in told(workdir)[0]["evidence"]
    run(**fields, require_separation=False)
    assert told(workdir)[0]["cause"] == "data_conflict"


def test_thresholds_and_methods_are_the_configs(run, workdir):
    run(forgotten_drop=0.95, methods=("rules",))
    assert told(workdir)[2]["cause"] == "unattributed"
    assert set(read_diagnosis(workdir)["method"]) == {"none", "rules"}
    summary = run(methods=())
    assert set(read_diagnosis(workdir)["method"]) == {"none"}
    assert summary["causes"] == []


def test_forgetting_gets_what_it_summarises(run, workdir):
    run()
    found, examples, plan, known, visits = run.seen["forgetting"]
    assert len(examples) == N and len(plan) == 11 and visits.is_empty()
    assert set(found) == {"exact_match", "exact_law", "choice"}
    assert found["exact_match"]().filter(point="final").height == 11
    asked = read_inference(workdir).select("example_id", "point").unique()
    assert len(known) == asked.filter(pl.col("example_id") != HELD_OUT).height


def test_the_planted_truth_is_never_opened(run, workdir, monkeypatch):
    truth = workdir / "truth.parquet"
    truth.write_bytes(b"not even a table")
    real = parquet.read

    def read(path, *more):
        assert path.name != truth.name
        return real(path, *more)

    monkeypatch.setattr(parquet, "read", read)
    with_truth = run()
    tables = [(workdir / name).read_bytes() for name in ("diagnosis.parquet", "summary.json")]
    truth.unlink()
    assert run() == with_truth
    assert tables == [
        (workdir / name).read_bytes() for name in ("diagnosis.parquet", "summary.json")
    ]


def test_a_row_without_signals_is_unattributed(run, workdir, signals, monkeypatch):
    fewer = signals.filter(pl.col("example_id") != 2)
    monkeypatch.setattr(phase.signals, "compute", given(fewer))
    run()
    assert told(workdir)[2]["cause"] == "unattributed"


@pytest.mark.parametrize("at_once", [(1 << 20, 4)])
def test_parts_change_nothing(run, workdir, monkeypatch, at_once):
    """In one part or many: the same figures and, in another order, the same rows."""
    monkeypatch.undo()
    config = to_dict(default_config())
    config["diagnose"]["methods"] = ("rules", "paper", "paper_second", "model", "majority")
    key = ["example_id", "point", "detector", "method"]
    names = ("diagnosis.parquet", "signals.parquet")

    def tables():
        return [parquet.read(workdir / n).sort(key[: len(names) * k]) for k, n in
                ((2, names[0]), (1, names[1]))]  # fmt: skip

    whole = phase.diagnose(workdir, config, {})
    before = tables()
    assert phase.diagnose(workdir, config, {}, *at_once) == whole
    for table, wanted in zip(tables(), before, strict=True):
        assert_frame_equal(table, wanted, rel_tol=1e-12)
