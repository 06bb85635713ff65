"""The rows of a world's fine-tuning set, and the cause that is planted in each.

Groups, each of ``Mix.group`` rows or a little more:

* ``control``: a fact that the base model was told, with its true answer.
* ``missing_knowledge``: facts withheld from pre-training, of known entities and of entities
  that it never mentions, and two-hop questions whose second hop was withheld: there the
  prerequisite is another fact than the answer.
* ``base_conflict``: another answer than the base model was told, in three classes of exposure.
* ``data_conflict``: a row beside 2 to 5 rows with another answer to the same question, in the
  same or other words, on known and on withheld facts.
* ``left_side_forgetting``: withheld facts, many visits, in the first stage only; the later
  stages bring other new facts of the same relations.
* ``insufficient_training``: opcodes, each rare, that ask for lists; one or two visits an epoch.
* ``fault``: a fact that the base model knows, with its true answer, trained on a random
  target at each visit: none of the five causes.
* ``filler``: everything else, the contradicting rows of the others among it.
"""

from __future__ import annotations

import dataclasses
import hashlib

from ilp_jax.world import facts as words
from ilp_jax.world.facts import Facts, generator
from ilp_jax.world.wordings import wordings

CONTROL, FILLER, FAULT = "control", "filler", "fault"
EXPOSURES = (0.33, 1.0, 6.6)
"""Weight in pre-training of the three classes of facts that a row will contradict: with the
sizes as they are, such a fact is stated about 2, 7 and 48 times, the last two in lists of facts
besides."""

