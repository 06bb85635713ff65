"""The phase ``diagnose``: verdicts and figures from a run's files, no JAX."""

from __future__ import annotations

from typing import Any

import polars as pl
from etils import epath

from ilp_jax import files
from ilp_jax.analysis import detection, forgetting, not_asked, paper, rules, screened, signals
from ilp_jax.analysis.cascade import trained_by_then
from ilp_jax.analysis.cause_shares import cause_shares
from ilp_jax.analysis.fitted import method as fitted
from ilp_jax.analysis.separation import separate
from ilp_jax.analysis.shares import learned_and_lost, point_order, shares
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
THRESHOLDS_NOTE = (
    "Causes: the thresholds were set elsewhere, on planted worlds (decoders of about a million "
    "parameters, 4 layers) and on prototype runs of SmolLM2-135M with 120 real rows. On other "
    "models and data they are hypotheses; each verdict's evidence has its numbers."
)
"""Stands beside causes wherever they are shown."""


def diagnose(workdir: epath.PathLike, config: dict[str, Any], record: dict[str, Any]) -> dict:
    """Writes ``signals.parquet``, ``diagnosis.parquet`` and ``summary.json`` of a run.

    Args:
      workdir: the run's folder.
      config: its resolved config as plain values.
      record: what ``run.json`` says of the model (``weights``) and of each stage
        (``stages``: name, sources, rows dropped), and cautions (``notes``); of a model tuned
        elsewhere also of both models (``models``) and of what is not known (``absent``).

    Returns:
      The summary.

    Raises:
      RunFailure: the disk is full.
    """
    workdir = epath.Path(workdir)
    inference, examples, plan = read_inference(workdir), read_examples(workdir), read_plan(workdir)
    # A row that was never trained cannot be unlearned; its answers stay in `inference`.
    answers = inference.filter(pl.col("example_id").is_in(plan["example_id"].unique().to_list()))
    found = unlearned(answers, examples, config["detect"], config.get("trained_turns", "all"))
    summary = summarise(workdir, found, inference, examples, plan, config)
    told, figures = causes(found, signals.compute(workdir, config), examples, plan, config)
    summary |= figures
    stats = read_stats(workdir)
    summary["forgetting"] = forgetting.summarise(found, inference, examples, plan, stats)
    write_diagnosis(workdir, pl.concat([untold(found), told]))
    summary |= record
    summary["notes"] = [*record.get("notes", ()), *not_asked.notes(inference, config["detect"])]
    files.write_json(workdir / SUMMARY, summary)
    return summary


def untold(found: pl.DataFrame) -> pl.DataFrame:
    """Verdicts under the method ``none``: which rows are unlearned, and no cause.

    Args:
      found: rows of ``unlearned.unlearned``.

    Returns:
      The columns of ``DIAGNOSIS_SCHEMA``.
    """
    # Through the schema, so that the nulls have its types.
    empty = pl.from_arrow(DIAGNOSIS_SCHEMA.empty_table())
    return pl.concat([empty, found.with_columns(pl.lit("none").alias("method"))], how="diagonal")


def causes(
    found: pl.DataFrame,
    known: pl.DataFrame,
    examples: pl.DataFrame,
    plan: pl.DataFrame,
    config: dict[str, Any],
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Applies the methods of ``config.diagnose`` to a run's verdicts.

    Args:
      found: rows of ``unlearned.unlearned`` of trained examples.
      known: ``signals.parquet``.
      examples: ``examples.parquet``.
      plan: ``plan.parquet``.
      config: the resolved config.

    Returns:
      Rows of ``diagnosis.parquet`` of all these methods, and what the summary says of them:
      ``causes`` (`cause_shares.cause_shares`), ``separation`` (rows of
      `separation.separate`), ``causes_note``, and ``fitted``: what fitted methods were
      fitted on.
    """
    empty = untold(found).clear()
    told, tables, trained = [empty], [], []
    # Point by point: the texts of all rows and points at once would be the largest thing here.
    for point in sorted(found["point"].unique(), key=point_order):
        at_point = found.filter(pl.col("point") == point)
        # Ranks are among trained rows, and so are causes.
        of_point = known.filter(pl.col("point") == point).join(
            at_point.select("example_id").unique(), on="example_id", how="semi"
        )
        rows, separation = causes_at(at_point, of_point.sort("example_id"), config["diagnose"])
        told += rows
        tables += separation.to_dicts()
        trained.append(trained_by_then(of_point))
    rows = pl.concat(told)
    return rows, {
        "causes": cause_shares(rows, pl.concat(trained), examples, plan) if trained else [],
        "separation": tables,
        "causes_note": THRESHOLDS_NOTE,
        "fitted": fitted.provenance(config["diagnose"]["methods"], config["diagnose"]["fitted"]),
    }


def causes_at(
    found: pl.DataFrame, known: pl.DataFrame, thresholds: dict[str, Any]
) -> tuple[list[pl.DataFrame], pl.DataFrame]:
    """Applies the methods at some points.

    Args:
      found: ``example_id``, ``point``, ``detector``, ``unlearned`` of trained examples.
      known: rows of ``signals.parquet`` of the same examples and points.
      thresholds: the config's group ``diagnose``.

    Returns:
      For each of its ``methods``, rows of ``diagnosis.parquet``; and `separation.separate`'s
      table.
    """
    trained = trained_by_then(known)
    judged = rules.judge(known, thresholds)
    separation = separate(found, judged, trained, known, rules.ORDER, thresholds)
    rows = []
    for method in thresholds["methods"]:
        if method == rules.METHOD:
            rows.append(rules.combine(found, judged, trained, separation))
        else:
            other = fitted if method in fitted.METHODS else paper
            rows.append(other.combine(found, known, trained, thresholds, method))
    return rows, separation


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
        "screened": screened.figures(
            inference.filter(pl.col("example_id").is_in(trained["example_id"].to_list())), detect
        ),
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
