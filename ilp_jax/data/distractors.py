"""Wrong answers for questions that come without options: those of similar questions.

The study turns every row into multiple choice, "semantically plausible but incorrect
alternatives" beside the response (section 3.1.1), and does not say who writes them. Here they
are responses of other rows: of the same type as the response, from the most similar prompts.
Where they are trained too, choosing among them is harder than among answers that the model
never saw.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from ilp_jax.data.examples import Example
from ilp_jax.data.order import keyed_order, score
from ilp_jax.data.study import StudyData
from ilp_jax.detect.normalise import normalise

MARK = "distractors"
"""Key of ``Example.marks`` that says where made options come from."""

SIMILAR, BASE, BOTH = "similar_questions", "base_answers", "both"
"""Where distractors come from: ``config.stages.NAME.distractors``."""

# Upper ends of the length classes in tokens, those of the report's strata; longer is one more.
LENGTHS = (1, 3, 6, 12)
_CELLS = 2**23  # similarities held at once: 64 MB
_WORD = re.compile(r"\w+")
_MONTHS = "january february march april may june july august september october november december"
_MONTH = re.compile(rf"\b(?:{'|'.join(_MONTHS.split())})\b")
_DATE = re.compile(r"(?:1\d|20)\d\d|\d{1,4}([-/.])\d{1,2}\1\d{1,4}")
_DATE_WORDS = 6
_NUMBERS = frozenset(
    "zero one two three four five six seven eight nine ten eleven twelve twenty thirty forty "
    "fifty hundred thousand million billion".split()
)
_YES_NO = ("yes", "no", "true", "false")
# Words that names hold in lower case.
_SMALL = frozenset("a an the of de la le el von van der den and y e al on in at for to".split())


@dataclasses.dataclass(frozen=True)
class Answered:
    """A question with its answer.

    Attributes:
      example_id: the example's id.
      prompt: its text.
      response: its answer.
      n_tokens: tokens of the answer.
      aliases: other answers that are right.
    """

    example_id: int
    prompt: str
    response: str
    n_tokens: int
    aliases: tuple[str, ...] = ()


def answered(example: Example, n_tokens: int) -> Answered:
    """What is needed of an example here; ``marks['aliases']`` is a JSON list of right answers.

    Args:
      example: the example.
      n_tokens: tokens of its response, end token left out.
    """
    return Answered(
        example.example_id,
        example.prompt,
        example.response,
        n_tokens,
        tuple(json.loads(example.marks.get("aliases", "[]"))),
    )


def answer_type(text: str, n_tokens: int) -> tuple[str, int]:
    """The coarse shape of an answer.

    Args:
      text: the answer.
      n_tokens: its tokens.

    Returns:
      ``yes_no``, ``date``, ``number`` (half of the words or more), ``capitals`` (two letters or
      more, no lower case), ``name`` (every word that is not a small one or a number is
      capitalised) or ``text``; and a length class, the place of ``n_tokens`` in ``LENGTHS``.
    """
    length = int(np.searchsorted(LENGTHS, n_tokens))
    lower, words = text.strip().lower(), _WORD.findall(text)
    if key(text) in _YES_NO:
        return "yes_no", length
    with_month = _MONTH.search(lower) and re.search(r"\d", lower) and len(words) <= _DATE_WORDS
    if with_month or _DATE.fullmatch(lower.strip(".")):
        return "date", length
    numeric = [w for w in words if w.lower() in _NUMBERS or any(map(str.isdigit, w))]
    if numeric and 2 * len(numeric) >= len(words):
        return "number", length
    if text.isupper() and sum(map(str.isalpha, text)) > 1:
        return "capitals", length
    large = [word for word in words if word.lower() not in _SMALL and not word[0].isdigit()]
    if large and all(word[0].isupper() for word in large):
        return "name", length
    return "text", length


def key(text: str) -> str:
    """What two texts share that count as the same answer or prompt; never empty for a text."""
    return normalise(text) or text.strip().lower()


def clashes(text: str, right: Iterable[str]) -> bool:
    """Whether an answer may be right: equal to a right one, or one stands within the other.

    Args:
      text: the answer's ``key``.
      right: keys of right answers; of empty ones only equality counts.
    """
    return any(
        text == one or (text and one and (f" {text} " in f" {one} " or f" {one} " in f" {text} "))
        for one in right
    )


def with_options(example: Example, wrong: Sequence[str], seed: int, kind: str) -> Example:
    """The example with options; their order, and so the response's place, is random.

    Args:
      example: the example.
      wrong: distractors, none of them the response.
      seed: the run's seed.
      kind: where the distractors come from, for ``marks``.
    """
    order = sorted(
        (example.response, *wrong),
        key=lambda option: (score(seed, "option order", example.example_id, option), option),
    )
    return dataclasses.replace(
        example,
        options=tuple(order),
        answer_index=order.index(example.response),
        marks={**example.marks, MARK: kind},
    )


def counts(data: StudyData) -> dict[str, tuple[int, int]]:
    """What came of distractors in each stage that asks for them.

    Args:
      data: the study.

    Returns:
      By stage name, rows (trained and held out) whose options were made, and rows that are
      without options.
    """
    found = {}
    for stage in data.stages:
        if stage.config.get("n_distractors", 0):
            rows = [data.examples[i] for i in (*stage.rows, *stage.held_out)]
            made = sum(MARK in example.marks for example in rows)
            found[stage.name] = made, sum(not example.options for example in rows)
    return found


class Neighbours:
    """Similar questions of a pool and their answers.

    Similarity is the cosine of TF-IDF vectors of the prompts' words, logarithmic in the count
    (scikit-learn's ``TfidfVectorizer`` with ``sublinear_tf``). Nothing depends on the pool's
    order. Questions are compared in chunks, so that memory grows with the pool alone.

    Args:
      pool: questions with their answers; the same example once.
      seed: settles which of equally similar questions come first.
    """

    def __init__(self, pool: Sequence[Answered], seed: int):
        self._pool, self._seed = sorted(pool, key=lambda one: one.example_id), seed
        self._vectorizer = TfidfVectorizer(analyzer=_words, sublinear_tf=True)
        self._vectors = self._vectorizer.fit_transform([one.prompt for one in self._pool])
        ids = [one.example_id for one in self._pool]
        self._rank = np.argsort(keyed_order(ids, seed, "distractors"))
        self._prompts, self._prompt_codes = _coded(key(one.prompt) for one in self._pool)
        self._answers, self._answer_codes = _coded(key(one.response) for one in self._pool)
        self._types, self._type_codes = _coded(
            answer_type(one.response, one.n_tokens) for one in self._pool
        )
        self._n_tokens = np.array([one.n_tokens for one in self._pool])

    def wrong_answers(
        self,
        questions: Sequence[Answered],
        n: int,
        max_similarity: float,
        max_tokens: int = 0,
    ) -> list[tuple[str, ...]]:
        """Answers of the pool that are wrong for each question.

        Each is of the type of the question's answer, and different from the others, from that
        answer, its aliases and all answers that the pool gives to the same prompt or to one
        at least ``max_similarity`` similar, after ``detect.normalise``; it neither contains
        one of these nor is contained in one.

        Args:
          questions: the questions, in the pool or not.
          n: answers wanted.
          max_similarity: cosine in (0, 1] from which prompts may ask the same.
          max_tokens: longer answers are passed over; 0 = no limit.

        Returns:
          Up to n answers a question, those of the most similar prompts first.
        """
        found = []
        size = max(_CELLS // max(len(self._pool), 1), 1)
        for start in range(0, len(questions), size):
            part = questions[start : start + size]
            for question, similarity in zip(part, self._similarities(part), strict=True):
                right = self._right(question, similarity, max_similarity)
                places = self._same_type(question, max_tokens)
                found.append(self._best(question, places, similarity, right, n))
        return found

    def right_answers(
        self, questions: Sequence[Answered], max_similarity: float
    ) -> list[frozenset[str]]:
        """Keys of all answers that may be right; see ``wrong_answers``."""
        size = max(_CELLS // max(len(self._pool), 1), 1)
        return [
            self._right(question, similarity, max_similarity)
            for start in range(0, len(questions), size)
            for part in [questions[start : start + size]]
            for question, similarity in zip(part, self._similarities(part), strict=True)
        ]

    def _similarities(self, questions: Sequence[Answered]) -> np.ndarray:
        vectors = self._vectorizer.transform([one.prompt for one in questions])
        # Rounded, so that ties are ties on every machine.
        return np.round((vectors @ self._vectors.T).toarray(), 6)

    def _right(self, question, similarity, max_similarity) -> frozenset[str]:
        same = self._prompt_codes == self._prompts.get(key(question.prompt), -1)
        near = np.flatnonzero((similarity >= max_similarity) | same)
        others = (self._pool[i] for i in near)
        return frozenset(
            key(text) for one in (question, *others) for text in (one.response, *one.aliases)
        )

    def _same_type(self, question: Answered, max_tokens: int) -> np.ndarray:
        kind = self._types.get(answer_type(question.response, question.n_tokens), -1)
        fits = self._type_codes == kind
        return np.flatnonzero(fits & (self._n_tokens <= max_tokens) if max_tokens else fits)

    def _best(self, question, places, similarity, right, n) -> tuple[str, ...]:
        # Equally similar ones in an order that differs from question to question.
        turn = score(self._seed, "distractors", question.example_id) % max(len(self._pool), 1)
        tie = (self._rank[places] + turn) % max(len(self._pool), 1)
        places = places[np.lexsort((tie, -similarity[places]))]
        # Of equal answers the first.
        _, first = np.unique(self._answer_codes[places], return_index=True)
        chosen: list[str] = []
        for i in places[np.sort(first)]:
            if len(chosen) == n:
                break
            if not clashes(key(self._pool[i].response), right):
                chosen.append(self._pool[i].response)
        return tuple(chosen)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower()) or [text.strip()]


def _coded(values: Iterable) -> tuple[dict, np.ndarray]:
    """The distinct values with a number each, and the number of every value."""
    codes: dict = {}
    numbers = [codes.setdefault(value, len(codes)) for value in values]
    return codes, np.array(numbers, np.int64)
