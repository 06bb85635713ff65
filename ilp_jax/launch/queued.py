"""Runs on TPU VMs that a queued resource brings; each worker runs the image with Docker.

Docker holds the run, so an ssh that drops kills nothing; the same image as on GKE means no
package is installed 64 times, and no Python of the TPU VM's own has to fit.
"""

from __future__ import annotations

import re
import shlex

from ilp_jax.launch import workload
from ilp_jax.launch.spec import LOCAL, Launch
from ilp_jax.launch.steps import Step, command, join, unless

CONTAINER = "ilp"
"""Name of the run's container on every worker."""

_SAYS = "ilp-host"
_QUEUE = ("gcloud", "compute", "tpus", "queued-resources")
_VM = ("gcloud", "compute", "tpus", "tpu-vm")


def start(launch: Launch) -> list[Step]:
    """Asks for the TPUs, waits for them, and starts the run on every worker."""
    return [*bring(launch), run(launch)]


def bring(launch: Launch) -> list[Step]:
    """Asks for the TPUs, waits for them, and gets the image onto every worker."""
    return [create(launch), wait(launch), install(launch)]


def create(launch: Launch) -> Step:
    """Asks for the slice, unless that was done."""
    words = [
        *(*_QUEUE, "create", launch.name, f"--node-id={launch.name}", *_where(launch)),
        f"--accelerator-type={launch.slice.name}",
        f"--runtime-version={launch.slice.runtime}",
        f"--service-account={launch.service_account}",
        "--scopes=cloud-platform",
        *(["--spot"] if launch.spot else []),
        *(["--reserved"] if launch.reservation else []),
    ]
    test = command(*_QUEUE, "describe", launch.name, *_where(launch), quiet=True)
    kind = "spot" if launch.spot else "reserved" if launch.reservation else "on demand"
    return Step(
        f"ask for a {launch.slice.name} ({launch.slice.vms} workers, {kind}) as {launch.name}",
        unless(test, command(*words)),
        "see 'TPU VMs' in launch/README.md (quota, API, zone)",
    )


def wait(launch: Launch) -> Step:
    """Waits until the slice is there."""
    script = f"""\
state=
until [ "$state" = ACTIVE ]; do
  state="$({queue_state(launch)})"
  echo "$(date -u +%H:%M:%S) {launch.name}: $state"
  case "$state" in
    ACTIVE) ;;
    FAILED | SUSPENDING | SUSPENDED) exit 1 ;;
    *) sleep 30 ;;
  esac
done"""
    mend = f"`ilp launch status {launch.file}` says why; `ilp launch stop`, then start again"
    return Step("wait for it (from minutes to days: a queue)", script, mend)


def queue_state(launch: Launch) -> str:
    """Shell words that print the queued resource's state."""
    words = (*_QUEUE, "describe", launch.name, *_where(launch), "--format=value(state.state)")
    return join(words)


def node_state(launch: Launch) -> str:
    """Shell words that print the TPU VM's state."""
    words = (*_VM, "describe", launch.name, *_where(launch), "--format=value(state)")
    return join(words)


def install(launch: Launch) -> Step:
    """Gets the image onto every worker."""
    registry = launch.image.partition("/")[0]
    # The password goes from one program to the next, never onto a command line.
    login = (
        "gcloud auth print-access-token | "
        f"sudo docker login -u oauth2accesstoken --password-stdin https://{registry}"
    )
    image = shlex.quote(launch.image)
    remote = f"set -o pipefail; {login} && sudo docker pull --quiet {image}"
    return Step(
        f"get the image onto all {launch.slice.vms} workers",
        on_workers(launch, f"bash -c {shlex.quote(remote)}"),
        f"may {launch.service_account} read the registry? see 'TPU VMs' in launch/README.md",
    )


def run(launch: Launch) -> Step:
    """Starts the run on every worker, unless it runs there."""
    running = (
        f"sudo docker inspect --format '{{{{.State.Running}}}}' {CONTAINER} 2>/dev/null | "
        "grep -qx true"
    )
    remove = f"sudo docker rm --force {CONTAINER} >/dev/null 2>&1"
    words = [
        *("sudo", "docker", "run", "--detach", f"--name={CONTAINER}"),
        # The TPUs' device files are root's; the image's own user is not root.
        *("--privileged", "--network=host", "--user=0", f"--volume={LOCAL}:{LOCAL}"),
        *(f"--env={name}={value}" for name, value in workload.environment(launch).items()),
        launch.image,
        *workload.command(launch),
    ]
    remote = f"{running} || {{ {remove}; {join(words)}; }}"
    return Step(
        f"start the run on all {launch.slice.vms} workers at once",
        on_workers(launch, remote),
        f"`ilp launch logs {launch.file}` shows what a worker said",
    )


def halt(launch: Launch) -> Step:
    """Ends the run on every worker; the TPUs stay."""
    seconds = launch.grace_seconds
    remote = (
        f"sudo docker stop -t {seconds} {CONTAINER} >/dev/null 2>&1; "
        f"sudo docker rm --force {CONTAINER} >/dev/null 2>&1; true"
    )
    return Step("end the run on all workers", on_workers(launch, remote))


def ask_workers(launch: Launch) -> str:
    """Script that prints a line for every worker, which `told` reads."""
    inspect = (
        "sudo docker inspect --format '{{.State.Status}} {{.State.ExitCode}}' "
        f"{CONTAINER} 2>/dev/null || echo none 0"
    )
    return on_workers(launch, f'echo "{_SAYS} $(hostname) $({inspect})"')


def told(text: str) -> dict[str, tuple[str, int]]:
    """What workers said: state of the container (``none``: no such) and exit code, by host."""
    lines = re.findall(rf"^{_SAYS} (\S+) (\w+) (\d+)\s*$", text, re.MULTILINE)
    return {host: (state, int(code)) for host, state, code in lines}


def status(launch: Launch) -> list[Step]:
    """The queued resource, and the run on every worker."""
    show = command(*_QUEUE, "describe", launch.name, *_where(launch), "--format=yaml(state)")
    return [
        Step("the queued resource's state", show, "not there: `ilp launch start`"),
        Step("the run on each worker", ask_workers(launch), "no ssh: is it ACTIVE?"),
    ]


def logs(launch: Launch) -> list[Step]:
    """Follows worker 0: the others say the same."""
    remote = f"sudo docker logs --follow --tail 200 {CONTAINER}"
    title = "follow the log of worker 0 (Ctrl-C leaves it, and the run goes on)"
    return [Step(title, on_workers(launch, remote, "0"), "not started? `ilp launch status`")]


def stop(launch: Launch) -> list[Step]:
    """Deletes the queued resource with its TPU VM; what the run has written stays."""
    words = (*_QUEUE, "delete", launch.name, *_where(launch), "--force", "--quiet")
    return [Step(f"give back the TPUs of {launch.name}", command(*words))]


def on_workers(launch: Launch, remote: str, worker: str = "all") -> str:
    """A command line of the workers' shells, as one of this shell's.

    Args:
      launch: the run.
      remote: for the shell of each worker.
      worker: ``all`` or a number.
    """
    words = (*_VM, "ssh", launch.name, *_where(launch))
    return command(*words, f"--worker={worker}", f"--command={remote}")


def _where(launch: Launch) -> tuple[str, str]:
    return f"--project={launch.project}", f"--zone={launch.zone}"
