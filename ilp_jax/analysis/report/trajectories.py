"""How loss and gradient norm went, in the middle and at the quartiles of like rows."""

from __future__ import annotations

from typing import Any

import polars as pl

from ilp_jax.analysis.report.load import Run
from ilp_jax.stats import reader

MEASURES = ("loss", "grad_norm")


def trajectories(run: Run, fates: pl.DataFrame) -> list[dict[str, Any]]:
    """Median and quartiles of loss and gradient norm, by stage and fate of the rows.

    The loss is that of the probes: all rows of a stage at the same parameters. Norms are
    those of the probes that took them, and of training visits, whose rows meet the model at
    different steps of an epoch: these stand at the epoch's median step.

    Args:
      run: the run.
      fates: ``example_id``, ``fate``.

    Returns:
      One dict a measure (``loss`` in nats a token, ``grad_norm``), stage that trains the
      rows, fate and step: ``low``, ``median``, ``high`` (quartiles, linear interpolation)
      and ``n``. A row of several stages counts in each.
    """
    rows = (
        reader.scan_stats(run.workdir)
        .join(run.plan.lazy().select("example_id", of_stage="stage"), on="example_id")
        .join(fates.lazy(), on="example_id")
        .with_columns(loss=(pl.col("loss_sum") / pl.col("n_tokens")))
    )
    probes = rows.filter(pl.col("kind") == "probe")
    own = rows.filter(pl.col("kind") == "train", pl.col("stage") == pl.col("of_stage"))
    by_epoch = own.with_columns(pl.col("step").median().over("of_stage", "epoch").cast(pl.Float64))
    parts = [
        _quartiles(probes.with_columns(pl.col("step").cast(pl.Float64)), "loss"),
        _quartiles(probes.with_columns(pl.col("step").cast(pl.Float64)), "grad_norm"),
        _quartiles(by_epoch, "grad_norm"),
    ]
    found = pl.concat([part.collect() for part in parts])
    # At a step of both kinds (the last visit of an epoch) the probe speaks: it comes first.
    key = ("measure", "of_stage", "fate", "step")
    found = found.unique(key, keep="first", maintain_order=True)
    return found.sort(pl.col("measure") != "loss", "of_stage", "fate", "step").to_dicts()


def stage_ends(run: Run) -> dict[str, int]:
    """The last step of each stage, by the stage's number as text; empty without training."""
    visits = reader.scan_stats(run.workdir).filter(pl.col("kind") == "train")
    last = visits.group_by("stage").agg(pl.col("step").max()).sort("stage").collect()
    return {str(stage): step for stage, step in last.iter_rows()}


def _quartiles(rows: pl.LazyFrame, measure: str) -> pl.LazyFrame:
    value = pl.col(measure).cast(pl.Float64)
    return (
        rows.filter(value.is_finite())
        .group_by("of_stage", "fate", "step")
        .agg(
            value.quantile(0.25, "linear").alias("low"),
            value.median().alias("median"),
            value.quantile(0.75, "linear").alias("high"),
            pl.len().cast(pl.Int64).alias("n"),
        )
        .with_columns(measure=pl.lit(measure))
    )
