"""TPU slices by name: chips, hosts, and what GKE and the TPU API call them."""

from __future__ import annotations

import dataclasses
import math
import re

from ilp_jax.errors import UserError
from ilp_jax.fields import nearest


@dataclasses.dataclass(frozen=True)
class _Kind:
    """One generation of TPUs; see https://cloud.google.com/kubernetes-engine/docs/concepts/tpus.

    Attributes:
      name: as people call it.
      api: its name before the dash for the TPU API and XPK.
      gke: value of the node label ``cloud.google.com/gke-tpu-accelerator``.
      machine: machine type of a GKE node, but for its number of chips.
      runtime: image of a TPU VM for JAX (``--runtime-version``).
      cores: TensorCores of a chip; the number in a name counts those.
      lone: most chips on one TPU VM of their own; larger slices have 4 a host.
      shapes: chips along each dimension, by the number of chips.
    """

    name: str
    api: str
    gke: str
    machine: str
    runtime: str
    cores: int
    lone: int
    shapes: tuple[str, ...]


_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_SOLID = (
    *("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16"),
    "8x16x16",
)
_KINDS = (
    _Kind("v4", "v4", "tpu-v4-podslice", "ct4p-hightpu", "tpu-ubuntu2204-base", 2, 4, _SOLID),
    _Kind(
        "v5e",
        "v5litepod",
        "tpu-v5-lite-podslice",
        "ct5lp-hightpu",
        "v2-alpha-tpuv5-lite",
        1,
        8,
        _FLAT,
    ),
    _Kind("v5p", "v5p", "tpu-v5p-slice", "ct5p-hightpu", "v2-alpha-tpuv5", 2, 4, _SOLID),
    _Kind("v6e", "v6e", "tpu-v6e-slice", "ct6e-standard", "v2-alpha-tpuv6e", 1, 8, _FLAT),
)


@dataclasses.dataclass(frozen=True)
class Slice:
    """A slice of one size.

    Attributes:
      name: for XPK (``--tpu-type``) and the TPU API (``--accelerator-type``).
      gke_accelerator: node label ``cloud.google.com/gke-tpu-accelerator``.
      topology: node label ``cloud.google.com/gke-tpu-topology``, chips along each dimension.
      machine: machine type of its GKE nodes.
      runtime: ``--runtime-version`` of its TPU VMs.
      chips: chips in all.
      chips_per_node: chips of a GKE node.
      nodes: GKE nodes, so processes of a run there.
      vms: TPU VMs, so processes of a run there.
    """

    name: str
    gke_accelerator: str
    topology: str
    machine: str
    runtime: str
    chips: int
    chips_per_node: int
    nodes: int
    vms: int


def parse_slice(text: str) -> Slice:
    """The slice of a name.

    Args:
      text: such as ``v5e-256`` or ``v5litepod-256`` (256 chips), ``v5p-128`` (128 cores, so 64
        chips), ``v6e-16``, ``v5e:16x16``.

    Raises:
      UserError: no such slice; the line names the nearest.
    """
    known = _named()
    wanted = str(text).strip().lower().replace("v5lite-", "v5litepod-")
    if wanted in known:
        return known[wanted]
    where = f"tpu: {text}"
    family = re.split("[-:]", wanted)[0]
    sizes = [name for name in known if re.split("[-:]", name)[0] == family and "-" in name]
    number = re.fullmatch(r"[a-z0-9]+-(\d{1,9})", wanted)
    if sizes and number:
        asked = max(1, int(number[1]))
        near = min(sizes, key=lambda name: abs(math.log(int(name.split("-")[1]) / asked)))
        raise UserError(where, "no such size", f"did you mean {near}? Sizes: {', '.join(sizes)}")
    if sizes:
        raise UserError(where, "no such slice", f"one of {', '.join(sizes)}")
    families = ", ".join(kind.name for kind in _KINDS)
    mend = nearest(wanted, list(known)) or f"NAME-SIZE such as v5e-256; names: {families}"
    raise UserError(where, "no such TPU", mend)


def _named() -> dict[str, Slice]:
    named = {}
    for kind in _KINDS:
        for topology in kind.shapes:
            chips = math.prod(int(side) for side in topology.split("x"))
            per_node = 1 if chips == 1 else 4
            size = chips * kind.cores
            one = Slice(
                name=f"{kind.api}-{size}",
                gke_accelerator=kind.gke,
                topology=topology,
                machine=f"{kind.machine}-{per_node}t",
                runtime=kind.runtime,
                chips=chips,
                chips_per_node=per_node,
                nodes=chips // per_node,
                vms=1 if chips <= kind.lone else chips // 4,
            )
            for family in dict.fromkeys((kind.name, kind.api)):
                named[f"{family}-{size}"] = named[f"{family}:{topology}"] = one
    return named
