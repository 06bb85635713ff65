"""The facts of a knowledge world, and which of them the base model is taught.

A world is a function of its seed and sizes. Entities have one value in each relation, drawn
from a Zipf law; the values of some relations have a property of their own, which makes
two-hop questions. Words are atomic: the vocabulary is a list, and a text is words in a row.
"""

from __future__ import annotations

import dataclasses

import numpy as np

PAD, END = "<pad>", "<end>"
PROPERTY = ("region", "area", "zone")
"""The relation of a value to its own property, with two synonyms."""

RELATIONS = (
    ("city", "town", "home"),
    ("job", "work", "trade"),
    ("color", "hue", "shade"),
    ("food", "meal", "dish"),
    ("sport", "game", "play"),
    ("tool", "device", "gear"),
    ("pet", "animal", "beast"),
    ("drink", "cup", "brew"),
)
_TEMPLATE_WORDS = (
    "question answer what is the of ? . has for which name are , and : tell me who says"
).split()


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large a world is.

    Attributes:
      n_relations: relations of entities, at most 8.
      n_values: values of each.
      n_two_hop: relations, the first ones, whose values have a property.
      n_properties: values of the property.
      n_asked: entities that pre-training asks questions about.
      n_partial: of these, the last ones: one relation of each is answered at random each time,
        so that the base model is unsure of what it was not taught of entities it knows.
      n_told: entities that it only states facts of.
      n_unseen: entities that it never mentions.
      n_spare: entities that it gives a random value each time, which keeps the base model
        unsure of what it was not taught.
      n_opcodes: words that ask for a list of values in an order of their own.
      zipf: exponent of the law of values.
    """

    n_relations: int = 5
    n_values: int = 20
    n_two_hop: int = 2
    n_properties: int = 12
    n_asked: int = 140
    n_partial: int = 30
    n_told: int = 260
    n_unseen: int = 60
    n_spare: int = 200
    n_opcodes: int = 16
    zipf: float = 0.8


@dataclasses.dataclass(frozen=True, eq=False)
class Facts:
    """What is true in a world.

    Attributes:
      sizes: its sizes.
      value_ExR: int32, the value (0 to n_values - 1) of each entity in each relation;
        entities are asked, told, unseen and spare ones, in this order.
      property_RxV: int32, the property of each value of the two-hop relations.
      orders_OxK: int32 [n_opcodes, 3], relations that each opcode asks for, in order.
    """

    sizes: Sizes
    value_ExR: np.ndarray
    property_RxV: np.ndarray
    orders_OxK: np.ndarray

    @property
    def asked(self) -> range:
        """Entities that pre-training asks questions about."""
        return range(self.sizes.n_asked)

    @property
    def whole(self) -> range:
        """Asked entities of which every fact is taught."""
        return range(self.sizes.n_asked - self.sizes.n_partial)

    @property
    def told(self) -> range:
        """Entities that it only states facts of."""
        return range(self.sizes.n_asked, self.sizes.n_asked + self.sizes.n_told)

    @property
    def unseen(self) -> range:
        """Entities that it never mentions."""
        return range(self.told.stop, self.told.stop + self.sizes.n_unseen)

    @property
    def spare(self) -> range:
        """Entities whose value is random each time."""
        return range(self.unseen.stop, self.unseen.stop + self.sizes.n_spare)


def make_facts(seed: int, sizes: Sizes) -> Facts:
    """Draws the facts of a world.

    Args:
      seed: the world's number, any int.
      sizes: its sizes.
    """
    rng = generator(seed, "facts")
    weights = 1.0 / np.arange(1, sizes.n_values + 1) ** sizes.zipf
    weights /= weights.sum()
    n_entities = sizes.n_asked + sizes.n_told + sizes.n_unseen + sizes.n_spare
    values = rng.choice(sizes.n_values, (n_entities, sizes.n_relations), p=weights)
    # Which value is frequent differs from relation to relation and from world to world.
    names = np.stack([rng.permutation(sizes.n_values) for _ in range(sizes.n_relations)])
    orders = np.stack([rng.permutation(sizes.n_relations)[:3] for _ in range(sizes.n_opcodes)])
    return Facts(
        sizes,
        names[np.arange(sizes.n_relations), values].astype(np.int32),
        rng.integers(sizes.n_properties, size=(sizes.n_two_hop, sizes.n_values)).astype(np.int32),
        orders.astype(np.int32),
    )


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Random numbers of a world for one purpose, independent of all others.

    Args:
      seed: the world's number, any int.
      purpose: what they are for.
    """
    words = np.frombuffer(purpose.encode(), np.uint8).tolist()
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed % 2**64, *words])))


def entity(index: int) -> str:
    """The word of an entity."""
    return f"person_{index:03d}"


def value(relation: int, index: int) -> str:
    """The word of a relation's value."""
    return f"{RELATIONS[relation][0]}_{index:02d}"


def property_value(index: int) -> str:
    """The word of a property."""
    return f"{PROPERTY[0]}_{index:02d}"


def opcode(index: int) -> str:
    """The word that asks for a list."""
    return f"op_{index:02d}"


def synonyms(relation: int) -> tuple[str, ...]:
    """The words of a relation; they mean the same."""
    return RELATIONS[relation]


def vocabulary(sizes: Sizes) -> list[str]:
    """Every word of a world; a word's id is its place.

    Args:
      sizes: the world's sizes.
    """
    n_entities = sizes.n_asked + sizes.n_told + sizes.n_unseen + sizes.n_spare
    words = [PAD, END, *_TEMPLATE_WORDS, *PROPERTY]
    for relation in range(sizes.n_relations):
        words += [*synonyms(relation), *(value(relation, i) for i in range(sizes.n_values))]
    words += [property_value(i) for i in range(sizes.n_properties)]
    words += [opcode(i) for i in range(sizes.n_opcodes)]
    return words + [entity(i) for i in range(n_entities)]


STATEMENTS = (
    "the {r} of {e} is {v} .",
    "{e} has {r} {v} .",
    "for {e} the {r} is {v} .",
    "who says {e} has {r} {v} .",
)
QUESTIONS = (
    "question what is the {r} of {e} ? answer",
    "question {e} has which {r} ? answer",
    "question name the {r} of {e} ? answer",
)
TWO_HOP = (
    "question what is the {p} of the {r} of {e} ? answer",
    "question name the {p} of the {r} of {e} ? answer",
)
LIST = "question what are the {a} , {b} and {c} of {e} ? answer"
OPCODE = ("question {o} of {e} ? answer", "question tell me {o} for {e} ? answer")
