"""The summary as tables in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ilp_jax.analysis import agreement_table, detection_table, no_verdict
from ilp_jax.analysis.cause_table import render_causes
from ilp_jax.analysis.shares import point_order
from ilp_jax.analysis.titled import titled

TWINS = "planted_twin"
DETECTORS = {
    "exact_match": "exact match",
    "rouge_l": "ROUGE-L",
    "sampled": "the answers drawn",
    "choice": "choice",
}
UNDER = "computed_under"
"""In the summary: see ``run_record.computed_under``."""

Line = tuple[int | None, str | None]
"""Stage and source of a table's line; None stands for all."""


def render(summary: dict[str, Any]) -> Group:
    """The tables that a run ends with.

    Args:
      summary: ``summary.json``.

    Returns:
      Something that rich prints: shares unlearned by point, per stage and source, what was
      learned and lost, the causes at the end, their agreement with what was planted where
      that was evaluated, and notes on what the figures rest on.
    """
    points = sorted({cell["point"] for cell in summary["shares"]}, key=point_order)
    detectors = [d for d in DETECTORS if any(c["detector"] == d for c in summary["shares"])]
    tables = [_shares(summary, detector, points) for detector in detectors]
    followed = {row["detector"] for row in summary["learned_and_lost"]}
    followed = [detector for detector in detectors if detector in followed]
    # Two detectors a table, so that it fits a terminal.
    pairs = [followed[i : i + 2] for i in range(0, len(followed), 2)]
    tables += [_learned_and_lost(summary, pair) for pair in pairs]
    tables += detection_table.side_by_side(summary)
    tables += [*render_causes(summary), *agreement_table.render(summary)]
    told = summary.get(no_verdict.FIGURES)
    front = [Text(no_verdict.sentence(told))] if told and not told["known"] else []
    return Group(*front, *tables, *_notes(summary))


def _shares(summary: dict[str, Any], detector: str, points: Sequence[str]) -> Table:
    cells = {
        (c["stage"], c["source"], c["point"]): c
        for c in summary["shares"]
        if c["detector"] == detector
    }
    # A detector such as `sampled` is not asked everywhere.
    points = [point for point in points if any(key[2] == point for key in cells)]
    table = titled(f"Share unlearned by {DETECTORS[detector]}, with its 95% interval", narrow=True)
    table.add_column("rows of")
    table.add_column("n", justify="right")
    for point in points:
        table.add_column(point, justify="right", no_wrap=True)
    for stage, source in _lines({(stage, source) for stage, source, _ in cells}):
        of_line = [cells.get((stage, source, point)) for point in points]
        n = max(cell["n"] for cell in of_line if cell)
        table.add_row(_label(summary, stage, source), str(n), *(_cell(cell, n) for cell in of_line))
    return table


def _cell(cell: dict[str, Any] | None, n: int) -> str:
    """The share over its interval: short lines, so that seven points fit a terminal."""
    if cell is None:
        return "-"
    low, high = cell["interval"]
    lines = [_two_digits(cell["share"]), f"{_two_digits(low)}-{_two_digits(high)}"]
    if cell["n"] < n:  # such as a point that not every stage reached
        lines.append(f"of {cell['n']}")
    return "\n".join(lines)


def _two_digits(share: float) -> str:
    return f"{share:.2f}".removeprefix("0")


def _learned_and_lost(summary: dict[str, Any], detectors: Sequence[str]) -> Table:
    rows = {
        (r["detector"], r["stage"], r["source"]): r
        for r in summary["learned_and_lost"]
        if r["detector"] in detectors
    }
    table = titled(
        "Learned at the end of the row's own stage, and of these lost by the end", narrow=True
    )
    table.add_column("rows of")
    table.add_column("n", justify="right")
    for detector in detectors:
        for column in ("learned", "lost", "gained", "at the end"):
            table.add_column(f"{detector.split('_')[0]}\n{column}", justify="right")
    for stage, source in _lines({(stage, source) for _, stage, source in rows}):
        found = [rows.get((detector, stage, source)) for detector in detectors]
        counts = [
            str(row[key]) if row else "-"
            for row in found
            for key in ("learned", "lost", "gained", "learned_final")
        ]
        n = max(row["n"] for row in found if row)
        table.add_row(_label(summary, stage, source), str(n), *counts)
    return table


