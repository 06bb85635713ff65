"""Keeps a run on TPU VMs going: asks for new TPUs when they are taken away.

`ilp run` goes on where it stopped, so starting again is all that is needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from ilp_jax.errors import RunFailure
from ilp_jax.launch import queued, steps
from ilp_jax.launch.spec import Launch
from ilp_jax.launch.steps import Step

ASK, REPLACE, WAIT, START, AGAIN = "ask", "replace", "wait", "start", "again"
DONE, WRONG_INPUT = "done", "wrong input"

_POLL_SECONDS = 60.0
_GONE = ("FAILED", "SUSPENDED")
_TAKEN = ("PREEMPTED", "TERMINATED", "STOPPED")
_UNREACHABLE_POLLS = 15  # in which a worker may be silent, such as one that restarts
_INPUT = 2  # exit code of wrong input


def decide(queue: str, node: str, hosts: Mapping[str, tuple[str, int]], n_hosts: int) -> str:
    """What to do next.

    Args:
      queue: state of the queued resource, '' where there is none.
      node: state of its TPU VM, '' where there is none.
      hosts: of `queued.told`.
      n_hosts: how many workers there are.

    Returns:
      ``ask`` for TPUs; ``replace`` what is left of those that were taken away; ``wait``;
      ``start`` the run on workers that have none; run it ``again`` since a worker's ended
      early; or it is ``done``, or ended since its input is wrong.
    """
    if queue == "":
        return ASK
    if queue in _GONE or (queue == "ACTIVE" and node in _TAKEN):
        return REPLACE
    if queue != "ACTIVE" or len(hosts) < n_hosts:
        return WAIT
    ended = [code for state, code in hosts.values() if state == "exited"]
    if _INPUT in ended:
        return WRONG_INPUT
    if len(ended) == n_hosts and not any(ended):
        return DONE
    if any(ended):
        return AGAIN
    return START if any(state == "none" for state, _ in hosts.values()) else WAIT


def plan(launch: Launch, action: str) -> list[Step]:
    """The steps of an action of `decide`."""
    return {
        ASK: [queued.create(launch)],
        REPLACE: [*queued.stop(launch), queued.create(launch)],
        START: [queued.install(launch), queued.run(launch)],
        AGAIN: [queued.halt(launch), queued.run(launch)],
    }.get(action, [])


def watch(
    launch: Launch,
    run: Callable[[Sequence[Step]], None] = steps.run,
    output: Callable[[str], tuple[int, str]] = steps.output,
    pause: Callable[[float], None] = time.sleep,
    say: Callable[[str], None] = print,
) -> None:
    """Watches until the run is done.

    Args:
      launch: the run.
      run: runs steps.
      output: runs a script, and gives its exit code and output.
      pause: waits some seconds.
      say: gets a line whenever something changes.

    Raises:
      RunFailure: the input is wrong; it ended early too often; a worker stays silent; a step
        failed.
    """
    restarts, silent, before = 0, 0, None
    while True:
        queue = output(f"{queued.queue_state(launch)} 2>/dev/null")[1].strip()
        node, hosts = "", {}
        if queue == "ACTIVE":
            node = output(f"{queued.node_state(launch)} 2>/dev/null")[1].strip()
        if node == "READY":
            hosts = queued.told(output(queued.ask_workers(launch))[1])
        action = decide(queue, node, hosts, launch.slice.vms)
        seen = f"{queue or 'no queued resource'}, {len(hosts)} of {launch.slice.vms} workers answer"
        if (seen, action) != before:
            say(f"{time.strftime('%H:%M:%S')} {launch.name}: {seen}: {action}")
        before = (seen, action)
        if action == DONE:
            return
        if action == WRONG_INPUT:
            mend = f"`ilp launch logs {launch.file}` says what; then `ilp launch stop`"
            raise RunFailure(launch.name, "the run says that its input is wrong", mend)
        silent = silent + 1 if node == "READY" and len(hosts) < launch.slice.vms else 0
        if silent > _UNREACHABLE_POLLS:
            action, silent = REPLACE, 0
        if action == AGAIN:
            restarts += 1
            if restarts > launch.max_restarts:
                mend = f"`ilp launch logs {launch.file}` says why; the TPUs still cost"
                raise RunFailure(launch.name, f"ended early {restarts} times", mend)
        run(plan(launch, action))
        if action == WAIT:
            pause(_POLL_SECONDS)


def told_as_script(launch: Launch) -> str:
    """What `watch` asks and would do, for a dry run: comments and commands."""
    asks = (
        f"# Every {_POLL_SECONDS:.0f} s:\n{queued.queue_state(launch)}\n"
        f"{queued.node_state(launch)}\n{queued.ask_workers(launch)}\n"
    )
    cases = {
        "no queued resource": ASK,
        f"{', '.join(_GONE)}, or the TPU VM is {', '.join(_TAKEN)}": REPLACE,
        "ACTIVE, and a worker has no run": START,
        f"a run ended early (at most {launch.max_restarts} times)": AGAIN,
    }
    parts = [asks]
    for case, action in cases.items():
        parts.append(steps.comment(f"{case}:"))
        parts += [steps.comment(f"  {step.title}") for step in plan(launch, action)]
    parts.append(
        "# all workers ended well: done. Exit code 2 of one: wrong input, not tried again."
    )
    return "\n".join(parts) + "\n"
