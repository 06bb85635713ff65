"""The summary as tables in a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ilp_jax.analysis.shares import point_order

TWINS = "planted_twin"
DETECTORS = {"exact_match": "exact match", "choice": "choice"}


def render(summary: dict[str, Any]) -> Group:
    """The tables that a run ends with.

    Args:
      summary: ``summary.json``.

    Returns:
      Something that rich prints: shares unlearned by point, per stage and source, what was
      learned and lost, and notes on what the figures rest on.
    """
    points = sorted({cell["point"] for cell in summary["shares"]}, key=point_order)
    detectors = [d for d in DETECTORS if any(c["detector"] == d for c in summary["shares"])]
    tables = [_shares(summary, detector, points) for detector in detectors]
    tables.append(_learned_and_lost(summary, detectors))
    return Group(*tables, *_notes(summary))


def _shares(summary: dict[str, Any], detector: str, points: list[str]) -> Table:
    table = Table(
        title=f"Unlearned by {DETECTORS[detector]}: share [95% interval]",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("stage")
    table.add_column("source")
    table.add_column("rows", justify="right")
    for point in points:
        table.add_column(point, justify="right", no_wrap=True)
    cells = {
        (c["stage"], c["source"], c["point"]): c
        for c in summary["shares"]
        if c["detector"] == detector
    }
    names = {stage["stage"]: stage["name"] for stage in summary.get("stages", [])}
    by_source = {(None, s) for stage, s, _ in cells if stage is None and s == TWINS}
    lines = {(stage, source) for stage, source, _ in cells if stage is not None} | by_source
    counts: dict[int, int] = {}
    for stage, source in lines:
        if source is not None and stage is not None:
            counts[stage] = counts.get(stage, 0) + 1
    # A stage of one source would show the same line twice.
    lines = {(stage, s) for stage, s in lines if s is None or counts.get(stage, 2) > 1}
    for stage, source in [(None, None), *sorted(lines - {(None, None)}, key=_line_order)]:
        of_line = [cells.get((stage, source, point)) for point in points]
        n = max((cell["n"] for cell in of_line if cell), default=0)
        label = "all" if stage is None else f"{stage} {names.get(stage, '')}".strip()
        table.add_row(
            Text(label),
            Text(_source(source)),
            str(n),
            *(_cell(cell) for cell in of_line),
            end_section=stage is None and source is None,
        )
    return table


def _cell(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "-"
    low, high = cell["interval"]
    return f"{cell['share']:.2f} ({low:.2f}-{high:.2f})"


def _learned_and_lost(summary: dict[str, Any], detectors: Iterable[str]) -> Table:
    table = Table(
        title="Learned by the end of its own stage, and lost by the end of training",
        title_justify="left",
        title_style="bold",
    )
    for column in ("detector", "stage", "source"):
        table.add_column(column)
    for column in ("rows", "learned", "of these lost", "gained later", "learned at the end"):
        table.add_column(column, justify="right")
    names = {stage["stage"]: stage["name"] for stage in summary.get("stages", [])}
    rows = [row for row in summary["learned_and_lost"] if row["detector"] in detectors]
    for row in rows:
        siblings = [
            r for r in rows if (r["detector"], r["stage"]) == (row["detector"], row["stage"])
        ]
        if row["source"] is not None and len(siblings) == 2:
            continue
        table.add_row(
            DETECTORS[row["detector"]],
            Text(f"{row['stage']} {names.get(row['stage'], '')}".strip()),
            Text(_source(row["source"])),
            *(str(row[key]) for key in ("n", "learned", "lost", "gained", "learned_final")),
        )
    return table


def _notes(summary: dict[str, Any]) -> list[Text]:
    counts = summary["n_examples"]
    lines = [f"Model: {summary.get('weights', 'unknown')}."]
    lines.append(
        f"{counts['trained']} trained rows, {counts['held_out']} held out; loss normalised by "
        f"{summary['loss_normalization']}; one run, seed {summary['seed']}: the intervals are "
        "over examples (Wilson), not over seeds."
    )
    if counts["planted_twins"]:
        lines.append(
            f"{counts['planted_twins']} rows of source {TWINS} are planted: each repeats "
            "another row's prompt with a wrong answer, so of each pair one must fail."
        )
    lines += summary.get("notes", [])
    expected = summary["expected_none_of_n"]
    if "final" in expected["share"]:
        lines.append(
            f"Expected share with 0 of {expected['n_samples']} sampled answers right at "
            f"temperature {expected['temperature']}: {expected['share']['final']:.2f} at the end "
            f"(exact law, nothing drawn), {expected['share'].get('base', float('nan')):.2f} for "
            "the base model."
        )
    converged = summary.get("converged", {})
    for stage in summary.get("stages", []):
        epoch = converged.get(str(stage["stage"]))
        reached = f"at epoch {epoch}" if epoch else "not reached"
        lines.append(f"Stage {stage['stage']} ({stage['name']}): convergence {reached}.")
        if stage.get("dropped"):
            reasons = ", ".join(f"{n} {reason}" for reason, n in stage["dropped"].items())
            lines.append(f"  rows of its source left out: {reasons}.")
    return [Text(line) for line in lines]


def _source(source: str | None) -> str:
    if source == TWINS:
        return f"{TWINS} (planted)"
    return source or "all"


def _line_order(line: tuple[int | None, str | None]) -> tuple[int, str]:
    stage, source = line
    return (10**6 if stage is None else stage, source or "")
