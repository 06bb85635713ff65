"""Where in the sequence of stages, epochs and batches each update stands; no JAX."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ilp_jax.data.batches import n_batches
from ilp_jax.data.study import Stage, StudyData


@dataclasses.dataclass(frozen=True)
class Place:
    """One update's place.

    Attributes:
      step: number of this update in the run, from 1.
      stage: the stage it belongs to.
      epoch: epoch of the stage, from 1.
      batch_index: batch of the epoch, from 0.
      step_in_stage: updates of the stage before it.
      steps_in_stage: updates of the whole stage.
      ends_epoch: whether it is its epoch's last.
    """

    step: int
    stage: Stage
    epoch: int
    batch_index: int
    step_in_stage: int
    steps_in_stage: int
    ends_epoch: bool

    @property
    def ends_stage(self) -> bool:
        """Whether it is its stage's last update."""
        return self.step_in_stage + 1 == self.steps_in_stage


def places(data: StudyData, batch_size: int, after: int = 0) -> Iterator[Place]:
    """Every update of a run in order, from the one after ``after``.

    Nothing is sought: the place is arithmetic on the step's number, so a run resumes at any.

    Args:
      data: the study.
      batch_size: examples in an update.
      after: updates done.
    """
    first = 1
    for stage in data.stages:
        per_epoch = n_batches(stage, batch_size)
        total = stage.epochs * per_epoch
        for in_stage in range(max(after - first + 1, 0), total):
            epoch, batch_index = divmod(in_stage, per_epoch)
            yield Place(
                step=first + in_stage,
                stage=stage,
                epoch=epoch + 1,
                batch_index=batch_index,
                step_in_stage=in_stage,
                steps_in_stage=total,
                ends_epoch=batch_index + 1 == per_epoch,
            )
        first += total


def total_steps(data: StudyData, batch_size: int) -> int:
    """Updates of the whole run."""
    return sum(stage.epochs * n_batches(stage, batch_size) for stage in data.stages)
