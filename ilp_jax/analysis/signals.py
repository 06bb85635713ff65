"""Puts every signal of every example at every point together: ``signals.parquet``.

A point's moment differs by example (``epoch_2`` is that of the example's own stage), so each
example's visits are cut at the step of its own answers there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl
from etils import epath

from ilp_jax import files
from ilp_jax.analysis import answers, base_knowledge, dynamics, replay, retention
from ilp_jax.analysis.duplicates import duplicates
from ilp_jax.analysis.lengths import response_tokens
from ilp_jax.analysis.ranks import ranks
from ilp_jax.analysis.rarity import patterns
from ilp_jax.analysis.shares import point_order
from ilp_jax.analysis.signal_columns import RANKED, SIGNALS_SCHEMA
from ilp_jax.stats.projections import PROJECTIONS, REPRESENTATIONS
from ilp_jax.stats.reader import read_examples, read_inference, read_plan, read_stats
from ilp_jax.stats.replay import FILE as REPLAY_FILE
from ilp_jax.stats.replay import REPLAY_SCHEMA

FILE = "signals.parquet"
THRESHOLDS = ("exist_accuracy", "duplicate_similarity", "representation_similarity")
"""Fields of ``config.diagnose`` that signals rest on."""


def compute(workdir: epath.PathLike, config: Mapping[str, Any]) -> pl.DataFrame:
    """Computes a run's signals and writes them.

    Args:
      workdir: the run's folder.
      config: its resolved config; of ``diagnose`` those in ``THRESHOLDS`` are read.

    Returns:
      The columns of ``SIGNALS_SCHEMA``, by example and point.

    Raises:
      UserError: the folder is not a run's, or a file is damaged.
      RunFailure: the disk is full.
    """
    thresholds = {name: config["diagnose"][name] for name in THRESHOLDS}
    workdir = epath.Path(workdir)
    rows = assemble(
        read_stats(workdir, dynamics.COLUMNS),
        read_inference(workdir),
        read_examples(workdir),
        read_plan(workdir),
        thresholds,
        *(
            files.read_parquet(workdir / name) if (workdir / name).exists() else None
            for name in (f"{PROJECTIONS}/{REPRESENTATIONS}", REPLAY_FILE)
        ),
        trained_turns=config.get("trained_turns", "all"),
    )
    return write(workdir, rows, {name: str(value) for name, value in thresholds.items()})


def write(
    workdir: epath.PathLike, rows: pl.DataFrame, metadata: Mapping[str, str] | None = None
) -> pl.DataFrame:
    """Writes ``signals.parquet`` whole, each column with its meaning and unit.

    Args:
      workdir: the run's folder.
      rows: the columns of ``SIGNALS_SCHEMA``, in any order.
      metadata: further pairs for the file's metadata.

    Returns:
      The rows.

    Raises:
      RunFailure: the disk is full.
    """
    files.write_parquet(epath.Path(workdir) / FILE, rows, metadata, schema=SIGNALS_SCHEMA)
    return rows


def read_signals(workdir: epath.PathLike) -> pl.DataFrame:
    """Reads ``signals.parquet``."""
    return files.read_parquet(epath.Path(workdir) / FILE)


def assemble(
    stats: pl.DataFrame,
    inference: pl.DataFrame,
    examples: pl.DataFrame,
    plan: pl.DataFrame,
    thresholds: Mapping[str, float],
    representations: pl.DataFrame | None = None,
    replays: pl.DataFrame | None = None,
    trained_turns: str = "all",
) -> pl.DataFrame:
    """All signals of a run from its tables. Nothing is read or written.

    Args:
      stats: statistics, perhaps without rows.
      inference: answers with a ``point`` column.
      examples: ``examples.parquet``.
      plan: ``plan.parquet``.
      thresholds: those named in ``THRESHOLDS``.
      representations: ``projections/representations.parquet``, or None.
      replays: ``replay.parquet``, or None.
      trained_turns: the config's field of that name.

    Returns:
      The columns of ``SIGNALS_SCHEMA``: one row an example and point at which it was asked.
    """
    asked = inference.group_by("example_id", "point").agg(pl.col("step").max())
    asked = asked.join(examples.select("example_id"), on="example_id").sort("example_id", "point")
    trained_ids = plan["example_id"].unique()
    known = retention.moments(inference, stats, examples)
    kept = retention.retention(asked, known, plan, retention.stage_ends(inference, stats))
    lengths = response_tokens(examples, trained_turns).join(
        examples.select("example_id", pl.col("n_prompt_tokens").alias("prompt_tokens")),
        on="example_id",
    )
    near = duplicates(
        examples,
        trained_ids,
        thresholds["duplicate_similarity"],
        representations,
        thresholds["representation_similarity"],
    )
    of_example = (
        retention.positions(plan),
        base_knowledge.base_knowledge(inference, examples, thresholds["exist_accuracy"]),
        base_knowledge.base_text(inference, examples),
        answers.base_in_kind(inference, examples),
        near,
        patterns(examples, trained_ids),
        lengths,
    )
    of_point = (
        _of_training(stats, asked),
        kept,
        base_knowledge.divergence(inference),
        answers.given_now(inference),
        answers.rival_predicted(inference, examples, near),
    )
    rows = asked.drop("step")
    for table in of_point:
        rows = rows.join(table, on=("example_id", "point"), how="left", maintain_order="left")
    for table in of_example:
        rows = rows.join(table, on="example_id", how="left", maintain_order="left")
    rows = rows.join(_replayed(replays), on=("example_id", "point"), how="left").with_columns(
        pl.col("replay_measured").fill_null(False)
    )
    of_trained = rows.filter(pl.col("example_id").is_in(trained_ids.to_list()))
    rows = rows.join(ranks(of_trained, RANKED), on=("example_id", "point"), how="left")
    in_order = {point: i for i, point in enumerate(sorted(rows["point"].unique(), key=point_order))}
    return rows.sort("example_id", pl.col("point").replace_strict(in_order, return_dtype=pl.Int32)
                     ).select(SIGNALS_SCHEMA.names)  # fmt: skip


def _of_training(stats: pl.DataFrame, asked: pl.DataFrame) -> pl.DataFrame:
    """Measures of the visits up to each example's moment of each point."""
    found = []
    was_trained = (stats["kind"] == "train").any()
    for (point,), moments in asked.group_by("point", maintain_order=True):
        until = moments.select("example_id", pl.col("step").alias("until"))
        rows = stats.join(until, on="example_id").filter(pl.col("step") <= pl.col("until"))
        table = until.select("example_id", pl.lit(point).alias("point"))
        for measure in (dynamics.learning, dynamics.uncertainty, dynamics.gradients):
            table = table.join(measure(rows), on="example_id", how="left")
        found.append(table)
    table = pl.concat(found) if found else _nothing(stats, asked)
    visits = pl.col("presentations")
    return table.with_columns(visits.fill_null(0) if was_trained else visits)


def _nothing(stats: pl.DataFrame, asked: pl.DataFrame) -> pl.DataFrame:
    table = asked.clear().select("example_id", "point")
    for measure in (dynamics.learning, dynamics.uncertainty, dynamics.gradients):
        table = table.join(measure(stats.clear()), on="example_id", how="left")
    return table


def _replayed(rows: pl.DataFrame | None) -> pl.DataFrame:
    """What replay found of the examples that it took."""
    if rows is None:
        rows = pl.from_arrow(REPLAY_SCHEMA.empty_table())
    return replay.came_back(rows).select(
        "example_id",
        pl.col("replay_k").cast(pl.Int32),
        pl.lit("final").alias("point"),
        pl.lit(True).alias("replay_measured"),
    )
