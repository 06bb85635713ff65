"""The fields of the group ``planted``: causes planted in rows of real data sets."""

from __future__ import annotations

import dataclasses
import math

from ml_collections import ConfigDict

from ilp_jax.fields.limits import BELOW_ONE, TINY
from ilp_jax.world.planting import Plant

SOURCE = "planted_real"
"""Every stage's ``source`` in a study with planted real rows."""


def planted_fields() -> ConfigDict:
    """Real rows with planted causes; the diagnosis reads none of these fields.

    Returns:
      A ConfigDict, not locked.
    """
    planted = ConfigDict(sort_keys=False)
    # Where the rows are from: names of installed data sets, or paths of .jsonl files; () =
    # nothing is planted. With sources, every stage's source is 'planted_real'.
    planted.sources = ()
    # File with the base model's option scores, by which rows are chosen; '' = the base is
    # asked once, and its answers are kept in cache_dir.
    planted.scores = ""
    # How many rows of what, and what makes a row fit: see world.planting.Plant for each field.
    for field in dataclasses.fields(Plant):
        if field.name != "n_stages":  # as many as config.sequence has
            planted[field.name] = getattr(Plant(), field.name)
    return planted


RANGE = {
    "planted.seed": (-math.inf, math.inf),
    "planted.n_options": (2, math.inf),
    "planted.confidence": (TINY, BELOW_ONE),
    **{f"planted.{name}": (1, math.inf) for name in ("asked", "many_visits")},
    **{f"planted.{name}": (1, math.inf) for name in ("overwriter_visits", "short_answer")},
    **{f"planted.{name}": (1, math.inf) for name in ("long_answer", "max_tokens")},
}