def _lines(found: set[Line]) -> list[Line]:
    """All rows, planted ones, then each stage with its sources where it has several."""
    several = {stage for stage, source in found if source and source != TWINS and stage}
    several = {
        stage
        for stage in several
        if sum(1 for other, source in found if other == stage and source) > 1
    }
    kept = {
        (stage, source)
        for stage, source in found
        if source is None or stage in several or (stage is None and source == TWINS)
    }
    return sorted(kept, key=lambda line: (line[0] or 0, line[1] is not None, line[1] or ""))


def _label(summary: dict[str, Any], stage: int | None, source: str | None) -> Text:
    names = {one["stage"]: one["name"] for one in summary.get("stages", [])}
    if stage is None:
        return Text("all stages" if source is None else f"  {source}")
    if source is None:
        return Text(f"{stage} {names.get(stage, '')}".strip())
    return Text(f"  {source}")


def _notes(summary: dict[str, Any]) -> list[Text]:
    counts, tuned_elsewhere = summary["n_examples"], bool(summary.get("absent"))
    normalised = f"Loss normalised by {summary['loss_normalization']}. "
    trained = "rows given as trained" if tuned_elsewhere else "trained rows"
    lines = [
        f"Model: {summary.get('weights', 'unknown')}. {'' if tuned_elsewhere else normalised}"
        f"{counts['trained']} {trained}, {counts['held_out']} held out.",
        f"One run, seed {summary['seed']}: the intervals (Wilson) are over examples, not seeds."
        + _epochs(summary),
    ]
    told = summary.get(no_verdict.FIGURES)
    if told and told["known"]:  # else it stands above all tables
        lines += filter(None, [no_verdict.sentence(told)])
    if counts["planted_twins"]:
        lines.append(
            f"{counts['planted_twins']} rows of source {TWINS} are planted: each repeats "
            "another row's prompt with a wrong answer, so of each such pair at most one can "
            "be learned."
        )
    expected = summary["expected_none_of_n"]
    if "final" in expected["share"]:
        base = expected["share"].get("base")
        lines.append(
            f"Expected share with 0 of {expected['n_samples']} sampled answers right at "
            f"temperature {expected['temperature']} (exact law, nothing drawn): "
            f"{expected['share']['final']:.2f} at the end"
            + (f", {base:.2f} for the base model." if base is not None else ".")
        )
    lines += [
        f"At {cell['point']} {cell['n']} rows were not drawn: by the exact law drawing would "
        f"call each unlearned with probability {cell['probability']:g} at most, and "
        f"{cell['expected_unlearned']:.2g} of them all in expectation. They count as learned."
        for cell in summary.get("screened", [])
    ]
    if not tuned_elsewhere:
        lines.append(_convergence(summary))
    lines += [
        f"Left out of stage {stage['stage']} ({stage['name']}): "
        + ", ".join(f"{n} {reason.replace('_', ' ')}" for reason, n in stage["dropped"].items())
        + "."
        for stage in summary.get("stages", [])
        if stage.get("dropped")
    ]
    lines += detection_table.notes(summary)
    lines += [*summary.get("notes", []), *summary.get(UNDER, [])]
    return [Text(line) for line in lines]


def _epochs(summary: dict[str, Any]) -> str:
    """What the points of single epochs are, where there are any."""
    points = {cell["point"] for cell in summary["shares"] if cell["point"].startswith("epoch_")}
    return "".join(
        f" Point {point} is the end of epoch {point[6:]} of each row's own stage."
        for point in sorted(points, key=point_order)
    )


def _convergence(summary: dict[str, Any]) -> str:
    told = (
        f"stage {one['stage']} {converged(summary, one['stage'])}"
        for one in summary.get("stages", [])
    )
    return f"Convergence: {', '.join(told)}."


def converged(summary: dict[str, Any], stage: int) -> str:
    """When a stage converged, in words.

    Args:
      summary: ``summary.json``.
      stage: the stage's number.
    """
    epoch = summary["converged"].get(str(stage))
    if epoch is not None:
        return f"at epoch {epoch}"
    return "not reached" if summary.get("converged_asked", True) else "not asked"


def notes(summary: dict[str, Any]) -> list[str]:
    """What the figures rest on, a sentence or two each.

    Args:
      summary: ``summary.json``.
    """
    return [line.plain for line in _notes(summary)]
