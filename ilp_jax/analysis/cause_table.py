"""The causes at the end of a run as a short table, and which flags decide nothing."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from ilp_jax.analysis.cause_shares import TOLD
from ilp_jax.analysis.rules import METHOD
from ilp_jax.analysis.separation import NEVER, SAME, SEPARATES, TOO_FEW, UNMEASURED
from ilp_jax.analysis.titled import titled
from ilp_jax.analysis.unlearned import DEFAULT

POINT = "final"
_LINES = {
    SEPARATES: "more frequent among unlearned rows than among learned ones of like length",
    SAME: "not more frequent there, hence deciding nothing",
    TOO_FEW: "too few rows to tell, hence as set elsewhere",
    NEVER: "never raised",
    UNMEASURED: "not measured in this run, so that nothing is known of it",
}


def render_causes(summary: dict[str, Any]) -> list[Table | Text]:
    """Causes at ``final`` by the default detector and the method ``rules``, stage by stage.

    Args:
      summary: ``summary.json``.

    Returns:
      What rich prints; nothing where no causes were told.
    """
    cells = {
        cell["stage"]: cell
        for cell in summary.get("causes", [])
        if (cell["detector"], cell["point"], cell["method"]) == (DEFAULT, POINT, METHOD)
        and cell["source"] is None
    }
    if not cells:
        return []
    flags = [one for one in _flags(summary) if one["cause"] not in cells[None]["causes"]]
    measured = {one["cause"] for one in flags if one["verdict"] != UNMEASURED}
    unknown = {one["cause"] for one in flags} - measured
    table = titled("Causes of the rows unlearned at the end, by this project's rules")
    table.add_column("rows of")
    table.add_column("unlearned", justify="right")
    for cause in TOLD:
        table.add_column(cause.replace("_", "\n", 1).replace("_", " "), justify="right")
    names = {one["stage"]: one["name"] for one in summary.get("stages", [])}
    for stage in sorted(cells, key=lambda stage: stage or 0):
        cell = cells[stage]
        label = "all stages" if stage is None else f"{stage} {names.get(stage, '')}".strip()
        counts = ("-" if cause in unknown else _count(cell["causes"].get(cause)) for cause in TOLD)
        table.add_row(Text(label), str(cell["n"]), *counts)
    return [table, *_verdicts(summary)]


def _count(figures: dict[str, Any] | None) -> str:
    """The count over its share's interval."""
    if figures is None:
        return "0"
    low, high = (f"{bound:.2f}".removeprefix("0") for bound in figures["interval"])
    return f"{figures['count']}\n{low}-{high}"


def _flags(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """What is known of each flag at the end, by each detector that decides by default."""
    return [
        one
        for one in summary.get("separation", [])
        if one["point"] == POINT and one["detector"] in ("exact_match", "choice", "rouge_l")
    ]


def _verdicts(summary: dict[str, Any]) -> list[Text]:
    """One line a detector: which flags tell unlearned rows from learned ones."""
    found: dict[str, dict[str, list[str]]] = {}
    for one in _flags(summary):
        of_detector = found.setdefault(one["detector"], {})
        of_detector.setdefault(one["verdict"], []).append(one["cause"].replace("_", " "))
    lines = []
    for detector, verdicts in sorted(found.items(), key=lambda item: item[0] != "exact_match"):
        parts = [
            f"{', '.join(verdicts[verdict])}: {line}"
            for verdict, line in _LINES.items()
            if verdict in verdicts
        ]
        lines.append(
            Text(f"Flags at the end, by {detector.replace('_', ' ')}: {'; '.join(parts)}.")
        )
    if summary.get("causes_note"):
        lines.append(Text(summary["causes_note"]))
    return lines
