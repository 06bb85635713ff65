"""The fields of the group ``mesh``: how devices share the work; no result depends on them."""

from __future__ import annotations

import math

from ml_collections import ConfigDict

AXES = ("data", "fsdp", "tensor")
"""Axes of the mesh, the outermost first."""

RULES = (
    # Each as 'pattern = axis of every dimension'; '-' splits nothing. Layers are stacked on the
    # first dimension of what lies in them, and are never split.
    "embed/embedding = tensor, fsdp",
    "attn/[qkv]/kernel = -, fsdp, tensor",
    "attn/o/kernel = -, tensor, fsdp",
    "mlp/(gate|up)/kernel = -, fsdp, tensor",
    "mlp/down/kernel = -, tensor, fsdp",
    "head/kernel = fsdp, tensor",
)


def mesh_fields() -> ConfigDict:
    """Where parameters and rows lie.

    Returns:
      A ConfigDict, not locked.
    """
    mesh = ConfigDict(sort_keys=False)
    # Devices along each axis; -1 = those that the others leave (at most one field). Rows are split
    # over data x fsdp, parameters and the optimiser's moments over fsdp x tensor: 'data' holds
    # copies, 'fsdp' parts that are gathered layer by layer, 'tensor' splits heads and widths.
    mesh.data = 1
    mesh.fsdp = -1
    mesh.tensor = 1
    # Processes that the run is meant for; 0 = as many as there are. A run that is started on
    # fewer is refused before anything is loaded.
    mesh.processes = 0
    # Seconds to wait at the start until all processes are there; and without a sign of life after
    # which one counts as dead, and the others end, to be started again together.
    mesh.join_seconds = 300
    mesh.heartbeat_seconds = 100
    # Which axes split which parameters: 'pattern = axes', a regular expression that is searched
    # for in the parameter's path (attn/q/kernel, ...), and for each dimension an axis, several
    # joined by '+', or '-'. The first pattern that is found counts; what none names stands whole
    # on every device, and so does a dimension that its axes do not divide.
    mesh.rules = RULES
    return mesh


RANGE = {
    "mesh.join_seconds": (1, math.inf),
    "mesh.heartbeat_seconds": (1, math.inf),
    "mesh.data": (-1, math.inf),
    "mesh.fsdp": (-1, math.inf),
    "mesh.tensor": (-1, math.inf),
}
