"""The charts of a report, in Altair; every one tells its series apart without colour too.

Colours are the names of CSS variables, which the page sets for light, dark and paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from ilp_jax import files
from ilp_jax.analysis.report.text import visible

DETECTORS = {
    "default": "default",
    "exact_match": "exact match",
    "exact_law": "exact law",
    "sampled": "drawn answers",
    "choice": "choice",
    "rouge_l": "ROUGE-L",
}
FATES = {
    "learned": "learned at the end",
    "lost": "learned, then lost",
    "never": "never learned",
    "unlearned": "unlearned at the end",
    "unknown": "no verdict at the end",
}
MEASURES = {
    "loss": "loss (nats a token)",
    "grad_norm": "gradient norm",
}
_INK, _MUTED, _GRID = "var(--ink)", "var(--muted)", "var(--grid)"
_SHAPES = {
    "exact_match": "circle",
    "exact_law": "square",
    "sampled": "triangle-up",
    "choice": "diamond",
    "rouge_l": "cross",
    "default": "triangle-down",
}
_DASHES = {
    "learned": [1, 0],
    "lost": [6, 3],
    "never": [2, 2],
    "unlearned": [8, 3, 2, 3],
    "unknown": [1, 3],
}
_PANEL_HEIGHT = 210
_SHARE = alt.Axis(values=[0, 0.2, 0.4, 0.6, 0.8, 1], labelFlush=False)
MOST_PANELS = 12
"""Stages drawn of more; the page says so, and its numbers have all."""


def shares_chart(
    cells: Sequence[Mapping[str, Any]],
    width: int,
    title: str = "share unlearned",
    letters: int = 18,
) -> alt.Chart | None:
    """Share unlearned by point (or run, or group) and detector: dots with 95% intervals.

    Args:
      cells: ``label`` (the row), ``detector``, ``share``, ``interval``, ``n``, ``unlearned``
        (a count; absent where the figure is no share of rows), in the order of display.
      width: pixels.
      title: what the axis across shows.
      letters: of a label that are kept.

    Returns:
      The chart, None where there are no cells.
    """
    if not cells:
        return None
    rows = [
        {
            "label": label(cell["label"], letters),
            "detector": DETECTORS.get(cell["detector"], cell["detector"]),
            "share": cell["share"],
            "low": cell["interval"][0],
            "high": cell["interval"][1],
            "text": f"{visible(cell['label'])}, {DETECTORS.get(cell['detector'])}: "
            + (f"{cell['unlearned']} of {cell['n']} = " if "unlearned" in cell else "")
            + f"{cell['share']:.3f} ({cell['interval'][0]:.3f} to {cell['interval'][1]:.3f})",
        }
        for cell in cells
    ]
    labels = list(dict.fromkeys(row["label"] for row in rows))
    found = {row["detector"] for row in rows}
    names = [name for name in DETECTORS.values() if name in found]
    base = alt.Chart(_data(rows)).encode(
        y=alt.Y(
            "label:N",
            sort=labels,
            title=None,
            axis=alt.Axis(labelLimit=0, domain=False, ticks=False, grid=True, bandPosition=0),
            scale=alt.Scale(paddingInner=0.3, paddingOuter=0.15),
        ),
        yOffset=alt.YOffset("detector:N", sort=names),
        color=alt.Color("detector:N", scale=_of_detectors({}), legend=None),
    )
    across = alt.X("low:Q", scale=alt.Scale(domain=[0, 1]), axis=_SHARE, title=title)
    whiskers = base.mark_rule(strokeWidth=2, aria=False).encode(x=across, x2="high:Q")
    dots = base.mark_point(size=70, filled=True, opacity=1).encode(
        x="share:Q",
        shape=alt.Shape("detector:N", scale=_of_detectors(_SHAPES), legend=None),
        description="text:N",
    )
    height = len(labels) * (14 * len(names) + 12)
    return (whiskers + dots).properties(width=width - 6 * letters, height=height)


def trajectories_chart(
    rows: Sequence[Mapping[str, Any]],
    measure: str,
    stages: Mapping[int, str],
    ends: Sequence[float],
    width: int,
) -> alt.ConcatChart | None:
    """Medians with quartile bands over steps, one panel a stage, one line a fate.

    Args:
      rows: ``trajectories`` of the figures.
      measure: ``loss`` or ``grad_norm``.
      stages: names by number.
      ends: the steps at which stages end.
      width: pixels.

    Returns:
      The chart, None where nothing was measured.
    """
    of = [row for row in rows if row["measure"] == measure and row["median"] > 0]
    shown = sorted({row["of_stage"] for row in of})[:MOST_PANELS]
    if not shown:
        return None
    floor = min(row["median"] for row in of) / 3
    columns = min(len(shown), 3) if width > 500 else 1
    panel = (width - 60) // columns - (40 if columns > 1 else 15)
    panels = []
    for stage in shown:
        values = [
            {
                "step": row["step"],
                "median": row["median"],
                "low": max(row["low"], floor),
                "high": max(row["high"], floor),
                "fate": FATES[row["fate"]],
            }
            for row in of
            if row["of_stage"] == stage
        ]
        title = label(f"stage {stage}: {stages.get(stage, 'rows')}", panel // 9)
        panels.append(_panel(values, title, measure, ends, panel))
    return alt.concat(*panels, columns=columns, spacing=18).resolve_scale(x="shared", y="shared")


def _panel(
    values: Sequence[Mapping[str, Any]],
    title: str,
    measure: str,
    ends: Sequence[float],
    width: int,
) -> alt.LayerChart:
    base = alt.Chart(_data(values)).encode(
        x=alt.X("step:Q", title="step", axis=alt.Axis(tickCount=5, grid=False)),
        color=alt.Color("fate:N", scale=_of_fates({}), legend=None),
    )
    scale = alt.Scale(type="log", nice=False)
    axis = alt.Axis(values=[10.0**power for power in range(-8, 9)], format="~g")
    band = base.mark_area(opacity=0.16, aria=False).encode(
        y=alt.Y("low:Q", title=MEASURES[measure], scale=scale, axis=axis), y2="high:Q"
    )
    line = base.mark_line(strokeWidth=2.5, aria=False).encode(
        y=alt.Y("median:Q", scale=scale),
        strokeDash=alt.StrokeDash("fate:N", scale=_of_fates(_DASHES), legend=None),
    )
    stage_ends = (
        alt.Chart(_data([{"step": step} for step in ends]))
        .mark_rule(color=_MUTED, strokeWidth=1, strokeDash=[1, 3], aria=False)
        .encode(x="step:Q")
    )
    heading = alt.TitleParams(title, anchor="start")
    return (stage_ends + band + line).properties(width=width, height=_PANEL_HEIGHT, title=heading)


def causes_chart(cells: Sequence[Mapping[str, Any]], width: int) -> alt.Chart | None:
    """Causes of the unlearned rows: bars with 95% intervals.

    Args:
      cells: ``causes`` of the figures, of one method, all stages and sources together.
      width: pixels.

    Returns:
      The chart, None without cells.
    """
    if not cells:
        return None
    rows = [
        {
            "cause": cell["cause"].replace("_", " "),
            "share": cell["share"],
            "low": cell["interval"][0],
            "high": cell["interval"][1],
            "label": f"{cell['count']} of {cell['n']}",
        }
        for cell in cells
    ]
    order = [row["cause"] for row in rows]
    base = alt.Chart(_data(rows)).encode(
        y=alt.Y("cause:N", sort=order, title=None, axis=alt.Axis(labelLimit=0, domain=False))
    )
    across = alt.X(
        "share:Q",
        scale=alt.Scale(domain=[0, 1]),
        axis=_SHARE,
        title="share of the unlearned rows",
    )
    bars = base.mark_bar(height=14, color="var(--bar)", opacity=0.55).encode(
        x=across, description="label:N"
    )
    whiskers = base.mark_rule(strokeWidth=2, color=_INK, aria=False).encode(x="low:Q", x2="high:Q")
    labels = base.mark_text(align="left", dx=6, color=_INK).encode(x="high:Q", text="label:N")
    return (bars + whiskers + labels).properties(width=width - 190, height=len(rows) * 30)


def reliability_chart(cells: Sequence[Mapping[str, Any]], width: int) -> alt.LayerChart | None:
    """Share right over the probability told: a dot a bin, and the diagonal.

    Args:
      cells: ``told``, ``right`` (both [0, 1]), ``n``.
      width: pixels.

    Returns:
      The chart, None without cells.
    """
    if not cells:
        return None
    rows = [
        {**cell, "text": f"told {cell['told']:.3f}, right {cell['right']:.3f} of {cell['n']}"}
        for cell in cells
    ]
    scale = alt.Scale(domain=[0, 1])
    ends = alt.Chart(_data([{"told": end, "right": end} for end in (0, 1)]))
    diagonal = ends.mark_line(color=_MUTED, strokeDash=[4, 4], strokeWidth=1, aria=False)
    dots = alt.Chart(_data(rows)).mark_point(size=70, filled=True, opacity=1, color="var(--bar)")
    layers = [
        layer.encode(
            x=alt.X("told:Q", scale=scale, axis=_SHARE, title="mean probability told"),
            y=alt.Y("right:Q", scale=scale, axis=_SHARE, title="share right"),
        )
        for layer in (diagonal, dots.encode(description="text:N"))
    ]
    side = min(width - 70, 320)
    return alt.layer(*layers).properties(width=side, height=side)


def _data(rows: Sequence[Mapping[str, Any]]) -> alt.InlineData:
    """The rows as one text: Altair would copy and check each of them many times over."""
    return alt.InlineData(values=files.to_json(rows), format=alt.DataFormat(type="json"))


def label(text: object, most: int) -> str:
    """A text for an axis or a title, cut here: Vega cuts characters past U+FFFF in half.

    Args:
      text: the text.
      most: characters that fit.
    """
    line = " ".join(visible(text).split())
    return line if len(line) <= most else line[: most - 1] + "\u2026"


def _of_detectors(values: Mapping[str, Any]) -> alt.Scale:
    """A value a detector, the same in every chart; their colours by default."""
    return alt.Scale(
        domain=list(DETECTORS.values()),
        range=[values.get(name, f"var(--{name.replace('_', '-')})") for name in DETECTORS],
    )


def _of_fates(values: Mapping[str, Any]) -> alt.Scale:
    """A value a fate, the same in every chart; their colours by default."""
    return alt.Scale(
        domain=list(FATES.values()), range=[values.get(name, f"var(--{name})") for name in FATES]
    )


def themed(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """The chart's Vega-Lite specification in the page's fonts and colours."""
    text = {"labelColor": _INK, "titleColor": _MUTED, "labelFontSize": 12, "titleFontSize": 12}
    look = chart.configure(
        background="transparent",
        padding=8,
        font="system-ui, sans-serif",
        axis={
            **text,
            "titleFontWeight": "normal",
            "gridColor": _GRID,
            "domainColor": _MUTED,
            "tickColor": _MUTED,
        },
        title={"color": _INK, "fontSize": 13, "fontWeight": "bold"},
        view={"stroke": None},
    )
    return look.to_dict()
