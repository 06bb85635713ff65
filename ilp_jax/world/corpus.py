"""What the base model of a world is pre-trained on, one document a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ilp_jax.world import facts as words
from ilp_jax.world.facts import Facts, generator
from ilp_jax.world.groups import Taught

SHARES = {
    "statement": 0.24,
    "biography": 0.32,
    "question": 0.16,
    "list": 0.06,
    "property": 0.04,
    "two_hop": 0.06,
    "unsure": 0.12,
}
"""Shares of the kinds of documents. `unsure` gives spare entities, and the open relation of
partly known ones, a random value each time: without it a small model is confident of facts
that it never saw."""


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """How a world's base model is trained.

    Attributes:
      steps: updates.
      batch_size: documents an update, about.
      peak: learning rate after warm-up; it falls to 0 by a cosine.
      warmup: updates of linear warm-up.
      row_length: tokens of a row, in which documents stand one after another without seeing
        each other.
    """

    steps: int = 900
    batch_size: int = 64
    peak: float = 4e-3
    warmup: int = 40
    row_length: int = 32


class Rows(NamedTuple):
    """Documents packed in rows; int32 [N, T] each.

    Attributes:
      tokens_NxT: token ids, 0 where there is none.
      positions_NxT: place of each token in its document.
      branch_NxT: number of its document in the row, from 1; -1 where there is none.
      targets_NxT: the document's next token, 0 where there is none.
    """

    tokens_NxT: np.ndarray
    positions_NxT: np.ndarray
    branch_NxT: np.ndarray
    targets_NxT: np.ndarray


def corpus(seed: int, facts: Facts, taught: Taught, n_documents: int, row_length: int) -> Rows:
    """Documents of a world.

    Args:
      seed: the world's number.
      facts: its facts.
      taught: what may be told.
      n_documents: how many.
      row_length: T, at least the tokens of the longest.
    """
    place = {word: i for i, word in enumerate(words.vocabulary(facts.sizes))}
    rng = generator(seed, "corpus")
    texts = (text.split() for text in documents(facts, taught, n_documents, rng))
    return packed([[place[word] for word in (*text, words.END)] for text in texts], row_length)


def documents(
    facts: Facts, taught: Taught, n_documents: int, rng: np.random.Generator
) -> Iterator[str]:
    """Documents of a world, one after another, each kind with its share.

    Args:
      facts: its facts.
      taught: what may be told.
      n_documents: how many.
      rng: draws kinds, facts and words.
    """
    writer = _Writer(facts, taught, rng)
    makers = [getattr(writer, kind) for kind in SHARES]
    kinds = rng.choice(len(SHARES), n_documents, p=np.array(list(SHARES.values())))
    for kind in kinds:
        yield makers[kind]()


def packed(documents: list[list[int]], row_length: int) -> Rows:
    """Puts documents into rows in their order; one that does not fit begins a new row.

    Args:
      documents: token ids of each.
      row_length: T.
    """
    rows: list[list[list[int]]] = [[]]
    used = 0
    for document in documents:
        if used + len(document) > row_length:
            rows.append([])
            used = 0
        rows[-1].append(document)
        used += len(document)
    out = Rows(*(np.full((len(rows), row_length), fill, np.int32) for fill in (0, 0, -1, 0)))
    for n, row in enumerate(rows):
        at = 0
        for number, document in enumerate(row, 1):
            part = (n, slice(at, at + len(document)))
            out.tokens_NxT[part] = document
            out.positions_NxT[part] = np.arange(len(document))
            out.branch_NxT[part] = number
            out.targets_NxT[part] = [*document[1:], 0]
            at += len(document)
    return out


class _Writer:
    """One method a kind of document; each call writes one."""

    def __init__(self, facts: Facts, taught: Taught, rng: np.random.Generator):
        self.facts, self.rng, sizes = facts, rng, facts.sizes
        relations = range(sizes.n_relations)
        known = [(e, r) for e in facts.whole for r in relations]
        known += [(e, r) for e in facts.asked if e not in facts.whole for r in relations]
        known = [pair for pair in known if not self._open(pair)]
        told = [(e, r) for e in facts.told for r in relations]
        self.pairs = known + [pair for pair in told if taught.weight.get(pair, 1.0) > 0]
        weights = np.array([taught.weight.get(pair, 1.0) for pair in self.pairs])
        self.cumulative = np.cumsum(weights / weights.sum())
        self.by_entity: dict[int, list[int]] = {}
        for e, r in self.pairs:
            if (e, r) not in taught.out_of_lists:
                self.by_entity.setdefault(e, []).append(r)
        self.whole_enough = [e for e, own in self.by_entity.items() if len(own) >= 3]
        self.asked = known
        hops = [(r, v) for r in range(sizes.n_two_hop) for v in range(sizes.n_values)]
        untold = taught.unknown_property | taught.open_property
        self.hops = [hop for hop in hops if hop not in untold]
        first = [pair for pair in known if pair[1] < sizes.n_two_hop]
        self.two_hops = [pair for pair in first if self._hop(pair) not in untold]
        self.open_hops = sorted(taught.open_property)
        self.open_two_hops = [pair for pair in first if self._hop(pair) in taught.open_property]

    def statement(self) -> str:
        place = min(np.searchsorted(self.cumulative, self.rng.random()), len(self.pairs) - 1)
        return self._state(*self.pairs[place])

    def biography(self) -> str:
        one = self._one(self.whole_enough)
        own = self.rng.permutation(self.by_entity[one])[:3].tolist()
        facts = [f"{self._word(r)} {self._answer(one, r)}" for r in own]
        return f"{words.entity(one)} : {' '.join(facts)} ."

    def question(self) -> str:
        e, r = self._one(self.asked)
        return self._ask(words.entity(e), self._word(r), self._answer(e, r))

    def list(self) -> str:
        e = self._one(self.facts.whole)
        own = self.rng.permutation(self.facts.sizes.n_relations)[:3].tolist()
        a, b, c = (self._word(r) for r in own)
        prompt = words.LIST.format(a=a, b=b, c=c, e=words.entity(e))
        return f"{prompt} {' '.join(self._answer(e, r) for r in own)}"

    def property(self) -> str:
        hop = self._one(self.hops)
        return self._tell_property(hop, self._property(hop))

    def two_hop(self) -> str:
        pair = self._one(self.two_hops)
        return self._ask_two_hop(pair, self._property(self._hop(pair)))

    def unsure(self) -> str:
        sizes = self.facts.sizes
        if self.rng.random() < 0.25 and self.open_two_hops:
            answer = words.property_value(int(self.rng.integers(sizes.n_properties)))
            if self.rng.random() < 0.4:
                return self._tell_property(self._one(self.open_hops), answer)
            return self._ask_two_hop(self._one(self.open_two_hops), answer)
        partial = range(self.facts.whole.stop, self.facts.asked.stop)
        if self.rng.random() < 0.6 and len(partial):
            e = self._one(partial)
            r = e % sizes.n_relations
        else:
            e, r = self._one(self.facts.spare), int(self.rng.integers(sizes.n_relations))
        answer = words.value(r, int(self.rng.integers(sizes.n_values)))
        if self.rng.random() < 0.7:
            return self._ask(words.entity(e), self._word(r), answer)
        return self._one(words.STATEMENTS).format(r=self._word(r), e=words.entity(e), v=answer)

    def _tell_property(self, hop: tuple[int, int], answer: str) -> str:
        name = self._one(words.PROPERTY)
        if self.rng.random() < 0.5:
            return self._ask(words.value(*hop), name, answer)
        return self._one(words.STATEMENTS).format(r=name, e=words.value(*hop), v=answer)

    def _ask_two_hop(self, pair: tuple[int, int], answer: str) -> str:
        e, r = pair
        template, name = self._one(words.TWO_HOP), self._one(words.PROPERTY)
        return f"{template.format(p=name, r=self._word(r), e=words.entity(e))} {answer}"

    def _hop(self, pair: tuple[int, int]) -> tuple[int, int]:
        return pair[1], int(self.facts.value_ExR[pair])

    def _open(self, pair: tuple[int, int]) -> bool:
        e, r = pair
        return e not in self.facts.whole and r == e % self.facts.sizes.n_relations

    def _one(self, things):
        return things[int(self.rng.integers(len(things)))]

    def _word(self, relation: int) -> str:
        return self._one(words.synonyms(relation))

    def _answer(self, e: int, r: int) -> str:
        return words.value(r, int(self.facts.value_ExR[e, r]))

    def _property(self, hop: tuple[int, int]) -> str:
        return words.property_value(int(self.facts.property_RxV[hop]))

    def _state(self, e: int, r: int) -> str:
        template = self._one(words.STATEMENTS)
        return template.format(r=self._word(r), e=words.entity(e), v=self._answer(e, r))

    def _ask(self, who: str, name: str, answer: str) -> str:
        return f"{self._one(words.QUESTIONS).format(r=name, e=who)} {answer}"
