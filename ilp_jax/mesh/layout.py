"""A run's mesh and rules together: where its parameters, rows and activations lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from ilp_jax.mesh.axes import BATCH, TENSOR, make_mesh
from ilp_jax.mesh.rows import Placement, on_mesh
from ilp_jax.mesh.rules import Rule, parse, shardings, spec_of
from ilp_jax.norms.shards import Shards


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where arrays lie on a mesh of several devices.

    Attributes:
      mesh: the mesh, with the axes of ``fields.mesh``.
      rules: which axes split which parameters.
    """

    mesh: Mesh
    rules: tuple[Rule, ...]

    @property
    def placement(self) -> Placement:
        """Where rows and scalars go."""
        return on_mesh(self.mesh)

    @property
    def shards(self) -> Shards:
        """How activations lie, for the decoder."""
        return Shards(self.mesh, BATCH, TENSOR, self.rules)

    def shardings(self, tree: Any) -> Any:
        """The sharding of every array of a tree of parameters, or of a state that has them."""
        return shardings(tree, self.rules, self.mesh)

    def place(self, path: Sequence[str], shape: Sequence[int]) -> NamedSharding:
        """The sharding of one parameter, for ``models.weights.load``."""
        spec = spec_of("/".join(path), tuple(shape), self.rules, self.mesh)
        return NamedSharding(self.mesh, spec)

    def constrain(self, tree: Any) -> Any:
        """Within a program: holds a tree of parameters or moments to its place."""
        return jax.lax.with_sharding_constraint(tree, self.shardings(tree))


def layout_of(settings: ConfigDict) -> Layout | None:
    """The layout that a config asks for; None where there is one device.

    Args:
      settings: the group ``mesh``.

    Raises:
      UserError: sizes or rules are wrong.
    """
    rules, mesh = parse(settings.rules), make_mesh(settings)
    return Layout(mesh, rules) if mesh.size > 1 else None


def constrained(layout: Layout | None, tree: Any) -> Any:
    """A tree held to its place, where there is a mesh."""
    return tree if layout is None else layout.constrain(tree)
