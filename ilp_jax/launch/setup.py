"""What an empty project needs before the first run, and the image of the code."""

from __future__ import annotations

from ilp_jax.launch import jobset, xpk
from ilp_jax.launch.spec import Launch
from ilp_jax.launch.steps import Step, command, unless

_APIS = ("artifactregistry", "cloudbuild", "compute", "iam", "secretmanager", "storage", "tpu")
_ROLES = (
    ("roles/artifactregistry.reader", "pulls the image"),
    ("roles/logging.logWriter", "writes logs"),
    ("roles/monitoring.metricWriter", "writes metrics"),
)


def setup(launch: Launch) -> list[Step]:
    """APIs, bucket, registry, service account and, on GKE, the cluster; each unless it is there.

    Args:
      launch: the run, whose names it takes.
    """
    steps = [_apis(launch), _bucket(launch), *_registry(launch), *_account(launch)]
    if launch.by == "xpk":
        steps += xpk.cluster(launch)
    elif launch.by == "jobset":
        steps += jobset.cluster(launch)
    return steps


def image(launch: Launch) -> list[Step]:
    """Builds the image in the cloud, from the folder of the project."""
    # XPK runs it as its own user, and the TPUs' device files are root's.
    user = "root" if launch.by == "xpk" else "ilp"
    words = [
        *("gcloud", "builds", "submit", ".", f"--project={launch.project}"),
        "--config=launch/cloudbuild.yaml",
        f"--substitutions=_IMAGE={launch.image},_USER={user}",
    ]
    mend = "from the project's own folder? is the registry there? see `ilp launch setup`"
    return [Step(f"build {launch.image} (10 minutes)", command(*words), mend)]


def _apis(launch: Launch) -> Step:
    apis = sorted((*_APIS, *(() if launch.by == "queued" else ("container",))))
    words = ("gcloud", "services", "enable", *(f"{one}.googleapis.com" for one in apis))
    mend = "does the project have a billing account?"
    return Step("switch on the APIs", command(*words, f"--project={launch.project}"), mend)


def _bucket(launch: Launch) -> Step:
    name = "/".join(launch.bucket.split("/")[:3])
    here = f"--project={launch.project}"
    make = command(
        *("gcloud", "storage", "buckets", "create", name, here),
        *(f"--location={launch.region}", "--uniform-bucket-level-access"),
    )
    test = command("gcloud", "storage", "buckets", "describe", name, here, quiet=True)
    mend = "names of buckets are the whole world's: `already exists` means another's"
    return Step(f"make the bucket, where the TPUs are ({launch.region})", unless(test, make), mend)


def _registry(launch: Launch) -> list[Step]:
    host, *parts = launch.image.split("/")
    if not host.endswith("-docker.pkg.dev") or len(parts) < 3:
        return []
    where = (f"--project={parts[0]}", f"--location={host.removesuffix('-docker.pkg.dev')}")
    name = ("gcloud", "artifacts", "repositories")
    make = command(*name, "create", parts[1], *where, "--repository-format=docker")
    test = command(*name, "describe", parts[1], *where, quiet=True)
    return [Step("make the registry for the image", unless(test, make))]


def _account(launch: Launch) -> list[Step]:
    email, here = launch.service_account, f"--project={launch.project}"
    name, _, domain = email.partition("@")
    if domain != f"{launch.project}.iam.gserviceaccount.com":
        return []  # somebody else's, whose rights are not ours to change
    make = command("gcloud", "iam", "service-accounts", "create", name, here)
    test = command("gcloud", "iam", "service-accounts", "describe", email, here, quiet=True)
    member = f"--member=serviceAccount:{email}"
    bucket = "/".join(launch.bucket.split("/")[:3])
    grant = ("gcloud", "storage", "buckets", "add-iam-policy-binding", bucket)
    steps = [
        Step("make the service account that the hosts act as", unless(test, make)),
        Step(
            "let it read and write the bucket, and no other",
            command(*grant, member, "--role=roles/storage.objectAdmin"),
        ),
    ]
    give = ("gcloud", "projects", "add-iam-policy-binding", launch.project, member)
    for role, why in _ROLES:
        words = (*give, f"--role={role}", "--condition=None", "--format=none")
        steps.append(Step(f"let it do this: {why}", command(*words)))
    if launch.weights and launch.weights.secret and launch.by == "queued":
        words = ("gcloud", "secrets", "add-iam-policy-binding", launch.weights.secret, here, member)
        role = "--role=roles/secretmanager.secretAccessor"
        mend = "make the secret first; see 'Weights' in launch/README.md"
        steps.append(Step("let it read the hub's token", command(*words, role), mend))
    return steps
