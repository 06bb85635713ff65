"""Weights and data into the bucket, once: no host asks a hub, and none waits for another."""

from __future__ import annotations

import shlex
from typing import Any

from ilp_jax.launch import gke, jobset, queued, workload
from ilp_jax.launch.hub import PATTERNS
from ilp_jax.launch.spec import Launch
from ilp_jax.launch.steps import Step, command, join

_FOLDER = "/tmp/ilp-stage"
_HOURS = 6  # for the pod that downloads
_MEND = "gated? ask for access on the hub's page of the model; see 'Weights' in launch/README.md"


def stage(launch: Launch) -> list[Step]:
    """Brings what the hosts will fetch into the bucket.

    Args:
      launch: the run.

    Returns:
      Steps; a second call uploads only what is missing or has changed.
    """
    return [*_weights(launch), *_data(launch)]


def _weights(launch: Launch) -> list[Step]:
    weights = launch.weights
    if weights is None or weights.at is not None:
        return []
    target = workload.weights_address(launch)
    if weights.folder is not None:
        return [_upload(weights.folder, target)]
    if weights.where == "here":
        return _from_here(launch, target)
    return _from_worker(launch, target) if launch.by == "queued" else _from_pod(launch, target)


def _upload(folder: str, target: str) -> Step:
    words = ("gcloud", "storage", "rsync", folder, target, "--recursive", r"--exclude=(^|.*/)\..*")
    return Step(f"put the weights into {target}", command(*words), "may you write to the bucket?")


def _from_here(launch: Launch, target: str) -> list[Step]:
    weights = launch.weights
    folder = f"{_FOLDER}/{target.rpartition('/')[2]}"
    words = [
        *("hf", "download", weights.repo, f"--revision={weights.revision}"),
        *(f"--include={pattern}" for pattern in PATTERNS),
        f"--local-dir={folder}",
    ]
    # hf reads HF_TOKEN; other users of this machine see command lines, not variables.
    token = f'HF_TOKEN="$({_read_secret(launch)})"\nexport HF_TOKEN\n' if weights.secret else ""
    return [
        Step(f"download {weights.repo} to this machine", token + command(*words), _MEND),
        _upload(folder, target),
    ]


def _from_worker(launch: Launch, target: str) -> list[Step]:
    inner = ["sudo", "docker", "run", "--rm", "--interactive", launch.image, *_hub(launch, target)]
    remote = join(inner)
    if launch.weights.secret:
        remote = f"set -o pipefail; {_read_secret(launch)} | {remote} --token-from-stdin"
        remote = f"bash -c {shlex.quote(remote)}"
    title = f"worker 0 downloads {launch.weights.repo} and puts it into {target}"
    load = Step(title, queued.on_workers(launch, remote, "0"), _MEND)
    return [*queued.bring(launch), load]


def _from_pod(launch: Launch, target: str) -> list[Step]:
    name = f"{launch.name}-stage"
    apply = command("kubectl", "apply", "--filename=-", stdin=jobset.text(pod(launch, target)))
    done = command(
        *("kubectl", "wait", f"job/{name}", "--for=condition=complete", f"--timeout={_HOURS}h")
    )
    return [
        gke.credentials(launch),
        Step(f"a pod downloads {launch.weights.repo} and puts it into {target}", apply, _MEND),
        Step("wait for it", done, f"`kubectl logs job/{name}` says what it does"),
    ]


def pod(launch: Launch, target: str) -> dict[str, Any]:
    """The Job that downloads; the token comes from a Kubernetes secret, by reference.

    Args:
      launch: the run.
      target: folder in the bucket.
    """
    container: dict[str, Any] = {
        "name": "hub",
        "image": launch.image,
        "args": [workload.kept_from_kubernetes(word) for word in _hub(launch, target)],
    }
    secret = launch.weights.secret
    if secret:
        reference = {"secretKeyRef": {"name": secret, "key": "token"}}
        container["env"] = [{"name": "HF_TOKEN", "valueFrom": reference}]
    account = launch.kubernetes_service_account
    spec = {
        "restartPolicy": "Never",
        **({"serviceAccountName": account} if account else {}),
        "containers": [container],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"{launch.name}-stage", "labels": {"app": "ilp-jax"}},
        "spec": {"backoffLimit": 2, "template": {"spec": spec}},
    }


def _hub(launch: Launch, target: str) -> list[str]:
    weights = launch.weights
    words = ["python", "-m", "ilp_jax.launch.hub", weights.repo, target]
    return [*words, f"--revision={weights.revision}"]


def _read_secret(launch: Launch) -> str:
    """Shell words that print the token; whoever runs them has to have the right to."""
    words = ("gcloud", "secrets", "versions", "access", "latest")
    return join([*words, f"--secret={launch.weights.secret}", f"--project={launch.project}"])


def _data(launch: Launch) -> list[Step]:
    if launch.data is None:
        return []
    target = workload.data_address(launch)
    words = ("gcloud", "storage", "cp", launch.data, target.rpartition("/")[0] + "/", "--recursive")
    return [Step(f"put the data into {target}", command(*words), "may you write to the bucket?")]
