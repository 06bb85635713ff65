"""The mesh of devices that a config asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ilp_jax.errors import UserError
from ilp_jax.fields.mesh import AXES

DATA, FSDP, TENSOR = AXES
BATCH = (DATA, FSDP)
"""Axes that a batch's rows are split over."""


def make_mesh(settings: ConfigDict, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh of a config's group ``mesh``.

    Args:
      settings: the group.
      devices: the devices to use; None for all of this run, over all processes. One process
        may use fewer: the first ones.

    Returns:
      A mesh with the axes ``AXES``, whatever their sizes.

    Raises:
      UserError: the sizes do not fit the devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    shape = mesh_shape(settings, len(devices))
    wanted = math.prod(shape)
    if wanted < len(devices) and len({d.process_index for d in devices}) == 1:
        devices = devices[:wanted]
    if wanted != len(devices):
        sizes = " x ".join(f"{axis} {n}" for axis, n in zip(AXES, shape, strict=True))
        raise UserError(
            "config.mesh",
            f"{sizes} asks for {wanted} devices, and there are {len(devices)}",
            "set one of them to -1: it takes what the others leave",
        )
    # On a slice, neighbours of the mesh are neighbours of the network.
    if devices[0].platform == "tpu":
        placed = mesh_utils.create_device_mesh(shape, devices)
    else:
        placed = np.array(devices).reshape(shape)
    # The constructor, not jax.make_mesh: its axes are those that the compiler splits over.
    return Mesh(placed, AXES)


def mesh_shape(settings: ConfigDict, n_devices: int) -> tuple[int, int, int]:
    """Devices along each axis of ``AXES``.

    Args:
      settings: the group ``mesh``.
      n_devices: devices there are.

    Raises:
      UserError: two sizes are -1, one is 0, or the rest does not divide.
    """
    sizes = [settings[axis] for axis in AXES]
    free = [axis for axis, n in zip(AXES, sizes, strict=True) if n == -1]
    for axis, n in zip(AXES, sizes, strict=True):
        if n == 0:
            raise UserError(f"config.mesh.{axis}", "is 0", "give a number of devices, or -1")
    if len(free) > 1:
        raise UserError(
            f"config.mesh.{free[1]}", f"is -1, and so is {free[0]}", "give one of them a number"
        )
    if free:
        given = math.prod(n for n in sizes if n != -1)
        if n_devices % given:
            raise UserError(
                "config.mesh",
                f"{given} devices along the other axes do not divide {n_devices}",
                f"choose sizes whose product divides {n_devices}",
            )
        sizes = [n_devices // given if n == -1 else n for n in sizes]
    return tuple(sizes)


def check_fit(mesh: Mesh, config: ConfigDict) -> None:
    """Whether batches can be split evenly.

    Args:
      mesh: the mesh.
      config: the resolved config.

    Raises:
      UserError: rows of a microbatch are not divided by their axes.
    """
    parts, size = n_parts(mesh), config.train.batch_size
    if size % (parts * config.train.microbatches):
        micro = config.train.microbatches
        of = f"{parts} devices" + (f" x {micro} microbatches" if micro > 1 else "")
        raise UserError(
            "config.train.batch_size",
            f"{size} rows are not divided evenly over {of}",
            f"give a multiple of {parts * micro}, or fewer devices to mesh.data and mesh.fsdp",
        )


def left_whole(n_tensor: int, model: Any) -> str:
    """What of a model the axis ``tensor`` does not split, as a line; empty for nothing.

    Args:
      n_tensor: devices along the axis.
      model: a ``ModelConfig``.
    """
    parts = {
        "key and value heads": model.n_kv_heads,
        "hidden channels": model.d_ff,
        "tokens of the vocabulary": model.vocab_size,
    }
    whole = [f"{n:,} {what}" for what, n in parts.items() if n % n_tensor]
    if not whole:
        return ""
    return f"mesh.tensor={n_tensor} leaves whole what it does not divide: {', '.join(whole)}"


def n_parts(mesh: Mesh) -> int:
    """Parts that a batch is split into."""
    return math.prod(mesh.shape[axis] for axis in BATCH)


def describe(mesh: Mesh) -> str:
    """The line that a run starts with: processes, devices, mesh."""
    devices = mesh.devices.ravel()
    n_processes = len({d.process_index for d in devices})
    sizes = " x ".join(f"{axis} {mesh.shape[axis]}" for axis in AXES)
    some = "process" if n_processes == 1 else "processes"
    kind = devices[0].device_kind
    return f"{n_processes} {some}, {len(devices)} devices ({kind}), mesh {sizes}"
