"""What one host runs, the same words everywhere, and its variables."""

from __future__ import annotations

from pathlib import PurePosixPath

from ilp_jax.errors import UserError
from ilp_jax.launch.spec import LOCAL, Launch

_PROCESSES = "--config.mesh.processes="


def command(launch: Launch) -> list[str]:
    """The words of one host: fetch what it needs from the bucket, then become ``ilp run``.

    Args:
      launch: the run.

    Returns:
      Words, not yet quoted for anything. The number of processes stands among them, so that
      a run in which a host is missing stops instead of training on part of the data.

    Raises:
      UserError: there is nothing to run.
    """
    if not launch.words:
        raise UserError(f"{launch.file}: config", "is needed", "give FILE.py:name=value,...")
    words = ["python", "-m", "ilp_jax.launch.on_host"]
    for source, target in sources(launch).items():
        words += ["--fetch", source, target]
    words += ["--", "run", *launch.words, "--workdir", launch.workdir]
    if not any(word.startswith(_PROCESSES) for word in launch.words):
        words.append(f"{_PROCESSES}{launch.processes}")
    return words


def sources(launch: Launch) -> dict[str, str]:
    """Places on every host, by the address in a bucket that each is copied from."""
    found = {}
    if launch.weights is not None:
        found[weights_address(launch)] = f"{LOCAL}/weights"
    if launch.data is not None:
        found[data_address(launch)] = f"{LOCAL}/data/{PurePosixPath(launch.data).name}"
    return found


def weights_address(launch: Launch) -> str:
    """Where the base model lies in the bucket."""
    weights = launch.weights
    if weights.at is not None:
        return weights.at
    name = weights.repo or PurePosixPath(weights.folder).name
    version = "" if weights.repo is None else f"@{weights.revision.replace('/', '-')}"
    return f"{launch.bucket}/weights/{name.replace('/', '--')}{version}"


def data_address(launch: Launch) -> str:
    """Where the rows lie in the bucket: with the run, for another run's may differ."""
    return f"{launch.bucket}/data/{launch.name}/{PurePosixPath(launch.data).name}"


def environment(launch: Launch) -> dict[str, str]:
    """Variables of the run; a later name of ``launch.environment`` wins."""
    return {
        "HF_HUB_OFFLINE": "1",  # no host asks a hub for anything
        "JAX_PLATFORMS": "tpu,cpu",  # a host without TPUs fails, rather than train on its CPU
        "PYTHONUNBUFFERED": "1",
        **launch.environment,
    }


def kept_from_kubernetes(text: str) -> str:
    """The text as Kubernetes has to be given it: it reads ``$(NAME)`` as a variable."""
    return text.replace("$", "$$")
