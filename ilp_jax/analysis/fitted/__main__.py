"""Fits the methods ``model`` and ``model_blind`` on finished planted worlds 0 to 9.

    python -m ilp_jax.analysis.fitted --workdirs W [W2 ...] [--kind KIND] [--out DIR]

Prints how each kind of classifier tells causes in worlds left out, and how well rows without
a cause are told by a least probability alone, without a class of their own; writes
``model.json`` and ``model_blind.json`` of the chosen kind, with these figures, to DIR, by
default beside this file, where runs look for them. The figures in the files are those under
the default of ``config.diagnose.model_probability``. On ten worlds it takes some minutes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ilp_jax import files
from ilp_jax.analysis.fitted.figures import figures
from ilp_jax.analysis.fitted.fit import CANDIDATES, CLASSES, calibrated, fit, left_out, log_loss
from ilp_jax.analysis.fitted.inputs import INPUTS
from ilp_jax.analysis.fitted.worlds import read_worlds
from ilp_jax.errors import UserError
from ilp_jax.fields.diagnose import diagnose_fields
from ilp_jax.stats.schema import CAUSES

LEAST = (0.0, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6)
"""Least probabilities of the likeliest cause that the report compares."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; see the module."""
    parser = argparse.ArgumentParser(prog="python -m ilp_jax.analysis.fitted")
    parser.add_argument("--workdirs", nargs="+", required=True, help="finished planted worlds")
    parser.add_argument("--out", default=str(Path(__file__).parent), help="folder of the JSON")
    parser.add_argument("--kind", choices=[*CANDIDATES, "best"], default="best")
    parser.add_argument("--detector", default="sampled", help="by which rows are unlearned")
    asked = parser.parse_args(arguments)
    least = diagnose_fields().model_probability
    try:
        rows = read_worlds(asked.workdirs, asked.detector)
        for method, names in INPUTS.items():
            kind, found = compare(rows, names, asked.kind, least, method)
            about = _about(rows, asked.detector) | {"left_out": found}
            classifier = fit(rows, rows["label"], rows["world"], names, kind, about)
            path = files.as_path(asked.out) / f"{method}.json"
            files.write_text(path, classifier.to_json())
            print(f"wrote {path}: {kind}, temperature {classifier.temperature:.2f}\n")
    except (UserError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def compare(
    rows: pl.DataFrame, names: Sequence[str], wanted: str, least: float, method: str
) -> tuple[str, dict[str, Any]]:
    """Prints the figures of kinds of classifier on worlds left out, and chooses one.

    Args:
      rows: what `worlds.read_worlds` gave.
      names: inputs.
      wanted: a kind, or ``best``: the one of least log loss.
      least: the least probability that the chosen kind's figures use.
      method: for the heading.

    Returns:
      The kind, and its figures (`figures.figures`) with and without a least probability.
    """
    labels, worlds, planted = rows["label"], rows["world"], rows["planted"]
    y = [CLASSES.index(label) for label in labels]
    print(f"{method}: {len(rows)} rows of {worlds.n_unique()} worlds, {len(names)} inputs")
    kinds = list(CANDIDATES) if wanted == "best" else [wanted]
    told, losses = {}, {}
    for kind in kinds:
        raw = left_out(rows, labels, worlds, names, kind)
        told[kind] = calibrated(raw, labels, worlds)
        losses[kind] = log_loss(told[kind], y)
        found = figures(told[kind], CLASSES, planted, least)
        print(f"  {kind}: log loss {losses[kind]:.4f}, {_line(found)}")
    best = min(kinds, key=losses.get)
    print(f"  {best}, by least probability of the likeliest cause:")
    for one in LEAST:
        print(f"    {one}: {_line(figures(told[best], CLASSES, planted, one))}")
    alone = left_out(rows, labels, worlds, names, best, CAUSES)
    alone = calibrated(alone, labels, worlds, CAUSES)
    print("  the same without a class for rows without a cause:")
    for one in LEAST:
        print(f"    {one}: {_line(figures(alone, CAUSES, planted, one))}")
    chosen = figures(told[best], CLASSES, planted, least) | {"log_loss": losses[best]}
    novel = figures(alone, CAUSES, planted, least)
    return best, {"least": least, **chosen, "without_the_class": novel}


def _line(found: dict[str, Any]) -> str:
    recall = " ".join(f"{value:.2f}" for value in found["recall"].values())
    parts = (
        f"macro-F1 {found['macro_f1']:.3f}",
        f"recall {recall}",
        f"ECE {_number(found['ece'])}",
        f"fault left {_number(found['fault_unattributed'])} of {found['n_fault']}",
        f"control left {_number(found['control_unattributed'])} of {found['n_control']}",
        f"wrongly left {_number(found['wrongly_unattributed'])}",
    )
    return ", ".join(parts)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _about(rows: pl.DataFrame, detector: str) -> dict[str, Any]:
    """What a classifier was fitted on."""
    counted = rows["label"].value_counts()
    counts = dict(counted.iter_rows())
    return {
        "worlds": sorted(rows["world"].unique().to_list()),
        "families": sorted(rows["family"].unique().to_list()),
        "seeds": sorted(rows["seed"].unique().to_list()),
        "detector": detector,
        "point": "final",
        "rows": {name: counts.get(name, 0) for name in CLASSES},
    }


if __name__ == "__main__":
    sys.exit(main())
