"""The phase ``diagnose``: verdicts and figures from a run's files, no JAX."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import polars as pl
import pyarrow as pa
from etils import epath

from ilp_jax import parquet
from ilp_jax.analysis import (
    detection,
    forgetting,
    no_verdict,
    not_asked,
    paper,
    rules,
    screened,
    separation,
    signals,
    summary_file,
)
from ilp_jax.analysis.cascade import trained_by_then
from ilp_jax.analysis.cause_shares import KEY, cause_counts, cells
from ilp_jax.analysis.causes import data_conflict
from ilp_jax.analysis.fitted import method as fitted
from ilp_jax.analysis.fitted.inputs import MADE_OF, inputs
from ilp_jax.analysis.parts import EXAMPLES_AT_ONCE, STATS_AT_ONCE, Parts, opened, summed
from ilp_jax.analysis.shares import (
    COUNTED,
    TURNED,
    point_order,
    share_cells,
    share_counts,
    turned_cells,
    turned_counts,
)
from ilp_jax.analysis.unlearned import by_default, is_law, none_of, unlearned
from ilp_jax.analysis.visits import Visits, gather
from ilp_jax.stats.reader import DIAGNOSIS, read_inference
from ilp_jax.stats.schema import DIAGNOSIS_SCHEMA

THRESHOLDS_NOTE = (
    "Causes: the thresholds were set elsewhere, on planted worlds (decoders of about a million "
    "parameters, 4 layers) and on prototype runs of SmolLM2-135M with 120 real rows. On other "
    "models and data they are hypotheses; each verdict's evidence has its numbers."
)
"""Stands beside causes wherever they are shown."""


def diagnose(
    workdir: epath.PathLike,
    config: dict[str, Any],
    record: dict[str, Any],
    stats_at_once: int = STATS_AT_ONCE,
    examples_at_once: int = EXAMPLES_AT_ONCE,
) -> dict:
    """Writes ``signals.parquet``, ``diagnosis.parquet`` and ``summary.json`` of a run.

    Memory is bounded by the number of examples, not of visits; see `parts`.

    Args:
      workdir: the run's folder.
      config: its resolved config as plain values.
      record: what ``run.json`` says of the model (``weights``) and of each stage
        (``stages``: name, sources, rows dropped), and cautions (``notes``); of a model tuned
        elsewhere also of both models (``models``) and of what is not known (``absent``).
      stats_at_once: rows of the statistics in a part, about.
      examples_at_once: examples in a part, at most.

    Returns:
      The summary.

    Raises:
      RunFailure: the disk is full.
    """
    with opened(workdir, stats_at_once, examples_at_once) as parts:
        for k in range(len(parts)):
            parts.put("verdicts", k, _verdicts(parts, k, config))
        signals.compute(parts, config)
        visits = gather(parts)
        summary = summarise(parts, visits, config)
        detect = config["detect"]
        unasked = [not_asked.not_asked(parts.inference(k), detect) for k in range(len(parts))]
        about = signals.notes(parts.workdir)
        told: dict[str, Any] = {}
        parquet.write_parts(
            parts.workdir / DIAGNOSIS, _diagnosed(parts, config, told), DIAGNOSIS_SCHEMA
        )
        summary |= told
        summary["forgetting"] = forgetting.summarise(
            _by_detector(parts),
            parts.examples,
            parts.plan,
            visits.probabilities,
            visits.events,
        )
    summary |= record
    summary["notes"] = [*record.get("notes", ()), *not_asked.notes(unasked), *about]
    summary_file.write(parts.workdir, summary)
    return summary


def _verdicts(parts: Parts, part: int, config: dict[str, Any]) -> pl.DataFrame:
    # A row that was never trained cannot be unlearned; its answers stay in `inference`.
    answers = parts.inference(part).join(
        parts.plan, on="example_id", how="semi", maintain_order="left"
    )
    examples = parts.of(parts.examples, part)
    return unlearned(answers, examples, config["detect"], config.get("trained_turns", "all"))


def _at(parts: Parts, part: int, point: str) -> pl.DataFrame:
    return parts.get("verdicts", part).filter(pl.col("point") == point)


def _by_detector(parts: Parts) -> forgetting.Found:
    names = {name for found in parts.each("verdicts", ["detector"]) for name in found["detector"]
             .unique()}  # fmt: skip

    def read(name: str) -> pl.DataFrame:
        return pl.concat(
            found.filter(pl.col("detector") == name) for found in parts.each("verdicts")
        )

    return {name: functools.partial(read, name) for name in names}


def _diagnosed(parts: Parts, config: dict[str, Any], figures: dict[str, Any]) -> Iterator[pa.Table]:
    """The rows of ``diagnosis.parquet``; when they are done, the summary's part is in figures."""
    for found in parts.each("verdicts"):
        yield _to_arrow(untold(found))
    counts, tables = [], []
    points = {point for found in parts.each("verdicts", ["point"]) for point in found["point"]
              .unique()}  # fmt: skip
    # Point by point: the texts of all rows and points at once would be the largest thing here.
    for point in sorted(points, key=point_order):
        yield from _diagnosed_at(parts, point, config["diagnose"], counts, tables)
    methods, folder = config["diagnose"]["methods"], config["diagnose"]["fitted"]
    figures |= {
        "causes": cells(summed(counts, KEY)) if counts else [],
        "separation": [row for table in tables for row in table.to_dicts()],
        "causes_note": THRESHOLDS_NOTE,
        "fitted": fitted.provenance(methods, folder),
    }


