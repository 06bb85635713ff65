"""Which axes of the mesh split which parameters: patterns of their paths."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ilp_jax.errors import UserError
from ilp_jax.fields.mesh import AXES


class Rule(NamedTuple):
    """Axes of every parameter whose path has the pattern.

    Attributes:
      pattern: searched for in the path, such as ``layers/attn/q/kernel``.
      axes: for each dimension the axes that split it, none for whole.
    """

    pattern: str
    axes: tuple[tuple[str, ...], ...]


def parse(rules: Iterable[str]) -> tuple[Rule, ...]:
    """Reads ``pattern = axis, axis+axis, -`` lines.

    Args:
      rules: config.mesh.rules.

    Raises:
      UserError: a line of another form, a pattern that does not compile, or an axis that is
        unknown or stands twice.
    """
    return tuple(_parse(rule) for rule in rules)


def _parse(rule: str) -> Rule:
    where = f"config.mesh.rules: {rule!r}"
    pattern, equals, text = str(rule).partition("=")
    if not equals:
        raise UserError(where, "has no '='", "write 'pattern = axis, axis'")
    try:
        re.compile(pattern.strip())
    except re.error as error:
        raise UserError(where, f"is no regular expression ({error})") from None
    parts = [part.strip() for part in text.split(",")]
    axes = tuple(() if part == "-" else tuple(a.strip() for a in part.split("+")) for part in parts)
    named = [axis for several in axes for axis in several]
    for axis in named:
        if axis not in AXES or named.count(axis) > 1:
            what = "stands twice" if axis in AXES else "is no axis"
            raise UserError(where, f"{axis!r} {what}", f"the axes are {', '.join(AXES)}, and -")
    return Rule(pattern.strip(), axes)


def spec_of(path: str, shape: tuple[int, ...], rules: Iterable[Rule], mesh: Mesh) -> PartitionSpec:
    """How a parameter is split.

    Args:
      path: its path in the tree, joined by '/'; that of a moment ends with it.
      shape: its shape.
      rules: the first that is found counts, if it has as many dimensions.
      mesh: a dimension that its axes' sizes do not divide is left whole.
    """
    rule = next((rule for rule in rules if re.search(rule.pattern, path)), None)
    if rule is None or len(rule.axes) != len(shape):
        return PartitionSpec()
    entries: list[Any] = []
    for size, axes in zip(shape, rule.axes, strict=True):
        parts = math.prod(mesh.shape[axis] for axis in axes)
        split = parts > 1 and size % parts == 0
        entries.append((axes[0] if len(axes) == 1 else axes) if split else None)
    return PartitionSpec(*entries)


def shardings(tree: Any, rules: Iterable[Rule], mesh: Mesh) -> Any:
    """The sharding of every array of a tree: parameters, or a training state that has them.

    Args:
      tree: arrays, or their shapes.
      rules: see ``parse``.
      mesh: the mesh.
    """

    def one(path, leaf):
        return NamedSharding(mesh, spec_of(path_of(path), leaf.shape, rules, mesh))

    return jax.tree_util.tree_map_with_path(one, tree)


def path_of(keys: Any) -> str:
    """A tree path as text: ``opt_state/1/mu/layers/attn/q/kernel``."""
    return "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in keys)
