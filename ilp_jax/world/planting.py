"""Causes planted in rows of real data sets, by what the base model answers to them.

Real rows have no world behind them: what the base model knows is found by asking it to choose
among each row's options. A row counts as *known* where it chooses the answer with at least
``Plant.confidence``. Groups:

* ``control``: known rows with their own answer, visited in every stage.
* ``base_conflict``: known rows with another option as the recorded answer, in the last stage
  alone: what is unlearned of them was not forgotten.
* ``data_conflict``: a row with its own answer beside 2 to 5 rows that give one other option, in
  the same wording or another layout; half of the rows are known, half are not. Every stage but
  the first has them all.
* ``left_side_forgetting``: rows as they are, many visits, in the first stage only.
* ``insufficient_training``: long answers to the quarter of questions with the rarest words,
  one visit an epoch in one stage.
* ``filler``: rows as they are (``as_is``), which the later stages bring, and the contradicting
  rows of data_conflict (``contradicts``).

No group is planted as missing knowledge: nothing was withheld from a real base model. Rows of
``control`` and ``base_conflict`` are also asked in another layout, which is never trained.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import softmax

from ilp_jax.data.examples import Example
from ilp_jax.data.order import keyed_order, score
from ilp_jax.world.groups import CONTROL, FILLER, Row

OTHER_WORDINGS = ("Please answer this.\nQuestion: {}\nAnswer:", "{}\nThe answer is:")
"""Layouts in which contradicting rows ask the same question; they are trained."""
PARAPHRASE = "Q: {}\nA:"
"""The layout of paraphrases; it is never trained, and no signal asks in it."""
SURE = 0.8
"""From this confidence on a known row is ``sure``, else ``likely``: subclasses, nothing more."""


@dataclasses.dataclass(frozen=True)
class Plant:
    """How many rows of what a planted study of real rows has, and what makes a row fit.

    Attributes:
      n_stages: stages in sequence, at least 2.
      seed: settles which rows are taken, and for what.
      asked: rows that the base model is asked about, as many of each source.
      control: rows of that group.
      base_conflict: rows of that group.
      data_conflict: rows of that group, their contradicting rows not counted.
      left_side_forgetting: rows of that group.
      insufficient_training: rows of that group.
      as_is: rows as they are that each stage after the first brings.
      n_options: options of every row; longer lists are cut, rows with fewer left out.
      confidence: least probability among its options (softmax of the mean log-likelihoods a
        token) of an answer that the base model knows. Ours: an absolute majority.
      duplicates: how many contradicting rows a row of data_conflict has: least and most.
      many_visits: visits an epoch of rows that will be forgotten.
      overwriter_visits: visits an epoch of the rows that later stages bring.
      short_answer: most tokens of any option of a row that is asked about. Ours: length is the
        largest confounder of being unlearned, so all groups but one share it.
      long_answer: least tokens of an answer of insufficient_training.
      max_tokens: most tokens of a row, prompt in any layout and longest option and end token.
    """

    n_stages: int = 3
    seed: int = 0
    asked: int = 384
    control: int = 32
    base_conflict: int = 36
    data_conflict: int = 12
    left_side_forgetting: int = 36
    insufficient_training: int = 36
    as_is: int = 24
    n_options: int = 4
    confidence: float = 0.5
    duplicates: tuple[int, int] = (2, 5)
    many_visits: int = 2
    overwriter_visits: int = 2
    short_answer: int = 5
    long_answer: int = 6
    max_tokens: int = 40


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """A real row that may be planted.

    Attributes:
      example: the row, its options cut to the same number.
      question: its prompt without label and cue.
      n_tokens: tokens of its answer.
      longest: tokens of its longest option.
      rarity: of its question's words; only the order of candidates by it counts.
    """

    example: Example
    question: str
    n_tokens: int
    longest: int
    rarity: float


def to_ask(candidates: Sequence[Candidate], plant: Plant) -> list[Candidate]:
    """The rows with short answers that the base model is asked about.

    Args:
      candidates: all that fit.
      plant: the settings.

    Returns:
      As many of each source, the first of a permutation by the seed alone.

    Raises:
      ValueError: a source has too few.
    """
    short = [one for one in candidates if one.longest <= plant.short_answer]
    sources = list(dict.fromkeys(one.example.source for one in candidates))
    found = []
    for place, source in enumerate(sources):
        own = _ordered([one for one in short if one.example.source == source], plant, "asked")
        n = plant.asked * (place + 1) // len(sources) - plant.asked * place // len(sources)
        if len(own) < n:
            raise ValueError(f"{source} has {len(own)} rows with short answers, {n} are asked for")
        found += own[:n]
    return found


def plant_rows(
    candidates: Sequence[Candidate], scores: Mapping[int, Sequence[float]], plant: Plant
) -> list[Row]:
    """The rows of a planted study: a pure function of its arguments.

    Args:
      candidates: all that fit; those that are asked about are `to_ask` of them.
      scores: by example id, the base model's mean log-likelihood a token of each option (nats)
        of the rows asked about.
      plant: the settings.

    Returns:
      The rows, in an order that tells nothing of their groups.

    Raises:
      ValueError: too few rows fit a group.
    """
    return _Planter(candidates, scores, plant).rows()


class _Planter:
    """Takes candidates for one group after the other; none is taken twice."""

    def __init__(self, candidates, scores: Mapping[int, Sequence[float]], plant: Plant):
        self._plant = plant
        self._last = plant.n_stages
        self._confidence: dict[int, float] = {}
        known, unknown = [], []
        asked = _ordered(to_ask(candidates, plant), plant, "planted")
        for one in asked:
            place, probability = _choice(scores[one.example.example_id])
            self._confidence[one.example.example_id] = probability
            if place != one.example.answer_index:
                unknown.append(one)
            elif probability >= plant.confidence:
                known.append(one)
        self._known, self._unknown, self._asked = known, unknown, asked
        ids = {one.example.example_id for one in asked}
        self._long = [
            one
            for one in candidates
            if one.n_tokens >= plant.long_answer and one.example.example_id not in ids
        ]
        self._taken: set[int] = set()
        self._rows: list[Row] = []

    def rows(self) -> list[Row]:
        plant = self._plant
        half = plant.data_conflict // 2
        known, wrong = "the base model knows", "the base model answers wrong"
        later, others = plant.as_is * (self._last - 1), plant.data_conflict - half
        groups = (
            ("control", self._control, self._known, plant.control, known),
            ("base_conflict", self._base_conflict, self._known, plant.base_conflict, known),
            ("data_conflict", self._known_conflict, self._known, half, known),
            ("data_conflict", self._unknown_conflict, self._unknown, others, wrong),
            (
                "left_side_forgetting",
                self._left_side,
                self._asked,
                plant.left_side_forgetting,
                "were asked about",
            ),
            ("as_is", self._as_is, self._asked, later, "were asked about"),
            (
                "insufficient_training",
                self._insufficient,
                self._rare(),
                plant.insufficient_training,
                "have long answers",
            ),
        )
        for group, put, pool, n, what in groups:
            free = [one for one in pool if one.example.example_id not in self._taken]
            if len(free) < n:
                raise ValueError(f"{len(free)} rows {what} and are free, {group} needs {n}")
            self._taken |= {one.example.example_id for one in free[:n]}
            for number, one in enumerate(free[:n]):
                put(one, number)
        return sorted(self._rows, key=lambda row: row.key)

    def _rare(self) -> list[Candidate]:
        """Long answers, those to the quarter of questions with the rarest words first."""
        rarest = sorted(self._long, key=lambda one: (-one.rarity, one.example.example_id))
        n = max(len(rarest) // 4, self._plant.insufficient_training)
        return [*_ordered(rarest[:n], self._plant, "rare"), *rarest[n:]]

    def _control(self, one: Candidate, number: int) -> None:
        row = self._add(one, visits=self._stages(1), planted=CONTROL, detail=self._how_sure(one))
        self._paraphrase(one, row)

    def _base_conflict(self, one: Candidate, number: int) -> None:
        more = {"planted": "base_conflict", "detail": self._how_sure(one)}
        row = self._add(one, self._other(one), visits=self._stages(self._last), **more)
        self._paraphrase(one, row)

    def _known_conflict(self, one: Candidate, number: int) -> None:
        self._data_conflict(one, number, "known")

    def _unknown_conflict(self, one: Candidate, number: int) -> None:
        self._data_conflict(one, number, "unknown")

    def _data_conflict(self, one: Candidate, number: int, known: str) -> None:
        same_words, wrong = number % 2 == 0, self._other(one)
        least, most = self._plant.duplicates
        n = least + self._drawn("duplicates", one, most - least + 1)
        keys = [self._key(one, f"contradicts {i}") for i in range(n)]
        visits = self._stages(2)
        detail = f"{known}_{'same' if same_words else 'other'}_words"
        more = {"planted": "data_conflict", "detail": detail, "related": tuple(keys)}
        row = self._add(one, visits=visits, **more)
        for i, key in enumerate(keys):
            layout = OTHER_WORDINGS[i % len(OTHER_WORDINGS)]
            prompt = one.example.prompt if same_words else layout.format(one.question)
            more = {"group_key": row.key, "related": (row.key,), "detail": "contradicts"}
            self._add(one, wrong, prompt=prompt, key=key, visits=visits, **more)

    def _left_side(self, one: Candidate, number: int) -> None:
        n = self._plant.many_visits
        self._add(one, visits=((1, n),), planted="left_side_forgetting", detail=f"{n}_an_epoch")

    def _as_is(self, one: Candidate, number: int) -> None:
        stage = 2 + number % (self._last - 1)
        self._add(one, visits=((stage, self._plant.overwriter_visits),), detail="as_is")

    def _insufficient(self, one: Candidate, number: int) -> None:
        stage = 1 + self._drawn("stage", one, self._last)
        more = {"planted": "insufficient_training", "detail": f"stage_{stage}"}
        self._add(one, visits=((stage, 1),), **more)

    def _paraphrase(self, one: Candidate, row: Row) -> None:
        own = {name: getattr(row, name) for name in ("planted", "detail", "group_key")}
        key, prompt = self._key(one, "paraphrase"), PARAPHRASE.format(one.question)
        self._add(one, row.response, prompt=prompt, key=key, paraphrase_of=row.key, **own)

    def _add(self, one: Candidate, response: str = "", prompt: str = "", **more) -> Row:
        example, key = one.example, more.pop("key", None) or self._key(one, "")
        row = Row(
            key,
            prompt or example.prompt,
            response or example.response,
            example.options,
            source=example.source,
            **({"group_key": key, "planted": FILLER} | more),
        )
        self._rows.append(row)
        return row

    def _stages(self, first: int) -> tuple[tuple[int, int], ...]:
        """One visit an epoch in every stage from one on."""
        return tuple((stage, 1) for stage in range(first, self._last + 1))

    def _other(self, one: Candidate) -> str:
        """Another option, as likely any."""
        others = [option for option in one.example.options if option != one.example.response]
        return others[self._drawn("other", one, len(others))]

    def _how_sure(self, one: Candidate) -> str:
        return "sure" if self._confidence[one.example.example_id] >= SURE else "likely"

    def _drawn(self, what: str, one: Candidate, n: int) -> int:
        return score(self._plant.seed, what, one.example.example_id) % n

    def _key(self, one: Candidate, use: str) -> str:
        """A key like any other: the source's own would tell which rows are made."""
        text = f"{self._plant.seed}/{one.example.example_id}/{use}"
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _ordered(candidates: Sequence[Candidate], plant: Plant, what: str) -> list[Candidate]:
    order = keyed_order([one.example.example_id for one in candidates], plant.seed, what)
    return [candidates[i] for i in order]


def _choice(logprobs: Sequence[float]) -> tuple[int, float]:
    """The option chosen and its probability, as detection by choice has them."""
    place = int(np.argmax(logprobs))
    return place, float(softmax(logprobs)[place])
