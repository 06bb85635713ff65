"""Several devices: the rows of a batch are split over them, parameters stand whole on each."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

DATA = "data"
"""Name of the mesh axis over which rows are split."""


class Placement(NamedTuple):
    """Where arrays go that meet given parameters in one program.

    Attributes:
      rows: for arrays with the batch on their first axis; None = the default device.
      whole: for arrays that every device needs, such as scalars; None = the default device.
      n_devices: parts that a batch is split into.
    """

    rows: Sharding | None
    whole: Sharding | None
    n_devices: int

    def batch_size(self, wanted: int) -> int:
        """The next multiple of ``n_devices``: every device gets as many rows."""
        return -(-wanted // self.n_devices) * self.n_devices


def replicate(params: Any) -> Any:
    """Puts parameters on every device; on the one, where there is only one.

    Args:
      params: a tree of arrays on the host.
    """
    devices = jax.devices()
    if len(devices) == 1:
        return jax.device_put(params)
    # The constructor, not jax.make_mesh: its axes are those that the compiler splits over.
    return jax.device_put(params, NamedSharding(Mesh(np.array(devices), (DATA,)), PartitionSpec()))


def placement_of(params: Any) -> Placement:
    """Rows follow the parameters: split where these are on a mesh with the axis ``data``.

    Args:
      params: a tree of arrays on devices.
    """
    sharding = getattr(jax.tree.leaves(params)[0], "sharding", None)
    if not isinstance(sharding, NamedSharding) or DATA not in sharding.mesh.axis_names:
        return Placement(None, None, 1)
    mesh = sharding.mesh
    split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((DATA,), ()))
    return Placement(split, whole, mesh.shape[DATA])
