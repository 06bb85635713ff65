"""What the report shows of a diagnosis against planted truth, where the run was evaluated."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from ilp_jax.analysis import agreement_table
from ilp_jax.analysis.confusion import TOLD
from ilp_jax.analysis.report import charts
from ilp_jax.analysis.report.text import visible
from ilp_jax.stats.schema import PLANTED


def planted(summary: Mapping[str, Any], draw: Any) -> dict[str, Any] | None:
    """The section's tables and charts; None where the run was not evaluated.

    Args:
      summary: ``summary.json``.
      draw: ``(name, make, cells)``, draws a chart for the page.

    Returns:
      ``detector`` and ``method`` shown in full; ``macro_f1`` (a dict a method and detector, with
      the value under both labels), ``shares`` (cells a group and detector), ``confusion``
      (lines of the matrix), ``reliability`` (bins), ``ece``; their charts; ``note``.
    """
    told = summary.get("agreement")
    if not told:
        return None
    detectors = agreement_table.ordered(told, agreement_table.DETECTORS)
    detector = detectors[0]
    method = agreement_table.best_method(told[detector])
    shown = told[detector][method]
    scores, shares = _scores(summary, detectors), _shares(summary)
    across = "macro-F1 over the five causes, as planted"
    macro = functools.partial(charts.shares_chart, title=across)
    groups = functools.partial(charts.shares_chart, letters=max(map(len, PLANTED)))
    return {
        "detector": detector,
        "detectors": [name for name in charts.DETECTORS if name in told],
        "method": method,
        "macro_f1": scores,
        "macro_f1_chart": draw("f", macro, [one for one in scores if one["share"] is not None]),
        "shares": shares,
        "shares_chart": draw("p", groups, shares),
        "told": TOLD,
        "confusion": [
            {"planted": true, "cells": [line[name] for name in TOLD], "n": sum(line.values())}
            for true, line in shown["confusion"].items()
        ],
        "ece": shown["ece"],
        "ece_interval": shown["intervals"]["ece"],
        "reliability": shown["reliability"] or [],
        "reliability_chart": draw("q", charts.reliability_chart, shown["reliability"] or []),
        "note": visible(agreement_table.note(summary)),
    }


def _scores(summary: Mapping[str, Any], detectors: list[str]) -> list[dict[str, Any]]:
    found = []
    methods = {method for one in summary["agreement"].values() for method in one}
    for method in agreement_table.ordered(dict.fromkeys(methods), agreement_table.METHODS):
        for detector in detectors:
            one = summary["agreement"][detector].get(method)
            if one is None:
                continue
            believed = summary["agreement_belief"][detector][method]
            found.append(
                {"label": method.replace("_", " "), "detector": detector, "n": one["n"]}
                | {"share": one["macro_f1"], "interval": one["intervals"]["macro_f1"]}
                | {"belief": believed["macro_f1"]}
                | {"belief_interval": believed["intervals"]["macro_f1"]}
            )
    return found


def _shares(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Shares of whole groups, controls first, each with the wider of its two intervals."""
    cells = [one for one in summary["planted_shares"] if one["detail"] is None]
    order = ("control", *(name for name in PLANTED if name != "control"))
    return [
        one
        | {"label": one["planted"].replace("_", " ")}
        | {"interval": agreement_table.hull(one, one["resampled"])}
        for one in sorted(cells, key=lambda one: order.index(one["planted"]))
    ]
