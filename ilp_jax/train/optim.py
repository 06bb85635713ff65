"""The optimiser, as direction only: the loop supplies each step's learning rate."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict


class AnchorState(NamedTuple):
    """What `towards_start` pulls to.

    Attributes:
      anchor: the parameters before the first update.
    """

    anchor: Any


def make_optimizer(train: ConfigDict, anchor_decay: float = 0.0) -> optax.GradientTransformation:
    """AdamW (arXiv 1711.05101) after clipping by the batch gradient's global norm.

    The learning rate is left to the caller, because each stage has a cycle of its own while
    the optimiser's moments may be kept from stage to stage. Weight decay spares norm scales
    and biases.

    Args:
      train: the config's ``train`` section.
      anchor_decay: of `towards_start`; 0 for none.
    """
    transforms = []
    if train.clip_norm > 0:
        transforms.append(optax.clip_by_global_norm(train.clip_norm))
    transforms.append(optax.scale_by_adam(b1=train.b1, b2=train.b2, eps=train.eps))
    if train.weight_decay > 0:
        transforms.append(optax.add_decayed_weights(train.weight_decay, mask=_is_matrix))
    if anchor_decay > 0:
        transforms.append(towards_start(anchor_decay))
    return optax.chain(*transforms)


def towards_start(decay: float) -> optax.GradientTransformation:
    """Pulls the parameters towards those before the first update.

    The penalty (decay / 2) ||theta - theta_0||^2 (L2-SP, arXiv:1802.01483, equation 3), decoupled
    from the moments as AdamW's weight decay is. Its state survives `renewed`.

    Args:
      decay: strength, per learning rate and update.
    """

    def init(params):
        return AnchorState(jax.tree.map(jnp.copy, params))

    def update(directions, state, params=None):
        pulled = jax.tree.map(
            lambda d, p, start: d + decay * (p - start), directions, params, state.anchor
        )
        return pulled, state

    return optax.GradientTransformation(init, update)


def renewed(
    optimizer: optax.GradientTransformation, state: optax.OptState, params: Any
) -> optax.OptState:
    """Fresh moments; what the parameters are pulled to stays.

    Args:
      optimizer: of `make_optimizer`.
      state: the optimiser's so far.
      params: the parameters now.
    """

    def kept(new, old):
        return old if isinstance(old, AnchorState) else new

    fresh = optimizer.init(params)
    return jax.tree.map(kept, fresh, state, is_leaf=lambda x: isinstance(x, AnchorState))


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
