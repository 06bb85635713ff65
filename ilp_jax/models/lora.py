"""Low-rank adapters (LoRA, arXiv 2106.09685): what is trained, and how it is merged.

An adapted projection computes x W + scale * (x A) B with W frozen, A (I x r) random and B
(r x O) zero at the start, so that training begins at the base model. Adapters live in a
collection of their own, ``lora``, at the path of the projection they belong to.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

COLLECTION = "lora"

TARGETS = ("q", "k", "v", "o", "gate", "up", "down")


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Which projections get adapters, and how large.

    Attributes:
      rank: r, inner width of every adapter.
      targets: projections by name, of ``TARGETS``.
      scale: factor of the adapters' output (``alpha / rank`` elsewhere).
    """

    rank: int
    targets: tuple[str, ...] = TARGETS
    scale: float = 2.0

    def __post_init__(self):
        if self.rank < 1:
            raise ValueError(f"rank={self.rank} is below 1")
        unknown = sorted(set(self.targets) - set(TARGETS))
        if unknown or not self.targets:
            raise ValueError(f"targets={self.targets}: choose from {TARGETS}")


class Adapted(NamedTuple):
    """Parameters of a model with adapters; stands wherever a model's parameters do.

    Attributes:
      base: the frozen parameters.
      adapters: the ``lora`` collection.
    """

    base: Any
    adapters: Any


def variables_of(params: Any) -> dict[str, Any]:
    """The variable collections that ``Decoder.apply`` takes.

    Args:
      params: a tree of parameters, or ``Adapted``.
    """
    if isinstance(params, Adapted):
        return {"params": params.base, COLLECTION: params.adapters}
    return {"params": params}


def merged(params: Any, config: LoraConfig | None) -> Any:
    """Plain parameters on the host: those given, or base and adapters merged."""
    if not isinstance(params, Adapted):
        return params
    return merge(params.base, params.adapters, config)


def merge(params: Any, adapters: Any, config: LoraConfig) -> dict[str, Any]:
    """The parameters of a model without adapters that computes the same function.

    Args:
      params: frozen parameters, nested dicts of arrays.
      adapters: the ``lora`` collection, with ``a`` [..., I, r] and ``b`` [..., r, O] at the
        path of each adapted projection.
      config: gives the scale.

    Returns:
      The tree of ``params`` on the host with scale * A B added to the adapted kernels.
    """
    out: dict[str, Any] = {}
    for name, value in params.items():
        adapter = adapters.get(name)
        if adapter is None or not isinstance(value, dict):
            out[name] = value
        elif "a" in adapter:
            a, b = (np.asarray(adapter[part], np.float32) for part in ("a", "b"))
            out[name] = value | {"kernel": np.asarray(value["kernel"]) + config.scale * (a @ b)}
        else:
            out[name] = merge(value, adapter, config)
    return out
