"""Planted worlds by hand: signals that lean towards their causes, with gaps."""

import numpy as np
import polars as pl
import pytest

from ilp_jax import files, parquet
from ilp_jax.analysis.cascade import trained_by_then
from ilp_jax.analysis.fitted.__main__ import main
from ilp_jax.analysis.signal_columns import SIGNALS_SCHEMA
from ilp_jax.stats.reader import write_diagnosis
from ilp_jax.stats.schema import CAUSES, DIAGNOSIS_SCHEMA, TRUTH_SCHEMA
from ilp_jax.stats.truth import write_truth

PLANTED = (*CAUSES, "fault", "control", "filler")
LEANS = {
    "missing_knowledge": {"base_prob": -2.0, "rank_base_prob": -1.0},
    "base_conflict": {"base_wrong_confidence": 2.0, "rank_base_wrong_confidence": 1.0},
    "data_conflict": {"twin_disagreement": 2.0, "rank_variability": 1.5},
    "left_side_forgetting": {"own_drop": 2.0, "own_stage_prob": 2.0},
    "insufficient_training": {"pattern_rarity": 2.5, "rank_slope_end": -2.0},
    "fault": {"base_prob": 2.0, "rank_loss_last": 2.0},
    "control": {"base_prob": 1.5},
    "filler": {},
}


def world_signals(world, n=30):
    """``signals.parquet`` of a world with n rows of each planted group, and the groups."""
    rng = np.random.default_rng(abs(world))
    planted = np.repeat(PLANTED, n)
    columns = {"example_id": np.arange(len(planted)), "point": ["final"] * len(planted)}
    for field in SIGNALS_SCHEMA:
        name, kind = field.name, str(field.type)
        if name in columns:
            continue
        if kind == "double":
            lean = np.array([LEANS[one].get(name, 0.0) for one in planted])
            value = 1 / (1 + np.exp(-(rng.normal(size=len(planted)) + 2 * lean)))
            if name in ("base_prob", "loss_last"):
                value[rng.random(len(planted)) < 0.1] = np.nan
            columns[name] = value
        elif kind == "int32":
            columns[name] = rng.integers(1, 5, len(planted))
        elif kind == "bool":
            columns[name] = rng.random(len(planted)) < 0.5
        else:
            columns[name] = [None] * len(planted)
    empty = pl.from_arrow(SIGNALS_SCHEMA.empty_table())
    frame = pl.DataFrame(columns, schema_overrides=dict(empty.schema), strict=False)
    return frame.with_columns(pl.col("base_prob", "loss_last").fill_nan(None)), planted


def _write_world(folder, world, seed=0, n=30):
    """A finished run of a world, as far as fitting reads it; every third row is learned."""
    signals, planted = world_signals(world or 0, n)
    settings = {"seed": world, "family": "llama"} if world is not None else {"family": ""}
    files.write_json(folder / "run.json", {"config": {"seed": seed, "world": settings}})
    parquet.write(folder / "signals.parquet", signals, schema=SIGNALS_SCHEMA)
    rows = signals.select("example_id", pl.col("example_id").alias("group_id"))
    nobody = pl.lit([], pl.List(pl.Int64)).alias("related_ids")
    rows = rows.with_columns(pl.Series("planted", planted), nobody, detail=pl.lit(""))
    write_truth(folder, _whole(rows, TRUTH_SCHEMA))
    found = signals.select("example_id", "point").with_columns(
        pl.lit("sampled").alias("detector"),
        pl.lit("none").alias("method"),
        (pl.col("example_id") % 3 > 0).alias("unlearned"),
    )
    write_diagnosis(folder, _whole(found, DIAGNOSIS_SCHEMA))
    return folder


def _whole(rows, schema):
    """The rows with null for what they lack of a schema."""
    empty = pl.from_arrow(schema.empty_table())
    return pl.concat([empty, rows], how="diagonal_relaxed").select(empty.columns)


@pytest.fixture(scope="session")
def worlds(tmp_path_factory):
    """Folders of three worlds."""
    root = tmp_path_factory.mktemp("worlds")
    return [_write_world(root / str(world), world) for world in range(3)]


@pytest.fixture(scope="session")
def fitted(worlds, tmp_path_factory):
    """A folder with classifiers fitted on these worlds: linear ones, which is quick."""
    folder = tmp_path_factory.mktemp("fitted")
    assert main(["--workdirs", *map(str, worlds), "--kind", "linear", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def new_world(thresholds, fitted):
    """A world that nothing was fitted on: verdicts to tell, signals, trained, thresholds."""
    signals, planted = world_signals(7)
    found = signals.select("example_id", "point").with_columns(
        pl.lit("sampled").alias("detector"), (pl.col("example_id") % 3 > 0).alias("unlearned")
    )
    fields = thresholds | {"fitted": str(fitted)}
    return found, signals, trained_by_then(signals), fields, planted


@pytest.fixture(scope="session")
def write_world():
    """``write_world(folder, world, seed, n)``; None for a run that is no world's."""
    return _write_world
