"""Several runs side by side: what differs, what stays unlearned, and whether it is the same."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ilp_jax.analysis import overlap as agreement
from ilp_jax.analysis import stability
from ilp_jax.analysis.regimes import regimes
from ilp_jax.analysis.report.figures import verdict
from ilp_jax.analysis.report.load import Run, rows_of_verdict
from ilp_jax.analysis.report.text import visible
from ilp_jax.fields import leaves
from ilp_jax.fields.stage import TRAINING

_OF_TRAINING = ("train", "lora", "probe", "convergence", "checkpoint", "replay", "influence")
"""Groups that a run without a training does not use."""


def comparison(runs: Sequence[Run], names: Sequence[str]) -> dict[str, Any]:
    """Figures of several runs.

    Args:
      runs: the runs.
      names: what each is called, in order; no two alike.

    Returns:
      ``runs``: name, seed and verdict of each; ``config``: the fields that differ, with a value
      a run (None where a run has no such field); ``overlap``: `overlap` of each pair, by
      detector; ``in_all``: by detector, of the ``n`` rows with a verdict at the end of every
      run, how many are unlearned in 0, 1, ... of them and the share in all (`stability`);
      ``regimes``: `regimes.regimes`.
    """
    verdicts = [verdict(run) for run in runs]
    configs = [used(run.config) for run in runs]
    return {
        "runs": [
            {
                "name": name,
                "seed": run.config.get("seed"),
                "weights": run.summary.get("weights"),
                "verdict": one,
            }
            for name, run, one in zip(names, runs, verdicts, strict=True)
        ],
        "config": differing(configs),
        "overlap": [
            {"runs": [names[i], names[j]], "detector": detector}
            | overlap(runs[i], runs[j], detector)
            for i, j in itertools.combinations(range(len(runs)), 2)
            for detector in runs[i].detectors
            if detector in runs[j].detectors
        ],
        "in_all": [
            {key: one[key] for key in ("detector", "n", "unlearned_in", "in_all") if key in one}
            for one in stability.across([run.workdir for run in runs])["detectors"]
            if one["n"]
        ],
        "regimes": regimes(
            names,
            configs,
            [run.summary for run in runs],
            [one["default"] for one in verdicts],
        ),
    }


def overlap(one: Run, other: Run, detector: str) -> dict[str, Any]:
    """How far the rows unlearned at the end are the same in two runs.

    Args:
      one: a run.
      other: another one.
      detector: the verdicts compared.

    Returns:
      ``n`` rows with a verdict in both, ``unlearned`` in each, ``both``, ``either``;
      ``jaccard`` = both / either (Jaccard 1901) and ``kappa`` (Cohen 1960), each with its
      bootstrap ``_interval`` over rows, and ``by_chance``, Jaccard's value at the expected
      overlap of two independent sets of these sizes. All these are None where they are not
      defined.
    """
    rows = rows_of_verdict(one, one.end, detector).join(
        rows_of_verdict(other, other.end, detector), on="example_id", suffix="_other"
    )
    first, second = rows["unlearned"], rows["unlearned_other"]
    a, b, n = int(first.sum() or 0), int(second.sum() or 0), len(rows)
    both, either = int((first & second).sum() or 0), int((first | second).sum() or 0)
    expected = a * b / n if n else 0.0
    return {
        "n": n,
        "unlearned": [a, b],
        "both": both,
        "either": either,
        **_agreement(first.to_numpy(), second.to_numpy()),
        "by_chance": expected / (a + b - expected) if either else None,
    }


def _agreement(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    found = agreement.overlap(first, second, seed=0) or {}
    nothing = {"value": None, "interval": None}
    return {
        key: found.get(name, nothing)[part]
        for name in ("jaccard", "kappa")
        for key, part in ((name, "value"), (f"{name}_interval", "interval"))
    }


def used(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the fields that nothing used.

    Of a model tuned elsewhere these are all fields of a training: their defaults say nothing of
    how that model was trained.

    Args:
      config: resolved, as plain values.
    """
    if not config["model"].get("tuned"):
        return config
    kept = {name: value for name, value in config.items() if name not in _OF_TRAINING}
    stages = {
        name: {field: value for field, value in stage.items() if field not in TRAINING}
        for name, stage in config["stages"].items()
    }
    return kept | {"stages": stages}


def differing(configs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fields whose values are not the same in all configurations.

    Args:
      configs: resolved configurations as plain values.

    Returns:
      One dict a field: ``field`` and ``values``, None where a configuration lacks it.
    """
    flat = [dict(leaves(config)) for config in configs]
    fields = list(dict.fromkeys(name for one in flat for name in one))
    return [
        {"field": name, "values": [one.get(name) for one in flat]}
        for name in fields
        if any(one.get(name) != flat[0].get(name) for one in flat)
    ]


def run_names(runs: Sequence[Run]) -> list[str]:
    """A short name a run: its folder's, lettered where there are several.

    Args:
      runs: the runs.
    """
    if len(runs) == 1:
        return [visible(runs[0].workdir.name)]
    return [f"{_letter(i)}: {visible(run.workdir.name)}" for i, run in enumerate(runs)]


def _letter(place: int) -> str:
    return (_letter(place // 26 - 1) if place >= 26 else "") + chr(ord("A") + place % 26)
