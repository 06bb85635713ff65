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
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ilp_jax.mesh.rules import Rule, spec_of
from ilp_jax.norms import rules

_Axes = tuple[tuple[str, ...], tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Shards:
    """How activations [B, T, width] lie on a mesh.

    Attributes:
      mesh: the mesh.
      batch: axes that split the rows.
      tensor: axis that splits heads, hidden widths and the vocabulary, where it divides them.
      rules: which axes split which parameters.
    """

    mesh: Mesh
    batch: tuple[str, ...]
    tensor: str
    rules: tuple[Rule, ...] = ()

    def of_layer(self, path: str, shape: tuple[int, int]) -> PartitionSpec:
        """How one layer's part of a stacked matrix is split.

        Args:
          path: the end of its path, such as ``attn/q/kernel``.
          shape: the part's shape.
        """
        return PartitionSpec(*(*spec_of(path, (1, *shape), self.rules, self.mesh), None, None)[1:3])

    def of_matrix(self, path: str, shape: tuple[int, int]) -> PartitionSpec:
        """How a matrix outside the layers is split."""
        return PartitionSpec(*(*spec_of(path, shape, self.rules, self.mesh), None, None)[:2])

    def pin(self, x: jax.Array, width_split: bool = False) -> jax.Array:
        """Holds an activation, and in the backward pass its cotangent, to its place.

        Args:
          x: [B, ..., width]; where the mesh does not divide B (a lone row, to initialise)
            nothing is done.
          width_split: whether the last axis is split over ``tensor``.
        """
        if not self.divides(x.shape[0]):
            return x
        spec = self.spec(x.ndim, width_split)
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, spec))

    def spec(self, n_dims: int, width_split: bool) -> PartitionSpec:
        """The partition of an activation with so many dimensions."""
        last = self.tensor if width_split else None
        return PartitionSpec(self.batch, *[None] * (n_dims - 2), last)

    def divides(self, batch_size: int) -> bool:
        """Whether so many rows can be split evenly."""
        return batch_size % self.n_batch == 0

    def splits(self, n_parts: int) -> bool:
        """Whether ``tensor`` divides the parts of a width (heads, channels, tokens)."""
        return n_parts % self.mesh.shape[self.tensor] == 0

    @property
    def n_batch(self) -> int:
        """Parts that the rows are split into."""
        return math.prod(self.mesh.shape[axis] for axis in self.batch)


@dataclasses.dataclass(frozen=True)
class Split:
    """One weight's input and outputs on a mesh; has the functions of ``rules`` that sum.

    Attributes:
      shards: the mesh and its axes.
      kernels: how each kernel (I x O) is split; its gradient is reduced into these parts.
      input: whether the input's width is split over ``tensor``.
      output: whether the outputs' widths are; at most one of the two is.
      is_head: whether it is the head, trained: its gradient is the largest array of a step.
    """

    shards: Shards
    kernels: tuple[PartitionSpec, ...]
    input: bool = False
    output: bool = False
    is_head: bool = False

    def turned(self) -> Split:
        """The same with the output in the input's place: kernels lie O x I."""
        return dataclasses.replace(self, input=self.output, output=self.input)

    def in_order(
        self, dx_BxTxI: jax.Array, dkernels: tuple[jax.Array, ...]
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """What goes on from a weight: of a head only when its gradient is reduced.

        For one row a device: its gradient then is gone before the layers' backward pass. Llama 3.1
        8B with two of its layers, 1,024 tokens a chip of v5e:8x8, libtpu 0.0.42: 3.6 GiB a chip,
        without norms too, instead of 6.7 and 4.5. With two rows it took 9.3 instead of 6.1.
        """
        if not self.is_head or dx_BxTxI.shape[0] != self.shards.n_batch:
            return dx_BxTxI, dkernels
        return jax.lax.optimization_barrier((dx_BxTxI, dkernels))

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

    def gradients(
        self, x_BxTxI: jax.Array, gs_BxTxO: tuple[jax.Array, ...]
    ) -> tuple[jax.Array, ...]:
        """``rules.gradients``, reduced into the parts that each device keeps."""
        axes = self._axes(x_BxTxI, gs_BxTxO)

        def local(x, gs):
            return self._reduced(rules.gradients(x, gs), axes)

        return self._map(local, len(gs_BxTxO), self._places(axes))(x_BxTxI, gs_BxTxO)

    def direct_squares(
        self, x_BxTxI: jax.Array, gs_BxTxO: tuple[jax.Array, ...]
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """``rules.direct_squares``; the loop over examples runs on each device by itself."""
        axes = self._axes(x_BxTxI, gs_BxTxO)

        def local(x, gs):
            squares_B, totals_IxO = rules.direct_squares(x, gs)
            return self._over_widths(squares_B), self._reduced(totals_IxO, axes)

        places = PartitionSpec(self.shards.batch), self._places(axes)
        return self._map(local, len(gs_BxTxO), places)(x_BxTxI, gs_BxTxO)

    def _axes(self, x_BxTxI: jax.Array, gs_BxTxO: tuple[jax.Array, ...]) -> tuple[_Axes, ...]:
        """For each dimension of each kernel the rows' axes that its parts are reduced over.

        None where they do not divide what ``tensor`` leaves of it: that stays whole.
        """
        sizes = self.shards.mesh.shape
        found = []
        for kernel, g in zip(self.kernels, gs_BxTxO, strict=True):
            of_kernel = []
            for entry, array, split in zip(
                kernel, (x_BxTxI, g), (self.input, self.output), strict=True
            ):
                axes = tuple(axis for axis in axes_of(entry) if axis in self.shards.batch)
                width = array.shape[-1] // (sizes[self.shards.tensor] if split else 1)
                divided = width % math.prod(sizes[axis] for axis in axes) == 0
                of_kernel.append(axes if divided else ())
            found.append(tuple(of_kernel))
        return tuple(found)

    def _places(self, axes: tuple[_Axes, ...]) -> tuple[PartitionSpec, ...]:
        """Where the reduced gradients lie: as the kernels, where a width is split over that too."""
        tensor, found = self.shards.tensor, []
        for of_kernel in axes:
            entries = []
            for of_width, split in zip(of_kernel, (self.input, self.output), strict=True):
                # A width's own parts come first: each device has them before rows are reduced.
                entries.append(((tensor,) if split else ()) + of_width or None)
            found.append(PartitionSpec(*entries))
        return tuple(found)

    def _reduced(
        self, grads_IxO: tuple[jax.Array, ...], axes: tuple[_Axes, ...]
    ) -> tuple[jax.Array, ...]:
        """Sums over the devices' rows; left to itself the compiler sums whole gradients on all."""
        out = []
        for grad_IxO, of_kernel in zip(grads_IxO, axes, strict=True):
            scattered: tuple[str, ...] = ()
            for dim, of_width in enumerate(of_kernel):
                if of_width:
                    grad_IxO = jax.lax.psum_scatter(
                        grad_IxO, of_width, scatter_dimension=dim, tiled=True
                    )
                    scattered += of_width
            rest = tuple(axis for axis in self.shards.batch if axis not in scattered)
            out.append(jax.lax.psum(grad_IxO, rest) if rest else grad_IxO)
        return tuple(out)

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


def axes_of(entry: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The axes that split one dimension, from its entry in a PartitionSpec."""
    return entry if isinstance(entry, tuple) else (entry,) if entry else ()
