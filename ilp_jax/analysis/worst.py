"""Of several runs the one in which a figure is worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ilp_jax.stats.schema import CAUSES

HIGH_IS_WORSE = ("control", "filler")
"""Groups in which nothing is planted: every unlearned row there is one too many."""


def worst(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The worst run of each figure.

    Args:
      cells: the runs' figures, each with its ``name``.

    Returns:
      The same keys as a run's figures: ``agreement`` and ``agreement_belief`` by detector and
      method, with the lowest ``macro_f1``, ``recall`` (by cause; None for a cause without rows
      anywhere) and ``unattributed`` of ``fault``, and the highest ``ece`` and ``unattributed``
      of ``causes`` and ``control``; ``planted_shares`` and ``planted_shares_belief`` as lists
      of ``detector``, ``planted``, with the highest share of `HIGH_IS_WORSE` and the lowest of
      the others. Each is ``value``, ``n`` and ``cell`` (the run's name).
    """
    out: dict[str, Any] = {}
    for key in ("agreement", "agreement_belief"):
        found: dict[str, dict[str, list]] = {}
        for cell in cells:
            for detector, methods in cell[key].items():
                for method, figures in methods.items():
                    of = found.setdefault(detector, {}).setdefault(method, [])
                    of.append((cell["name"], figures))
        out[key] = {
            detector: {method: _of_method(named) for method, named in methods.items()}
            for detector, methods in found.items()
        }
    for key in ("planted_shares", "planted_shares_belief"):
        shares: dict[tuple[str, str], list] = {}
        for cell in cells:
            for one in cell[key]:
                if one["detail"] is None:
                    of = shares.setdefault((one["detector"], one["planted"]), [])
                    of.append((cell["name"], one["share"], one["n"]))
        out[key] = [
            {"detector": detector, "planted": group, **_worst(named, group in HIGH_IS_WORSE)}
            for (detector, group), named in shares.items()
        ]
    return out


def _of_method(named: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    def of(high: bool, value, n=lambda one: one["n"]) -> dict[str, Any] | None:
        return _worst([(name, value(one), n(one)) for name, one in named], high)

    def left(group: str, high: bool) -> dict[str, Any] | None:
        some = [(name, one["unattributed"][group]) for name, one in named]
        return _worst([(name, one["share"], one["n"]) for name, one in some if one], high)

    return {
        "macro_f1": of(False, lambda one: one["macro_f1"]),
        "recall": {
            cause: of(
                False,
                lambda one, cause=cause: one["recall"][cause],
                lambda one, cause=cause: one["n_by_cause"][cause],
            )
            for cause in CAUSES
        },
        "ece": of(True, lambda one: one["ece"]),
        "unattributed": {
            "causes": left("causes", True),
            "fault": left("fault", False),
            "control": left("control", True),
        },
    }


def _worst(named: Sequence[tuple[str, float | None, int]], high: bool) -> dict[str, Any] | None:
    """The first of the worst, None where no run has a value."""
    known = [one for one in named if one[1] is not None]
    if not known:
        return None
    name, value, n = (max if high else min)(known, key=lambda one: one[1])
    return {"value": value, "n": n, "cell": name}
