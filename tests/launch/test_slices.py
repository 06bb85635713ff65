"""Names of slices, against the table of XPK 1.16.0 (topology, VMs; 4 chips each)."""

import math

import pytest

from ilp_jax.errors import UserError
from ilp_jax.launch.slices import parse_slice

# From xpk/core/system_characteristics.py, Apache License 2.0: facts alone.
XPK = {
    "v4-8": ("2x2x1", 1, "tpu-v4-podslice", "ct4p-hightpu-4t"),
    "v4-64": ("2x4x4", 8, "tpu-v4-podslice", "ct4p-hightpu-4t"),
    "v4-4096": ("8x16x16", 512, "tpu-v4-podslice", "ct4p-hightpu-4t"),
    "v5litepod-8": ("2x4", 2, "tpu-v5-lite-podslice", "ct5lp-hightpu-4t"),
    "v5litepod-16": ("4x4", 4, "tpu-v5-lite-podslice", "ct5lp-hightpu-4t"),
    "v5litepod-128": ("8x16", 32, "tpu-v5-lite-podslice", "ct5lp-hightpu-4t"),
    "v5litepod-256": ("16x16", 64, "tpu-v5-lite-podslice", "ct5lp-hightpu-4t"),
    "v5p-8": ("2x2x1", 1, "tpu-v5p-slice", "ct5p-hightpu-4t"),
    "v5p-16": ("2x2x2", 2, "tpu-v5p-slice", "ct5p-hightpu-4t"),
    "v5p-32": ("2x2x4", 4, "tpu-v5p-slice", "ct5p-hightpu-4t"),
    "v5p-128": ("4x4x4", 16, "tpu-v5p-slice", "ct5p-hightpu-4t"),
    "v5p-256": ("4x4x8", 32, "tpu-v5p-slice", "ct5p-hightpu-4t"),
    "v5p-512": ("4x8x8", 64, "tpu-v5p-slice", "ct5p-hightpu-4t"),
    "v5p-4096": ("8x16x16", 512, "tpu-v5p-slice", "ct5p-hightpu-4t"),
    "v6e-1": ("1x1", 1, "tpu-v6e-slice", "ct6e-standard-1t"),
    "v6e-4": ("2x2", 1, "tpu-v6e-slice", "ct6e-standard-4t"),
    "v6e-8": ("2x4", 2, "tpu-v6e-slice", "ct6e-standard-4t"),
    "v6e-256": ("16x16", 64, "tpu-v6e-slice", "ct6e-standard-4t"),
}


@pytest.mark.parametrize("name", XPK)
def test_as_in_xpk(name):
    one = parse_slice(name)
    assert (one.topology, one.nodes, one.gke_accelerator, one.machine) == XPK[name]
    assert one.name == name
    assert one.chips == math.prod(map(int, one.topology.split("x")))
    assert one.nodes * one.chips_per_node == one.chips


def test_other_spellings_and_single_vms():
    assert parse_slice("v5e-256") == parse_slice("v5litepod-256") == parse_slice("V5E:16x16")
    # A TPU VM holds 8 chips of these where it stands alone, 4 in a larger slice.
    assert [parse_slice(f"v6e-{n}").vms for n in (1, 4, 8, 16, 256)] == [1, 1, 1, 4, 64]
    assert [parse_slice(f"v5p-{n}").vms for n in (8, 16, 128)] == [1, 2, 16]


@pytest.mark.parametrize(
    "text, mend",
    [
        ("v5e-250", "did you mean v5e-256?"),
        ("v6e-2", "did you mean v6e-"),
        ("v5p-100", "did you mean v5p-128?"),
        ("v5e-0", "did you mean v5e-1?"),
        ("v5e:16x17", "one of v5e-1, v5e-4"),
        ("v5x-256", "did you mean v5"),
        ("h100-8", "names: v4, v5e, v5p, v6e"),
        ("", "NAME-SIZE"),
    ],
)
def test_unknown(text, mend):
    with pytest.raises(UserError) as error:
        parse_slice(text)
    assert mend in error.value.mend
