"""The fields of the group ``world``: a knowledge world with planted causes in place of data."""

from __future__ import annotations

import dataclasses
import math

from ml_collections import ConfigDict

from ilp_jax.fields.limits import TINY
from ilp_jax.world.corpus import Pretraining
from ilp_jax.world.facts import Sizes
from ilp_jax.world.groups import Mix

SOURCE = "world"
"""``model.path`` and every stage's ``source`` of a study of a world."""


def world_fields() -> ConfigDict:
    """A world; the diagnosis reads none of these fields.

    Returns:
      A ConfigDict, not locked.
    """
    world = ConfigDict(sort_keys=False)
    # Family of its base model: 'llama', 'qwen2', 'qwen3' or 'olmo2'; '' = no world. With
    # one, model.path and every stage's source are 'world'.
    world.family = ""
    # Its number, any whole number; two worlds share nothing but their sizes.
    world.seed = 0
    # How large it is, which rows of what its stages have, how its base is trained: see
    # world.facts.Sizes, world.groups.Mix and world.corpus.Pretraining for each field.
    world.sizes = _group(Sizes())
    world.mix = _group(Mix())
    world.pretraining = _group(Pretraining())
    return world


def _group(values) -> ConfigDict:
    group = ConfigDict(sort_keys=False)
    for field in dataclasses.fields(values):
        if field.name != "n_stages":  # as many as config.sequence has
            group[field.name] = getattr(values, field.name)
    return group


ALLOWED = {
    "world.family": ("", "llama", "qwen2", "qwen3", "olmo2"),
}
RANGE = {
    "world.seed": (-math.inf, math.inf),
    **{f"world.sizes.{name}": (1, math.inf) for name in ("n_relations", "n_values", "n_asked")},
    "world.sizes.n_relations": (3, 8),
    "world.mix.group": (6, math.inf),
    "world.mix.sprinkled": (0, 1),
    "world.pretraining.steps": (1, math.inf),
    "world.pretraining.batch_size": (1, math.inf),
    "world.pretraining.peak": (TINY, math.inf),
    "world.pretraining.row_length": (20, math.inf),
}
