"""The fields of a study's configuration; each group's defaults, choices and ranges in one file.

    model (lora), mesh, train (probe, convergence, checkpoint), detect, diagnose, replay, influence,
    mitigate, report, stage
        -> defaults: all of them together -> check: choices, ranges, what must hold between them

``ALLOWED`` of a group's file lists choices as patterns, ``RANGE`` closed ranges.
"""

from ilp_jax.fields.check import validate
from ilp_jax.fields.defaults import default_config
from ilp_jax.fields.names import leaves, nearest
from ilp_jax.fields.stage import default_stage

__all__ = ["default_config", "default_stage", "leaves", "nearest", "validate"]
