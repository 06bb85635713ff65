"""Runs as XPK workloads (https://github.com/AI-Hypercomputer/xpk; options as of 1.16)."""

from __future__ import annotations

from ilp_jax.errors import UserError
from ilp_jax.launch import gke, workload
from ilp_jax.launch.spec import BREAKS, Launch
from ilp_jax.launch.steps import Step, command, join

_NEVER_AGAIN = "an exit code of 2 (wrong input) is not tried again"


def start(launch: Launch) -> list[Step]:
    """Submits the run.

    Raises:
      UserError: a word that XPK cannot carry.
    """
    words = [
        *("xpk", "workload", "create"),
        f"--workload={launch.name}",
        *_where(launch),
        f"--tpu-type={launch.slice.name}",
        f"--num-slices={launch.slices}",
        f"--docker-image={launch.image}",
        f"--command={shell_command(launch)}",
        *(f"--env={name}={value}" for name, value in workload.environment(launch).items()),
        f"--max-restarts={launch.max_restarts}",
        # XPK starts again on 42 and 127 to 255 alone; a run that failed has 1.
        "--restart-on-exit-codes=1",
        f"--termination-grace-period-seconds={launch.grace_seconds}",
        f"--priority={launch.priority}",
        *(["--spot"] if launch.spot else []),
        *([f"--reservation={launch.reservation}"] if launch.reservation else []),
    ]
    hosts = f"{launch.processes} hosts, up to {launch.max_restarts} restarts"
    return [
        Step(
            f"submit the workload {launch.name} ({launch.slices} x {launch.slice.name}: {hosts}; "
            f"{_NEVER_AGAIN})",
            command(*words),
            "see 'Start with XPK' in launch/README.md",
        )
    ]


def shell_command(launch: Launch) -> str:
    """The run as one line of shell, which XPK writes into a manifest as it is.

    ``exec`` makes the run the process that XPK sends SIGTERM to.

    Raises:
      UserError: a word with a new line, which the manifest has no place for.
    """
    words = workload.command(launch)
    for word in words:
        if BREAKS.search(word):
            mend = "use `by: jobset`, or put the value into the configuration's file"
            raise UserError(f"{launch.file}: {word!r}", "holds a new line, and XPK has none", mend)
    return workload.kept_from_kubernetes("exec " + join(words))


def status(launch: Launch) -> list[Step]:
    """Whether the workload waits, runs or has ended."""
    words = ("xpk", "workload", "list", *_where(launch), f"--filter-by-job=^{launch.name}$")
    return [
        Step("the workload's state", command(*words)),
        gke.credentials(launch),
        gke.status(launch),
    ]


def logs(launch: Launch) -> list[Step]:
    """Follows host 0."""
    return gke.logs(launch)


def stop(launch: Launch) -> list[Step]:
    """Deletes the workload; the cluster stays, and so does what the run has written."""
    words = ("xpk", "workload", "delete", f"--workload={launch.name}", *_where(launch), "--force")
    return [Step(f"delete the workload {launch.name}", command(*words))]


def cluster(launch: Launch) -> list[Step]:
    """Makes a cluster that fits the run."""
    how = "--on-demand"
    if launch.spot or launch.reservation:
        how = f"--reservation={launch.reservation}" if launch.reservation else "--spot"
    words = [
        *("xpk", "cluster", "create", *_where(launch)),
        f"--tpu-type={launch.slice.name}",
        f"--num-slices={launch.slices}",
        how,
        f"--custom-tpu-nodepool-arguments=--service-account={launch.service_account}",
    ]
    return [
        Step(
            f"make the cluster {launch.cluster} with its TPU nodes (20 minutes and more; costs "
            "from here on)",
            command(*words),
            "see 'The cluster' in launch/README.md; the same command goes on where it stopped",
        )
    ]


def _where(launch: Launch) -> tuple[str, ...]:
    return f"--cluster={launch.cluster}", f"--project={launch.project}", f"--zone={launch.zone}"
