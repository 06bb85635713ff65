"""What stays unlearned, and how well it is diagnosed, along the fields in which runs differ.

For runs of one study under several regimes: epochs a stage, learning rates, adapters, worlds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ilp_jax.fields import leaves
from ilp_jax.stats.schema import CAUSES

# The first that any run was evaluated by; the study's figures are those of drawn answers.
_DETECTORS = ("sampled", "exact_law", "choice", "exact_match", "rouge_l")
_GROUPS = ("control", *CAUSES, "fault", "filler")
_METHODS = ("rules", "model", "model_blind", "paper", "paper_second", "majority")
# Groups of fields that change no row's fate and no verdict.
_NO_RESULT = ("cache_dir", "checkpoint", "mitigate", "report")

Cell = dict[str, Any]
"""``value``, ``interval`` (95%, or None) and ``n`` of one figure of one run."""


def regimes(
    names: Sequence[str],
    configs: Sequence[Mapping[str, Any]],
    summaries: Sequence[Mapping[str, Any]],
    overall: Sequence[Mapping[str, Any] | None],
) -> dict[str, Any] | None:
    """Figures of several runs beside the values of the fields in which they differ.

    Args:
      names: what each run is called.
      configs: their resolved configurations, as plain values.
      summaries: their ``summary.json``.
      overall: of each, ``n``, ``share`` and ``interval`` of its rows unlearned by default.

    Returns:
      * ``fields``: the names of the fields that differ; ``stages.*.F`` stands for a field that
        differs in several stages in the same way.
      * ``detector``: of the shares of planted groups and of the diagnosis; ``default`` where
        no run was evaluated, so that the share is of all rows.
      * ``measures``: ``kind`` (``share`` unlearned, or ``macro_f1`` over the five causes) and
        ``of`` (a planted group or ``all rows``; a method), in the order of display.
      * ``runs``: ``name``, ``values`` (a field each, None where a run lacks it) and ``cells``
        (a `Cell` a measure, None where it was not measured), sorted by their values.
      * ``along``: ``fields`` and ``runs`` (names) of every set of runs that differ in these
        fields alone, in the order of their values; several fields where they change together
        in all runs, so that no run tells one from the other.
      * ``alone``: names of the runs in none of these sets.

      None where no field differs.
    """
    found = _fields(configs)
    if not found:
        return None
    columns = dict(found)
    values = [[column[i] for column in columns.values()] for i in range(len(names))]
    order = sorted(range(len(names)), key=lambda i: [_sortable(value) for value in values[i]])
    detector = _detector(summaries)
    each = [_cells(one, detector, of_all) for one, of_all in zip(summaries, overall, strict=True)]
    measures = [
        (kind, of)
        for kind, known in (("share", ("all rows", *_GROUPS)), ("macro_f1", _METHODS))
        for of in known
        if any((kind, of) in cells for cells in each)
    ]
    along = _along(columns, order)
    joined = {i for _, runs in along for i in runs}
    return {
        "fields": list(columns),
        "detector": detector or "default",
        "measures": [{"kind": kind, "of": of} for kind, of in measures],
        "runs": [
            {
                "name": names[i],
                "values": values[i],
                "cells": [each[i].get(measure) for measure in measures],
            }
            for i in order
        ],
        "along": [
            {"fields": list(fields), "runs": [names[i] for i in runs]} for fields, runs in along
        ],
        "alone": [names[i] for i in order if i not in joined],
    }


def _fields(configs: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """The fields that differ, and their values a run; stages that change alike as one."""
    flat = [dict(leaves(config)) for config in configs]
    columns = {
        name: [one.get(name) for one in flat]
        for name in dict.fromkeys(name for one in flat for name in one)
        if not any(f"{name}.".startswith(f"{out}.") for out in _NO_RESULT)
    }
    out: dict[str, list[Any]] = {}
    for name, values in columns.items():
        if _differ(values):
            field = _of_stage(name)
            stages = [other for other in columns if field and _of_stage(other) == field]
            alike = len(stages) > 1 and all(columns[other] == values for other in stages)
            out[f"stages.*.{field}" if alike else name] = values
    return list(out.items())


def _of_stage(name: str) -> str | None:
    """The field of a stage that a dotted name stands for, if it does."""
    parts = name.split(".", 2)
    return parts[2] if len(parts) == 3 and parts[0] == "stages" else None


def _along(
    columns: Mapping[str, Sequence[Any]], order: Sequence[int]
) -> list[tuple[tuple[str, ...], list[int]]]:
    """Sets of runs that are equal but for the fields of one axis."""
    axes: dict[tuple[int, ...], list[str]] = {}
    for name, values in columns.items():
        keys = [_key(value) for value in values]
        axes.setdefault(tuple(keys.index(key) for key in keys), []).append(name)
    along = []
    for axis, fields in axes.items():
        rest = [other for other in axes if other != axis]
        sets: dict[tuple[int, ...], list[int]] = {}
        for i in order:
            sets.setdefault(tuple(other[i] for other in rest), []).append(i)
        values = columns[fields[0]]
        along += [
            (tuple(fields), sorted(runs, key=lambda i: _sortable(values[i])))
            for runs in sets.values()
            if len({axis[i] for i in runs}) > 1
        ]
    return along


def _detector(summaries: Sequence[Mapping[str, Any]]) -> str | None:
    known = {cell.get("detector") for one in summaries for cell in one.get("planted_shares") or ()}
    known |= {name for one in summaries for name in one.get("agreement") or ()}
    return next((name for name in _DETECTORS if name in known), None)


def _cells(
    summary: Mapping[str, Any], detector: str | None, overall: Mapping[str, Any] | None
) -> dict[tuple[str, str], Cell]:
    """A run's figures by kind and what they are of."""
    cells = {
        ("share", one["planted"]): _cell(one["share"], _interval(one), one.get("n"))
        for one in summary.get("planted_shares") or ()
        if one.get("detector") == detector
        and one.get("detail") is None
        and one.get("point", "final") == "final"
        and one.get("share") is not None
    }
    if detector is None and overall is not None:
        interval = overall.get("interval")
        cells["share", "all rows"] = _cell(overall["share"], interval, overall.get("n"))
    for method, one in ((summary.get("agreement") or {}).get(detector) or {}).items():
        if one.get("macro_f1") is not None:
            interval = (one.get("intervals") or {}).get("macro_f1")
            cells["macro_f1", method] = _cell(one["macro_f1"], interval, one.get("n"))
    return cells


def _cell(value: float, interval: Sequence[float] | None, n: int | None) -> Cell:
    return {"value": value, "interval": interval and list(interval), "n": n}


def _interval(cell: Mapping[str, Any]) -> Sequence[float] | None:
    if cell.get("interval") or cell.get("low") is None:
        return cell.get("interval")
    return [cell["low"], cell["high"]]


def _differ(values: Sequence[Any]) -> bool:
    return len({_key(value) for value in values}) > 1


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _sortable(value: Any) -> tuple[int, float, str]:
    """Nothing, then numbers by size, then all else by its text."""
    if isinstance(value, int | float):
        return 1, float(value), ""
    return (0, 0.0, "") if value is None else (2, 0.0, _key(value))
