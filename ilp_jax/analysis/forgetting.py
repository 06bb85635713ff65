"""What a sequence of stages costs the stages before: figures for ``summary.json``.

A row counts in the *last* stage that trains on it, after which nothing does: rows that a later
stage repeats are not forgotten there but trained. R[i, t] is the share of the rows of stage t
that are right at the end of stage i.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from ilp_jax.analysis import retention
from ilp_jax.analysis.matrices import matrices, probabilities
from ilp_jax.analysis.shares import interval
from ilp_jax.analysis.transfer import BASE, FINAL, transfer
from ilp_jax.analysis.transitions import pairs_of, transitions

Found = Mapping[str, Callable[[], pl.DataFrame]]
"""By detector, a function that reads its verdicts."""
GUESSED = ("choice",)
"""Detectors under which a wrong answer is right by luck in one of the options' number."""


def summarise(
    found: Found,
    examples: pl.DataFrame,
    plan: pl.DataFrame,
    known: pl.DataFrame,
    visits: pl.DataFrame,
) -> dict[str, Any]:
    """Everything on forgetting that the summary holds.

    Args:
      found: the verdicts (``unlearned.unlearned``) of each detector, read when they are
        needed: one detector's at a time are in memory.
      examples: ``examples.parquet``.
      plan: ``plan.parquet``.
      known: rows of ``visits.probabilities``.
      visits: rows of ``dynamics.events``.

    Returns:
      ``rows_of`` (how rows belong to stages), ``matrices`` (`matrices`), ``transfer``
      (`transfer`), ``transitions`` (`transitions.transitions`), ``segments`` (`segments`) and
      ``forgetting_events`` (`events`). Lists are empty where a run has nothing to say: one stage,
      no answers at its end, no training.
    """
    sets: dict[str, set] = {"point": set(), "source": set(), "stage": set()}
    for read in found.values():
        verdicts = _verdicts(read(), examples, plan)
        for name, values in sets.items():
            values |= set(verdicts[name].unique())
    asked, sources, stages = sets["point"], sorted(sets["source"]), sorted(sets["stage"])
    ends = [point for _, point in retention.points_of_stages(sorted(asked))]
    # `final` is the end of the last stage: asked twice only where both were wanted.
    final = [FINAL] if FINAL in asked and not _ends_all(ends, plan) else []
    moments = [*([BASE] if BASE in asked else []), *ends, *final]
    groups = [(None, None), *((stage, None) for stage in stages)]
    groups += [(None, source) for source in sources] if len(sources) > 1 else []
    out: dict[str, list] = {name: [] for name in ("matrices", "transfer", "turns", "segments")}
    for _, read in sorted(found.items()):
        verdicts = _verdicts(read(), examples, plan)
        out["matrices"] += matrices(verdicts, moments, stages, sources)
        out["transfer"] += transfer(verdicts, stages, asked)
        out["turns"] += transitions(verdicts, moments, groups)
        out["segments"] += segments(verdicts, plan, moments)
    order = {pair: i for i, pair in enumerate(pairs_of(moments))}
    turns = sorted(out["turns"], key=lambda cell: order[cell["before"], cell["after"]])
    return {
        "rows_of": "the last stage that trains on them",
        "matrices": [*out["matrices"], *probabilities(known, moments, stages)],
        "transfer": out["transfer"],
        "transitions": turns,
        "segments": out["segments"],
        "forgetting_events": events(visits, plan),
    }


def segments(
    verdicts: pl.DataFrame, plan: pl.DataFrame, moments: Sequence[str]
) -> list[dict[str, Any]]:
    """Share right of the first 10%, the middle and the last 10% of the sequence.

    As in the study's Table 11 (there ROUGE-L); a row's place is that of its first visit.

    Args:
      verdicts: ``example_id``, ``detector``, ``point``, ``right``.
      plan: ``plan.parquet``.
      moments: points.

    Returns:
      One dict a detector, moment and segment: ``detector``, ``point``, ``segment``, ``n``,
      ``right`` and its Wilson ``interval``.
    """
    counted = (
        verdicts.filter(pl.col("point").is_in(moments))
        .join(retention.positions(plan), on="example_id")
        .group_by("detector", "point", "segment")
        .agg(pl.len().alias("n"), pl.col("right").sum())
    )
    cells = {row[:3]: row[3:] for row in counted.iter_rows()}
    return [
        {
            "detector": detector,
            "point": point,
            "segment": segment,
            "n": n,
            "right": right / n,
            "interval": list(interval(right, n)),
        }
        for detector in sorted({key[0] for key in cells})
        for point in moments
        for segment in retention.SEGMENTS
        if (detector, point, segment) in cells
        for n, right in [cells[detector, point, segment]]
    ]


def events(visits: pl.DataFrame, plan: pl.DataFrame) -> list[dict[str, Any]]:
    """How many forgetting events the trained rows had (Toneva et al. 2019).

    Args:
      visits: rows of ``dynamics.events``.
      plan: ``plan.parquet``.

    Returns:
      One dict a stage (None: all rows), over rows with visits: ``stage``, ``n``, ``events``
      (number of events as text -> rows that were correct at some visit), ``never_learned`` (rows
      correct at no visit), ``unforgettable`` (correct at some, no event), ``mean`` (events a row).
    """
    rows = visits.join(retention.own_stages(plan), on="example_id")
    out = []
    for stage in (None, *sorted(rows["stage"].unique())):
        part = rows if stage is None else rows.filter(pl.col("stage") == stage)
        if part.is_empty():
            continue
        learned = part.filter(pl.col("correctness") > 0)
        counts = dict(learned.group_by("forgetting_events").len().iter_rows())
        out.append(
            {
                "stage": stage,
                "n": len(part),
                "events": {str(number): counts[number] for number in sorted(counts)},
                "never_learned": len(part) - len(learned),
                "unforgettable": counts.get(0, 0),
                "mean": part["forgetting_events"].mean(),
            }
        )
    return out


def _verdicts(found: pl.DataFrame, examples: pl.DataFrame, plan: pl.DataFrame) -> pl.DataFrame:
    """Verdicts that say something, with the row's last stage, source and options to guess from."""
    guessed = pl.col("detector").is_in(GUESSED)
    return (
        found.drop_nulls("unlearned")
        .join(retention.own_stages(plan), on="example_id")
        .join(
            examples.select(
                "example_id", "source", pl.col("options").list.len().cast(pl.Int64).alias("n")
            ),
            on="example_id",
        )
        .select(
            "example_id",
            "detector",
            "point",
            (~pl.col("unlearned")).alias("right"),
            "stage",
            "first_stage",
            "source",
            pl.when(guessed).then("n").alias("n_options"),
        )
    )


def _ends_all(ends: Sequence[str], plan: pl.DataFrame) -> bool:
    return bool(len(plan)) and f"stage_{plan['stage'].max()}" in ends
