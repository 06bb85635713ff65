"""Shares and macro-F1 of several runs: a small panel a measure, a line a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt

from ilp_jax import files
from ilp_jax.analysis.report.charts import label
from ilp_jax.analysis.report.text import visible

KINDS = {"share": "share unlearned", "macro_f1": "macro-F1"}
_COLUMNS, _NARROW_COLUMNS = 8, 2
_LABELS = {True: 24, False: 12}  # characters of a run's name, on a wide page and a narrow one
_CHARACTER = 6.5  # pixels
_GAP, _LINE = 12, 18


def regimes_chart(figures: Mapping[str, Any], width: int) -> alt.VConcatChart | None:
    """Dots with 95% intervals, one panel a measure, one line a run in the order of the table.

    Args:
      figures: of `regimes.regimes`.
      width: pixels.

    Returns:
      The chart, None where nothing was measured.
    """
    wide = width > 500
    columns = _COLUMNS if wide else _NARROW_COLUMNS
    names = [label(run["name"], _LABELS[wide]) for run in figures["runs"]]
    room = width - max(map(len, names)) * _CHARACTER - 30 - _GAP * (columns - 1)
    lines = []
    for kind in KINDS:
        places = [i for i, one in enumerate(figures["measures"]) if one["kind"] == kind]
        for start in range(0, len(places), columns):
            shown = places[start : start + columns]
            panels = [
                _panel(figures, i, names, i == shown[0], max(40, int(room / columns)))
                for i in shown
            ]
            lines.append(alt.hconcat(*panels, spacing=_GAP))
    return alt.vconcat(*lines, spacing=_GAP) if lines else None


def _panel(
    figures: Mapping[str, Any], place: int, names: list[str], first: bool, width: int
) -> alt.LayerChart:
    measure = figures["measures"][place]
    rows = []
    for name, run in zip(names, figures["runs"], strict=True):
        cell = run["cells"][place]
        if cell is not None:
            low, high = cell["interval"] or (cell["value"], cell["value"])
            told = f"{visible(run['name'])}, {KINDS[measure['kind']]}, {visible(measure['of'])}"
            text = f"{told}: {cell['value']:.3f} ({low:.3f} to {high:.3f}), n {cell['n']}"
            rows.append(
                {"run": name, "value": cell["value"], "low": low, "high": high, "text": text}
            )
    data = alt.InlineData(values=files.to_json(rows), format=alt.DataFormat(type="json"))
    axis = alt.Axis(
        labels=first, labelLimit=0, domain=False, ticks=False, grid=True, bandPosition=0.5
    )
    base = alt.Chart(data).encode(
        y=alt.Y("run:N", scale=alt.Scale(domain=names), sort=None, title=None, axis=axis)
    )
    across = alt.X(
        "low:Q",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(values=[0, 0.5, 1], labelFlush=True),
        title=KINDS[measure["kind"]] if first else None,
    )
    ink = "var(--ink)"
    whiskers = base.mark_rule(strokeWidth=2, color=ink, opacity=0.5, aria=False).encode(
        x=across, x2="high:Q"
    )
    dots = base.mark_point(size=45, filled=True, opacity=1, color=ink).encode(
        x="value:Q", description="text:N"
    )
    words = visible(measure["of"]).replace("_", " ").rsplit(" ", 1)
    title = alt.TitleParams(words, anchor="start", frame="group", fontSize=11)
    return (whiskers + dots).properties(width=width, height=len(names) * _LINE, title=title)
