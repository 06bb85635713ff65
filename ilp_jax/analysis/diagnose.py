"""The phase ``diagnose``: verdicts and figures from a run's files, no JAX."""

from __future__ import annotations

from typing import Any

import polars as pl
from etils import epath

from ilp_jax import files
from ilp_jax.analysis import detection
from ilp_jax.analysis.shares import learned_and_lost, shares
from ilp_jax.analysis.unlearned import by_default, is_law, none_of, unlearned
from ilp_jax.stats.reader import (
    read_examples,
    read_inference,
    read_plan,
    read_stats,
    write_diagnosis,
)
from ilp_jax.stats.schema import DIAGNOSIS_SCHEMA

SUMMARY = "summary.json"


def diagnose(workdir: epath.PathLike, config: dict[str, Any], record: dict[str, Any]) -> dict:
    """Writes ``diagnosis.parquet`` and ``summary.json`` of a run.

    Causes are not told yet: the method is ``none`` and ``cause`` is null throughout.

    Args:
      workdir: the run's folder.
      config: its resolved config as plain values.
      record: what ``run.json`` says of the model (``weights``) and of each stage
        (``stages``: name, sources, rows dropped).

    Returns:
      The summary.

    Raises:
      RunFailure: the disk is full.
    """
    workdir = epath.Path(workdir)
    inference, examples, plan = read_inference(workdir), read_examples(workdir), read_plan(workdir)
    # A row that was never trained cannot be unlearned; its answers stay in `inference`.
    answers = inference.filter(pl.col("example_id").is_in(plan["example_id"].unique().to_list()))
    found = unlearned(answers, examples, config["detect"])
    rows = found.with_columns(pl.lit("none").alias("method"))
    untold = [name for name in DIAGNOSIS_SCHEMA.names if name not in rows.columns]
    write_diagnosis(workdir, rows.with_columns(pl.lit(None).alias(name) for name in untold))
    summary = summarise(workdir, found, inference, examples, plan, config) | record
    files.write_json(workdir / SUMMARY, summary)
    return summary


def summarise(
    workdir: epath.Path,
    found: pl.DataFrame,
    inference: pl.DataFrame,
    examples: pl.DataFrame,
    plan: pl.DataFrame,
    config: dict[str, Any],
) -> dict[str, Any]:
    """Every figure that the table shows, and what it rests on.

    Args:
      workdir: the run's folder.
      found: verdicts.
      inference: answers.
      examples: ``examples.parquet``.
      plan: ``plan.parquet``.
      config: the resolved config.
    """
    detect = config["detect"]
    verdicts = pl.concat([found, by_default(found)])
    trained = examples.filter(pl.col("example_id").is_in(plan["example_id"].unique().to_list()))
    laws = inference.filter(
        is_law(detect["temperature"]),
        pl.col("example_id").is_in(trained["example_id"].to_list()),
    )
    # In order throughout, so that sums round alike and equal runs have equal summaries.
    laws = laws.sort("point", "example_id")
    expected = laws.group_by("point", maintain_order=True).agg(
        none_of(pl.col("gold_logprob"), detect["n_samples"]).mean().alias("share")
    )
    return {
        "shares": shares(verdicts, examples, plan),
        "learned_and_lost": learned_and_lost(verdicts, examples, plan),
        "expected_none_of_n": {
            "temperature": detect["temperature"],
            "n_samples": detect["n_samples"],
            "share": dict(expected.sort("point").iter_rows()),
        },
        "detection": detection.summarise(
            inference,
            examples,
            plan,
            config,
            read_stats(workdir, columns=("n_correct", "n_tokens"), kind="probe"),
        ),
        "converged": converged(inference),
        "probe_loss": probe_losses(workdir, plan),
        "n_examples": {
            "trained": len(trained),
            "held_out": int((examples["role"] == "held_out").sum()),
            "planted_twins": int((trained["source"] == "planted_twin").sum()),
        },
        "loss_normalization": config["train"]["loss_normalization"],
        "seed": config["seed"],
    }


def converged(inference: pl.DataFrame) -> dict[str, int]:
    """Epoch at which each stage converged, by stage; a stage that did not is absent."""
    reached = inference.filter(pl.col("point") == "converged").select("stage", "epoch").unique()
    return {str(stage): epoch for stage, epoch in sorted(reached.iter_rows())}


def probe_losses(workdir: epath.Path, plan: pl.DataFrame) -> list[dict[str, Any]]:
    """Mean probe loss (nats a token, mean over examples) of each stage's rows, by moment."""
    probes = read_stats(workdir, columns=("loss_sum", "n_tokens")).lazy()
    rows = (
        probes.filter(pl.col("kind") == "probe")
        .join(plan.lazy().select("example_id", pl.col("stage").alias("of_stage")), on="example_id")
        .sort("step", "of_stage", "example_id")
        .group_by("step", "stage", "epoch", "of_stage", maintain_order=True)
        .agg(
            (pl.col("loss_sum") / pl.col("n_tokens")).mean().alias("loss"),
            pl.len().alias("n"),
        )
        .sort("step", "of_stage")
    )
    return rows.collect().to_dicts()
