"""What the summary takes from the statistics, beside the signals: gathered part by part."""

from __future__ import annotations

import dataclasses
from typing import Any

import polars as pl

from ilp_jax.analysis import dynamics, retention
from ilp_jax.analysis.parts import Parts

COLUMNS = ("loss_sum", "n_tokens", "n_correct")


@dataclasses.dataclass(frozen=True)
class Visits:
    """What is gathered, of every part together.

    Attributes:
      probabilities: rows of `probabilities`.
      events: rows of `dynamics.events`.
      probe_losses: see `probe_losses`.
      probes: ``example_id``, ``step``, ``n_correct``, ``n_tokens`` of the probes of responses
        too long for exact match, at the steps at which they were asked.
    """

    probabilities: pl.DataFrame
    events: pl.DataFrame
    probe_losses: list[dict[str, Any]]
    probes: pl.DataFrame


def gather(parts: Parts) -> Visits:
    """Reads the statistics once; each part's verdicts are kept as ``verdicts``."""
    gathered = [_of_part(parts, k) for k in range(len(parts))]
    known, events, losses, probes = (list(tables) for tables in zip(*gathered, strict=True))
    return Visits(pl.concat(known), pl.concat(events), pooled(losses), pl.concat(probes))


def probabilities(
    inference: pl.DataFrame, stats: pl.DataFrame, examples: pl.DataFrame, plan: pl.DataFrame
) -> pl.DataFrame:
    """The probability of every trained row at every point at which it was asked.

    Args:
      inference: answers with a ``point`` column.
      stats: statistics.
      examples: ``examples.parquet``.
      plan: ``plan.parquet``.

    Returns:
      One row an example and point: ``example_id``, ``stage`` (the last that trains on it),
      ``point``, ``prob`` (geometric mean over target tokens).
    """
    asked = inference.select("example_id", "point", "step").unique()
    return (
        asked.join(retention.moments(inference, stats, examples), on=("example_id", "step"))
        .join(retention.own_stages(plan), on="example_id")
        .select("example_id", "stage", "point", "prob")
    )


def probe_losses(stats: pl.DataFrame, plan: pl.DataFrame) -> pl.DataFrame:
    """Mean probe loss (nats a token, mean over examples) of each stage's rows, by moment.

    Args:
      stats: statistics.
      plan: ``plan.parquet``.

    Returns:
      ``step``, ``stage``, ``epoch``, ``of_stage``, ``loss``, ``n``; sorted.
    """
    rows = (
        stats.lazy()
        .filter(pl.col("kind") == "probe")
        .join(plan.lazy().select("example_id", pl.col("stage").alias("of_stage")), on="example_id")
        .sort("step", "of_stage", "example_id")
        .group_by("step", "stage", "epoch", "of_stage", maintain_order=True)
        .agg(
            (pl.col("loss_sum") / pl.col("n_tokens")).mean().alias("loss"),
            pl.len().alias("n"),
        )
        .sort("step", "of_stage")
    )
    return rows.collect()


def pooled(losses: list[pl.DataFrame]) -> list[dict[str, Any]]:
    """The means of `probe_losses` over all parts, weighted by their rows."""
    if len(losses) == 1:
        return losses[0].to_dicts()
    n = pl.col("n").cast(pl.Int64)
    both = pl.concat(losses).group_by("step", "stage", "epoch", "of_stage", maintain_order=True)
    means = both.agg((pl.col("loss") * n).sum() / n.sum(), n.sum())
    return means.sort("step", "of_stage").to_dicts()


def _of_part(parts: Parts, part: int) -> tuple[pl.DataFrame, ...]:
    stats, answers = parts.stats(part, COLUMNS), parts.inference(part)
    examples, plan = parts.of(parts.examples, part), parts.of(parts.plan, part)
    known = probabilities(answers, stats, examples, plan)
    losses = probe_losses(stats, plan)
    long = parts.get("verdicts", part).filter(
        pl.col("detector") == "exact_match", pl.col("unlearned").is_null()
    )
    asked = answers.filter(pl.col("mode") == "greedy").join(
        long.select("example_id").unique(), on="example_id", how="semi"
    )
    probes = stats.filter(pl.col("kind") == "probe").join(
        asked.select("example_id", "step").unique(), on=("example_id", "step"), how="semi"
    )
    probes = probes.select("example_id", "step", "n_correct", "n_tokens")
    # Only what is kept of the whole run may be large.
    return known.rechunk(), dynamics.events(stats), losses, probes
