"""Several processes of one run, one a host: joined at the start, agreed at a few points.

Every process runs the same program on the same data. In the training loop none waits for another
but in the update's own collectives. Elsewhere the *first* (number 0) writes what is written once,
and the others learn of it through JAX's coordination service, which costs no device anything.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, TypeVar

import jax
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from ilp_jax import progress
from ilp_jax.errors import RunFailure, UserError
from ilp_jax.mesh import LAUNCHED

T = TypeVar("T")

ADDRESS, COUNT, NUMBER = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
"""Environment variables that name the first process and this one, where no cluster does."""

_POLL_MS = 60_000
_MARGIN_SECONDS = 60
_OF_CLUSTERS = {
    "TPU_WORKER_HOSTNAMES": lambda text: text.count(",") + 1,
    "SLURM_NTASKS": int,
    "OMPI_COMM_WORLD_SIZE": int,
}
_kept: list[Any] = []  # What C code calls, which knows no references.
# In the texts of JAX's errors when a collective or the service lost another process.
_LOST = ("connection closed by peer", "connection reset", "socket closed", "gloo", "coordination")
# The service's keys can be set once each; all processes count their agreements alike.
_turns = itertools.count()


def join(settings: ConfigDict, environ: MutableMapping[str, str] = os.environ) -> None:
    """Joins the run's other processes; called before anything touches a device.

    On Cloud TPU and under Slurm or Open MPI, JAX finds the others by itself; elsewhere the three
    environment variables above say where they are. Calling it again does nothing.

    Args:
      settings: the group ``mesh``.
      environ: the environment.

    Raises:
      UserError: the run is meant for another number of processes, or not all of them came
        (RunFailure where a launcher started them all, so that it tries again).
    """
    wanted = settings.processes
    if not jax.distributed.is_initialized():
        _initialize(settings, environ)
    there = jax.process_count() if jax.distributed.is_initialized() else 1
    if wanted and there != wanted:
        raise UserError(
            "config.mesh.processes",
            f"is {wanted}, and {'one process' if there == 1 else f'{there} processes'} came",
            "start the same command on every worker of the slice (`--worker=all`), or set "
            f"mesh.processes={there}",
        )
    if there > 1 and jax.process_index():
        environ[progress.QUIET] = "1"


def _initialize(settings: ConfigDict, environ: MutableMapping[str, str]) -> None:
    given = [environ.get(name) for name in (ADDRESS, COUNT, NUMBER)]
    in_cluster = [n(environ[name]) for name, n in _OF_CLUSTERS.items() if environ.get(name)]
    how: dict[str, Any] = {}
    if any(given[1:]):
        if not all(given) or not (given[1].isdecimal() and given[2].isdecimal()):
            raise UserError(
                f"{ADDRESS}, {COUNT}, {NUMBER}",
                f"are {', '.join(map(str, given))}",
                "set all three: host:port of the first process, how many, and which from 0",
            )
        how = {"num_processes": int(given[1]), "process_id": int(given[2])}
        how["coordinator_address"] = given[0]
        if how["num_processes"] == 1:
            return
    elif settings.processes == 1 or (not settings.processes and max(in_cluster, default=1) < 2):
        return
    n = settings.processes or how.get("num_processes") or max(in_cluster, default=0)

    def wrong(what: str) -> UserError:
        where = f"the run's {n} processes"
        if environ.get(LAUNCHED):  # on all hosts, of which one may be lost: no wrong input
            return RunFailure(where, what, "the launcher starts the run again")
        mend = "start the same command on every worker of the slice (`--worker=all`)"
        return UserError(where, what, mend)

    # JAX's own limit aborts the process with a dump of its stack, so it comes after ours.
    late = wrong(f"did not all come within {settings.join_seconds} s")
    timer = threading.Timer(settings.join_seconds, _give_up, [late])
    timer.daemon = True
    timer.start()
    try:
        with _told_of_a_loss():
            jax.distributed.initialize(
                **how,
                initialization_timeout=int(settings.join_seconds) + _MARGIN_SECONDS,
                heartbeat_timeout_seconds=int(settings.heartbeat_seconds),
                shutdown_timeout_seconds=int(settings.heartbeat_seconds),
            )
    except (ValueError, RuntimeError) as error:
        told = " ".join(str(error).split())[:160]
        raise wrong(f"cannot find each other from here ({told})") from error
    finally:
        timer.cancel()


@contextlib.contextmanager
def _told_of_a_loss() -> Iterator[None]:
    """While it is open, JAX's client is made to call us when another process is lost.

    Its own way is a dump of the stack and `abort`; ``jax.distributed`` passes no callback on. This
    jaxlib (0.10) cannot hand a callback its argument and aborts instead, after two lines: so that
    is caught as well, in whatever thread it is.
    """
    from jax._src import distributed

    def end(*_: Any) -> None:
        _give_up(lost())

    real = distributed._jax.get_distributed_runtime_client
    distributed._jax.get_distributed_runtime_client = functools.partial(
        real, missed_heartbeat_callback=end
    )
    try:
        yield
        at_abort = ctypes.CFUNCTYPE(None, ctypes.c_int)(end)
        _kept.append(at_abort)
        ctypes.CDLL(None).signal(signal.SIGABRT, at_abort)
    finally:
        distributed._jax.get_distributed_runtime_client = real


def lost(told: object = "") -> RunFailure:
    """What a process says when another of its run is gone, or JAX ended it for another reason."""
    short = " ".join(str(told).split())[:160]
    return RunFailure(
        f"the run's {count()} processes",
        "one ended or does not answer any more, so this one ends"
        + (f" ({short})" if short else ""),
        "see what the others said last, then give all of them the same command: it goes on",
    )


def is_loss(error: BaseException) -> bool:
    """Whether an error of JAX's comes from another process that is gone."""
    text = str(error).lower()
    of_jax = isinstance(error, jax.errors.JaxRuntimeError)
    return count() > 1 and of_jax and any(one in text for one in _LOST)


