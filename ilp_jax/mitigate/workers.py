"""Processes that train arms side by side, and the one view of how far they are.

Each worker goes through the arms in order and takes the first that is neither trained nor in
another's hands (a lock on its folder, which the kernel lets go when a worker dies). It ends with
the process that started it, however that ends; the next call goes on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import BinaryIO

from etils import epath

from ilp_jax import progress
from ilp_jax.errors import RunFailure
from ilp_jax.sweep.jobs import last_words

_POLL_SECONDS = 0.5
_GRACE_SECONDS = 15.0


def work(
    folder: epath.Path,
    words: Sequence[str],
    jobs: int,
    names: Sequence[str],
    is_done: Callable[[int], bool],
) -> None:
    """Runs workers until all arms are trained.

    Args:
      folder: where each worker's output goes, as ``worker_K.txt``.
      words: what follows ``ilp`` in a worker.
      jobs: how many workers.
      names: of the arms, for the view.
      is_done: whether the arm at a place is trained.

    Raises:
      RunFailure: a worker failed; the others were ended, and what is trained is kept.
    """
    todo = [place for place in range(len(names)) if not is_done(place)]
    if not todo:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        logs = [folder / f"worker_{k}.txt" for k in range(min(jobs, len(todo)))]
        starts = [log.stat().length if log.exists() else 0 for log in logs]
        workers = [
            _start(words, stack.enter_context(open(log, "ab")), cores)
            for log, cores in zip(logs, _shared_out(len(logs)), strict=True)
        ]
        stack.callback(_stop, workers)
        total, done = len(names), len(names) - len(todo)
        bar = stack.enter_context(progress.bar("arms", total=total, done=done))
        while True:
            ended = [worker.poll() for worker in workers]
            for place in [place for place in todo if is_done(place)]:
                todo.remove(place)
                bar.advance(1, text=names[place])
            failed = [k for k, code in enumerate(ended) if code]
            if failed:
                said = last_words(logs[failed[0]], starts[failed[0]])
                raise RunFailure(logs[failed[0]], said or "a worker failed", "mend it and repeat")
            if None not in ended:
                return
            time.sleep(_POLL_SECONDS)


def _shared_out(jobs: int) -> list[set[int]]:
    """Cores for each worker, empty for all: threads that wait for each other's cores are slow."""
    known = hasattr(os, "sched_getaffinity")  # not on every system
    cores = sorted(os.sched_getaffinity(0)) if known else []
    return [set(cores[k::jobs]) if 1 < jobs <= len(cores) else set() for k in range(jobs)]


def _start(words: Sequence[str], log: BinaryIO, cores: set[int]) -> subprocess.Popen:
    first = ["taskset", "-c", ",".join(map(str, sorted(cores)))] if cores else []
    first = first if first and shutil.which(first[0]) else []
    return subprocess.Popen(
        [*first, sys.executable, "-m", "ilp_jax.sweep.child", *words],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _stop(workers: Sequence[subprocess.Popen]) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.send_signal(signal.SIGINT)
    until = time.monotonic() + _GRACE_SECONDS
    for worker in workers:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(max(0.0, until - time.monotonic()))
        worker.kill()
        worker.wait()
        worker.stdin.close()
