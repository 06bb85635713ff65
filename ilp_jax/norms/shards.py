"""Norms on a mesh: what is split stays where it is, and only sums of [B] cross the devices.

Left to itself the compiler gathers activations or cotangents for the norms, or puts a reduction
into the loop over examples. Pinned activations (whose constraint's transpose pins their
cotangents) and sums taken device by device keep the norms free of communication where rows are
split, and at one float an example where widths are.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ilp_jax.norms import rules


@dataclasses.dataclass(frozen=True)
class Shards:
    """How activations [B, T, width] lie on a mesh.

    Attributes:
      mesh: the mesh.
      batch: axes that split the rows.
      tensor: axis that splits heads, hidden widths and the vocabulary.
    """

    mesh: Mesh
    batch: tuple[str, ...]
    tensor: str

    def pin(self, x: jax.Array, width_split: bool = False) -> jax.Array:
        """Holds an activation, and in the backward pass its cotangent, to its place.

        Args:
          x: [B, ..., width]; where the mesh does not divide B (a lone row, to initialise)
            nothing is done.
          width_split: whether the last axis is split over ``tensor``.
        """
        if x.shape[0] % self._n_batch:
            return x
        spec = self.spec(x.ndim, width_split)
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, spec))

    def spec(self, n_dims: int, width_split: bool) -> PartitionSpec:
        """The partition of an activation with so many dimensions."""
        last = self.tensor if width_split else None
        return PartitionSpec(self.batch, *[None] * (n_dims - 2), last)

    @property
    def _n_batch(self) -> int:
        return math.prod(self.mesh.shape[axis] for axis in self.batch)


@dataclasses.dataclass(frozen=True)
class Split:
    """One weight's input and outputs on a mesh; has the functions of ``rules`` that sum.

    Attributes:
      shards: the mesh and its axes.
      input: whether the input's width is split over ``tensor``.
      output: whether the outputs' widths are; at most one of the two is.
    """

    shards: Shards
    input: bool = False
    output: bool = False

    def turned(self) -> Split:
        """The same with the output in the input's place."""
        return Split(self.shards, self.output, self.input)

    def pin_input(self, x: jax.Array) -> jax.Array:
        """Holds an input [B, T, I] to its place."""
        return self.shards.pin(x, self.input)

    def pin_output(self, y: jax.Array) -> jax.Array:
        """Holds an output [B, T, O] to its place."""
        return self.shards.pin(y, self.output)

    def gram_squares(self, x_BxTxI: jax.Array, gs_BxTxO: tuple[jax.Array, ...]) -> jax.Array:
        """``rules.gram_squares``, each device on its own rows and widths. float32 [B]."""

        def local(x, gs):
            return self._over_widths(rules.gram_squares(x, gs))

        return self._map(local, len(gs_BxTxO), PartitionSpec(self.shards.batch))(x_BxTxI, gs_BxTxO)

    def direct_squares(
        self, x_BxTxI: jax.Array, gs_BxTxO: tuple[jax.Array, ...]
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """``rules.direct_squares``; the loop over examples runs on each device by itself.

        The gradients come as one [I, O] a group of rows, and their sum is left to the compiler:
        it reduces them as it does a plain matmul's, into the parts that each device keeps.
        """

        def local(x, gs):
            squares_B, totals_IxO = rules.direct_squares(x, gs)
            return self._over_widths(squares_B), tuple(total[None] for total in totals_IxO)

        batch, tensor = self.shards.batch, self.shards.tensor
        total = PartitionSpec(batch, tensor * self.input or None, tensor * self.output or None)
        squares_B, totals_GxIxO = self._map(
            local, len(gs_BxTxO), (PartitionSpec(batch), (total,) * len(gs_BxTxO))
        )(x_BxTxI, gs_BxTxO)
        return squares_B, tuple(jnp.sum(total, axis=0) for total in totals_GxIxO)

    def _over_widths(self, squares_B: jax.Array) -> jax.Array:
        if (self.input or self.output) and self.shards.mesh.shape[self.shards.tensor] > 1:
            return jax.lax.psum(squares_B, self.shards.tensor)
        return squares_B

    def _map(self, local: Callable[..., Any], n_outputs: int, out_specs: Any) -> Callable[..., Any]:
        specs = (self.shards.spec(3, self.input), (self.shards.spec(3, self.output),) * n_outputs)
        return jax.shard_map(
            local,
            mesh=self.shards.mesh,
            in_specs=specs,
            out_specs=out_specs,
            check_vma=False,
        )
