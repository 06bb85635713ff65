"""The library of a world: what is true in it, told as its base model's lessons tell it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ilp_jax.data.examples import Example
from ilp_jax.mitigate.library import Fact
from ilp_jax.world import facts as words
from ilp_jax.world.corpus import documents
from ilp_jax.world.facts import Facts
from ilp_jax.world.groups import Taught

_RELATION = {word: r for r, family in enumerate(words.RELATIONS) for word in family}


class WorldLibrary:
    """See ``mitigate.library.Library``. It knows the world's facts, and no group of any row.

    Args:
      facts: what is true.
      taught: what the base model was taught; general texts tell no more than that.
    """

    def __init__(self, facts: Facts, taught: Taught):
        self._facts, self._taught = facts, taught
        # Who leads to a value by a fact that the base model was asked about.
        self._led: dict[tuple[int, int], list[int]] = {}
        for e in facts.whole:
            for r in range(facts.sizes.n_two_hop):
                self._led.setdefault((r, int(facts.value_ExR[e, r])), []).append(e)

    def facts(self, example: Example) -> tuple[Fact, ...]:
        """The facts that a question goes through, by the words that it has."""
        parts = example.prompt.split()
        people = [part for part in parts if part.startswith("person_")]
        if not people:
            pairs = (part.rsplit("_", 1) for part in _values(parts))
            return tuple(self._property(_RELATION[name], int(number)) for name, number in pairs)
        e = int(people[0].rsplit("_", 1)[1])
        relations = [_RELATION[part] for part in parts if part in _RELATION]
        for part in parts:
            if part.startswith("op_"):
                order = self._facts.orders_OxK[int(part.split("_")[1])]
                relations += order[: len(example.response.split())].tolist()
        found = [self._fact(e, r) for r in relations]
        if any(part in words.PROPERTY for part in parts):
            r = relations[0]
            found.append(self._property(r, int(self._facts.value_ExR[e, r])))
        return tuple(found)

    def says(self, example: Example, answers: Sequence[str]) -> str:
        """What is true of the question, where it is among the answers."""
        found = self.facts(example)
        if any(part in words.PROPERTY for part in example.prompt.split()):
            found = found[-1:]
        true = " ".join(fact.answer for fact in found)
        return true if true in answers else ""

    def tell(self, fact: Fact, rng: np.random.Generator) -> str:
        """A statement: one of its templates and names of the relation.

        Every other text about a property goes to it through a person whose fact leads there:
        a base model that is told it by itself alone does not use it in questions of two hops.
        """
        kind, who, relation = fact.key.split()
        if kind == "property" and rng.random() < 0.5:
            r, v = int(relation), int(who.rsplit("_", 1)[1])
            people = self._led.get((r, v), [])
            if people:
                template, name = _one(words.TWO_HOP, rng), _one(words.PROPERTY, rng)
                e = words.entity(_one(people, rng))
                question = template.format(p=name, r=_one(words.synonyms(r), rng), e=e)
                return f"{question} {fact.answer}"
        names = words.PROPERTY if kind == "property" else words.synonyms(int(relation))
        return _one(words.STATEMENTS, rng).format(r=_one(names, rng), e=who, v=fact.answer)

    def restate(self, example: Example, rng: np.random.Generator) -> str:
        """A statement of the recorded answer: the question's words, in another order."""
        parts = example.prompt.split()
        who = [part for part in parts if part.startswith("person_")] or _values(parts)
        names = [part for part in parts if part in _RELATION or part in words.PROPERTY]
        names += [part for part in parts if part.startswith("op_")]
        values = example.response.split()
        if not who or not names:
            return f"{example.prompt} {example.response}"
        if len(names) > 1 and len(values) == len(names):
            own = [f"{self._renamed(r, rng)} {v}" for r, v in zip(names, values, strict=True)]
            return f"{who[0]} : {' '.join(own)} ."
        name = " of the ".join(self._renamed(one, rng) for one in names)
        template = _one(words.STATEMENTS, rng)
        return template.format(r=name, e=who[0], v=" ".join(values))

    def general(self, n: int, rng: np.random.Generator) -> list[str]:
        """Documents of the base model's lessons."""
        return list(documents(self._facts, self._taught, n, rng))

    def _renamed(self, name: str, rng: np.random.Generator) -> str:
        if name in words.PROPERTY:
            return _one(words.PROPERTY, rng)
        return _one(words.synonyms(_RELATION[name]), rng) if name in _RELATION else name

    def _fact(self, e: int, r: int) -> Fact:
        who = words.entity(e)
        question = words.QUESTIONS[0].format(r=words.RELATIONS[r][0], e=who)
        return Fact(f"fact {who} {r}", question, words.value(r, int(self._facts.value_ExR[e, r])))

    def _property(self, r: int, v: int) -> Fact:
        who = words.value(r, v)
        question = words.QUESTIONS[0].format(r=words.PROPERTY[0], e=who)
        answer = words.property_value(int(self._facts.property_RxV[r, v]))
        return Fact(f"property {who} {r}", question, answer)


def _values(parts: list[str]) -> list[str]:
    """Words that are values of relations."""
    return [part for part in parts if "_" in part and part.rsplit("_", 1)[0] in _RELATION]


def _one(things, rng: np.random.Generator):
    return things[int(rng.integers(len(things)))]
