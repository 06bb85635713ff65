"""A made-up run as remedies see it, small enough to reason about."""

import dataclasses

import numpy as np
import pytest

from ilp_jax.data.examples import Example
from ilp_jax.fields.mitigate import mitigate_fields
from ilp_jax.mitigate.context import Context
from ilp_jax.mitigate.evidence import Evidence
from ilp_jax.mitigate.library import Fact
from ilp_jax.mitigate.plan import Plan
from ilp_jax.stats.schema import CAUSES

N, N_UNLEARNED, PER_CAUSE = 200, 90, 16
"""Rows 0 to 79 are unlearned, 16 a cause; 80 to 89 without a cause; the others are learned."""


class Words:
    """A library of numbered texts: fact k of row r is ``r k``."""

    def facts(self, example):
        return (Fact(f"{example.example_id} a", "asked", "told"), Fact(f"{example.example_id} b"))

    def says(self, example, answers):
        return ""

    def tell(self, fact, rng):
        return f"fact {fact.key}"

    def restate(self, example, rng):
        return f"answer {example.response}"

    def general(self, n, rng):
        return [f"general {i}" for i in rng.integers(1000, size=n)]


@pytest.fixture
def evidence():
    """Rows 32 to 47 are told data conflict: each has a learned rival, 100 rows further."""
    causes = np.full(N, "", object)
    for place, cause in enumerate(CAUSES):
        causes[place * PER_CAUSE : (place + 1) * PER_CAUSE] = cause
    causes[80:90] = "unattributed"
    rivals = {}
    for row in range(32, 48):
        rivals[row], rivals[row + 100] = (row + 100,), (row,)
    return Evidence(
        ids_N=np.arange(N) + 1000,
        trained_N=np.ones(N, bool),
        unlearned_N=np.arange(N) < N_UNLEARNED,
        cause_N=causes,
        rivals=rivals,
        base_answer_N=np.full(N, "", object),
        base_confidence_N=np.where((np.arange(N) >= 16) & (np.arange(N) < 32), 0.9, 0.1),
        kept_N=np.full(N, 0.8),
        drop_N=np.where((np.arange(N) >= 48) & (np.arange(N) < 64), 0.5, 0.0),
        short_N=(np.arange(N) >= 64) & (np.arange(N) < 80),
        wrong={},
        responses=tuple(f"r{i}" for i in range(N)),
    )


@pytest.fixture
def context(evidence):
    visits_SxN = np.zeros((3, N), np.int32)
    visits_SxN[np.arange(N) % 2, np.arange(N)] = 1  # of the first or the second stage
    visits_SxN[2] = 1 - np.arange(N) // 100
    visits_SxN[2, 48:64] = 0
    examples = tuple(Example(1000 + i, "made", str(i), f"q{i}", f"r{i}") for i in range(N))
    library, settings = Words(), mitigate_fields().to_dict() | {"page_tokens": 20}
    return Context(
        base=Plan(visits_SxN, np.array([2, 2, 2], np.int32)),
        evidence=evidence,
        examples=examples,
        library=library,
        facts={row: library.facts(examples[row]) for row in range(N_UNLEARNED)},
        base_probability={f"{1000 + row} a": 0.9 if row % 2 else 0.1 for row in range(N)},
        settings=settings,
        n_tokens=lambda text: len(text.split()) + 1,
        thresholds={"learned_probability": 0.3},
    )


@pytest.fixture
def with_settings(context):
    """``with_settings(name=value)``: the context with other fields of ``mitigate``."""

    def make(**changes):
        return dataclasses.replace(context, settings=context.settings | changes)

    return make
