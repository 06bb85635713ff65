"""Where remedies that tell facts take their texts from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ilp_jax.data.examples import Example

_TOLD = (
    'The answer to the question "{q}" is {a}.',
    "{a}. That is the answer to: {q}",
    "Someone asked: {q} They were told: {a}.",
    "It is known that {a} is the right answer when one asks: {q}",
)


def told(question: str, answer: str, rng: np.random.Generator) -> str:
    """A sentence with a question and its answer, in one of several wordings."""
    return _TOLD[int(rng.integers(len(_TOLD)))].format(q=question, a=answer)


@dataclasses.dataclass(frozen=True)
class Fact:
    """Something that an answer rests on.

    Attributes:
      key: names it; rows that rest on the same fact share it.
      question: asks for it; '' where there is no question to ask.
      answer: the right answer to that.
    """

    key: str
    question: str = ""
    answer: str = ""


class Library(Protocol):
    """Texts about what a study's rows rest on, and general ones."""

    def facts(self, example: Example) -> tuple[Fact, ...]:
        """What an example's answer rests on, as far as the library knows."""

    def says(self, example: Example, answers: Sequence[str]) -> str:
        """Which of these answers to an example's question it bears out, alone; '' for none."""

    def tell(self, fact: Fact, rng: np.random.Generator) -> str:
        """A text that tells a fact, never in the words of the question."""

    def restate(self, example: Example, rng: np.random.Generator) -> str:
        """A text that tells an example's recorded answer, in other words than its prompt."""

    def general(self, n: int, rng: np.random.Generator) -> list[str]:
        """So many texts like those that the base model learned from."""
