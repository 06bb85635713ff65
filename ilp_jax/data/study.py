"""All data of a run: examples, their tokens, and the stages that train on them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from ilp_jax.data.examples import Example
from ilp_jax.data.order import epoch_order
from ilp_jax.data.tokens import TokenRow
from ilp_jax.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
    """A part of the training sequence.

    Attributes:
      index: place in the sequence, from 1.
      name: name in ``config.stages``, with ``/VALUE`` where a file names stages of its own.
      rows: int32 [n_rows], indices into ``StudyData.examples`` of the rows it trains on.
      held_out: int32, indices of rows that are probed and never trained.
      config: the stage's fields (epochs, copies, learning_rate, ...).
    """

    index: int
    name: str
    rows: np.ndarray
    held_out: np.ndarray
    config: ConfigDict

    @property
    def epochs(self) -> int:
        """Passes over the stage's rows."""
        return int(self.config.get("epochs", 1))

    @property
    def copies(self) -> int:
        """Visits of every row within one epoch."""
        return max(int(self.config.get("copies", 1)), 1)

    @property
    def n_visits(self) -> int:
        """Visits of one epoch: rows x copies."""
        return len(self.rows) * self.copies


@dataclasses.dataclass(frozen=True, eq=False)
class StudyData:
    """All data of a run.

    Attributes:
      examples: every example once, trained or held out.
      tokens: their tokens, in the same order.
      stages: in training order.
      dropped: stage name -> reason -> rows that the source gave and the stage left out for
        that reason; each row counts once, under the first reason that it meets.
      usable: stage name -> rows left after that, of which the stage's were chosen.
    """

    examples: tuple[Example, ...]
    tokens: tuple[TokenRow, ...]
    stages: tuple[Stage, ...]
    dropped: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)
    usable: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def example_ids(self) -> np.ndarray:
        """int64 [n_examples], the examples' ids."""
        return np.array([example.example_id for example in self.examples], np.int64)

    @functools.cached_property
    def visits_before(self) -> Mapping[int, np.ndarray]:
        """Stage index -> int32 [n_rows], visits of each row in all earlier stages."""
        total, before = np.zeros(len(self.examples), np.int32), {}
        for stage in self.stages:
            before[stage.index] = total[stage.rows]
            total[stage.rows] += stage.epochs * stage.copies
        return before


def assemble(
    parts: Sequence[tuple[str, ConfigDict, Sequence[tuple[Example, TokenRow]], Sequence]],
    dropped: Mapping[str, Mapping[str, int]] | None = None,
    usable: Mapping[str, int] | None = None,
) -> StudyData:
    """Puts stages together; an example that stands in several stages is kept once.

    Args:
      parts: for each stage in training order: name, fields, training rows and held-out rows,
        each row an (Example, TokenRow) pair.
      dropped: see StudyData.
      usable: see StudyData.

    Returns:
      The study's data; held-out examples have the role ``held_out``.

    Raises:
      UserError: two different rows have one id, or a row is trained and held out.
    """
    place: dict[int, int] = {}
    examples: list[Example] = []
    tokens: list[TokenRow] = []

    def put(example: Example, row: TokenRow) -> int:
        index = place.setdefault(example.example_id, len(examples))
        if index == len(examples):
            examples.append(example)
            tokens.append(row)
            return index
        other, where = examples[index], f"{example.source}:{example.source_key}"
        if _text(other) != _text(example):
            what = "two different rows have this source and id"
            raise UserError(where, what, "give their files different names, or mend the ids")
        if (other.role == "held_out") != (example.role == "held_out"):
            raise UserError(where, "is trained and held out", "hold it out in every stage")
        return index

    stages = []
    for number, (name, config, train, held_out) in enumerate(parts, 1):
        rows = [put(example, row) for example, row in train]
        if len(set(rows)) < len(rows):
            raise UserError(f"stage {name}", "holds a row twice", "use copies instead")
        held = [
            put(dataclasses.replace(example, role="held_out"), row) for example, row in held_out
        ]
        indices = (np.array(one, np.int32) for one in (rows, held))
        stages.append(Stage(number, name, *indices, config))
    return StudyData(tuple(examples), tuple(tokens), tuple(stages), dropped or {}, usable or {})


def visit_order(
    data: StudyData, stage: Stage, seed: int, epoch: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which example each slot of an epoch visits, and the how-manieth visit of it that is.

    Args:
      data: the study.
      stage: one of its stages.
      seed: the run's seed.
      epoch: epoch of the stage, from 1.

    Returns:
      example_index: int32 [n_rows * copies], indices into ``data.examples``.
      visit: int32 [n_rows * copies], counted from 1 over the whole run: the visits of all
        earlier stages, of this stage's earlier epochs, and of this epoch so far.
    """
    row_index, copy = epoch_order(seed, stage.index, epoch, len(stage.rows), stage.copies)
    before = data.visits_before[stage.index][row_index]
    return stage.rows[row_index], before + (epoch - 1) * stage.copies + copy + np.int32(1)


def _text(example: Example) -> tuple:
    return example.prompt, example.messages, example.response, example.parent_id
