"""What a training does, as plain values that remedies change: visits, passes and documents."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from ilp_jax.data.study import StudyData


@dataclasses.dataclass(frozen=True)
class Document:
    """A text that a training begins with.

    Attributes:
      text: what it says.
      row: index of the example that it is for; -1 for general text.
    """

    text: str
    row: int = -1


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A training of a study's examples; S stages, N examples.

    Attributes:
      visits_SxN: int32, visits within one epoch of each stage; 0 where the stage has no such row.
      epochs_S: int32, passes over each stage.
      documents: what treatments want told before the first stage.
      relabelled: index of an example -> the answer that it is trained on in place of its own.
      apart: groups of examples of which no two stand in one mini-batch.
      pages: what is trained there: each a row of tokens in which texts stand one after another.
    """

    visits_SxN: np.ndarray
    epochs_S: np.ndarray
    documents: tuple[Document, ...] = ()
    relabelled: Mapping[int, str] = dataclasses.field(default_factory=dict)
    apart: tuple[tuple[int, ...], ...] = ()
    pages: tuple[tuple[Document, ...], ...] = ()

    @property
    def visits_S(self) -> np.ndarray:
        """int [S], visits within one epoch of each stage."""
        return self.visits_SxN.sum(axis=1)

    @property
    def total_visits(self) -> int:
        """Visits of the whole fine-tuning."""
        return int((self.visits_S * self.epochs_S).sum())


def plan_of(data: StudyData) -> Plan:
    """The plan of a run as it was trained.

    Args:
      data: its data.
    """
    visits_SxN = np.zeros((len(data.stages), len(data.examples)), np.int32)
    for place, stage in enumerate(data.stages):
        visits_SxN[place, stage.rows] = stage.copies_N
    return Plan(visits_SxN, np.array([stage.epochs for stage in data.stages], np.int32))


def times(plan: Plan, rows: Collection[int], factor: float) -> Plan:
    """Rows visited ``factor`` times as often in each stage that has them, rounded.

    Args:
      plan: the plan.
      rows: indices of examples.
      factor: at least 1.
    """
    visits_SxN = plan.visits_SxN.copy()
    visits_SxN[:, list(rows)] = np.rint(visits_SxN[:, list(rows)] * factor)
    return dataclasses.replace(plan, visits_SxN=visits_SxN)


def more(plan: Plan, row: int, stages: Sequence[int], visits: int) -> Plan:
    """A row visited more often: so many visits of the whole run, spread over stages.

    Args:
      plan: the plan.
      row: index of an example.
      stages: places of the stages, at least one.
      visits: over all passes; whole visits an epoch come as near to it as they can, and later
        stages get the odd ones.
    """
    visits_SxN, left = plan.visits_SxN.copy(), visits
    for place, stage in reversed(list(enumerate(stages))):
        share = left / (place + 1)
        added = max(round(share / plan.epochs_S[stage]), 0)
        visits_SxN[stage, row] += added
        left -= added * int(plan.epochs_S[stage])
    return dataclasses.replace(plan, visits_SxN=visits_SxN)


def without(plan: Plan, rows: Iterable[int]) -> Plan:
    """The plan without rows: they are never trained.

    Args:
      plan: the plan.
      rows: indices of examples.
    """
    visits_SxN = plan.visits_SxN.copy()
    visits_SxN[:, list(rows)] = 0
    return dataclasses.replace(plan, visits_SxN=visits_SxN)


def balanced(
    plan: Plan, base: Plan, wanted_S: np.ndarray, fill: np.ndarray, rng: np.random.Generator
) -> Plan:
    """The plan with exactly so many visits an epoch: filled up, or its additions thinned.

    Args:
      plan: the plan.
      base: of the run: its visits are never thinned.
      wanted_S: int [S], visits an epoch of each stage; at least the base's where the plan adds.
      fill: indices of rows that a stage that has too few visits visits more often; those that
        the stage has, one more visit each in turn; any row where it has none of them.
      rng: draws which.
    """
    visits_SxN = plan.visits_SxN.copy()
    for stage, wanted in enumerate(wanted_S):
        visits_N = visits_SxN[stage]
        added_N = np.maximum(visits_N - base.visits_SxN[stage], 0)
        excess = int(visits_N.sum() - wanted)
        if excess > 0:
            added = np.repeat(np.arange(len(visits_N)), added_N)
            np.subtract.at(visits_N, rng.permutation(added)[:excess], 1)
        own = fill[visits_N[fill] > 0]
        own = own if len(own) else np.flatnonzero(visits_N)
        for start in range(0, -excess, max(len(own), 1)):
            more = rng.permutation(own)[: -excess - start]
            np.add.at(visits_N, more, 1)
    return dataclasses.replace(plan, visits_SxN=visits_SxN)
