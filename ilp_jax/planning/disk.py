"""Bytes of a run's files.

Rows of the statistics and of the answers were measured on finished runs of
``configs/controlled.py:family=llama,world=10`` and ``configs/quickstart.py:epochs=2,rows=8``
(size of the merged Parquet file over its rows); README.md says how far plans were off.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ml_collections import ConfigDict

from ilp_jax.planning import flops
from ilp_jax.planning.asking import Answered
from ilp_jax.planning.flops import Model

STATS_ROW = 60.0
"""Bytes of a row of the statistics, norms included."""
ANSWER_ROW = 35.0
"""Bytes of a row of the answers."""
STATE_BYTES = 12.0
"""A trained parameter in a checkpoint: itself and two moments, float32."""


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
      answered: rows of the answers, by point.
      n_checkpoints: checkpoints that are due at least, so one a stage.
    """
    state = STATE_BYTES * model.n_trained
    best = 4.0 * model.n_trained if config.checkpoint.best and n_held_out and n_checkpoints else 0
    n_answers = sum(one.rows + one.drawn for one in answered.values())
    trains = n_checkpoints > 0
    return Disk(
        statistics=STATS_ROW * n_stats,
        answers=ANSWER_ROW * n_answers,
        representations=4.0 * model.config.d_model * n_examples
        if config.probe.representations and trains
        else 0.0,
        checkpoints=state * min(config.checkpoint.keep, n_checkpoints) + best,
        while_saving=state if trains else 0.0,
    )


def memory_of_training(model: Model) -> float:
    """Bytes of parameters, gradients and moments, float32, over all chips together.

    Args:
      model: what is trained; frozen parameters beside adapters are counted once.
    """
    frozen = 4.0 * flops.n_params(model.config) if model.lora is not None else 0.0
    return frozen + 16.0 * model.n_trained
