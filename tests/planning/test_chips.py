"""Chips and slices: figures that a plan rests on, and what is refused."""

import pytest

from ilp_jax import chips
from ilp_jax.errors import UserError


@pytest.mark.parametrize(
    ("text", "n_chips", "n_hosts"),
    [
        ("v5e:16x16", 256, 64),
        ("v5e:1x1", 1, 1),
        ("v6e:4x8", 32, 8),
        ("v5p:4x4x8", 128, 32),
        ("v4:2x2x1", 4, 1),
        ("h200:1", 1, 1),
        ("h100:8", 8, 1),
    ],
)
def test_a_slice_has_the_chips_and_hosts_of_its_page(text, n_chips, n_hosts):
    found = chips.topology(text)
    assert (str(found), found.n_chips, found.n_hosts) == (text, n_chips, n_hosts)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("v5e", "not CHIP:SHAPE"),
        ("v5e:16", "2 axes"),
        ("v5e:16xx16", "not CHIP:SHAPE"),
        ("v5e:3x5", "no slice"),
        ("v5e:32x32", "256 chips"),
        ("v5p:8x4x4", "no slice"),
        ("v5p:0x4x4", "no slice"),
        ("h100:0", "no slice"),
        ("h100:16", "8 chips"),
        ("v7:2x2", "unknown"),
    ],
)
def test_a_wrong_topology_is_one_line(text, what):
    with pytest.raises(UserError, match=what) as refused:
        chips.topology(text)
    assert refused.value.mend and "\n" not in str(refused.value)


def test_every_chip_is_whole():
    for name, chip in chips.CHIPS.items():
        assert chips.one_chip(name).n_chips == 1 and chip.name == name and chip.source
        assert chip.peak("bfloat16") >= chip.peak("float32") > 1e14
        assert 0 < chip.mfu < 1 and chip.receives == chip.link_bandwidth / 2
        # A chip does more FLOPs than it can read bytes, and reads faster than it receives.
        assert chip.flops > chip.hbm_bandwidth > chip.receives
        assert len(chip.host) == chip.axes
