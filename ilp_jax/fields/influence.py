"""The fields of the group ``influence``: whose updates raised the loss of what was lost."""

from __future__ import annotations

import math

from ml_collections import ConfigDict

from ilp_jax.fields.limits import TINY


def influence_fields() -> ConfigDict:
    """What `ilp influence` does; it may be changed between calls in the same workdir.

    Returns:
      A ConfigDict, not locked.
    """
    influence = ConfigDict(sort_keys=False)
    # Whose verdicts make a row lost (learned at the end of its last stage, unlearned at
    # 'final'): 'default' (exact_match where it applies, else choice), or one detector of
    # diagnosis.parquet that has verdicts at both.
    influence.detector = "default"
    # Lost rows followed, a random part by influence.seed; 0 = all. Each update costs a
    # gradient of every one of them, so 64 twice the gradients of a batch of 32.
    influence.n_lost = 64
    # Only the first of every so many updates is looked at. 1 looks at all; with more, a row
    # whose visits fall between the updates looked at is never accused.
    influence.every_updates = 1
    # Erasers kept of each lost row and method, and of all of them together.
    influence.top = 32
    # Gradients of single rows held at once, in GB (10^9 bytes): a model's worth each. With less
    # the rows are taken in more parts, and gradients are computed again for each.
    influence.memory_gb = 2.0
    # Seed of which lost rows are followed.
    influence.seed = 0
    return influence


ALLOWED = {
    "influence.detector": ("default", "exact_match", "exact_law", "sampled", "choice", "rouge_l"),
}
RANGE = {
    "influence.every_updates": (1, math.inf),
    "influence.top": (1, math.inf),
    "influence.memory_gb": (TINY, math.inf),
}
