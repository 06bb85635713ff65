"""Accelerators by name, and slices of them: what `ilp plan` and a compilation ahead of time need.

Figures are those that their makers publish; ``Chip.source`` names the page. No JAX here.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from types import MappingProxyType

from ilp_jax.errors import UserError
from ilp_jax.fields import nearest


@dataclasses.dataclass(frozen=True)
class Chip:
    """One accelerator.

    Attributes:
      name: as it stands in front of a topology, such as ``v5e``.
      flops: peak of dense bfloat16 matmuls, FLOP/s.
      float32_share: share of it that a float32 matmul reaches at JAX's default precision: 1 on
        a TPU (one bfloat16 pass), .5 on these GPUs (TF32).
      hbm_bytes: memory, bytes.
      hbm_bandwidth: bytes/s between memory and chip.
      link_bandwidth: bytes/s to other chips, all links together, both directions added up.
      axes: dimensions of a slice's torus; 1 for GPUs of one host.
      host: chips of one host along each axis.
      most: chips of the largest slice.
      mfu: share of the peak that a plan assumes, see ``MFU_SOURCE``.
      source: page with these figures.
    """

    name: str
    flops: float
    float32_share: float
    hbm_bytes: float
    hbm_bandwidth: float
    link_bandwidth: float
    axes: int
    host: tuple[int, ...]
    most: int
    mfu: float
    source: str

    @property
    def chips_per_host(self) -> int:
        """Chips of one host in a slice of several."""
        return math.prod(self.host)

    @property
    def receives(self) -> float:
        """Bytes/s that a chip can receive from others: half of ``link_bandwidth``."""
        return self.link_bandwidth / 2

    def peak(self, compute_dtype: str) -> float:
        """Peak FLOP/s of matmuls in a dtype, ``float32`` or ``bfloat16``."""
        return self.flops * (1.0 if compute_dtype == "bfloat16" else self.float32_share)


@dataclasses.dataclass(frozen=True)
class Slice:
    """Chips that run one program together.

    Attributes:
      chip: which.
      shape: chips along each axis.
    """

    chip: Chip
    shape: tuple[int, ...]

    @property
    def n_chips(self) -> int:
        """All of them."""
        return math.prod(self.shape)

    @property
    def n_hosts(self) -> int:
        """Hosts that they are spread over, one process each."""
        return -(-self.n_chips // self.chip.chips_per_host)

    def __str__(self) -> str:
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"


MFU_SOURCE = (
    "MaxText publishes .46 to .67 on v5e for dense models of 16 to 128 billion parameters "
    "(github.com/google/maxtext, MaxText/configs/v5e), Llama 3 .38 to .43 on H100 "
    "(arXiv:2407.21783, Table 4); short rows and full attention reach less: .4 is assumed"
)
_GOOGLE = "https://cloud.google.com/tpu/docs"


def _tpu(name, flops, hbm, bandwidth, link, host, most, source=""):
    page = source or f"{_GOOGLE}/{name}"
    axes = len(host)
    return Chip(name, flops, 1.0, hbm, bandwidth, link, axes, host, most, 0.4, page)


def _gpu(name, flops, hbm, bandwidth, link, source):
    return Chip(name, flops, 0.5, hbm, bandwidth, link, 1, (8,), 8, 0.4, source)


_CHIPS = (
    # Links of v4: six of 50 GB/s each way (arXiv:2304.01433).
    _tpu("v4", 275e12, 32 * 2**30, 1200e9, 600e9, (2, 2, 1), 4096),
    _tpu("v5e", 197e12, 16e9, 819e9, 400e9, (2, 2), 256),
    _tpu("v5p", 459e12, 95e9, 2765e9, 1200e9, (2, 2, 1), 6144),
    _tpu("v6e", 918e12, 32e9, 1640e9, 800e9, (2, 2), 256),
    _gpu("a100", 312e12, 80e9, 2039e9, 600e9, "NVIDIA A100 80GB SXM data sheet"),
    # Their data sheets give twice as much, with sparsity.
    _gpu("h100", 989e12, 80e9, 3350e9, 900e9, "NVIDIA H100 SXM data sheet"),
    _gpu("h200", 989e12, 141e9, 4800e9, 900e9, "NVIDIA H200 SXM data sheet"),
)
CHIPS: Mapping[str, Chip] = MappingProxyType({chip.name: chip for chip in _CHIPS})
"""By name. ``host`` is that of slices of several hosts; a single v5e or v6e host may have 8."""

_FLAT_SHAPES = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_SMALL_CUBES = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))


def chip(name: str) -> Chip:
    """A chip by its name.

    Args:
      name: a key of ``CHIPS``.

    Raises:
      UserError: there is none of that name.
    """
    if name not in CHIPS:
        mend = nearest(name, CHIPS) or f"the chips are {', '.join(CHIPS)}"
        raise UserError(f"chip {name!r}", "unknown", mend)
    return CHIPS[name]


def topology(text: str) -> Slice:
    """A slice by its topology.

    Args:
      text: ``CHIP:SHAPE``, such as ``v5e:16x16``, ``v5p:4x4x8`` or, for GPUs of one host,
        ``h100:8``.

    Returns:
      The slice.

    Raises:
      UserError: no such chip, or no slice of that shape.
    """
    name, colon, shape_text = text.partition(":")
    where = f"topology {text!r}"
    if not colon or not re.fullmatch(r"\d+(x\d+)*", shape_text):
        raise UserError(where, "is not CHIP:SHAPE", "write it as v5e:16x16, v5p:4x4x8 or h100:8")
    one, shape = chip(name), tuple(map(int, shape_text.split("x")))
    if len(shape) != one.axes:
        example = {1: "8", 2: "16x16", 3: "4x4x8"}[one.axes]
        raise UserError(
            where, f"a shape of {name} has {one.axes} axes", f"write it as {name}:{example}"
        )
    if math.prod(shape) > one.most:
        raise UserError(where, f"the largest slice of {name} has {one.most} chips", "take fewer")
    if not _exists(shape):
        known = {
            1: "1 to 8",
            2: ", ".join("x".join(map(str, flat)) for flat in _FLAT_SHAPES),
            3: "2x2x1, 2x2x2, 2x2x4, 2x4x4, or rising multiples of 4",
        }
        raise UserError(where, f"no slice of {name} has this shape", f"there are {known[one.axes]}")
    return Slice(one, shape)


def _exists(shape: tuple[int, ...]) -> bool:
    """Whether there are slices of a shape, by the pages of ``Chip.source``."""
    if len(shape) == 1:
        return shape[0] >= 1
    if len(shape) == 2:
        return shape in _FLAT_SHAPES
    rising = list(shape) == sorted(shape)
    return shape in _SMALL_CUBES or (rising and all(size and size % 4 == 0 for size in shape))


def one_chip(name: str) -> Slice:
    """A single chip as a slice.

    Args:
      name: a key of ``CHIPS``.

    Raises:
      UserError: there is none of that name.
    """
    one = chip(name)
    return Slice(one, (1,) * one.axes)
