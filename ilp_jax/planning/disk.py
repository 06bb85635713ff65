"""Bytes of a run's files.

Measured on a finished run of ``configs/controlled.py:family=llama,world=10``: what each column
takes in the merged Parquet files (zstd) over its rows, and what checkpoints and vectors take
over their values. For world 20 a plan was off by -.8% (statistics), +.6% (vectors) and +.3%
(checkpoint).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ml_collections import ConfigDict

from ilp_jax.planning import flops
from ilp_jax.planning.asking import Answered
from ilp_jax.planning.flops import Model

FILE_BYTES = 8_000.0
"""What every column's description and place take, a file."""
ID_BYTES = 10.0
"""An example's id, once a file that holds it: it stands in the column's dictionary."""
VALUE_BYTES = 3.6
"""A float32 of the statistics."""
STATS_ROW = 18.0
"""A row of the statistics without norms: loss, probability, entropy, margin and its place."""
ANSWER_ROW = 11.0
"""A row of the answers without texts: log-probability, confidence and its place."""
OPTION_BYTES = 12.0
"""An option in a row of the answers without its text: log-likelihood, sum and mean."""
TEXT_BYTES = 2.0
"""A token of an answer's or option's text."""
STATE_BYTES = 12.0
"""A trained parameter in a checkpoint: itself and two moments, float32."""
COMPRESSED = {"checkpoint": 0.9, "vectors": 0.93}
"""What float32 values take on disk over what they take in memory."""


@dataclasses.dataclass(frozen=True)
class Disk:
    """Bytes of a run's files, apart from the data's own tables and the diagnosis.

    Attributes:
      statistics: ``stats/``.
      answers: ``inference/``, drawn ones at most.
      representations: ``projections/``.
      checkpoints: ``checkpoints/`` when the run is done.
      while_saving: what a checkpoint takes beside them while it is written.
    """

    statistics: float
    answers: float
    representations: float
    checkpoints: float
    while_saving: float

    @property
    def total(self) -> float:
        """When the run is done."""
        return self.statistics + self.answers + self.representations + self.checkpoints


def disk(
    model: Model,
    config: ConfigDict,
    n_examples: int,
    n_held_out: int,
    n_stats: int,
    n_stats_with_norms: int,
    answered: Mapping[str, Answered],
    n_checkpoints: int,
) -> Disk:
    """Bytes of a run's files.

    Args:
      model: what is trained.
      config: the resolved config.
      n_examples: examples, trained or held out.
      n_held_out: of these, those held out.
      n_stats: rows of the statistics.
      n_stats_with_norms: of these, those with gradient norms.
      answered: rows of the answers, by point.
      n_checkpoints: checkpoints that are due at least, so one a stage.
    """
    trains = n_checkpoints > 0
    state = COMPRESSED["checkpoint"] * STATE_BYTES * model.n_trained
    keeps_best = config.checkpoint.best and n_held_out and trains
    best = state * 4.0 / STATE_BYTES if keeps_best else 0.0
    # Base and training are a file each.
    statistics = STATS_ROW * n_stats + norm_bytes(model) * n_stats_with_norms
    statistics += 2 * (FILE_BYTES + ID_BYTES * n_examples)
    vectors = COMPRESSED["vectors"] * 4.0 * model.config.d_model * n_examples
    return Disk(
        statistics=statistics if trains else 0.0,
        answers=sum(map(_answers, answered.values())),
        representations=vectors if config.probe.representations and trains else 0.0,
        checkpoints=state * min(config.checkpoint.keep, n_checkpoints) + best,
        while_saving=state if trains else 0.0,
    )


def norm_bytes(model: Model) -> float:
    """Bytes of a row's norms: the total and those of the groups that are trained.

    Args:
      model: what is trained.
    """
    groups = 2 if model.lora is not None else 5 - model.config.tie_embeddings
    return VALUE_BYTES * (1 + groups)


def _answers(one: Answered) -> float:
    rows = ANSWER_ROW * (one.rows + one.drawn) + OPTION_BYTES * one.options
    return FILE_BYTES + ID_BYTES * one.examples + rows + TEXT_BYTES * one.text_tokens


def memory_of_training(model: Model) -> float:
    """Bytes of parameters, gradients and moments, float32, over all chips together.

    Args:
      model: what is trained; frozen parameters beside adapters are counted once.
    """
    frozen = 4.0 * flops.n_params(model.config) if model.lora is not None else 0.0
    return frozen + 16.0 * model.n_trained
