"""Remedies as tables in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from ilp_jax.analysis.remedies import words
from ilp_jax.analysis.titled import titled
from ilp_jax.stats.schema import CAUSES

_SHORT = {
    "none": "none",
    "missing_knowledge": "missing",
    "base_conflict": "base",
    "data_conflict": "data",
    "left_side_forgetting": "left side",
    "insufficient_training": "training",
}


def render(found: Mapping[str, Any]) -> list:
    """The matrix, each cause's own remedy, the arms, and what they say.

    Args:
      found: of `compare.compare`.

    Returns:
      What rich prints.
    """
    parts: list[Any] = []
    if found["matrix"]:
        title = "Recovered, by diagnosed cause and remedy dealt at random: share (rows)"
        parts += [_matrix(found["matrix"], title), _diagonal(found["diagonal"])]
    if found["matrix_all"]:
        parts.append(_matrix(found["matrix_all"], "The same with all fillers"))
    parts.append(_arms(found["arms"]))
    if found["curves"]:
        parts.append(_curves(found["curves"]))
    lines = [words.headline(found), *words.sentences(found), *words.notes(found)]
    return [*parts, *map(Text, lines)]


def _matrix(cells: Sequence[Mapping[str, Any]], title: str) -> Table:
    of = {(cell["cause"], cell["remedy"]): cell for cell in cells}
    table = titled(title)
    table.add_column("diagnosed")
    for name in _SHORT.values():
        table.add_column(name, justify="right")
    for cause in CAUSES:
        row = [of.get((cause, remedy)) for remedy in _SHORT]
        if any(row):
            shown = [_cell(cell, cell and cell["remedy"] == cause) for cell in row]
            table.add_row(words.NAMES[cause], *shown)
    return table


def _cell(cell: Mapping[str, Any] | None, own: bool) -> Text:
    text = "-" if cell is None else f"{_two(cell['share'])} ({cell['n']})"
    return Text(text, style="bold" if own else "")


def _diagonal(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = titled("Each cause under its own remedy")
    columns = ("own", "treated", "none", "sham", "own less sham", "p (Holm)", "paraphrase")
    table.add_column("diagnosed")
    for name in columns:
        table.add_column(name, justify="right")
    for one in rows:
        sham, none = one["over_sham"], one["none"]
        p = sham.get("p_holm")
        table.add_row(
            words.NAMES[one["cause"]],
            f"{_two(one['share'])} ({one['n']})",
            str(one["treated"]),
            "-" if none is None else _two(none["share"]),
            _two(sham.get("sham")),
            _with_interval(sham),
            "-" if p is None else ("<.001" if p < 0.001 else f"{p:.3f}".lstrip("0")),
            f"{_two(one['paraphrase']['share'])} ({one['paraphrase']['n']})",
        )
    return table


def _arms(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = titled("Whole trainings at the same number of updates")
    columns = ("recovered", "on a paraphrase", "lost", "deleted", "net", "net, all rows", "general")
    table.add_column("arm")
    for name in columns:
        table.add_column(name, justify="right")
    for one in rows:
        deleted = one["deleted"] / one["trainings"]
        wrongly = one["deleted_wrongly"]
        table.add_row(
            one["arm"].replace("_", " "),
            _share(one["recovered"]),
            _share(one["mended"]),
            _share(one["lost"]),
            f"{deleted:.0f}"
            + (f" ({wrongly / one['trainings']:.0f} right)" if wrongly is not None else ""),
            _net(one["net"]),
            _net(one["net_all"]),
            "-" if one["general_loss"] is None else f"{one['general_loss']:.2f}",
        )
    return table


def _curves(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = titled("The same at other budgets: rows a training")
    table.add_column("arm")
    for name in ("budget", "updates", "recovered", "lost", "net", "net, all rows"):
        table.add_column(name, justify="right")
    for one in rows:
        figures = [_net(one[key]) for key in ("recovered", "lost", "net", "net_all")]
        table.add_row(
            one["arm"].replace("_", " "), f"{one['budget']:g}", f"{one['steps']:.0f}", *figures
        )
    return table


def _net(one: Mapping[str, Any]) -> str:
    low_high = one["interval"]
    return f"{one['value']:.0f}" + (f" [{low_high[0]:.0f}, {low_high[1]:.0f}]" if low_high else "")


def _share(one: Mapping[str, Any]) -> str:
    return f"{_two(one['share'])} ({one['count']}/{one['n']})"


def _two(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}".replace("0.", ".", 1) if 0 <= value < 1 else f"{value:.2f}"


def _with_interval(one: Mapping[str, Any]) -> str:
    if one.get("value") is None or one.get("interval") is None:
        return "-"
    low, high = one["interval"]
    return f"{one['value']:+.2f} [{low:.2f}, {high:.2f}]"
