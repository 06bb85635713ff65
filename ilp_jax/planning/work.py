"""What is to be run, as counts: batches of equal shape, and answers to generate."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Passes:
    """Batches that one program runs.

    Attributes:
      shapes: (T, R) -> batches of that shape: T tokens and R target slots a row. R = 0: no
        logits are wanted.
      batch_rows: B, rows of each batch, empty ones included.
      backward: whether a backward pass follows the forward one.
      norms: whether it takes per-example gradient norms.
      update: whether the parameters' gradient is taken and applied.
      microbatches: parts that each batch is run in.
    """

    shapes: Mapping[tuple[int, int], int]
    batch_rows: int
    backward: bool = False
    norms: bool = False
    update: bool = False
    microbatches: int = 1

    @property
    def n_batches(self) -> int:
        """Batches of all shapes."""
        return sum(self.shapes.values())

    @property
    def padded_tokens(self) -> int:
        """Tokens that are computed, padding and empty rows included."""
        return self.batch_rows * sum(shape[0] * n for shape, n in self.shapes.items())


@dataclasses.dataclass(frozen=True)
class Answers:
    """Batches of prompts whose answers are generated.

    Attributes:
      shapes: (P, G) -> batches: prompts padded to P tokens, answers of up to G tokens.
      batch_rows: prompts a batch.
      n_samples: answers to each prompt.
    """

    shapes: Mapping[tuple[int, int], int]
    batch_rows: int
    n_samples: int

    @property
    def padded_tokens(self) -> int:
        """Tokens that are run: each prompt once, and every answer's but its last."""
        per_batch = (n * (p + self.n_samples * (g - 1)) for (p, g), n in self.shapes.items())
        return self.batch_rows * sum(per_batch)


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a plan.

    Attributes:
      phase: phase of the run whose seconds in ``run.json`` hold it: ``probe``, ``train``,
        ``detect``.
      what: what is done.
      rows: rows (or questions) that it is done to, each as often as it is.
      tokens: their tokens, without padding.
      work: what runs; several where programs differ.
      updates: optimiser steps.
      rows_with_norms: of its rows, those whose gradient norms are taken.
      at_most: whether the model decides how much of it is needed, and this is the most.
    """

    phase: str
    what: str
    rows: int
    tokens: int
    work: tuple[Passes | Answers, ...]
    updates: int = 0
    rows_with_norms: int = 0
    at_most: bool = False

    @property
    def padded_tokens(self) -> int:
        """Tokens that are computed."""
        return sum(one.padded_tokens for one in self.work)


def merged(lines: list[Line]) -> list[Line]:
    """Lines of the same phase and name as one, in the order of their first.

    Args:
      lines: any lines.
    """
    found: dict[tuple[str, str], Line] = {}
    for line in lines:
        key = line.phase, line.what
        if key in found:
            before = found[key]
            line = dataclasses.replace(
                before,
                rows=before.rows + line.rows,
                tokens=before.tokens + line.tokens,
                work=(*before.work, *line.work),
                updates=before.updates + line.updates,
                rows_with_norms=before.rows_with_norms + line.rows_with_norms,
                at_most=before.at_most or line.at_most,
            )
        found[key] = line
    return [
        dataclasses.replace(line, work=_joined(line.work)) for line in found.values() if line.rows
    ]


def _joined(work: tuple[Passes | Answers, ...]) -> tuple[Passes | Answers, ...]:
    """Work that differs in its number of batches alone, together."""
    found: dict[Passes | Answers, Counter] = {}
    for one in work:
        kind = dataclasses.replace(one, shapes=())  # type: ignore[arg-type]
        found.setdefault(kind, Counter()).update(one.shapes)
    return tuple(
        dataclasses.replace(kind, shapes=dict(sorted(shapes.items())))
        for kind, shapes in found.items()
    )
