"""Signals before they are ranked: what all parts of a run share, and the rows of one part."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import polars as pl

from ilp_jax.analysis import answers, base_knowledge, dynamics, replay, retention
from ilp_jax.analysis.duplicates import duplicates
from ilp_jax.analysis.lengths import response_tokens
from ilp_jax.analysis.rarity import patterns
from ilp_jax.stats.replay import REPLAY_SCHEMA


@dataclasses.dataclass(frozen=True)
class Common:
    """What a row's signals need of the whole run, beside the row's own measurements.

    Attributes:
      trained: ``example_id`` of trained examples, each once.
      plan: ``plan.parquet``.
      near: of every example, ``duplicates.duplicates``.
      patterns: of every example, ``rarity.patterns``.
      positions: of trained examples, ``retention.positions``.
      ends: ``retention.stage_ends``.
      was_trained: whether the run has training visits.
      texts: ``answers.known_texts``.
      replays: what replay found.
      rivals: ids that stand in some ``near_ids``.
      of_rivals: ``answers.reproduced`` of these.
      rivals_texts: their rows of ``examples.parquet``.
    """

    trained: pl.DataFrame
    plan: pl.DataFrame
    near: pl.DataFrame
    patterns: pl.DataFrame
    positions: pl.DataFrame
    ends: pl.DataFrame
    was_trained: bool
    texts: pl.Series
    replays: pl.DataFrame
    rivals: pl.DataFrame
    of_rivals: pl.DataFrame | None = None
    rivals_texts: pl.DataFrame | None = None

    def with_rivals(self, examples: pl.DataFrame, found: Iterable[pl.DataFrame]) -> Common:
        """With what became of the examples that are near others, by `greedy_of`."""
        texts = examples.join(self.rivals, on="example_id", how="semi", maintain_order="left")
        return dataclasses.replace(self, of_rivals=pl.concat(found), rivals_texts=texts)


def common(
    examples: pl.DataFrame,
    plan: pl.DataFrame,
    thresholds: Mapping[str, float],
    representations: pl.DataFrame | None,
    replays: pl.DataFrame | None,
    ends: pl.DataFrame,
    was_trained: bool,
) -> Common:
    """What all parts share; see ``signals.assemble`` for the tables and `Common` for the rest."""
    trained_ids = plan["example_id"].unique()
    near = duplicates(
        examples,
        trained_ids,
        thresholds["duplicate_similarity"],
        representations,
        thresholds["representation_similarity"],
    )
    rivals = near.select(pl.col("near_ids").explode().alias("example_id")).drop_nulls().unique()
    return Common(
        trained=trained_ids.to_frame(),
        plan=plan,
        near=near,
        patterns=patterns(examples, trained_ids),
        positions=retention.positions(plan),
        ends=ends,
        was_trained=was_trained,
        texts=answers.known_texts(examples),
        replays=_replayed(replays),
        rivals=rivals,
    )


def greedy_of(inference: pl.DataFrame, rivals: pl.DataFrame) -> pl.DataFrame:
    """``answers.reproduced`` of the examples that are near others."""
    return answers.reproduced(inference.join(rivals, on="example_id", how="semi"))


def of_part(
    run: Common,
    stats: pl.DataFrame,
    inference: pl.DataFrame,
    examples: pl.DataFrame,
    exist_accuracy: float,
    trained_turns: str = "all",
) -> pl.DataFrame:
    """The signals of some examples, ranks left out.

    Args:
      run: what the whole run gave.
      stats: the examples' statistics.
      inference: their answers with a ``point`` column.
      examples: their rows of ``examples.parquet``.
      exist_accuracy: the threshold of that name.
      trained_turns: the config's field of that name.

    Returns:
      One row an example and point at which it was asked.
    """
    asked = inference.group_by("example_id", "point").agg(pl.col("step").max())
    asked = asked.join(examples.select("example_id"), on="example_id").sort("example_id", "point")
    own = examples.select("example_id")
    plan, near, positions, patterns_ = (
        table.join(own, on="example_id", how="semi", maintain_order="left")
        for table in (run.plan, run.near, run.positions, run.patterns)
    )
    known = retention.moments(inference, stats, examples)
    kept = retention.retention(asked, known, plan, run.ends)
    lengths = response_tokens(examples, trained_turns).join(
        examples.select("example_id", pl.col("n_prompt_tokens").alias("prompt_tokens")),
        on="example_id",
    )
    with_rivals = pl.concat([examples, run.rivals_texts]).unique(
        "example_id", keep="first", maintain_order=True
    )
    of_example = (
        positions,
        base_knowledge.base_knowledge(inference, examples, exist_accuracy),
        base_knowledge.base_text(inference, examples),
        answers.base_in_kind(inference, examples, run.texts),
        near,
        patterns_,
        lengths,
    )
    of_point = (
        of_training(stats, asked, run.was_trained),
        kept,
        base_knowledge.divergence(inference),
        answers.given_now(inference),
        answers.rival_predicted(inference, with_rivals, near, run.of_rivals),
    )
    rows = asked.drop("step")
    for table in of_point:
        rows = rows.join(table, on=("example_id", "point"), how="left", maintain_order="left")
    for table in of_example:
        rows = rows.join(table, on="example_id", how="left", maintain_order="left")
    return rows.join(run.replays, on=("example_id", "point"), how="left").with_columns(
        pl.col("replay_measured").fill_null(False)
    )


def of_training(stats: pl.DataFrame, asked: pl.DataFrame, was_trained: bool) -> pl.DataFrame:
    """Measures of the visits up to each example's moment of each point.

    Args:
      stats: statistics.
      asked: ``example_id``, ``point`` and its ``step``.
      was_trained: whether any example of the run has visits.
    """
    found = []
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
