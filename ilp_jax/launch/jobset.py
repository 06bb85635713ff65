"""Runs as a JobSet of our own, for GKE clusters without XPK (https://jobset.sigs.k8s.io)."""

from __future__ import annotations

from typing import Any

import yaml

from ilp_jax.launch import gke, workload
from ilp_jax.launch.spec import LOCAL, Launch
from ilp_jax.launch.steps import Step, command, unless

VERSION = "v0.9.1"
"""Release of JobSet that `cluster` installs."""

_CONTAINER = "ilp"
_KEPT_SECONDS = 24 * 3600  # how long a finished JobSet can still be asked for its logs


def manifest(launch: Launch) -> dict[str, Any]:
    """The JobSet of a run: one Job a slice, one pod a host.

    Any pod that ends early ends its Job, and the JobSet starts all anew, up to
    ``max_restarts`` times: JAX cannot go on with a host less. Exit code 2, wrong input, is
    never tried again.

    Args:
      launch: the run.

    Returns:
      The manifest as plain values.
    """
    hosts = launch.slice.nodes
    job = {
        "parallelism": hosts,
        "completions": hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": _CONTAINER,
                        "operator": "In",
                        "values": [2],
                    },
                }
            ]
        },
        "template": {"metadata": {"labels": {"app": "ilp-jax"}}, "spec": _pod(launch)},
    }
    labels = {"app": "ilp-jax"}
    if launch.queue:
        labels["kueue.x-k8s.io/queue-name"] = launch.queue
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": launch.name,
            "labels": labels,
            # All pods of a slice on one node pool: a slice's links end at its edge.
            "annotations": {
                "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
            },
        },
        "spec": {
            "ttlSecondsAfterFinished": _KEPT_SECONDS,
            "failurePolicy": {
                "maxRestarts": launch.max_restarts,
                "rules": [
                    {
                        "name": "wrong-input",
                        "action": "FailJobSet",
                        "onJobFailureReasons": ["PodFailurePolicy"],
                    }
                ],
            },
            "replicatedJobs": [
                {"name": "slice", "replicas": launch.slices, "template": {"spec": job}}
            ],
        },
    }


def _pod(launch: Launch) -> dict[str, Any]:
    one = launch.slice
    selector = {
        "cloud.google.com/gke-tpu-accelerator": one.gke_accelerator,
        "cloud.google.com/gke-tpu-topology": one.topology,
    }
    tolerations = [{"key": "google.com/tpu", "operator": "Exists", "effect": "NoSchedule"}]
    if launch.spot:
        selector["cloud.google.com/gke-spot"] = "true"
        tolerations.append({"key": "cloud.google.com/gke-spot", "operator": "Exists"})
    if launch.reservation:
        selector["cloud.google.com/reservation-name"] = launch.reservation
    account = launch.kubernetes_service_account
    return {
        "restartPolicy": "Never",
        **({"serviceAccountName": account} if account else {}),
        "terminationGracePeriodSeconds": launch.grace_seconds,
        "nodeSelector": selector,
        "tolerations": tolerations,
        "hostNetwork": True,
        "dnsPolicy": "ClusterFirstWithHostNet",
        "containers": [
            {
                "name": _CONTAINER,
                "image": launch.image,
                # Not `command`, which would replace the image's init: without one, the run
                # were process 1, which the kernel spares from SIGTERM.
                "args": [workload.kept_from_kubernetes(w) for w in workload.command(launch)],
                "env": [
                    {"name": name, "value": workload.kept_from_kubernetes(value)}
                    for name, value in workload.environment(launch).items()
                ],
                # The image's own user is not root, and the TPUs' device files are root's.
                "securityContext": {"privileged": True, "runAsUser": 0},
                # 8471: TPUs of a slice among themselves; 8080: slices.
                "ports": [{"containerPort": 8471}, {"containerPort": 8080}],
                "resources": {"limits": {"google.com/tpu": one.chips_per_node}},
                "volumeMounts": [{"name": "local", "mountPath": LOCAL}],
            }
        ],
        "volumes": [{"name": "local", "emptyDir": {}}],
    }


def start(launch: Launch) -> list[Step]:
    """Submits the run."""
    apply = command("kubectl", "apply", "--filename=-", stdin=text(manifest(launch)))
    title = (
        f"submit the JobSet {launch.name} ({launch.slices} x {launch.slice.name}: "
        f"{launch.processes} hosts, up to {launch.max_restarts} restarts)"
    )
    mend = '`no matches for kind "JobSet"`: install it, see `ilp launch setup`'
    return [gke.credentials(launch), Step(title, apply, mend)]


def text(value: dict[str, Any]) -> str:
    """A manifest as YAML, its fields in the order given."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=10_000)


def status(launch: Launch) -> list[Step]:
    """Whether the JobSet waits, runs or has ended."""
    show = command("kubectl", "get", "jobset", launch.name, "--output=wide")
    return [gke.credentials(launch), Step("the JobSet's state", show), gke.status(launch)]


def logs(launch: Launch) -> list[Step]:
    """Follows host 0."""
    return gke.logs(launch)


def stop(launch: Launch) -> list[Step]:
    """Deletes the JobSet; the cluster stays, and so does what the run has written."""
    words = ("kubectl", "delete", "jobset", launch.name, "--ignore-not-found")
    return [gke.credentials(launch), Step(f"delete the JobSet {launch.name}", command(*words))]


def cluster(launch: Launch) -> list[Step]:
    """Makes a cluster with a node pool for each slice, and JobSet on it."""
    here = (f"--project={launch.project}", f"--location={launch.region}")
    describe = ("gcloud", "container", "clusters", "describe", launch.cluster, *here)
    make = command(
        *("gcloud", "container", "clusters", "create", launch.cluster, *here),
        *("--num-nodes=1", "--release-channel=regular"),
        f"--service-account={launch.service_account}",
        "--scopes=cloud-platform",
    )
    steps = [
        Step(
            f"make the cluster {launch.cluster} (10 minutes; costs from here on)",
            unless(command(*describe, quiet=True), make),
            "see 'The cluster' in launch/README.md",
        )
    ]
    for number in range(launch.slices):
        pool = f"{launch.name}-{number}"[-40:].lstrip("-0123456789")
        words = [
            *("gcloud", "container", "node-pools", "create", pool, *here),
            f"--cluster={launch.cluster}",
            f"--node-locations={launch.zone}",
            f"--machine-type={launch.slice.machine}",
            f"--num-nodes={launch.slice.nodes}",
            *([f"--tpu-topology={launch.slice.topology}"] if launch.slice.nodes > 1 else []),
            f"--service-account={launch.service_account}",
            "--scopes=cloud-platform",
            *(["--spot"] if launch.spot else []),
            *(
                ["--reservation-affinity=specific", f"--reservation={launch.reservation}"]
                if launch.reservation
                else []
            ),
        ]
        there = ("gcloud", "container", "node-pools", "describe", pool, *here)
        test = command(*there, f"--cluster={launch.cluster}", quiet=True)
        steps.append(
            Step(
                f"give it the TPU nodes {pool} ({launch.slice.nodes} of {launch.slice.machine})",
                unless(test, command(*words)),
                "see 'The cluster' in launch/README.md",
            )
        )
    source = f"https://github.com/kubernetes-sigs/jobset/releases/download/{VERSION}/manifests.yaml"
    install = command("kubectl", "apply", "--server-side", "--filename", source)
    return [*steps, gke.credentials(launch), Step(f"install JobSet {VERSION} on it", install)]
