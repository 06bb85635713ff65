"""The runs of a sweep as processes: so many at a time, one that fails stops no other."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

from etils import epath

from ilp_jax import progress
from ilp_jax.sweep import ledger as ledgers
from ilp_jax.sweep.runs import Run

LOG = "log.txt"
_POLL_SECONDS = 0.1
_GRACE_SECONDS = 15.0  # for a run to end by itself when the sweep is interrupted
_TAIL_BYTES = 1 << 16
_LONGEST_LINE = 500  # characters of a run's last words that the ledger keeps


@dataclasses.dataclass(frozen=True)
class _Job:
    """A run at work: its process, its log, and where and when this attempt began."""

    run: Run
    process: subprocess.Popen
    log: BinaryIO
    log_start: int
    start: float


def command(run: Run, workdir: epath.Path) -> list[str]:
    """The process of a run.

    Args:
      run: the run.
      workdir: its folder.

    Returns:
      The words that start it.
    """
    words = ("run", *run.words, "--workdir", str(workdir))
    return [sys.executable, "-m", "ilp_jax.sweep.child", *words]


def work(
    folder: epath.Path,
    runs: Sequence[Run],
    ledger: dict[str, Any],
    jobs: int,
    command: Callable[[Run, epath.Path], list[str]] = command,
) -> dict[str, Any]:
    """Runs what is not done, in order; each writes into its own folder, and its output there.

    However this ends, no process is left behind; a run that was stopped is ``waiting`` in the
    ledger, and goes on where it was the next time.

    Args:
      folder: the sweep's folder, held by this process.
      runs: the runs.
      ledger: of `ledger.read`.
      jobs: how many run at a time.
      command: makes the words that start a run.

    Returns:
      The ledger after the last run.

    Raises:
      RunFailure: the disk is full.
    """
    todo = [run for run in runs if ledger["runs"][run.name]["state"] != ledgers.DONE]
    working: list[_Job] = []
    ended: set[str] = set()

    def note(name: str, **changes: Any) -> None:
        nonlocal ledger
        ledger = ledgers.put(folder, ledger, name, **changes)

    try:
        with progress.bar("sweep", total=len(runs), done=len(runs) - len(todo)) as bar:
            while todo or working:
                while todo and len(working) < jobs:
                    run = todo.pop(0)
                    note(run.name, state=ledgers.RUNNING, line=None)
                    working.append(_start(run, folder / run.name, command))
                    bar.advance(0, _text(working, ledger, ended))
                time.sleep(_POLL_SECONDS)
                for job in [job for job in working if job.process.poll() is not None]:
                    working.remove(job)
                    ended.add(job.run.name)
                    seconds = ledger["runs"][job.run.name]["seconds"]
                    took = round(seconds + time.monotonic() - job.start, 1)
                    note(job.run.name, seconds=took, **_outcome(job, folder))
                    bar.advance(1, _text(working, ledger, ended))
    finally:
        for job in _stopped(working):
            note(job.run.name, state=ledgers.WAITING)
    return ledger


def _text(working: Sequence[_Job], ledger: dict[str, Any], ended: set[str]) -> str:
    failed = sum(ledger["runs"][name]["state"] == ledgers.FAILED for name in ended)
    told = [", ".join(job.run.name for job in working), f"{failed} failed" if failed else ""]
    return "; ".join(filter(None, told))


def _start(run: Run, workdir: epath.Path, command: Callable[[Run, epath.Path], list[str]]) -> _Job:
    workdir.mkdir(parents=True, exist_ok=True)
    log = open(workdir / LOG, "ab")
    start = log.tell()
    # Of another session: an interrupt at the terminal reaches the sweep, which tells its runs.
    process = subprocess.Popen(
        command(run, workdir),
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    return _Job(run, process, log, start, time.monotonic())


def _outcome(job: _Job, folder: epath.Path) -> dict[str, Any]:
    """State and line of a job that came to its end."""
    _close(job)
    code = job.process.returncode
    if code == 0:
        return {"state": ledgers.DONE, "line": None}
    said = last_words(folder / job.run.name / LOG, job.log_start)
    if code < 0:
        with contextlib.suppress(ValueError):
            # The kernel's own way when memory runs out; the run has no time to say so.
            why = " (out of memory?)" if -code == signal.SIGKILL else ""
            said = f"ended by {signal.Signals(-code).name}{why}{said and f', after: {said}'}"
    return {"state": ledgers.FAILED, "line": said or f"exit code {code}, and nothing in {LOG}"}


def last_words(log: epath.Path, start: int) -> str:
    """A process's own line of error, or the last that it wrote in this attempt.

    Args:
      log: its output.
      start: bytes that were there before.

    Returns:
      One line, '' where it said nothing.
    """
    with open(log, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(start, size - _TAIL_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
    lines = [line.strip() for line in lines if line.strip()]
    errors = [line.removeprefix("ilp: ") for line in lines if line.startswith("ilp: ")]
    return next(iter([*errors[::-1], *lines[::-1]]), "")[:_LONGEST_LINE]


def _stopped(working: Sequence[_Job]) -> Iterator[_Job]:
    """Interrupts the jobs and, where that does not help in time, kills them."""
    try:
        for job in working:
            job.process.send_signal(signal.SIGINT)
        until = time.monotonic() + _GRACE_SECONDS
        for job in working:
            with contextlib.suppress(subprocess.TimeoutExpired):
                job.process.wait(max(0.0, until - time.monotonic()))
    finally:
        for job in working:
            job.process.kill()
            job.process.wait()
            _close(job)
    yield from working


def _close(job: _Job) -> None:
    job.process.stdin.close()
    job.log.close()
