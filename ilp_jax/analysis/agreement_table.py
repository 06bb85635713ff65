"""The diagnosis against planted truth, as tables in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from ilp_jax.analysis.confusion import TOLD
from ilp_jax.analysis.figures import share_of
from ilp_jax.analysis.titled import titled
from ilp_jax.stats.schema import CAUSES, PLANTED

METHODS = ("rules", "model", "model_blind", "paper", "paper_second", "majority")
DETECTORS = ("sampled", "exact_law", "choice", "exact_match")
"""The first that a run has is the one whose figures are shown in full."""
_LABELS = ("", "_belief")


def render(summary: Mapping[str, Any], worst: Mapping[str, Any] | None = None) -> list:
    """Figures under both labels; macro-F1 by detector; confusion; subclasses.

    Args:
      summary: has the keys of `evaluate.evaluation`, such as ``summary.json``.
      worst: of `worst.worst`, where there are several runs.

    Returns:
      What rich prints; nothing where the run was not evaluated.
    """
    if not summary.get("agreement"):
        return []
    detector = ordered(summary["agreement"], DETECTORS)[0]
    told = summary["agreement"][detector]
    best = best_method(told)
    return [
        _figures(summary, worst, detector),
        _by_detector(summary),
        _confusion(told[best], best, detector),
        _by_detail(summary, detector, best),
        Text(note(summary)),
    ]


def ordered(found: Mapping[str, Any], order: Sequence[str]) -> list[str]:
    """Names in a known order, unknown ones after it."""
    return sorted(found, key=lambda name: (order.index(name) if name in order else 99, name))


def best_method(told: Mapping[str, Any]) -> str:
    """The method shown cause by cause: ``model`` where it was run, else ``rules``."""
    known = [method for method in ("model", "rules") if method in told]
    return known[0] if known else ordered(told, METHODS)[0]


def note(summary: Mapping[str, Any]) -> str:
    """What the figures rest on.

    Args:
      summary: has the keys of `evaluate.evaluation`.
    """
    about = summary["evaluation"]
    worlds = about["worlds"]
    over = f"{worlds} worlds, then the " if worlds > 1 else "the "
    belief = about["belief"]
    text = (
        f"At the point {about['point']}, over rows unlearned there. Intervals: 95%, "
        f"{about['resamples']} bootstrap resamples of {over}groups of rows that belong together "
        f"({about['groups']}; seed {about['seed']}); of shares and recalls, the wider of this "
        "and Wilson's. Unattributed counts as wrong. "
    )
    if belief is None:
        return text + "The base model was not asked: labels by belief are those planted."
    return text + (
        f"By belief: of {belief['asked']} rows planted as missing knowledge or base conflict, "
        f"{belief['became_missing_knowledge']} count as missing knowledge and "
        f"{belief['became_base_conflict']} as base conflict instead, by the base model's answers "
        f"to paraphrases (mean probability of a wrong answer, {belief['threshold']})."
    )


def number(value: float | None, interval: Sequence[float] | None = None) -> str:
    """Two digits and the interval's; a dash where there is nothing."""
    if value is None:
        return "-"
    text = _two(value)
    return text if interval is None else f"{text} [{_two(interval[0])}, {_two(interval[1])}]"


def hull(cell: Mapping[str, Any], other: Sequence[float] | None) -> list[float]:
    """The wider of a share's interval over rows and its bootstrap interval, end by end."""
    low, high = cell["interval"]
    return [low, high] if other is None else [min(low, other[0]), max(high, other[1])]


def share_text(cell: Mapping[str, Any] | None, other: Sequence[float] | None) -> str:
    """A share with its `hull`."""
    return "-" if cell is None else number(cell["share"], hull(cell, other))


def recall_text(figures: Mapping[str, Any], cause: str) -> str:
    """A cause's recall with its `hull`: the bootstrap gives no width to a recall of 0 or 1."""
    n, right = figures["n_by_cause"][cause], figures["confusion"][cause][cause]
    return share_text(share_of(right, n), figures["intervals"]["recall"][cause])


