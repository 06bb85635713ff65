"""A user's file of what rows rest on, in place of what a library knows of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ilp_jax.data.examples import Example
from ilp_jax.mitigate.library import Fact, Library, told
from ilp_jax.mitigate.row_file import rows_of

_MEND = 'write lines like {"example_id": 123, "question": "...", "answer": "..."}'


class Prerequisites:
    """A library whose facts of some rows are those of a file; see ``mitigate.library.Library``.

    The base model is asked each question (the study's K_blind, arXiv:2604.10079, equation 4), and
    told those that it lacks: in the file's own ``text`` where it has one, else in a sentence.

    Args:
      path: JSONL, each line an object with ``example_id``, ``question``, ``answer`` and optionally
        ``text``; several lines may name one row.
      examples: the run's.
      library: is asked for all else.

    Raises:
      UserError: the file is missing, or a line is not like that or names no example.
    """

    def __init__(self, path: str, examples: Sequence[Example], library: Library):
        self._library = library
        self._facts, self._texts = _read(path, {one.example_id for one in examples})

    def facts(self, example: Example) -> tuple[Fact, ...]:
        """The file's, or the library's of rows that the file does not name."""
        return self._facts.get(example.example_id) or self._library.facts(example)

    def says(self, example: Example, answers: Sequence[str]) -> str:
        """The library's word."""
        return self._library.says(example, answers)

    def tell(self, fact: Fact, rng: np.random.Generator) -> str:
        """One of the file's texts of it, or a sentence with the question and its answer."""
        texts = self._texts.get(fact.key)
        if texts is None:
            return self._library.tell(fact, rng)
        if texts:
            return texts[int(rng.integers(len(texts)))]
        return told(fact.question, fact.answer, rng)

    def restate(self, example: Example, rng: np.random.Generator) -> str:
        """The library's."""
        return self._library.restate(example, rng)

    def general(self, n: int, rng: np.random.Generator) -> list[str]:
        """The library's."""
        return self._library.general(n, rng)


def _read(
    path: str, known: set[int]
) -> tuple[Mapping[int, tuple[Fact, ...]], Mapping[str, list[str]]]:
    """Facts of each row, and the texts of each fact's key."""
    facts: dict[int, dict[str, Fact]] = {}
    texts: dict[str, list[str]] = {}
    for one, row in rows_of(path, known, "prerequisite", _MEND, _fault):
        question, answer, text = _parts(row)
        key = f"asked {question.strip()} {answer.strip()}"
        facts.setdefault(one, {})[key] = Fact(key, question.strip(), answer.strip())
        texts.setdefault(key, []).extend([text] if text.strip() else [])
    return {one: tuple(own.values()) for one, own in facts.items()}, texts


def _parts(row: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    return row.get("question", ""), row.get("answer", ""), row.get("text", "")


def _fault(row: Mapping[str, Any]) -> str:
    if not all(isinstance(part, str) for part in _parts(row)):
        return "has a field that is no text"
    question, answer, _ = _parts(row)
    return "" if question.strip() and answer.strip() else "has no question or no answer"
