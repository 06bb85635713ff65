"""What every remedy is given, beside the rows that it is to treat."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ilp_jax.data.examples import Example
from ilp_jax.mitigate.evidence import Evidence, judged_wrong
from ilp_jax.mitigate.library import Fact, Library
from ilp_jax.mitigate.plan import Plan


@dataclasses.dataclass(frozen=True, eq=False)
class Context:
    """A finished run as remedies see it.

    Attributes:
      base: the plan of the run.
      evidence: verdicts, causes, base model's answers, row by row.
      examples: the run's examples.
      library: where texts come from.
      facts: index of an unlearned or sham row -> what it rests on.
      base_probability: key of a fact with a question -> the base model's probability of its
        answer.
      settings: ``config.mitigate`` as plain values.
      n_tokens: tokens of a text, its end token included.
      thresholds: ``config.diagnose`` as plain values.
    """

    base: Plan
    evidence: Evidence
    examples: tuple[Example, ...]
    library: Library
    facts: Mapping[int, tuple[Fact, ...]]
    base_probability: Mapping[str, float]
    settings: Mapping[str, Any]
    n_tokens: Callable[[str], int]
    thresholds: Mapping[str, Any]

    @functools.cached_property
    def set_aside(self) -> frozenset[int]:
        """Unlearned rows that are judged wrong: no remedy is to make the model learn them."""
        unlearned = self.evidence.unlearned.tolist()
        return frozenset(row for row in unlearned if judged_wrong(row, self.evidence))

    def blind(self, row: int) -> list[Fact]:
        """What a row rests on and the base model lacks; facts without a question count so."""
        least = self.settings["blind_probability"]
        found = self.facts.get(row, ())
        return [fact for fact in found if self.base_probability.get(fact.key, 0.0) < least]


Treated = tuple[Plan, set[int]]
"""The changed plan, and the rows for which the remedy found something to do."""


def others(context: Context, n: int, rng: np.random.Generator) -> list[int]:
    """Random learned rows that contradict no other, for shams; repeats where there are few."""
    learned = context.evidence.learned
    pool = [row for row in learned.tolist() if row not in context.evidence.rivals]
    pool = pool or learned.tolist()
    rounds = [rng.permutation(pool).tolist() for _ in range(-(-n // max(len(pool), 1)))]
    return [row for one in rounds for row in one][:n]