def _diagnosed_at(
    parts: Parts,
    point: str,
    thresholds: dict[str, Any],
    counts: list[pl.DataFrame],
    tables: list[pl.DataFrame],
) -> Iterator[pa.Table]:
    """One point's rows; adds what is counted of its causes, and its separation table."""
    named = parts.whole(f"signals.{point}", ("example_id", *data_conflict.GROUPED_BY))
    asked = pl.concat(_at(parts, k, point).select("example_id") for k in range(len(parts)))
    groups = data_conflict.groups_of(named.join(asked, on="example_id", how="semi"))
    alike = []
    for k in range(len(parts)):
        found = _at(parts, k, point)
        # Ranks are among trained rows, and so are causes.
        known = parts.get(f"signals.{point}", k)
        known = known.join(found.select("example_id").unique(), on="example_id", how="semi")
        known = known.sort("example_id")
        judged = rules.judge(known, thresholds, groups)
        alike.append(separation.counts(found, judged, trained_by_then(known), known, rules.ORDER))
        parts.put("known", k, known)
        parts.put("judged", k, judged)
    alike = summed(alike, separation.key_of(rules.ORDER))
    table = separation.from_counts(alike, rules.ORDER, thresholds)
    tables.append(table)
    is_fitted = set(fitted.CLASSIFIED) & set(thresholds["methods"])
    values = inputs(parts.whole("known", MADE_OF)) if is_fitted else None
    for k in range(len(parts)):
        found, known = _at(parts, k, point), parts.get("known", k)
        own = None if values is None else parts.of(values, k)
        told = told_at(found, parts.get("judged", k), known, table, thresholds, own)
        for rows in told:
            yield _to_arrow(rows)
        counts.append(
            cause_counts(
                pl.concat([untold(found).clear(), *told]),
                trained_by_then(known),
                parts.of(parts.examples, k),
                parts.of(parts.plan, k),
            )
        )


def _to_arrow(rows: pl.DataFrame) -> pa.Table:
    # Chunks as polars cut them are no row groups.
    return rows.to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks()


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
    judged = rules.judge(known, thresholds)
    trained = trained_by_then(known)
    table = separation.separate(found, judged, trained, known, rules.ORDER, thresholds)
    return told_at(found, judged, known, table, thresholds), table


