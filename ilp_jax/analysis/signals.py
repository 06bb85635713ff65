"""Puts every signal of every example at every point together: ``signals.parquet``.

A point's moment differs by example (``epoch_2`` is that of the example's own stage), so each
example's visits are cut at the step of its own answers there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl
import pyarrow as pa
from etils import epath

from ilp_jax import files, parquet
from ilp_jax.analysis import dynamics, retention
from ilp_jax.analysis.duplicates import REPRESENTED
from ilp_jax.analysis.parts import Parts
from ilp_jax.analysis.ranks import ranks
from ilp_jax.analysis.shares import point_order
from ilp_jax.analysis.signal_columns import RANKED, SIGNALS_SCHEMA
from ilp_jax.analysis.signal_parts import Common, common, greedy_of, of_part
from ilp_jax.stats.projections import PROJECTIONS, REPRESENTATIONS
from ilp_jax.stats.reader import stat_groups
from ilp_jax.stats.replay import FILE as REPLAY_FILE

FILE = "signals.parquet"
THRESHOLDS = ("exist_accuracy", "duplicate_similarity", "representation_similarity")
"""Fields of ``config.diagnose`` that signals rest on."""
RANKED_FROM = ("example_id", "point", "response_tokens", *RANKED)


def compute(parts: Parts, config: Mapping[str, Any]) -> None:
    """Computes a run's signals, part by part, and writes them.

    Each point's are kept as ``signals.POINT``, with the columns of ``SIGNALS_SCHEMA``, by
    example.

    Args:
      parts: the run.
      config: its resolved config; of ``diagnose`` those in ``THRESHOLDS`` are read.

    Raises:
      UserError: a file is damaged.
      RunFailure: the disk is full.
    """
    thresholds = {name: config["diagnose"][name] for name in THRESHOLDS}
    workdir, trained_turns = parts.workdir, config.get("trained_turns", "all")
    vectors = workdir / PROJECTIONS / REPRESENTATIONS
    vectors = parquet.read(vectors) if vectors.exists() and not notes(workdir) else None
    replays = workdir / REPLAY_FILE
    replays = parquet.read(replays) if replays.exists() else None
    ends, was_trained = _ends(parts)
    run = common(parts.examples, parts.plan, thresholds, vectors, replays, ends, was_trained)
    run = run.with_rivals(
        parts.examples, (greedy_of(parts.inference(k), run.rivals) for k in range(len(parts)))
    )
    for k in range(len(parts)):
        rows = of_part(
            run,
            parts.stats(k, dynamics.COLUMNS),
            parts.inference(k),
            parts.of(parts.examples, k),
            thresholds["exist_accuracy"],
            trained_turns,
        )
        for point in parts.points:
            parts.put(f"unranked.{point}", k, rows.filter(pl.col("point") == point))
    for point in parts.points:
        found = ranks(_trained(parts.whole(f"unranked.{point}", RANKED_FROM), run), RANKED)
        for k in range(len(parts)):
            rows = parts.get(f"unranked.{point}", k)
            parts.put(f"signals.{point}", k, ranked(rows, parts.of(found, k)))
        parts.forget(f"unranked.{point}")

    def of_all_points() -> Iterator[pa.Table]:
        for k in range(len(parts)):
            rows = [empty(), *(parts.get(f"signals.{point}", k) for point in parts.points)]
            rows = pl.concat(rows)
            # Chunks as polars cut them are no row groups.
            yield in_order(rows).to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks()

    metadata = {name: str(value) for name, value in thresholds.items()}
    parquet.write_parts(workdir / FILE, of_all_points(), SIGNALS_SCHEMA, metadata)


def notes(workdir: epath.Path) -> list[str]:
    """A sentence where a run has more representations than are compared."""
    path = workdir / PROJECTIONS / REPRESENTATIONS
    n = parquet.count_rows(path) if path.exists() else 0
    if n <= REPRESENTED:
        return []
    return [
        f"Near-duplicates were told by words alone: comparing {n} representations, each with "
        f"each, takes too long from {REPRESENTED} on."
    ]


def empty() -> pl.DataFrame:
    """A table of signals without rows."""
    return pl.from_arrow(SIGNALS_SCHEMA.empty_table())


def in_order(rows: pl.DataFrame) -> pl.DataFrame:
    """Signals as they stand in the file: by example, and a run's points in order."""
    order = {point: i for i, point in enumerate(sorted(rows["point"].unique(), key=point_order))}
    place = pl.col("point").replace_strict(order, return_dtype=pl.Int32)
    return rows.sort("example_id", place).select(SIGNALS_SCHEMA.names)


def ranked(rows: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    """Signals with their ranks, in the order of the columns of the file."""
    rows = rows.join(found, on=("example_id", "point"), how="left")
    return rows.select(SIGNALS_SCHEMA.names)


def _trained(rows: pl.DataFrame, run: Common) -> pl.DataFrame:
    """Rows of trained examples: only these are ranked."""
    return rows.join(run.trained, on="example_id", how="semi", maintain_order="left")


def _ends(parts: Parts) -> tuple[pl.DataFrame, bool]:
    """The last update of each stage, and whether anything was trained."""
    stages = [pl.DataFrame(schema={"stage": pl.Int32, "step": pl.Int64})]
    for rows in stat_groups(parts.workdir, ["kind", "stage", "step"]):
        rows = rows.filter(pl.col("kind") == "train")
        stages.append(rows.group_by("stage").agg(pl.col("step").max()))
    trained = pl.concat(stages).group_by("stage").agg(pl.col("step").max())
    asked = pl.concat(
        retention.stages_asked(parts.inference(k)).unique() for k in range(len(parts))
    )
    return retention.first_known(trained, asked), not trained.is_empty()


def read_signals(workdir: epath.PathLike, kept: pl.Expr | None = None) -> pl.DataFrame:
    """Reads ``signals.parquet``; with ``kept`` only the rows for which that is true."""
    path = files.as_path(workdir) / FILE
    return parquet.read(path) if kept is None else parquet.read_where(path, kept)


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
    was_trained = bool((stats["kind"] == "train").any())
    ends = retention.stage_ends(inference, stats)
    run = common(examples, plan, thresholds, representations, replays, ends, was_trained)
    run = run.with_rivals(examples, [greedy_of(inference, run.rivals)])
    exist = thresholds["exist_accuracy"]
    rows = of_part(run, stats, inference, examples, exist, trained_turns)
    return in_order(ranked(rows, ranks(_trained(rows, run), RANKED)))
