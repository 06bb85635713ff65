"""What an example keeps after its own stage, and where in the sequence it stands.

An example's *own stages* are those that train on it. Its probability is the geometric mean over
target tokens (end token included) of the target's probability, exp(-loss a token): on one scale
for short and long responses.
"""

from __future__ import annotations

import re

import polars as pl

from ilp_jax.analysis.dynamics import is_correct, per_token

SEGMENTS = ("first_10", "middle", "last_10")
_TENTH = 0.1
"""The study's Table 11 compares the first and the last 10% of the sequence with the middle."""


def positions(plan: pl.DataFrame) -> pl.DataFrame:
    """Where in the whole sequence each example is first visited.

    Args:
      plan: ``plan.parquet``.

    Returns:
      One row a trained example: ``example_id``, ``position`` (rank of its first visit among
      all, in [0, 1]) and ``segment``: ``first_10`` up to 0.1, ``last_10`` from 0.9, else
      ``middle``. Both are null where the order of training is not known.
    """
    first = plan.sort("stage", "position", "example_id").unique(
        "example_id", keep="first", maintain_order=True
    )
    rank = pl.int_range(pl.len()) / max(len(first) - 1, 1)
    known = pl.col("position").null_count() == 0
    return first.select("example_id", pl.when(known).then(rank).alias("position")).with_columns(
        pl.when(pl.col("position").is_null())
        .then(None)
        .when(pl.col("position") <= _TENTH)
        .then(pl.lit("first_10"))
        .when(pl.col("position") >= 1 - _TENTH)
        .then(pl.lit("last_10"))
        .otherwise(pl.lit("middle"))
        .alias("segment")
    )


def own_stages(plan: pl.DataFrame) -> pl.DataFrame:
    """The last stage that trains on each example, ``stage``, and the first, ``first_stage``."""
    stage = pl.col("stage")
    return plan.group_by("example_id").agg(stage.max(), stage.min().alias("first_stage"))


def stage_ends(inference: pl.DataFrame, stats: pl.DataFrame) -> pl.DataFrame:
    """The last update of each stage.

    Args:
      inference: answers with a ``point`` column.
      stats: statistics.

    Returns:
      ``stage`` (int32) and ``step``; from the statistics where they know it, else from the
      points ``stage_K``. Empty when nothing was trained.
    """
    trained = stats.filter(pl.col("kind") == "train").group_by("stage").agg(pl.col("step").max())
    return first_known(trained, stages_asked(inference))


def stages_asked(inference: pl.DataFrame) -> pl.DataFrame:
    """``stage`` (int32) and ``step`` of every answer at a point ``stage_K``."""
    return inference.filter(pl.col("point").str.contains(r"^stage_\d+$")).select(
        pl.col("point").str.extract(r"(\d+)$").cast(pl.Int32).alias("stage"), "step"
    )


def first_known(trained: pl.DataFrame, asked: pl.DataFrame) -> pl.DataFrame:
    """The last update of each stage, by the statistics or else by the answers.

    Args:
      trained: ``stage``, ``step`` by the statistics.
      asked: the same by the answers (`stages_asked`).
    """
    known = pl.concat([trained.select("stage", "step"), asked])
    return known.unique("stage", keep="first", maintain_order=True).sort("stage")


def moments(inference: pl.DataFrame, stats: pl.DataFrame, examples: pl.DataFrame) -> pl.DataFrame:
    """Every moment at which an example's probability was measured without training on it.

    Args:
      inference: answers with a ``point`` column; those of mode ``greedy`` count.
      stats: statistics; probes count.
      examples: ``examples.parquet``.

    Returns:
      One row an example and step, by step: ``example_id``, ``step``, ``prob`` and ``learned``
      (exact match). The answer stands where a probe of that step differs in rounding.
    """
    asked = inference.filter(pl.col("mode") == "greedy").join(
        examples.select("example_id", "n_target_tokens"), on="example_id", maintain_order="left"
    )
    answers = asked.select(
        "example_id",
        "step",
        (pl.col("gold_logprob") / pl.col("n_target_tokens")).exp().alias("prob"),
        pl.col("correct").alias("learned"),
    )
    probes = (
        stats.filter(pl.col("kind") == "probe")
        .join(examples.select("example_id", "truncated"), on="example_id", maintain_order="left")
        .select(
            "example_id",
            "step",
            (-per_token("loss_sum")).exp().alias("prob"),
            # A response cut short cannot be reproduced.
            (is_correct() & ~pl.col("truncated")).alias("learned"),
        )
    )
    both = pl.concat([answers, probes])
    return both.unique(("example_id", "step"), keep="first", maintain_order=True).sort(
        "step", "example_id"
    )


def retention(
    asked: pl.DataFrame, known: pl.DataFrame, plan: pl.DataFrame, ends: pl.DataFrame
) -> pl.DataFrame:
    """What each example has kept, at every point that it was asked about.

    Args:
      asked: ``example_id``, ``point``, ``step``.
      known: rows of ``moments``.
      plan: ``plan.parquet``.
      ends: rows of ``stage_ends``.

    Returns:
      One row a row of ``asked``: ``example_id``, ``point``, and

      * ``prob``: its probability now; ``best_prob``, the largest so far; ``drop_from_best``.
      * ``own_stage_prob`` and ``learned_own_stage`` (exact match) at the end of its last own
        stage that has ended, null before any has; ``own_drop`` = ``own_stage_prob`` - ``prob``.
    """
    best = known.with_columns(pl.col("prob").cum_max().over("example_id").alias("best_prob"))
    own_ends = (
        plan.select("example_id", "stage")
        .join(ends, on="stage")
        .join(known, on=("example_id", "step"))
        .select(
            "example_id",
            "step",
            pl.col("prob").alias("own_stage_prob"),
            pl.col("learned").alias("learned_own_stage"),
        )
        .sort("step")
    )
    rows = asked.select("example_id", "point", "step").sort("step", "example_id")
    now = rows.join(
        known.select("example_id", "step", "prob"), on=("example_id", "step"), how="left"
    ).sort("step")
    for table in (best.select("example_id", "step", "best_prob").sort("step"), own_ends):
        now = now.join_asof(
            table, on="step", by="example_id", strategy="backward", check_sortedness=False
        )
    return now.select(
        "example_id",
        "point",
        "learned_own_stage",
        "own_stage_prob",
        "prob",
        (pl.col("own_stage_prob") - pl.col("prob")).alias("own_drop"),
        "best_prob",
        (pl.col("best_prob") - pl.col("prob")).alias("drop_from_best"),
    )


def points_of_stages(points: list[str]) -> list[tuple[int, str]]:
    """The points ``stage_K`` among some points, as (K, point), in order."""
    found = [(re.fullmatch(r"stage_(\d+)", point), point) for point in points]
    return sorted((int(match[1]), point) for match, point in found if match)