def told_at(
    found: pl.DataFrame,
    judged: pl.DataFrame,
    known: pl.DataFrame,
    table: pl.DataFrame,
    thresholds: dict[str, Any],
    values: pl.DataFrame | None = None,
) -> list[pl.DataFrame]:
    """What each of the methods says of some examples.

    Args:
      found: see `causes_at`.
      judged: what ``rules.judge`` gave of them.
      known: their signals.
      table: what ``separation.separate`` gave, of all examples.
      thresholds: the config's group ``diagnose``.
      values: rows of ``fitted.inputs.inputs`` of all examples.

    Returns:
      For each of its ``methods``, rows of ``diagnosis.parquet``.
    """
    trained, rows = trained_by_then(known), []
    for method in thresholds["methods"]:
        if method == rules.METHOD:
            rows.append(rules.combine(found, judged, trained, table))
        elif method in fitted.METHODS:
            rows.append(fitted.combine(found, known, trained, thresholds, method, values))
        else:
            rows.append(paper.combine(found, known, trained, thresholds, method))
    return rows


def summarise(parts: Parts, visits: Visits, config: dict[str, Any]) -> dict[str, Any]:
    """Every figure that the table shows, and what it rests on.

    Args:
      parts: the run, with each part's ``verdicts``.
      visits: what was gathered from the statistics.
      config: the resolved config.
    """
    detect = config["detect"]
    counted, turned, laws, screen, reached, known = [], [], [], [], [], []
    end = no_verdict.last_point(parts.points)
    for k in range(len(parts)):
        verdicts = parts.get("verdicts", k)
        verdicts = pl.concat([verdicts, by_default(verdicts)])
        examples, plan = parts.of(parts.examples, k), parts.of(parts.plan, k)
        counted.append(share_counts(verdicts, examples, plan))
        turned.append(turned_counts(verdicts, examples, plan))
        known.append(no_verdict.counts(verdicts, plan.select("example_id").unique(), end))
        answers = parts.inference(k)
        reached.append(_converged(answers))
        answers = answers.join(plan, on="example_id", how="semi", maintain_order="left")
        law = answers.filter(is_law(detect["temperature"]))
        laws.append(law.select("point", "example_id", "gold_logprob"))
        screen.append(screened.screened(answers, detect))
    # In order throughout, so that sums round alike and equal runs have equal summaries.
    expected = (
        pl.concat(laws)
        .sort("point", "example_id")
        .group_by("point", maintain_order=True)
        .agg(none_of(pl.col("gold_logprob"), detect["n_samples"]).mean().alias("share"))
    )
    trained = parts.examples.join(parts.plan, on="example_id", how="semi")

    def verdicts_at(point: str) -> pl.DataFrame:
        return pl.concat(_at(parts, k, point) for k in range(len(parts)))

    return {
        "shares": share_cells(summed(counted, COUNTED)),
        no_verdict.FIGURES: no_verdict.figures(known, end, detect),
        "learned_and_lost": turned_cells(summed(turned, TURNED)),
        "expected_none_of_n": {
            "temperature": detect["temperature"],
            "n_samples": detect["n_samples"],
            "share": dict(expected.sort("point").iter_rows()),
        },
        "screened": screened.figures_of(pl.concat(screen).sort("point", "example_id"), detect),
        "detection": detection.from_points(
            {one: functools.partial(_answers_at, parts, one) for one in parts.points},
            verdicts_at,
            parts.examples,
            parts.plan,
            config,
            visits.probes,
        ),
        "converged": {
            str(stage): epoch for stage, epoch in sorted(pl.concat(reached).unique().iter_rows())
        },
        "converged_asked": "converged" in detect["points"] and not config["model"].get("tuned"),
        "probe_loss": visits.probe_losses,
        "n_examples": {
            "trained": len(trained),
            "held_out": int((parts.examples["role"] == "held_out").sum()),
            "planted_twins": int((trained["source"] == "planted_twin").sum()),
        },
        "loss_normalization": config["train"]["loss_normalization"],
        "seed": config["seed"],
    }


def _answers_at(parts: Parts, point: str) -> pl.DataFrame:
    return read_inference(parts.workdir, [point], detection.COLUMNS)


def _converged(inference: pl.DataFrame) -> pl.DataFrame:
    """Epochs at which stages converged: ``stage``, ``epoch``; absent for one that did not."""
    return inference.filter(pl.col("point") == "converged").select("stage", "epoch").unique()
