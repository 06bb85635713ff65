"""A sweep on a GKE cluster: each run that is not done becomes a workload of its own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

from ilp_jax import files
from ilp_jax.errors import UserError
from ilp_jax.launch import gke, jobset, spec, steps, xpk
from ilp_jax.launch.spec import Launch
from ilp_jax.launch.steps import Step
from ilp_jax.sweep import ledger
from ilp_jax.sweep.runs import Run, runs_of

_WAYS = {"xpk": xpk, "jobset": jobset}
_LONGEST = 40  # characters of a workload's name that XPK takes


def submit(
    file_and_args: str, workdir: str, overrides: Sequence[str], launch_file: str
) -> tuple[list[Step], dict[str, str]]:
    """The steps that submit what ``get_sweep`` of a config file yields.

    Args:
      file_and_args: see `runs.runs_of`; ``{weights}`` and ``{data}`` stand for their places on
        the hosts.
      workdir: the sweep's folder in a bucket; each run writes into ``WORKDIR/NAME``.
      overrides: ``--config.a.b=value`` items for every run.
      launch_file: description of the pod; its ``arguments`` go to every run, its ``config``
        and ``workdir`` are not used.

    Returns:
      The steps, none where all is done; and by run its workload's name, '' where it is done.

    Raises:
      UserError: the config file, the description or the folder is wrong.
    """
    folder = files.as_path(workdir)
    if files.is_local(folder):
        mend = "give a gs:// --workdir, or leave --launch out"
        raise UserError(workdir, "is local, and these runs are on a cluster", mend)
    spec.must_be_inside("--config", file_and_args.partition(".py")[0] + ".py")
    launch = spec.read(launch_file, needs_config=False)
    if launch.by not in _WAYS:
        mend = "use xpk or jobset"
        raise UserError(f"{launch_file}: by", f"{launch.by} starts no workloads", mend)
    names, submitted = {}, [gke.credentials(launch)]
    common = [word for word in launch.words if word.startswith("--config.")]
    for run in runs_of(file_and_args, overrides):
        if ledger.finished(folder / run.name):
            names[run.name] = ""
            continue
        names[run.name] = workload_name(launch.name, workdir, run.name)
        submitted.append(_submit(_launch(launch, run, common, names[run.name], str(folder))))
    return (submitted if any(names.values()) else []), names


def workload_name(prefix: str, workdir: str, run: str) -> str:
    """Name of a run's workload: DNS-1123, the same each time, and no other run's.

    Args:
      prefix: name of the description.
      workdir: the sweep's folder.
      run: the run's name.
    """
    digest = hashlib.sha256(f"{workdir.rstrip('/')}/{run}".encode()).hexdigest()[:6]
    slug = re.sub(r"[^a-z0-9]+", "-", f"{prefix}-{run}".lower()).strip("-")
    return f"{slug[: _LONGEST - len(digest) - 1].rstrip('-')}-{digest}"


def told(names: Mapping[str, str]) -> list[str]:
    """The runs and their workloads, one a line."""
    width = max(map(len, names))
    return [f"{run:<{width}}  {name or 'done'}" for run, name in names.items()]


def _launch(launch: Launch, run: Run, common: Sequence[str], name: str, folder: str) -> Launch:
    words = spec.fill(launch.file, [*run.words, *common], launch.weights is not None, launch.data)
    return launch.for_run(name, words, f"{folder}/{run.name}")


def _submit(launch: Launch) -> Step:
    """Submits, unless the workload is there and has not ended; one that has ended is replaced."""
    way = _WAYS[launch.by]
    # JobSet's own word on how it ended; XPK's workloads are JobSets.
    seen = "{.metadata.name}/{.status.terminalState}"
    words = (
        "kubectl",
        "get",
        "jobset",
        launch.name,
        "--ignore-not-found",
        f"--output=jsonpath={seen}",
    )
    start = way.start(launch)[-1]
    text = f"""\
start() {{
{start.script}
}}
state="$({steps.join([*words, f"--output=jsonpath={seen}"])})"
case "$state" in
  "") start ;;
  {launch.name}/) echo "{launch.name} is submitted and has not ended" ;;
  *)
    {way.stop(launch)[-1].script.replace(chr(10), chr(10) + "    ")}
    start
    ;;
esac"""
    return Step(start.title, text, start.mend)
