"""An embedding table on a mesh: rows looked up and their gradient added where the table lies.

A device looks its part of the table up for the tokens of all devices that hold the other parts,
and the parts are exchanged; the backward pass sends the cotangents the same way back. The tokens
are gathered once: left to itself the compiler gathers them again for the backward pass of a table
that is the head as well, and exchanges float32 where the model computes in bfloat16.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from ilp_jax.norms.shards import Shards, axes_of


@dataclasses.dataclass(frozen=True)
class Lookup:
    """How a table (V x D) is split that rows of tokens are looked up in.

    Attributes:
      shards: the mesh and its axes.
      table: how the table is split.
    """

    shards: Shards
    table: PartitionSpec

    def rows(
        self, table_VxD: jax.Array, ids_BxT: jax.Array, dtype: Any
    ) -> tuple[jax.Array, jax.Array]:
        """Looks tokens up.

        Args:
          table_VxD: float32 table.
          ids_BxT: int32 tokens; the mesh's batch axes divide B.
          dtype: in which the rows are exchanged.

        Returns:
          [B, T, D] in ``dtype``, and the tokens as each device saw them, for ``gradient``.
        """

        def local(part_VxD, ids_BxT):
            for axis in self._of_rows:
                ids_BxT = jax.lax.all_gather(ids_BxT, axis, axis=0, tiled=True)
            own_BxT, is_own_BxT = self._own(ids_BxT, len(part_VxD))
            x_BxTxD = jnp.take(part_VxD, own_BxT, axis=0).astype(dtype)
            x_BxTxD = jnp.where(is_own_BxT[:, :, None], x_BxTxD, 0)
            for axis in reversed(self._vocabulary + self._width):
                x_BxTxD = self._to_rows(x_BxTxD, axis)
            return x_BxTxD, ids_BxT

        specs = self.table, self._rows_of(2)
        return self._map(local, specs, (self._rows_of(3), self._seen))(table_VxD, ids_BxT)

    def gradient(self, seen_BxT: jax.Array, g_BxTxD: jax.Array, n_vocab: int) -> jax.Array:
        """The table's gradient, float32 [V, D], split as the table.

        Args:
          seen_BxT: the tokens that ``rows`` gave.
          g_BxTxD: the rows' cotangents; exchanged in their dtype, added in float32.
          n_vocab: V.
        """
        n_parts = math.prod(self.shards.mesh.shape[axis] for axis in self._vocabulary)

        def local(ids_BxT, g_BxTxD):
            for axis in self._vocabulary + self._width:
                g_BxTxD = self._to_parts(g_BxTxD, axis)
            own_BxT, is_own_BxT = self._own(ids_BxT, n_vocab // n_parts)
            g_BxTxD = jnp.where(is_own_BxT[:, :, None], g_BxTxD, 0)
            part_VxD = jnp.zeros((n_vocab // n_parts, g_BxTxD.shape[-1]), jnp.float32)
            part_VxD = part_VxD.at[own_BxT].add(g_BxTxD.astype(jnp.float32))
            rest = tuple(axis for axis in self.shards.batch if axis not in self._of_rows)
            return jax.lax.psum(part_VxD, rest) if rest else part_VxD

        return self._map(local, (self._seen, self._rows_of(3)), self.table)(seen_BxT, g_BxTxD)

    def _own(self, ids_BxT: jax.Array, n_own: int) -> tuple[jax.Array, jax.Array]:
        """Places of tokens in the device's part of the vocabulary, and which of them lie in it."""
        if not self._vocabulary:
            return ids_BxT, jnp.ones_like(ids_BxT, bool)
        part = 0
        for axis in self._vocabulary:
            part = part * self.shards.mesh.shape[axis] + jax.lax.axis_index(axis)
        own_BxT = ids_BxT - part * n_own
        is_own_BxT = (own_BxT >= 0) & (own_BxT < n_own)
        return jnp.where(is_own_BxT, own_BxT, 0), is_own_BxT

    def _to_rows(self, x_BxTxD: jax.Array, axis: str) -> jax.Array:
        """Brings together what the devices along an axis found for each other's rows."""
        splits_rows, lax = axis in self.shards.batch, jax.lax
        if axis in self._vocabulary:
            if splits_rows:
                return lax.psum_scatter(x_BxTxD, axis, scatter_dimension=0, tiled=True)
            return lax.psum(x_BxTxD, axis)
        if splits_rows:
            return lax.all_to_all(x_BxTxD, axis, split_axis=0, concat_axis=2, tiled=True)
        return lax.all_gather(x_BxTxD, axis, axis=2, tiled=True)

    def _to_parts(self, g_BxTxD: jax.Array, axis: str) -> jax.Array:
        """The transpose of ``_to_rows`` for a cotangent that is the same along ``tensor``."""
        splits_rows, lax = axis in self.shards.batch, jax.lax
        if axis in self._vocabulary:
            return lax.all_gather(g_BxTxD, axis, axis=0, tiled=True) if splits_rows else g_BxTxD
        if splits_rows:
            return lax.all_to_all(g_BxTxD, axis, split_axis=2, concat_axis=0, tiled=True)
        width = g_BxTxD.shape[-1] // self.shards.mesh.shape[axis]
        return lax.dynamic_slice_in_dim(g_BxTxD, lax.axis_index(axis) * width, width, axis=2)

    @property
    def _vocabulary(self) -> tuple[str, ...]:
        return axes_of(self.table[0])

    @property
    def _width(self) -> tuple[str, ...]:
        return axes_of(self.table[1])

    @property
    def _of_rows(self) -> tuple[str, ...]:
        """The axes that split the table and the rows: along these tokens are gathered."""
        return tuple(axis for axis in self._vocabulary + self._width if axis in self.shards.batch)

    @property
    def _seen(self) -> PartitionSpec:
        return PartitionSpec(tuple(a for a in self.shards.batch if a not in self._of_rows), None)

    def _rows_of(self, n_dims: int) -> PartitionSpec:
        return self.shards.spec(n_dims, width_split=False)

    def _map(self, local: Any, in_specs: Any, out_specs: Any) -> Any:
        mesh = self.shards.mesh
        return jax.shard_map(
            local, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
        )
