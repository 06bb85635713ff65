"""The optimiser, as direction only: the loop supplies each step's learning rate."""

from __future__ import annotations

import math

import jax
import optax
from ml_collections import ConfigDict


def make_optimizer(train: ConfigDict) -> optax.GradientTransformation:
    """AdamW (arXiv 1711.05101) after clipping by the batch gradient's global norm.

    The learning rate is left to the caller, because each stage has a cycle of its own while
    the optimiser's moments may be kept from stage to stage. Weight decay spares norm scales
    and biases.

    Args:
      train: the config's ``train`` section.
    """
    transforms = []
    if train.clip_norm > 0:
        transforms.append(optax.clip_by_global_norm(train.clip_norm))
    transforms.append(optax.scale_by_adam(b1=train.b1, b2=train.b2, eps=train.eps))
    if train.weight_decay > 0:
        transforms.append(optax.add_decayed_weights(train.weight_decay, mask=_is_matrix))
    return optax.chain(*transforms)


def _is_matrix(params):
    def decays(path, _):
        return path[-1].key in ("kernel", "embedding", "a", "b")

    return jax.tree_util.tree_map_with_path(decays, params)


def learning_rate(stage: ConfigDict, step_in_stage: int, n_steps: int) -> float:
    """The learning rate of one update of a stage's own cycle.

    Linear warm-up over ``warmup_steps`` updates (the first has 1 / warmup_steps of the peak),
    then ``constant``, ``linear`` or ``cosine`` down to ``final_learning_rate_fraction`` of
    the peak at the stage's last update.

    Args:
      stage: the stage's config.
      step_in_stage: updates of this stage done before, from 0.
      n_steps: updates of the whole stage.

    Raises:
      ValueError: for an unknown schedule.
    """
    peak, warmup = stage.learning_rate, min(stage.warmup_steps, n_steps)
    if step_in_stage < warmup:
        return peak * (step_in_stage + 1) / warmup
    done = (step_in_stage - warmup) / max(n_steps - warmup - 1, 1)
    floor = stage.final_learning_rate_fraction
    if stage.schedule == "constant":
        return peak
    if stage.schedule == "linear":
        # In this form the last update has the floor itself, without cancellation.
        return peak * (floor + (1 - floor) * (1 - done))
    if stage.schedule == "cosine":
        return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))
    raise ValueError(f"schedule={stage.schedule!r} is not constant, linear or cosine")
