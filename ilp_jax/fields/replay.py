"""The fields of the group ``replay``: what updates on one row alone do for it."""

from __future__ import annotations

from ml_collections import ConfigDict


def replay_fields() -> ConfigDict:
    """What `ilp replay` does; it may be changed between calls in the same workdir.

    Returns:
      A ConfigDict, not locked.
    """
    replay = ConfigDict(sort_keys=False)
    # Constant rate of the updates on one example alone, from a fresh optimiser; 0 = the next
    # field.
    replay.learning_rate = 0.0
    # The same as a fraction of the last stage's peak rate. Ours: the first updates of a fresh
    # Adam move every parameter by the whole rate, and at the peak one of them brought back 10
    # of 10 unlearned rows of the quick start; at a tenth 2, 3, 6 and 10 came back by k = 1, 2,
    # 4 and 8, so that rows differ.
    replay.learning_rate_fraction = 0.1
    # Updates after which the example is measured, increasing (ours: powers of two).
    replay.steps = (1, 2, 4, 8)
    # Whose verdict at 'final' makes a row unlearned: 'default' (exact_match where it applies,
    # else choice), or one detector of diagnosis.parquet.
    replay.detector = "default"
    # Unlearned rows replayed, a random part by seed; 0 = all.
    replay.max_examples = 0
    # Learned rows replayed beside them for comparison, alike in number of target tokens.
    replay.controls = 16
    return replay


ALLOWED = {
    "replay.detector": ("default", "exact_match", "exact_law", "sampled", "choice", "rouge_l"),
}
