"""What XPK and our own JobSet share: the cluster's credentials and the logs of its pods."""

from __future__ import annotations

from ilp_jax.launch.spec import Launch
from ilp_jax.launch.steps import Step, command


def credentials(launch: Launch) -> Step:
    """Points kubectl at the cluster."""
    words = ("gcloud", "container", "clusters", "get-credentials", launch.cluster)
    return Step(
        f"point kubectl at the cluster {launch.cluster}",
        command(*words, f"--location={launch.region}", f"--project={launch.project}"),
        f"is there a cluster {launch.cluster} in {launch.region}? see `ilp launch setup`",
    )


def logs(launch: Launch) -> list[Step]:
    """Follows the first host of each slice: the others say the same."""
    one = f"jobset.sigs.k8s.io/jobset-name={launch.name},batch.kubernetes.io/job-completion-index=0"
    show = command("kubectl", "logs", "--follow", "--tail=200", f"--selector={one}")
    mend = "no pod yet? `ilp launch status` says what it waits for"
    return [credentials(launch), Step("follow the log of host 0 (Ctrl-C leaves it)", show, mend)]


def status(launch: Launch) -> Step:
    """Pods, and the newest events about them."""
    selector = f"--selector=jobset.sigs.k8s.io/jobset-name={launch.name}"
    pods = command("kubectl", "get", "pods", "--output=wide", selector)
    events = "kubectl get events --sort-by=.lastTimestamp | grep -F -- "
    return Step(
        "its pods, and what happened to them last",
        f"{pods}\n{events}{launch.name} | tail -n 20 || true",
    )
