"""The JobSet against the schema of its own CRD, and what a TPU needs of it."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from ilp_jax.launch import jobset

SCHEMA = Path(__file__).parent / "data" / "jobset_v1alpha2.json"


def strict(node):
    """The schema with unknown fields forbidden: a cluster drops them without a word."""
    if isinstance(node, list):
        return [strict(one) for one in node]
    if not isinstance(node, dict):
        return node
    node = {key: strict(value) for key, value in node.items()}
    if node.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if "properties" in node and isinstance(node["properties"], dict) and "type" in node:
        node.setdefault("additionalProperties", False)
    return node


@pytest.fixture(scope="module")
def validator():
    schema = strict(json.loads(SCHEMA.read_text()))
    schema["properties"]["metadata"] = {"type": "object"}  # Kubernetes' own
    return jsonschema.Draft7Validator(schema)


FIELDS = [
    {},
    {"spot": True, "queue": "user-queue", "kubernetes_service_account": "ilp"},
    {"reservation": "mine", "tpu": "v5e-1", "slices": 1, "max_restarts": 0},
]


@pytest.mark.parametrize("fields", FIELDS)
def test_fits_the_schema(example, validator, fields):
    text = jobset.text(jobset.manifest(example("jobset_8b_v5p", **fields)))
    validator.validate(yaml.safe_load(text))


@pytest.mark.parametrize(
    "path, value",
    [(("spec", "failurePolicy", "maxRestarts"), "10"), (("spec", "failurePolicies"), {})],
)
def test_the_schema_sees_mistakes(example, validator, path, value):
    manifest = jobset.manifest(example("jobset_8b_v5p"))
    at = manifest
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    assert not validator.is_valid(manifest)


def test_one_pod_a_host_on_the_right_nodes(example):
    launch = example("jobset_8b_v5p", spot=True, grace_seconds=120)
    spec = jobset.manifest(launch)["spec"]
    (slices,) = spec["replicatedJobs"]
    job = slices["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert slices["replicas"] == 2
    assert job["parallelism"] == job["completions"] == 16 and job["backoffLimit"] == 0
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5p-slice",
        "cloud.google.com/gke-tpu-topology": "4x4x4",
        "cloud.google.com/gke-spot": "true",
    }
    assert pod["terminationGracePeriodSeconds"] == 120
    assert spec["failurePolicy"]["maxRestarts"] == 10
    # `command` would replace the image's init, and SIGTERM would never arrive.
    assert "command" not in container
