"""The fields of the groups ``train``, ``probe``, ``convergence`` and ``checkpoint``."""

from __future__ import annotations

import math

from ml_collections import ConfigDict

from ilp_jax.fields.limits import BELOW_ONE, TINY


def train_fields() -> ConfigDict:
    """The updates.

    Returns:
      A ConfigDict, not locked.
    """
    train = ConfigDict(sort_keys=False)
    # Examples in one optimiser step, over all devices.
    train.batch_size = 8
    # Parts of equal size that a batch is run in, to save memory.
    train.microbatches = 1
    # The batch loss: 'example' = mean over examples of each one's mean over its target
    # tokens; 'token' = mean over all target tokens. It changes what stays unlearned.
    train.loss_normalization = "example"
    # 'adamw' (Loshchilov & Hutter 2019, arXiv:1711.05101).
    train.optimizer = "adamw"
    # Decay rates of the first and second moment, per step.
    train.b1 = 0.9
    train.b2 = 0.999
    # Added to the root of the second moment.
    train.eps = 1e-8
    # Decoupled decay of matrices, times the learning rate, per step; scales and biases are
    # spared.
    train.weight_decay = 0.0
    # Largest global L2 norm of the update's gradient; 0 = no clipping.
    train.clip_norm = 1.0
    # Per-example gradient norms every so many steps; 0 = never.
    train.norms_every = 1
    # How a linear layer's norm is computed: 'gram' (from T x T products), 'direct' (the
    # weight gradient itself), or 'auto' (the cheaper one by shape).
    train.norm_method = "auto"
    # 'auto' takes the Gram form while it costs at most this many FLOPs per weight. The
    # default was measured on a 2-core CPU in float32; measure it again on an accelerator.
    train.gram_cost_ratio = 180.0
    return train


def probe_fields() -> ConfigDict:
    """Forward passes over rows between the updates.

    Returns:
      A ConfigDict, not locked.
    """
    probe = ConfigDict(sort_keys=False)
    # Forward-only statistics of the probed rows every so many epochs of a stage.
    probe.every_epochs = 1
    # Which rows: 'stage' (those of the stage in training, and all at its end), 'all', or 'none'
    # (after the base model nothing is probed: arms of `ilp mitigate` need no more).
    probe.rows = "stage"
    # When probes take gradient norms as well: any of 'base', 'epoch', 'stage_end'.
    probe.norms_at = ("base", "stage_end")
    # Examples in one probe batch.
    probe.batch_size = 8
    # Keep the base model's representation of every prompt, for finding near-duplicates. Costs
    # a forward pass over the prompts and 4 bytes x model width an example.
    probe.representations = True
    return probe


def convergence_fields() -> ConfigDict:
    """When a stage counts as converged.

    That is: in consecutive_epochs epochs running, the mean probe loss falls by less than
    relative_fall of its value at the stage's start, while the learning rate is at least
    min_learning_rate_fraction of its peak.

    Returns:
      A ConfigDict, not locked.
    """
    convergence = ConfigDict(sort_keys=False)
    convergence.relative_fall = 0.03
    convergence.consecutive_epochs = 2
    convergence.min_learning_rate_fraction = 0.1
    return convergence


def checkpoint_fields() -> ConfigDict:
    """What is kept so that a killed run goes on.

    Returns:
      A ConfigDict, not locked.
    """
    checkpoint = ConfigDict(sort_keys=False)
    # Optimiser steps between checkpoints; 0 = only by time and at the ends of stages.
    checkpoint.every_steps = 0
    # Minutes of wall time between checkpoints; 0 = not by time.
    checkpoint.every_minutes = 10.0
    # Newest checkpoints kept.
    checkpoint.keep = 1
    # Also keep the parameters with the lowest mean held-out loss.
    checkpoint.best = True
    return checkpoint


ALLOWED = {
    "train.loss_normalization": ("example", "token"),
    "train.optimizer": ("adamw",),
    "train.norm_method": ("auto", "gram", "direct"),
    "probe.rows": ("stage", "all", "none"),
    "probe.norms_at": ("base", "epoch", "stage_end"),
}
RANGE = {
    "train.batch_size": (1, math.inf),
    "train.microbatches": (1, math.inf),
    "train.b1": (0, BELOW_ONE),
    "train.b2": (0, BELOW_ONE),
    "train.eps": (TINY, math.inf),
    "probe.every_epochs": (1, math.inf),
    "probe.batch_size": (1, math.inf),
    "convergence.relative_fall": (TINY, 1),
    "convergence.consecutive_epochs": (1, math.inf),
    "convergence.min_learning_rate_fraction": (0, 1),
    "checkpoint.keep": (1, math.inf),
}
