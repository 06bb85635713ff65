"""All data of a run: examples, their tokens, and the stages that train on them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from ilp_jax.data.examples import Example
from ilp_jax.data.order import epoch_order, score
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
      own_copies: visits of each row within one epoch, where rows differ in it; else empty.
      cycle: where the stage is a part of a longer learning-rate cycle, the cycle's updates before
        it and in all; None: the stage is its own.
    """

    index: int
    name: str
    rows: np.ndarray
    held_out: np.ndarray
    config: ConfigDict
    own_copies: tuple[int, ...] = ()
    cycle: tuple[int, int] | None = None

    @property
    def epochs(self) -> int:
        """Passes over the stage's rows."""
        return int(self.config.get("epochs", 1))

    @property
    def copies(self) -> int | tuple[int, ...]:
        """Visits within one epoch: of every row, or of each where they differ."""
        return self.own_copies or max(int(self.config.get("copies", 1)), 1)

    @property
    def copies_N(self) -> np.ndarray:
        """int32 [n_rows], visits of each row within one epoch."""
        return np.broadcast_to(np.array(self.copies, np.int32), len(self.rows))

    @property
    def n_visits(self) -> int:
        """Visits of one epoch."""
        return int(self.copies_N.sum())


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
      faults: index of an example -> what a planted fault of the pipeline trains it on in place
        of its own target, see ``trained_tokens``.
      apart: index of an example -> its group; of a group no two different examples are trained in
        one mini-batch, as far as there are mini-batches enough.
      apart_every: batches between arrangements of what is left of an epoch, where there are such
        groups; 0: one an epoch.
      long_rows: a sentence for each stage whose source has rows longer than ``max_length``.
    """

    examples: tuple[Example, ...]
    tokens: tuple[TokenRow, ...]
    stages: tuple[Stage, ...]
    dropped: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)
    usable: Mapping[str, int] = dataclasses.field(default_factory=dict)
    faults: Mapping[int, tuple[np.ndarray, ...]] = dataclasses.field(default_factory=dict)
    apart: Mapping[int, int] = dataclasses.field(default_factory=dict)
    apart_every: int = 0
    long_rows: tuple[str, ...] = ()

    def trained_tokens(self, index: int, visit: int) -> TokenRow:
        """What an example is trained on at one visit: its own tokens, but for planted faults.

        Args:
          index: the example's place in ``examples``.
          visit: the visit, from 1 over the whole run.
        """
        row, targets = self.tokens[index], self.faults.get(index, ())
        if not targets:
            return row
        # By example and visit alone, so that a resumed run draws the same.
        drawn = score("fault", row.example_id, int(visit)) % len(targets)
        return dataclasses.replace(row, target_ids=targets[drawn])

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
            total[stage.rows] += stage.epochs * stage.copies_N
        return before


def assemble(
    parts: Sequence[tuple[str, ConfigDict, Sequence[tuple[Example, TokenRow]], Sequence]],
    dropped: Mapping[str, Mapping[str, int]] | None = None,
    usable: Mapping[str, int] | None = None,
    long_rows: Sequence[str] = (),
) -> StudyData:
    """Puts stages together; an example that stands in several stages is kept once.

    Args:
      parts: for each stage in training order: name, fields, training rows and held-out rows,
        each row an (Example, TokenRow) pair.
      dropped: see StudyData.
      usable: see StudyData.
      long_rows: see StudyData.

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
        other, where = examples[index], example.label
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
    return StudyData(
        tuple(examples),
        tuple(tokens),
        tuple(stages),
        dropped or {},
        usable or {},
        long_rows=tuple(long_rows),
    )


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
      example_index: int32 [n_visits], indices into ``data.examples``.
      visit: int32 [n_visits], counted from 1 over the whole run: the visits of all
        earlier stages, of this stage's earlier epochs, and of this epoch so far.
    """
    row_index, copy = epoch_order(seed, stage.index, epoch, len(stage.rows), stage.copies)
    before = data.visits_before[stage.index] + (epoch - 1) * stage.copies_N
    return stage.rows[row_index], before[row_index] + copy + np.int32(1)


def _text(example: Example) -> tuple:
    return example.prompt, example.messages, example.response, example.chat, example.parent_id