def _two(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")


def _figures(summary: Mapping[str, Any], worst: Mapping[str, Any] | None, detector: str) -> Table:
    table = titled(
        f"Diagnosis against planted truth, detector {detector.replace('_', ' ')}: value with "
        "its 95% interval"
    )
    for name in ("", "as planted", "n", "by the base's belief", "n"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=bool(name))
    if worst:
        table.add_column("worst run, as planted", justify="right")
    for name, *cells, place in _lines(summary, worst, detector):
        table.add_row(name, *cells, *([_place(place)] if worst else []))
    return table


def _place(one: Mapping[str, Any] | None) -> Text:
    return Text("-" if one is None else f"{_two(one['value'])}  {one['cell']}")


def _lines(summary: Mapping[str, Any], worst: Mapping[str, Any] | None, detector: str):
    """Lines of the main table: name, value and n under both labels, worst run."""
    shares = {
        (label, one["planted"]): one
        for label in _LABELS
        for one in summary[f"planted_shares{label}"]
        if one["detector"] == detector and one["detail"] is None
    }
    low = {
        one["planted"]: one
        for one in (worst or {}).get("planted_shares", ())
        if one["detector"] == detector
    }
    for group in ("control", *CAUSES, "fault", "filler"):
        if ("", group) in shares or ("_belief", group) in shares:
            of = [shares.get((label, group)) for label in _LABELS]
            cells = [(share_text(one, one and one["resampled"]), _n(one)) for one in of]
            yield f"{_spaced(group)} unlearned", *cells[0], *cells[1], low.get(group)
    told = [summary[f"agreement{label}"][detector] for label in _LABELS]
    lowest = (worst or {}).get("agreement", {}).get(detector, {})
    methods = ordered(told[0], METHODS)
    for method in methods:
        of = [one[method] for one in told]
        cells = [(number(o["macro_f1"], o["intervals"]["macro_f1"]), _n(o)) for o in of]
        at = lowest.get(method, {}).get("macro_f1")
        yield f"macro-F1, {_spaced(method)}", *cells[0], *cells[1], at
    best = best_method(told[0])
    for cause in CAUSES:
        cells = [
            (
                recall_text(one[best], cause),
                str(one[best]["n_by_cause"][cause]),
            )
            for one in told
        ]
        at = lowest.get(best, {}).get("recall", {}).get(cause)
        yield f"recall of {_spaced(cause)}, {best}", *cells[0], *cells[1], at
    names = {"fault": "fault left unattributed", "causes": "causes left unattributed"}
    for method in [name for name in ("rules", "model", "model_blind") if name in methods]:
        for group, name in names.items():
            cells = [
                (
                    share_text(
                        one[method]["unattributed"][group],
                        one[method]["intervals"]["unattributed"][group],
                    ),
                    _n(one[method]["unattributed"][group]),
                )
                for one in told
            ]
            at = lowest.get(method, {}).get("unattributed", {}).get(group)
            yield f"{name}, {_spaced(method)}", *cells[0], *cells[1], at
    for method in methods:
        if told[0][method]["ece"] is not None:
            of = [one[method] for one in told]
            cells = [(number(o["ece"], o["intervals"]["ece"]), _n(o)) for o in of]
            at = lowest.get(method, {}).get("ece")
            yield f"calibration error, {_spaced(method)}", *cells[0], *cells[1], at


def _n(one: Mapping[str, Any] | None) -> str:
    return str(one["n"]) if one else "0"


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _by_detector(summary: Mapping[str, Any]) -> Table:
    told = summary["agreement"]
    table = titled("Macro-F1 over the five causes as planted, by detector")
    table.add_column("detector")
    table.add_column("n", justify="right")
    methods = ordered({method for one in told.values() for method in one}, METHODS)
    for method in methods:
        table.add_column(_spaced(method), justify="right")
    for detector in ordered(told, DETECTORS):
        of = told[detector]
        cells = [
            number(of[m]["macro_f1"], of[m]["intervals"]["macro_f1"]) if m in of else "-"
            for m in methods
        ]
        n = max(one["n"] for one in of.values())
        table.add_row(_spaced(detector), str(n), *(cell.replace(" [", "\n[") for cell in cells))
    return table


def _confusion(figures: Mapping[str, Any], method: str, detector: str) -> Table:
    table = titled(
        f"Rows by what was planted and what {_spaced(method)} told, detector {_spaced(detector)}"
    )
    table.add_column("planted")
    for name in TOLD:
        table.add_column(_spaced(name).replace(" ", "\n", 1), justify="right")
    for true, line in figures["confusion"].items():
        table.add_row(_spaced(true), *(str(line[name]) for name in TOLD))
    return table


def _by_detail(summary: Mapping[str, Any], detector: str, method: str) -> Table:
    table = titled(f"By subclass, detector {_spaced(detector)}: with Wilson's 95% interval")
    for name in ("planted", "subclass"):
        table.add_column(name)
    for name in ("unlearned", "n", f"recall, {_spaced(method)}", "n"):
        table.add_column(name, justify="right")
    recall = summary["agreement"][detector][method]["recall_by_detail"]
    cells = [
        one
        for one in summary["planted_shares"]
        if one["detector"] == detector and one["detail"] is not None
    ]
    for one in sorted(cells, key=lambda c: (PLANTED.index(c["planted"]), c["detail"])):
        right = recall.get(one["planted"], {}).get(one["detail"])
        table.add_row(
            _spaced(one["planted"]),
            Text(one["detail"]),
            share_text(one, None),
            str(one["n"]),
            share_text(right, None),
            _n(right),
        )
    return table
