"""Norms and updates on meshes of virtual devices: those of one device, with no word more."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("sharded_steps.py")
FSDP = {8: {"fsdp": 8}, 4: {"data": 2, "fsdp": 2}}
BOTH = {8: {"fsdp": 4, "tensor": 2}, 4: {"fsdp": 2, "tensor": 2}}

# Both forms of norms, both kinds of mesh, several rows a device and one; every family with each of
# them in the slow run.
QUICK = (("llama", "gram", {"fsdp": 4}, 1), ("qwen3", "direct", BOTH[4], 8))
FULL = {
    n: tuple(
        itertools.product(
            ("llama", "qwen2", "qwen3", "olmo2"), ("gram", "direct"), (FSDP[n], BOTH[n]), (1, 2)
        )
    )
    for n in (8, 4)
}


ODD = {"vocab_size": 33, "d_ff": 99, "n_heads": 3, "n_kv_heads": 3}
# A width that its axes divide, and not what another axis leaves of it.
CROSSED = BOTH[4] | {"rules": ["mlp/up/kernel = -, -, fsdp", "kernel = -, fsdp+tensor, -", "e = -"]}
# One width that does not divide, all of them, both forms, a tied table, adapters.
UNEVEN_QUICK = (("qwen3", "direct", BOTH[4], 1, ODD | {"d_model": 63}),)
UNEVEN = (
    ("llama", "gram", BOTH[4], 1, ODD),
    *(
        (family, "gram", BOTH[4], 1, shape)
        for family in ("llama", "qwen3")
        for shape in ({"vocab_size": 33}, {"d_ff": 99}, {"n_heads": 3, "n_kv_heads": 3})
    ),
    ("llama", "direct", BOTH[4], 2, ODD),
    ("olmo2", "direct", {"fsdp": 1, "tensor": 4}, 1, {}),
    ("qwen2", "gram", {"fsdp": 1, "tensor": 4}, 1, {"n_kv_heads": 1}),
    ("qwen2", "gram", {"data": 2, "fsdp": 2}, 1, ODD | {"d_model": 63}),
    ("llama", "gram", CROSSED, 1, {"d_ff": 6}),
    ("qwen3", "direct", CROSSED, 1, {"d_ff": 6, "vocab_size": 33}),
    ("llama", "gram", BOTH[4], 1, ODD, 4),
)


def run(n_devices, cases):
    names = ("family", "method", "sizes", "n_microbatches", "shape", "rank")
    cases = [dict(zip(names, case, strict=False)) for case in cases]
    # What is compared does not depend on how well it is compiled.
    flags = f"--xla_force_host_platform_device_count={n_devices}"
    flags += " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), json.dumps(cases)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return zip(cases, map(json.loads, done.stdout.splitlines()), strict=True)


def check_values(n_devices, cases):
    for case, found in run(n_devices, cases):
        assert max(found["errors"].values()) < 1e-5, (case, found)
        assert found["moments"] < 1e-5, (case, found)
        yield case, found


def check(n_devices, cases):
    for case, found in check_values(n_devices, cases):
        assert found["share"] == 1 / n_devices if case["sizes"].get("data", 1) == 1 else 1 / 2
        if case["sizes"].get("tensor", 1) == 1:
            assert set(found["with"]) <= set(found["without"]), (case, found)
            for kind, (runs, received) in found["with"].items():
                plain_runs, plain_received = found["without"][kind]
                assert runs <= plain_runs and received <= plain_received, (kind, case, found)


@pytest.mark.multi_device
def test_norms_on_a_mesh_are_those_of_one_device_and_add_no_collective():
    check(4, QUICK)


@pytest.mark.multi_device
@pytest.mark.parametrize(
    "cases", [UNEVEN_QUICK, pytest.param(UNEVEN, marks=pytest.mark.slow)], ids=["all", "each"]
)
def test_a_width_that_an_axis_does_not_divide_stays_whole(cases):
    assert len(list(check_values(4, cases))) == len(cases)


@pytest.mark.slow
@pytest.mark.multi_device
@pytest.mark.parametrize("n_devices", [8, 4])
def test_norms_on_every_mesh(n_devices):
    check(n_devices, FULL[n_devices])
