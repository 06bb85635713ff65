"""The command ``sweep``: what it runs, what it prints, and what it leaves in the folder."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath
from rich.table import Table
from rich.text import Text

from ilp_jax import files, progress, run_record
from ilp_jax.errors import RunFailure, UserError
from ilp_jax.stats.truth import has_truth
from ilp_jax.sweep import jobs as processes
from ilp_jax.sweep import ledger as ledgers
from ilp_jax.sweep.runs import Run, runs_of

SUMMARY = "sweep_summary.json"


def sweep(
    file_and_args: str,
    workdir: epath.PathLike,
    overrides: Sequence[str] = (),
    jobs: int = 1,
    dry_run: bool = False,
    command: Callable[[Run, epath.Path], list[str]] = processes.command,
) -> dict[str, Any]:
    """Runs what ``get_sweep`` of a config file yields, each in ``WORKDIR/NAME``.

    What is done already is not done again, what was interrupted goes on where it stopped, and
    what failed is tried again.

    Args:
      file_and_args: see `runs.runs_of`.
      workdir: the sweep's folder, local.
      overrides: ``--config.a.b=value`` items for every run.
      jobs: how many run at a time.
      dry_run: run and write nothing.
      command: makes the words that start a run.

    Returns:
      The entries of the ledger (see `ledger.read`) of these runs, by name.

    Raises:
      UserError: the config file, its runs or the folder are wrong, or a sweep is in the folder.
      RunFailure: the disk is full. A run that fails is not raised: see `check`.
    """
    folder = files.as_path(workdir)
    if not files.is_local(folder):
        mend = "give a local --workdir"
        raise UserError(folder, "lies in a bucket, and these runs are processes here", mend)
    runs = runs_of(file_and_args, overrides)
    if dry_run:
        ledger = ledgers.read(folder, runs, in_use=_in_use(folder))
        return {run.name: ledger["runs"][run.name] for run in runs}
    ledgers.read(folder, runs, in_use=True)  # before a folder that is none of ours is written to
    with run_record.locked(folder):
        files.remove_temporaries(folder)
        ledger = ledgers.read(folder, runs, in_use=False)
        files.write_json(folder / ledgers.FILE, ledger)
        ledger = processes.work(folder, runs, ledger, jobs, command)
        entries = {run.name: ledger["runs"][run.name] for run in runs}
        files.write_json(folder / SUMMARY, summary(folder, entries))
    return entries


def summary(folder: epath.Path, entries: Mapping[str, Any]) -> dict[str, Any]:
    """Which runs are done, and the commands that compare them.

    Args:
      folder: the sweep's folder.
      entries: of `sweep`.

    Returns:
      ``done``: names; ``failed``: lines by name; ``compare``: ``report``, and ``evaluate``
      where a run has planted causes, each as one line for a shell.
    """
    done = [name for name, one in entries.items() if one["state"] == ledgers.DONE]
    planted = [name for name in done if has_truth(folder / name)]
    compare = {}
    if len(done) > 1:
        compare["report"] = _line("report", folder, done, "report.html")
    if planted:
        compare["evaluate"] = _line("evaluate", folder, planted, "evaluation.json")
    failed = {n: one["line"] for n, one in entries.items() if one["state"] == ledgers.FAILED}
    return {"done": done, "failed": failed, "compare": compare}


def render(entries: Mapping[str, Any], dry_run: bool = False) -> Table:
    """The runs as a table: their state, and why they failed.

    Args:
      entries: of `sweep`.
      dry_run: show what each run changes, in place of why it failed.
    """
    table = Table(box=None, pad_edge=False)
    for column in ("run", "state", "took"):
        table.add_column(column, no_wrap=True)
    table.add_column("changes" if dry_run else "")
    for name, one in entries.items():
        took = progress.duration(one["seconds"]) if one["seconds"] else "-"
        told = _changes(one) if dry_run else one["line"] or ""
        table.add_row(name, one["state"], took, Text(told))
    return table


def closing(workdir: epath.PathLike, entries: Mapping[str, Any]) -> str:
    """How many runs are done, and the commands that compare them: one line each.

    Args:
      workdir: the sweep's folder.
      entries: of `sweep`.
    """
    told = summary(files.as_path(workdir), entries)
    lines = [f"{workdir}: {len(told['done'])} of {len(entries)} runs are done"]
    return "\n".join([*lines, *told["compare"].values()])


def check(workdir: epath.PathLike, entries: Mapping[str, Any]) -> None:
    """Raises RunFailure where a run failed.

    Args:
      workdir: the sweep's folder.
      entries: of `sweep`.
    """
    failed = [name for name, one in entries.items() if one["state"] == ledgers.FAILED]
    if failed:
        raise RunFailure(
            workdir,
            f"{len(failed)} of {len(entries)} runs failed ({', '.join(failed)})",
            f"see {processes.LOG} in their folders; the same command tries them again",
        )


def _changes(entry: Mapping[str, Any]) -> str:
    changes = {**entry["arguments"], **{f"config.{k}": v for k, v in entry["config"].items()}}
    return ", ".join(f"{name}={value}" for name, value in changes.items())


def _line(command: str, folder: epath.Path, names: Sequence[str], out: str) -> str:
    words = ["ilp", command, "--workdir", *(str(folder / name) for name in names)]
    return shlex.join([*words, "--out", str(folder / out)])


def _in_use(folder: epath.Path) -> bool:
    """Whether a sweep is at work in the folder; a dry run makes none."""
    if not folder.exists():
        return False
    try:
        with run_record.locked(folder):
            return False
    except UserError:
        return True
