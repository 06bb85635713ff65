"""What detection runs: screens, questions about options, answers drawn; and the rows it writes."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from ilp_jax.data.batches import LENGTH_BUCKETS, TARGET_BUCKETS, padded_shape
from ilp_jax.data.study import StudyData
from ilp_jax.data.tokens import TokenRow
from ilp_jax.detect import base_answers
from ilp_jax.detect.screen import is_sampled
from ilp_jax.planning.training import epochs, probe_moments
from ilp_jax.planning.work import Answers, Line, Passes
from ilp_jax.train.milestones import own_rows

Asked = Callable[[str, Sequence[int]], Sequence[TokenRow]]
"""A point and indices of examples -> the questions of the point beside the one as trained, each
as a row of prompt and options; see ``detect.choices``."""


@dataclasses.dataclass(frozen=True)
class Answered:
    """Rows of an ``inference/{point}.parquet``.

    Attributes:
      rows: that every run writes.
      drawn: further ones at most, for answers that are drawn.
      examples: asked about.
      options: listed in all of its rows.
      text_tokens: of all its answers and options, if answers are as long as targets.
      at_most: whether all of it is the most that there can be.
    """

    rows: int = 0
    drawn: int = 0
    examples: int = 0
    options: int = 0
    text_tokens: int = 0
    at_most: bool = False


class Detection(NamedTuple):
    """What detection takes.

    Attributes:
      lines: what runs.
      answered: by point, what is written.
    """

    lines: list[Line]
    answered: Mapping[str, Answered]


@dataclasses.dataclass(frozen=True)
class Moment:
    """A time at which is asked.

    Attributes:
      phase: phase of the run.
      points: by the point's name, indices of the examples asked about.
      in_parts: whether the answers are written part by part, as at ``base`` and ``final``.
    """

    phase: str
    points: Mapping[str, np.ndarray]
    in_parts: bool = False


def detection(data: StudyData, config: ConfigDict, asked: Asked, batch_size: int) -> Detection:
    """Lines and rows of every point of ``config.detect.points``.

    How many rows are drawn, and whether and when a stage converges, is the model's doing: of
    these the most is counted. A stage that converges where nothing else is asked is asked once
    more about its own rows.

    Args:
      data: the study.
      config: the resolved config.
      asked: see ``Asked``.
      batch_size: examples in a batch of detection, a multiple of the devices.
    """
    kept = functools.cache(asked)  # a moment's lines and its rows want the same questions
    desk = _Desk(data, config, lambda point, rows: kept(point, tuple(rows)), batch_size)
    lines, answered = list(_base_answers(data, config, batch_size)), {}
    for moment in moments(data, config):
        lines += desk.lines(moment)
        for point, rows in moment.points.items():
            answered[point] = _sum(answered.get(point), desk.answered(point, rows))
    for own, is_asked in convergences(data, config):
        answered["converged"] = _sum(
            answered.get("converged"), desk.answered("converged", own), at_most=True
        )
        if not is_asked:
            more = desk.lines(Moment("train", {"converged": own}))
            lines += [dataclasses.replace(line, at_most=True) for line in more]
    return Detection(lines, answered)


def moments(data: StudyData, config: ConfigDict) -> Iterator[Moment]:
    """Times at which is asked whatever the model does, in order.

    Args:
      data: the study.
      config: the resolved config.
    """
    wanted, everything = config.detect.points, np.arange(len(data.examples))
    tuned = bool(config.model.tuned)
    if "base" in wanted:
        yield Moment("detect" if tuned else "probe", {"base": everything}, True)
    for stage, epoch, ends_stage in () if tuned else epochs(data):
        points, name = {}, f"stage_{stage.index}"
        if f"epoch_{epoch}" in wanted:
            points[f"epoch_{epoch}"] = own_rows(data, stage)
        if ends_stage and ("stage" in wanted or name in wanted):
            points[name] = everything
        points = {point: rows for point, rows in points.items() if len(rows)}
        if points:
            yield Moment("train", points)
    if "final" in wanted:
        yield Moment("detect", {"final": everything}, True)


def convergences(data: StudyData, config: ConfigDict) -> Iterator[tuple[np.ndarray, bool]]:
    """Of every stage that may converge: its own rows, and whether they are asked then anyway.

    Args:
      data: the study.
      config: the resolved config.
    """
    wanted, needed = config.detect.points, config.convergence.consecutive_epochs
    if "converged" not in wanted or config.model.tuned:
        return
    for stage in data.stages:
        probed = [e for e in probe_moments(data, config) if e.stage is stage]
        possible, own = probed[needed - 1 :], own_rows(data, stage)
        stage_asked = "stage" in wanted or f"stage_{stage.index}" in wanted
        free = [
            e
            for e in possible
            if f"epoch_{e.epoch}" not in wanted and not (e.ends_stage and stage_asked)
        ]
        if possible and len(own):
            yield own, not free


@dataclasses.dataclass(frozen=True)
class _Desk:
    """Counts what is asked."""

    data: StudyData
    config: ConfigDict
    asked: Asked
    batch_size: int

    def lines(self, moment: Moment) -> list[Line]:
        """What a moment runs; what all its points ask is asked once."""
        settings = self.config.detect
        rows = np.unique(np.concatenate(list(moment.points.values())))
        where = f"at {next(iter(moment.points))}"
        if moment.phase == "train":
            where = "where converged" if list(moment.points) == ["converged"] else "in training"
        lines = [self._screen(moment, rows, f"screen {where}")]
        sampled = [p for p in moment.points if is_sampled(settings.sampled_points, p)]
        if sampled:
            drawn = np.unique(np.concatenate([moment.points[p] for p in sampled]))
            lines.append(self._draw(moment, drawn, f"draw answers {where}"))
        for point, of_point in moment.points.items():
            lines.append(self._choose(moment, point, of_point, f"choose options {where}"))
            heats = len(settings.stability_temperatures) if point == "final" else 0
            if heats:
                once = self._screen(moment, of_point, f"other temperatures {where}")
                lines += heats * [once]
        return lines

    def answered(self, point: str, rows: np.ndarray) -> Answered:
        """The rows that a point's file gets for some examples."""
        settings = self.config.detect
        heats = len(settings.stability_temperatures) if point == "final" else 0
        own = [self.data.tokens[i] for i in rows]
        choices = [row for row in own if row.option_ids]
        choices += self.asked(point, rows.tolist())
        n_drawn = settings.n_samples if is_sampled(settings.sampled_points, point) else 0
        # One answer is written out greedily, and as many as are drawn.
        text_tokens = (1 + n_drawn) * sum(len(row.target_ids) for row in own)
        text_tokens += sum(len(ids) for row in choices for ids in row.option_ids)
        return Answered(
            rows=len(own) * (2 + heats) + len(choices),
            drawn=len(own) * n_drawn,
            examples=len(own),
            options=sum(len(row.option_ids) for row in choices),
            text_tokens=text_tokens,
        )

    def _screen(self, moment: Moment, rows: np.ndarray, what: str) -> Line:
        packed = [self.data.tokens[i].n_packed_tokens for i in rows]
        tokens = [self.data.tokens[i] for i in self._by_length(rows, packed)]
        return self._packed_line(moment, what, tokens, 1)

    def _choose(self, moment: Moment, point: str, rows: np.ndarray, what: str) -> Line:
        n_rows = sum(bool(self.data.tokens[i].option_ids) for i in rows)
        questions = self.asked(point, rows.tolist())
        return self._packed_line(moment, what, questions, -(-len(questions) // max(n_rows, 1)))

    def _packed_line(
        self, moment: Moment, what: str, rows: Sequence[TokenRow], per_row: int
    ) -> Line:
        """Packed rows in one pass, or part by part."""
        lengths = np.array([row.n_packed_tokens for row in rows], np.int64)
        targets = np.array([row.n_targets + sum(map(len, row.option_ids)) for row in rows])
        shapes = Counter()
        for start, stop in self._parts(moment, len(rows), per_row):
            order = start + np.argsort(lengths[start:stop], kind="stable")
            for at in range(0, len(order), self.batch_size):
                part = order[at : at + self.batch_size]
                longest, most = int(lengths[part].max()), int(targets[part].max())
                buckets = self.config.detect.length_buckets
                shapes[padded_shape(longest, most, buckets)] += 1
        work = (Passes(dict(shapes), self.batch_size),)
        return Line(moment.phase, what, len(rows), int(lengths.sum()), work)

    def _parts(self, moment: Moment, n: int, per_row: int) -> Iterator[tuple[int, int]]:
        size = n
        if moment.in_parts:
            batches = -(-self.config.detect.rows_per_part // self.batch_size)
            size = batches * self.batch_size * per_row
        for start in range(0, n, max(size, 1)):
            yield start, min(start + size, n)

    def _by_length(self, rows: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
        return rows[np.lexsort((self.data.example_ids[rows], lengths))]

    def _draw(self, moment: Moment, rows: np.ndarray, what: str) -> Line:
        prompts = [len(self.data.tokens[i].prompt_ids) for i in rows]
        order, settings = self._by_length(rows, prompts), self.config.detect
        work, tokens = [], 0
        for start, stop in self._parts(moment, len(order), 1):
            part = [self.data.tokens[i] for i in order[start:stop]]
            # What is asked is drawn, and what is wrong is generated greedily: at most all.
            for n_samples in (settings.n_samples, 1):
                found, n = _generated(part, settings.max_new_tokens, self.batch_size, n_samples)
                work += found
                tokens += n
        return Line(moment.phase, what, len(rows), tokens, tuple(work), at_most=True)


def _base_answers(data: StudyData, config: ConfigDict, batch_size: int) -> Iterator[Line]:
    rows = [data.tokens[i] for i in sorted(base_answers.wanted(data))]
    if rows and not config.model.tuned:
        whole = [dataclasses.replace(row, earlier_replies=()) for row in rows]
        settings = config.detect
        work, tokens = _generated(
            whole, settings.max_new_tokens, batch_size, settings.distractor_draws, False
        )
        yield Line("probe", "draw the base's answers", len(rows), tokens, tuple(work), at_most=True)


def _generated(
    rows: Sequence[TokenRow],
    max_new_tokens: int,
    batch_size: int,
    n_samples: int,
    whole_target: bool = True,
) -> tuple[list[Answers], int]:
    """Answers to the prompt before every trained reply, and their tokens; see ``detect.drawn``."""
    work, tokens = [], 0
    replies = [_replies(row) for row in rows]
    for depth in range(max(map(len, replies), default=0)):
        groups: dict[tuple[int, int], list[int]] = {}
        for one in (row[depth] for row in replies if len(row) > depth):
            length, target = one
            limit = max(max_new_tokens, target if whole_target else 0)
            key = _bucket(length, LENGTH_BUCKETS), _bucket(limit, TARGET_BUCKETS)
            groups.setdefault(key, []).append(limit)
            tokens += length + n_samples * (limit - 1)
        shapes = Counter()
        for (length, _), limits in sorted(groups.items()):
            for start in range(0, len(limits), batch_size):
                shapes[length, max(limits[start : start + batch_size])] += 1
        work.append(Answers(dict(shapes), batch_size, n_samples))
    return work, tokens


def _replies(row: TokenRow) -> list[tuple[int, int]]:
    """Tokens before each trained reply, and of it; the last reply first."""
    earlier = [(start, stop - start) for start, stop in row.earlier_replies]
    return [*earlier, (len(row.prompt_ids), len(row.target_ids))][::-1]


def _bucket(size: int, buckets: Sequence[int]) -> int:
    return next(bucket for bucket in buckets if bucket >= size)


def _sum(before: Answered | None, more: Answered, at_most: bool = False) -> Answered:
    before = before or Answered()
    pairs = zip(dataclasses.astuple(before), dataclasses.astuple(more), strict=True)
    *sums, either = (a + b for a, b in pairs)
    return Answered(*sums, at_most=bool(either) or at_most)


def asked_of(view: Any) -> Asked:
    """The questions of a study with a tokenizer, cut exactly as detection cuts them.

    Args:
      view: has ``config``, ``data`` and ``tokenizer``, as a workspace.
    """
    from ilp_jax.detect.choices import fitting, questions_at

    def asked(point: str, indices: Sequence[int]) -> Sequence[TokenRow]:
        questions = questions_at(view, point, indices)
        return fitting(view, questions)[1] if questions else ()

    return asked