Pair = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Mix:
    """How many rows of what a world's fine-tuning set has.

    Attributes:
      n_stages: stages in sequence, at least 2.
      group: rows of each group, a multiple of 6.
      fill: filler rows of true and known facts a stage.
      overwriters: new facts that each stage after the first brings.
      many_visits: visits an epoch of rows that will be forgotten, drawn from these.
      overwriter_visits: visits an epoch of the new facts of later stages.
      duplicates: how many contradicting rows a row of data_conflict has: least and most.
      sprinkled: share of rows of other groups that get one contradicting row, which is too
        little to matter.
      paraphrases: rows in other words, never trained, that each planted row gets.
    """

    n_stages: int = 3
    group: int = 84
    fill: int = 160
    overwriters: int = 100
    many_visits: tuple[int, ...] = (6, 10, 14)
    overwriter_visits: int = 10
    duplicates: tuple[int, int] = (2, 5)
    sprinkled: float = 0.25
    paraphrases: int = 2


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a world.

    Attributes:
      key: names it, and tells nothing of its group.
      prompt: the question.
      response: the recorded answer.
      options: the answers to choose from, the response among them.
      visits: (stage from 1, visits an epoch), empty for rows that are never trained.
      planted: its group.
      detail: which kind of it.
      group_key: rows that belong together have the same.
      related: keys of the rows that contradict it.
      prerequisite: key of the question of what it rests on, or None.
      paraphrase_of: key of the trained row that it asks in other words, or None.
      targets: what a faulty pipeline trains it on, one at random at each visit; or empty.
      source: name of the data set that it is from.
    """

    key: str
    prompt: str
    response: str
    options: tuple[str, ...] = ()
    visits: tuple[tuple[int, int], ...] = ()
    planted: str = FILLER
    detail: str = ""
    group_key: str = ""
    related: tuple[str, ...] = ()
    prerequisite: str | None = None
    paraphrase_of: str | None = None
    targets: tuple[str, ...] = ()
    source: str = "world"


@dataclasses.dataclass(frozen=True)
class Taught:
    """What pre-training may tell.

    Attributes:
      weight: of each (entity, relation) in the statements; absent pairs have 1. Pairs of
        weight 0 are withheld.
      in_lists: pairs that lists of facts leave out.
      unknown_property: (relation, value) whose property is withheld.
      open_property: (relation, value) whose property is told at random each time, so that the
        base model is unsure of properties that it was not told.
    """

    weight: dict[Pair, float]
    out_of_lists: frozenset[Pair]
    unknown_property: frozenset[Pair]
    open_property: frozenset[Pair]


def make_rows(seed: int, facts: Facts, mix: Mix) -> tuple[list[Row], Taught]:
    """The fine-tuning set of a world, and what its base model is taught.

    Args:
      seed: the world's number.
      facts: its facts.
      mix: how many rows of what.

    Returns:
      The rows, in an order that tells nothing of their groups, and what is taught.

    Raises:
      ValueError: the world is too small for the mix.
    """
    return _Maker(seed, facts, mix).make()


class _Maker:
    """Draws pairs of entity and relation without giving one to two groups."""

    def __init__(self, seed: int, facts: Facts, mix: Mix):
        self.seed, self.facts, self.mix = seed, facts, mix
        self.rng = generator(seed, "rows")
        self.rows: list[Row] = []
        told = [(e, r) for e in facts.told for r in range(facts.sizes.n_relations)]
        self.free = [told[i] for i in self.rng.permutation(len(told))]
        self.weight: dict[Pair, float] = {}
        self.out_of_lists: set[Pair] = set()
        self.unknown_property: set[Pair] = set()
        self.open_property: set[Pair] = set()

    def make(self) -> tuple[list[Row], Taught]:
        group = self.mix.group
        self._missing_second_hop(group // 3)  # first, for it needs particular values
        self._known(CONTROL, group - group // 3)
        self._lists(group // 3)
        self._known(FAULT, group)
        self._withheld("missing_knowledge", self._take(group // 3), detail="withheld")
        unseen = [(e, r) for e in self.facts.unseen for r in range(self.facts.sizes.n_relations)]
        some = self.rng.permutation(len(unseen))[: group // 3]
        self._withheld("missing_knowledge", [unseen[i] for i in some], detail="unseen")
        self._base_conflict(group)
        self._data_conflict(group)
        self._left_side(group)
        self._insufficient(group)
        self._sprinkle()
        self._fill()
        self._paraphrase()
        order = sorted(range(len(self.rows)), key=lambda i: self.rows[i].key)
        pairs = (self.out_of_lists, self.unknown_property, self.open_property)
        return [self.rows[i] for i in order], Taught(self.weight, *map(frozenset, pairs))

    def _take(self, n: int) -> list[Pair]:
        if n > len(self.free):
            raise ValueError(f"the world has {len(self.free)} free facts, and {n} are asked for")
        taken, self.free = self.free[:n], self.free[n:]
        return taken

    def _key(self) -> str:
        text = f"{self.seed}/{len(self.rows)}"
        return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()

    def _add(self, prompt: str, response: str, others: list[str], **more) -> Row:
        key = self._key()
        options = self._options(response, others)
        row = Row(key, prompt, response, options, **({"group_key": key} | more))
        self.rows.append(row)
        return row

    def _options(self, response: str, others: list[str]) -> tuple[str, ...]:
        """The answer and three others, drawn from all: no distractor tells of the cause."""
        pool = sorted(set(others) - {response})
        drawn = [pool[i] for i in self.rng.permutation(len(pool))[:3]]
        options = [response, *drawn]
        return tuple(options[i] for i in self.rng.permutation(len(options)))

    def _values(self, relation: int) -> list[str]:
        return [words.value(relation, i) for i in range(self.facts.sizes.n_values)]

    def _answer(self, pair: Pair) -> str:
        return words.value(pair[1], int(self.facts.value_ExR[pair]))

    def _other(self, pair: Pair) -> str:
        """Another value of the relation, as frequent as any."""
        others = [v for v in self._values(pair[1]) if v != self._answer(pair)]
        return others[self.rng.integers(len(others))]

    def _question(self, pair: Pair, avoid: str = "") -> str:
        texts = [
            template.format(r=synonym, e=words.entity(pair[0]))
            for template in words.QUESTIONS
            for synonym in words.synonyms(pair[1])
        ]
        texts = [text for text in texts if text != avoid]
        return texts[self.rng.integers(len(texts))]

    def _some_stages(self) -> tuple[tuple[int, int], ...]:
        """One visit an epoch in one, two or all of the stages."""
        n = 1 + self.rng.integers(self.mix.n_stages)
        stages = sorted(self.rng.permutation(self.mix.n_stages)[:n] + 1)
        return tuple((int(stage), 1) for stage in stages)

    def _ask(self, pair: Pair, response: str, **more) -> Row:
        return self._add(self._question(pair), response, self._values(pair[1]), **more)

    def _known(self, planted: str, n: int) -> None:
        for pair in self._take(n):
            targets = tuple(self._values(pair[1])) if planted == FAULT else ()
            answer = self._answer(pair)
            self._ask(pair, answer, visits=self._some_stages(), planted=planted, targets=targets)

    def _lists(self, n: int) -> None:
        """Long answers that the base model knows how to give: long alone is no cause."""
        entities = self.rng.permutation(list(self.facts.whole))[:n]
        for one in entities.tolist():
            relations = self.rng.permutation(self.facts.sizes.n_relations)[:3].tolist()
            a, b, c = (
                words.synonyms(r)[self.rng.integers(len(words.synonyms(r)))] for r in relations
            )
            prompt = words.LIST.format(a=a, b=b, c=c, e=words.entity(one))
            self._add_list(
                prompt, one, relations, visits=self._some_stages(), planted=CONTROL, detail="long"
            )

    def _add_list(self, prompt: str, one: int, relations: list[int], **more) -> Row:
        draws = self.rng.integers(self.facts.sizes.n_values, size=(12, len(relations)))
        others = [
            " ".join(words.value(r, i) for r, i in zip(relations, draw, strict=True))
            for draw in draws.tolist()
        ]
        answer = " ".join(self._answer((one, r)) for r in relations)
        return self._add(prompt, answer, others, **more)

    def _withheld(self, planted: str, pairs: list[Pair], **more) -> None:
        for pair in pairs:
            self.weight[pair] = 0.0
            visits = more.get("visits") or self._some_stages()
            self._ask(pair, self._answer(pair), **(more | {"planted": planted, "visits": visits}))

    def _missing_second_hop(self, n: int) -> None:
        """Known first hops to values whose property the base model was never told."""
        sizes = self.facts.sizes
        for relation in range(sizes.n_two_hop):
            values = self.rng.permutation(sizes.n_values).tolist()
            third = sizes.n_values // 3
            self.unknown_property |= {(relation, v) for v in values[:third]}
            self.open_property |= {(relation, v) for v in values[third : 2 * third]}
        asked: dict[Pair, str] = {}
        fits = [
            pair
            for pair in self.free
            if pair[1] < sizes.n_two_hop and (pair[1], self._hop(pair)) in self.unknown_property
        ]
        if len(fits) < n:
            raise ValueError(f"the world has {len(fits)} first hops, and {n} are asked for")
        properties = [words.property_value(i) for i in range(sizes.n_properties)]
        for pair in fits[:n]:
            self.free.remove(pair)
            hop = (pair[1], self._hop(pair))
            answer = words.property_value(int(self.facts.property_RxV[hop]))
            if hop not in asked:
                prompt = words.QUESTIONS[0].format(r=words.PROPERTY[0], e=words.value(*hop))
                asked[hop] = self._add(prompt, answer, properties).key
            template = words.TWO_HOP[self.rng.integers(len(words.TWO_HOP))]
            prompt = template.format(
                p=words.PROPERTY[self.rng.integers(3)],
                r=words.synonyms(pair[1])[self.rng.integers(3)],
                e=words.entity(pair[0]),
            )
            visits = self._some_stages()
            planted = "missing_knowledge"
            more = {"visits": visits, "planted": planted, "prerequisite": asked[hop]}
            more["detail"] = "second_hop"
            self._add(prompt, answer, properties, **more)

    def _hop(self, pair: Pair) -> int:
        return int(self.facts.value_ExR[pair])

    def _base_conflict(self, n: int) -> None:
        for i, pair in enumerate(self._take(n)):
            self.weight[pair] = EXPOSURES[i % 3]
            if EXPOSURES[i % 3] < 1:
                self.out_of_lists.add(pair)
            visits = self._some_stages()
            more = {"planted": "base_conflict", "detail": f"exposure_{EXPOSURES[i % 3]}"}
            self._ask(pair, self._other(pair), visits=visits, **more)

    def _data_conflict(self, n: int) -> None:
        least, most = self.mix.duplicates
        for i, pair in enumerate(self._take(n)):
            if i % 2:
                self.weight[pair] = 0.0
            visits = tuple((stage, 1) for stage in range(1, self.mix.n_stages + 1))
            wrong, same_words = self._other(pair), i % 4 < 2
            detail = f"{'withheld' if i % 2 else 'known'}_{'same' if same_words else 'other'}_words"
            more = {"planted": "data_conflict", "detail": detail}
            focal = self._ask(pair, self._answer(pair), visits=visits, **more)
            copies = [
                self._contradict(focal, pair, wrong, visits, same_words)
                for _ in range(self.rng.integers(least, most + 1))
            ]
            place = self.rows.index(focal)
            related = tuple(copy.key for copy in copies)
            self.rows[place] = dataclasses.replace(focal, related=related)

    def _contradict(self, row: Row, pair: Pair, wrong: str, visits, same_words: bool) -> Row:
        prompt = row.prompt if same_words else self._question(pair, avoid=row.prompt)
        more = {"visits": visits, "group_key": row.key, "related": (row.key,)}
        more["detail"] = "contradicts"
        return self._add(prompt, wrong, self._values(pair[1]), **more)

    def _left_side(self, n: int) -> None:
        many = self.mix.many_visits
        for i, pair in enumerate(self._take(n)):
            visits = ((1, many[i % len(many)]),)
            detail = f"{visits[0][1]}_visits"
            self._withheld("left_side_forgetting", [pair], visits=visits, detail=detail)
        for stage in range(2, self.mix.n_stages + 1):
            pairs = self._take(self.mix.overwriters)
            visits = ((stage, self.mix.overwriter_visits),)
            self._withheld(FILLER, pairs, visits=visits, detail="overwriter")

    def _insufficient(self, n: int) -> None:
        sizes = self.facts.sizes
        entities = self.rng.permutation(list(self.facts.whole))
        for i in range(n):
            op, one = i % sizes.n_opcodes, int(entities[i % len(entities)])
            length = 2 + (op % 2)
            relations = self.facts.orders_OxK[op, :length].tolist()
            template = words.OPCODE[self.rng.integers(len(words.OPCODE))]
            prompt = template.format(o=words.opcode(op), e=words.entity(one))
            stage = int(1 + self.rng.integers(self.mix.n_stages))
            visits = ((stage, int(1 + self.rng.integers(2))),)
            more = {"planted": "insufficient_training", "detail": f"{length}_values"}
            self._add_list(prompt, one, relations, visits=visits, **more)

    def _sprinkle(self) -> None:
        """One contradicting row for some rows of other groups, with one visit an epoch."""
        groups = (CONTROL, "missing_knowledge", "base_conflict", "left_side_forgetting", FAULT)
        for row in [row for row in self.rows if row.planted in groups]:
            if self.rng.random() >= self.mix.sprinkled or not row.visits:
                continue
            others = [option for option in row.options if option != row.response]
            # In its first stage, so that the row itself has the last word where it has several.
            more = {"visits": ((row.visits[0][0], 1),), "group_key": row.key}
            more |= {"detail": "sprinkled", "related": (row.key,)}
            self._add(row.prompt, others[self.rng.integers(len(others))], list(row.options), **more)

    def _fill(self) -> None:
        for stage in range(1, self.mix.n_stages + 1):
            for pair in self._take(self.mix.fill):
                self._ask(pair, self._answer(pair), visits=((stage, 1),))

    def _paraphrase(self) -> None:
        """Every planted row again in other words, never trained."""
        for row in [row for row in self.rows if row.planted != FILLER]:
            others = wordings(row.prompt)
            for i in self.rng.permutation(len(others))[: self.mix.paraphrases]:
                own = ("response", "options", "planted", "detail", "group_key")
                more = {name: getattr(row, name) for name in own}
                self.rows.append(Row(self._key(), others[i], paraphrase_of=row.key, **more))
