"""Rows of a batch on several devices and processes: put there, and read back by their owners."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ilp_jax.mesh.axes import BATCH, DATA, n_parts


class Placement(NamedTuple):
    """Where arrays go that meet given parameters in one program.

    Attributes:
      rows: for arrays with the batch on their first axis; None = the default device.
      microbatches: for arrays [M, B / M, ...]: every microbatch is split over all devices.
      whole: for arrays that every device needs, such as scalars; None = the default device.
      n_parts: parts that a batch is split into.
    """

    rows: NamedSharding | None
    microbatches: NamedSharding | None
    whole: NamedSharding | None
    n_parts: int

    def batch_size(self, wanted: int) -> int:
        """The next multiple of ``n_parts``: every part gets as many rows."""
        return -(-wanted // self.n_parts) * self.n_parts


ONE_DEVICE = Placement(None, None, None, 1)
"""Everything on the default device."""


def placement_of(params: Any) -> Placement:
    """Rows follow the parameters: split where these are on a mesh with the axis ``data``.

    Args:
      params: a tree of arrays on devices.
    """
    sharding = getattr(jax.tree.leaves(params)[0], "sharding", None)
    if not isinstance(sharding, NamedSharding) or DATA not in sharding.mesh.axis_names:
        return ONE_DEVICE
    return on_mesh(sharding.mesh)


def on_mesh(mesh: Mesh) -> Placement:
    """Where rows and scalars go on a mesh of several devices."""
    specs = (PartitionSpec(BATCH), PartitionSpec(None, BATCH), PartitionSpec())
    return Placement(*(NamedSharding(mesh, spec) for spec in specs), n_parts(mesh))


def put(tree: Any, sharding: NamedSharding | None) -> Any:
    """Arrays of the host on their devices, by an explicit transfer.

    Args:
      tree: numpy arrays, the same in every process: each hands over what its devices hold.
      sharding: where they go; None = the default device.
    """
    if sharding is None or sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def one(array):
        array = np.asarray(array)
        parts = sharding.addressable_devices_indices_map(array.shape)
        own = [jax.device_put(array[index], device) for device, index in parts.items()]
        return jax.make_array_from_single_device_arrays(array.shape, sharding, own)

    return jax.tree.map(one, tree)


def fetch(tree: Any) -> Any:
    """Whole arrays on the host, in every process.

    Args:
      tree: arrays on devices.
    """
    leaves = jax.tree.leaves(tree)
    if all(getattr(leaf, "is_fully_addressable", True) for leaf in leaves):
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def fetch_own(stats: Mapping[str, jax.Array]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The rows that this process answers for, without a word to any other.

    Args:
      stats: arrays [B], or [M, B / M] on a mesh, by name, split alike, on devices.

    Returns:
      int32 [n] places of the rows in the batch (row r of microbatch m is m * B / M + r), rising,
      and the values [n] by name. Over all processes every row comes once.
    """
    stats = dict(stats)
    some = next(iter(stats.values()))
    if some.is_fully_addressable:
        host = {name: values.reshape(-1) for name, values in jax.device_get(stats).items()}
        return np.arange(some.size, dtype=np.int32), host
    place = np.arange(some.size, dtype=np.int32).reshape(some.shape)
    # Copies of a row (mesh axis tensor, values that stand whole everywhere) are told apart by
    # their number: the first is the row's.
    places = [place[s.index].ravel() for s in some.addressable_shards if s.replica_id == 0]
    places = np.concatenate([np.zeros(0, np.int32), *places])
    order = np.argsort(places, kind="stable")
    parts = {
        name: [s.data for s in values.addressable_shards if s.replica_id == 0]
        for name, values in stats.items()
    }
    host = {
        name: np.concatenate([np.zeros(0, stats[name].dtype), *(a.ravel() for a in arrays)])[order]
        for name, arrays in jax.device_get(parts).items()
    }
    return places[order], host