def _give_up(error: UserError) -> None:
    print(f"ilp: error: {error}", file=sys.stderr, flush=True)
    os._exit(error.exit_code)


def count() -> int:
    """Processes of this run; touches no device where there is one."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def index() -> int:
    """This process's number, from 0."""
    return jax.process_index() if jax.distributed.is_initialized() else 0


def is_first() -> bool:
    """Whether this is the process that writes what is written once."""
    return index() == 0


def exchange(value: Any) -> list[Any]:
    """Every process's value, in the order of their numbers; all wait for all.

    Args:
      value: plain JSON.
    """
    if count() == 1:
        return [value]
    client, turn = _client(), next(_turns)
    client.key_value_set(f"ilp/{turn}/{index()}", json.dumps(value))
    return [_wait_for(client, f"ilp/{turn}/{number}") for number in range(count())]


def on_first(action: Callable[..., Any], *args: Any) -> Any:
    """Does something in the first process alone; the others wait, and learn its outcome.

    Args:
      action: what is done; its value must be plain JSON.
      *args: what it is given.

    Returns:
      Its value, in every process.

    Raises:
      UserError, RunFailure: what the action raised, in every process; whatever else it raised
        is a RunFailure in the others.
    """
    if count() == 1:
        return action(*args)
    client, key = _client(), f"ilp/{next(_turns)}"
    if is_first():
        try:
            outcome = {"value": action(*args)}
        except Exception as error:
            code, told = 1, ["the first process", f"{type(error).__name__}: {error}", ""]
            if isinstance(error, UserError):  # RunFailure is one
                code, told = error.exit_code, [error.where, error.what, error.mend]
            client.key_value_set(key, json.dumps({"error": [code, *told]}))
            raise
        client.key_value_set(key, json.dumps(outcome))
        return outcome["value"]
    outcome = _wait_for(client, key)
    if "error" in outcome:
        code, *told = outcome["error"]
        raise (RunFailure if code == RunFailure.exit_code else UserError)(*told)
    return outcome["value"]


def first_then_rest(action: Callable[[], T]) -> T:
    """The first process does something, then the others do the same and find it done."""
    if count() == 1:
        return action()
    mine: list[T] = []
    on_first(lambda: mine.append(action()))
    return mine[0] if mine else action()


def _client() -> Any:
    from jax._src import distributed  # the public interface has no way to it

    return distributed.global_state.client


def _wait_for(client: Any, key: str) -> Any:
    # However long: a process that dies meanwhile ends all of them by its missing heartbeat.
    while True:
        try:
            return json.loads(client.blocking_key_value_get(key, _POLL_MS))
        except Exception as error:  # XLA's own type; its text has the status
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


class Stop:
    """Whether the run was asked to stop (SIGTERM), the same in every process.

    Attributes:
      asked: whether this process was; several are told through JAX's preemption service.
    """

    def __init__(self) -> None:
        self.asked = False

    def at(self, step: int) -> bool:
        """Whether to save and end after an update; asked after every one, in order."""
        if count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self.asked


@contextlib.contextmanager
def stoppable() -> Iterator[Stop]:
    """Takes SIGTERM as the wish to save and end, while it is open.

    With several processes JAX's preemption service has the signal. Outside the main thread, as
    in a notebook's worker, nothing is caught.
    """
    stop = Stop()
    if count() > 1 or threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number, frame):
        stop.asked = True

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


def leave(code: int) -> None:
    """Ends a process of several at once; does nothing where there is one.

    The usual end waits for the others, who wait for this one in a collective.
    """
    if count() == 1:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
