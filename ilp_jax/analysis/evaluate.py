"""The command ``evaluate``: a diagnosis against what was planted, of one run or of several."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from etils import epath
from rich.console import Group

from ilp_jax import files, run_record
from ilp_jax.analysis import agreement_table, remedies, summary_file
from ilp_jax.analysis.agreement import agreement
from ilp_jax.analysis.belief import BELIEVES
from ilp_jax.analysis.planted import POINT, Planted, load_planted
from ilp_jax.analysis.planted_shares import planted_shares
from ilp_jax.analysis.resample import RESAMPLES, SEED, draw, with_units
from ilp_jax.analysis.worst import worst
from ilp_jax.errors import UserError
from ilp_jax.stats.remedies import has_remedies


def evaluate(
    workdirs: Sequence[epath.PathLike],
    out: epath.PathLike | None = None,
    resamples: int = RESAMPLES,
) -> Group:
    """Scores the diagnosis of one run or several.

    Of one run the figures go into its ``summary.json`` (`evaluate_run`). Of several nothing is
    written into their folders.

    Args:
      workdirs: the runs' folders.
      out: a JSON file: ``runs``, ``pooled`` (`evaluation` of all rows together), ``cells``
        (`evaluation` of each run, with its name), ``worst`` (`worst.worst`) and ``remedies``
        (`remedies.compare` of all, where all have tried some). None: no file.
      resamples: bootstrap resamples behind each interval.

    Returns:
      The tables for the terminal.

    Raises:
      UserError: a folder is given twice, is no run's, holds no planted study or no diagnosis,
        or a file is damaged; out is a folder.
      RunFailure: the disk is full.
    """
    if out is not None and (out := files.as_path(out)).is_dir():
        raise UserError(out, "is a folder", "give --out FILE.json")
    _check_once(workdirs)
    runs = named([load_planted(workdir) for workdir in workdirs])
    pooled = evaluation(runs, resamples)
    if len(runs) == 1:
        with run_record.locked(runs[0].workdir):
            _add(runs[0], pooled)
    cells = [evaluation([run], resamples) for run in runs] if len(runs) > 1 else [pooled]
    cells = [_place(run) | cell for run, cell in zip(runs, cells, strict=True)]
    lowest = worst(cells) if len(cells) > 1 else None
    tables = agreement_table.render(pooled, lowest)
    tried = None
    if all(has_remedies(run.workdir) for run in runs):
        tried = remedies.compare([remedies.load(run.workdir) for run in runs], resamples)
        tables += remedies.tables.render(tried)
    if out is not None:
        parts = {"runs": [_place(run) for run in runs], "pooled": pooled, "cells": cells}
        files.write_json(out, parts | {"worst": lowest, remedies.KEY: tried})
    return Group(*tables)


def evaluate_run(workdir: epath.PathLike, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Scores one run and writes the figures into its ``summary.json``, beside what is there.

    Args:
      workdir: the run's folder.
      resamples: bootstrap resamples behind each interval.

    Returns:
      What was added: `evaluation` of the run.

    Raises:
      UserError: as `planted.load_planted`.
      RunFailure: the disk is full.
    """
    run = load_planted(workdir)
    found = evaluation([run], resamples)
    _add(run, found)
    return found


def evaluation(runs: Sequence[Planted], resamples: int = RESAMPLES) -> dict[str, Any]:
    """Every figure of some runs together.

    Args:
      runs: the runs.
      resamples: bootstrap resamples behind each interval.

    Returns:
      ``agreement`` and ``agreement_belief`` (`agreement.agreement` under the labels as planted
      and as believed), ``planted_shares`` and ``planted_shares_belief``
      (`planted_shares.planted_shares`), and ``evaluation``: what they rest on.
    """
    numbered, world_U = with_units(runs)
    weights_BxU = draw(world_U, resamples, SEED)
    counts: collections.Counter[str] = collections.Counter()
    for run in runs:
        counts.update(run.belief or {})
    return {
        "agreement": agreement(numbered, "planted", weights_BxU),
        "agreement_belief": agreement(numbered, "belief", weights_BxU),
        "planted_shares": planted_shares(numbered, "planted", weights_BxU),
        "planted_shares_belief": planted_shares(numbered, "belief", weights_BxU),
        "evaluation": {
            "point": POINT,
            "runs": len(runs),
            "worlds": int(world_U.max()) + 1,
            "groups": len(world_U),
            "resamples": resamples,
            "seed": SEED,
            "belief": {"threshold": BELIEVES, **counts} if counts else None,
        },
    }


def named(runs: Sequence[Planted]) -> list[Planted]:
    """The runs, those of one name told apart by their folders.

    Args:
      runs: the runs.
    """
    times = collections.Counter(run.name for run in runs)
    return [
        dataclasses.replace(run, name=f"{run.name} ({run.workdir})") if times[run.name] > 1 else run
        for run in runs
    ]


def _add(run: Planted, found: dict[str, Any]) -> None:
    """Writes the figures beside what the summary has."""
    summary_file.write(run.workdir, summary_file.read(run.workdir) | found)


def _check_once(workdirs: Sequence[epath.PathLike]) -> None:
    """Raises UserError where two names are of one folder."""
    seen = set()
    for workdir in workdirs:
        path = files.as_path(workdir)
        real = os.path.realpath(path) if files.is_local(path) else os.fspath(path)
        if real in seen:
            raise UserError(workdir, "is given twice", "give each --workdir once")
        seen.add(real)


def _place(run: Planted) -> dict[str, Any]:
    return {
        "name": run.name,
        "workdir": run.workdir,
        "world": run.world,
        "family": run.family,
    }
