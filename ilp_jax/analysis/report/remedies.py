"""What the report shows of remedies, of all its runs that have tried some together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from ilp_jax import files
from ilp_jax.analysis import remedies as tried
from ilp_jax.analysis.remedies.words import NAMES
from ilp_jax.analysis.report.load import Run
from ilp_jax.analysis.report.page import drawn
from ilp_jax.stats.remedies import has_remedies
from ilp_jax.stats.schema import CAUSES

_LINE, _GAP, _LABEL, _CURVE, _END, _TEXT = 18, 16, 150, 300, 130, 12  # pixels


def remedies(runs: Sequence[Run]) -> dict[str, Any] | None:
    """The section's sentences, tables and chart; None where no run tried any (`ilp mitigate`).

    Args:
      runs: the report's runs.

    Returns:
      ``headline``, ``sentences``, ``notes``, ``lines`` of the matrix (and ``lines_all``, None
      where they are the same), ``diagonal``, ``arms``, ``chart``, ``curves``, ``curves_chart``
      and ``figures`` (``remedies.compare``).
    """
    with_arms = [run for run in runs if has_remedies(run.workdir)]
    if not with_arms:
        return None
    found = tried.compare([tried.load(run.workdir) for run in with_arms])
    return {
        "headline": tried.words.headline(found),
        "sentences": tried.words.sentences(found),
        "notes": tried.words.notes(found),
        "columns": ["none", *CAUSES],
        "lines": _lines(found["matrix"]),
        "lines_all": found["matrix_all"] and _lines(found["matrix_all"]),
        "diagonal": found["diagonal"],
        "names": NAMES,
        "arms": found["arms"],
        "chart": drawn("remedies", arms_chart, found["arms"]),
        "curves": found["curves"],
        "curves_chart": drawn("curves", curves_chart, found["curves"]),
        "figures": found,
    }


def arms_chart(arms: Sequence[Mapping[str, Any]], width: int) -> alt.HConcatChart | None:
    """Shares recovered and lost by arm, with 95% intervals, in two panels.

    Args:
      arms: of ``remedies.compare``.
      width: pixels.

    Returns:
      The chart, None where there is no arm.
    """
    if not arms:
        return None
    room = max(60, (width - _LABEL - _GAP - 60) // 2)
    return alt.hconcat(
        _panel(arms, "recovered", "share of unlearned rows recovered", True, room),
        _panel(arms, "lost", "share of learned rows lost", False, room),
        spacing=_GAP,
    )


def curves_chart(curves: Sequence[Mapping[str, Any]], width: int) -> alt.VConcatChart | None:
    """Rows recovered and lost a training against updates, a line an arm, in two panels.

    Args:
      curves: of ``remedies.compare``.
      width: pixels.

    Returns:
      The chart, None where there is one budget alone.
    """
    if not curves:
        return None
    room = max(60, width - _END - 60)
    return alt.vconcat(
        _curve(curves, "recovered", "unlearned rows recovered, a training", room),
        _curve(curves, "lost", "learned rows lost, a training", room),
        spacing=_GAP,
    )


def _curve(curves: Sequence[Mapping[str, Any]], key: str, title: str, width: int) -> alt.LayerChart:
    names = [one["arm"].replace("_", " ") for one in curves]
    rows = [
        {
            "arm": name,
            "updates": one["steps"],
            "rows": one[key]["value"],
            "text": f"{name}, {one['steps']:.0f} updates: {one[key]['value']:.0f} {title}",
        }
        for name, one in zip(names, curves, strict=True)
    ]
    most = max(row["rows"] for row in rows)
    ends = {row["arm"]: row for row in rows}  # budgets go upwards: the last one stays
    places = apart([row["rows"] for row in ends.values()], most * _TEXT / _CURVE)
    labels = [row | {"rows": place} for row, place in zip(ends.values(), places, strict=True)]
    ink = "var(--ink)"
    top = max(most, *places)
    at = {
        "x": alt.X("updates:Q", title="updates", scale=alt.Scale(zero=False, nice=False)),
        "y": alt.Y("rows:Q", title=None, scale=alt.Scale(domain=[0, top])),
    }
    base = alt.Chart(_inline(rows))
    lines = base.mark_line(color=ink, opacity=0.5, aria=False).encode(**at, detail="arm:N")
    dots = base.mark_point(size=35, filled=True, opacity=1, color=ink).encode(
        **at, description="text:N"
    )
    told = (
        alt.Chart(_inline(labels))
        .mark_text(align="left", dx=8, fontSize=10, color=ink, aria=False)
        .encode(**at, text="arm:N")
    )
    head = alt.TitleParams(title, anchor="start", frame="group", fontSize=11)
    return (lines + dots + told).properties(width=width, height=_CURVE, title=head)


def apart(values: Sequence[float], least: float) -> list[float]:
    """Places near values, in their order, no two nearer to each other than ``least``.

    Args:
      values: where labels belong.
      least: distance that keeps them legible.

    Returns:
      A place for each; never below the value.
    """
    places = [0.0] * len(values)
    below = float("-inf")
    for i in sorted(range(len(values)), key=lambda i: values[i]):
        below = places[i] = max(values[i], below + least)
    return places


def _inline(rows: Sequence[Mapping[str, Any]]) -> alt.InlineData:
    return alt.InlineData(values=files.to_json(rows), format=alt.DataFormat(type="json"))


def _panel(
    arms: Sequence[Mapping[str, Any]], key: str, title: str, first: bool, width: int
) -> alt.LayerChart:
    names = [one["arm"].replace("_", " ") for one in arms]
    rows = []
    for name, one in zip(names, arms, strict=True):
        cell = one[key]
        if cell["share"] is not None:
            low, high = cell["interval"] or (cell["share"], cell["share"])
            text = f"{name}, {title}: {cell['share']:.3f} ({low:.3f} to {high:.3f}), n {cell['n']}"
            rows.append(
                {"arm": name, "value": cell["share"], "low": low, "high": high, "text": text}
            )
    data = _inline(rows)
    axis = alt.Axis(labels=first, labelLimit=0, domain=False, ticks=False, grid=True)
    y = alt.Y("arm:N", scale=alt.Scale(domain=names), sort=None, title=None, axis=axis)
    x = alt.X(
        "low:Q",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(values=[0, 0.5, 1], labelFlush=True),
        title=None,
    )
    base, ink = alt.Chart(data).encode(y=y), "var(--ink)"
    whiskers = base.mark_rule(strokeWidth=2, color=ink, opacity=0.5, aria=False).encode(
        x=x, x2="high:Q"
    )
    dots = base.mark_point(size=45, filled=True, opacity=1, color=ink).encode(
        x="value:Q", description="text:N"
    )
    told = alt.TitleParams(title, anchor="start", frame="group", fontSize=11)
    return (whiskers + dots).properties(width=width, height=len(names) * _LINE, title=told)


def _lines(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    of = {(cell["cause"], cell["remedy"]): cell for cell in cells}
    return [
        {"cause": cause, "cells": [of.get((cause, remedy)) for remedy in ("none", *CAUSES)]}
        for cause in CAUSES
        if any(key[0] == cause for key in of)
    ]
