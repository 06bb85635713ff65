"""The arms of an experiment: which row gets which remedy, and the plan that follows.

Every arm is a training from the base model, on documents first and then stage by stage, with
a new data order and as many updates as any other: treatments take their visits and documents
from a budget, random learned rows and general texts fill what is left. Arms:

* ``none``: nothing but that filling;
* ``randomised``: unlearned rows of each diagnosed cause are dealt to its own remedy (a quarter),
  to each of the four others (an eighth each), or to none (a quarter): one run holds the whole
  matrix of causes and remedies. Rows that contradict each other are dealt together;
* ``sham``: the same, every remedy replaced by its sham;
  Rows that are judged wrong (``data_conflict.judged_wrong``) are set aside: what is wrong is not
  to be learned;
* ``diagnosed``, ``oracle``: every unlearned row gets the remedy of its diagnosed, or planted,
  cause; ``random``: one drawn; a cause's name: that cause's remedy for all unlearned rows;
* ``masked``: the remedy of missing knowledge for all unlearned rows, their recorded answers blotted
  out of the documents: what comes back then came not from reading the answer;
* ``relabel``, ``buckets``: rows that contradict each other are all trained on the answer that most
  of their rows have (where as many have another, the library's or the base model's), or kept out
  of each other's mini-batches;
* ``weighted``: rows that the base model contests weigh more, and the training is pulled towards
  the base model (``base_conflict``);
* ``resample``: every so many updates, rows whose probability has fallen since their best get the
  further visits of the next part (``resample``; the study's dynamic resampling);
* ``progressive``: each stage goes on epoch by epoch while its loss falls (``progressive``; the
  study's growing number of epochs); no documents, and as many updates as that takes;
* ``epochs``, ``oversample_all``: the whole budget, documents' part included, as more passes over
  everything, or as more visits to all unlearned rows;
* ``shuffle``: each row's visits spread over all stages (the study's global shuffle, with the
  stages' learning rates as they are).

At another budget (``mitigate.budgets``) an arm's further visits and pages, and the visits and
documents of its treatments, are so many times as many.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import ModuleType

import numpy as np

from ilp_jax.mitigate import (
    base_conflict,
    data_conflict,
    insufficient_training,
    left_side_forgetting,
    missing_knowledge,
)
from ilp_jax.mitigate.context import Context
from ilp_jax.mitigate.evidence import linked
from ilp_jax.mitigate.library import Library
from ilp_jax.mitigate.plan import Document, Plan, balanced, times
from ilp_jax.stats.schema import CAUSES

REMEDIES: Mapping[str, ModuleType] = {
    "missing_knowledge": missing_knowledge,
    "base_conflict": base_conflict,
    "data_conflict": data_conflict,
    "left_side_forgetting": left_side_forgetting,
    "insufficient_training": insufficient_training,
}
"""By the cause that each is the remedy of."""
OF_ALL = {
    "relabel": data_conflict.relabel,
    "buckets": data_conflict.buckets,
    "weighted": base_conflict.weighted,
}
"""What else may be done, to every row that it fits; by the arm's name."""
NONE, SHAM, RANDOMISED, MASKED = "none", "sham", "randomised", "masked"
WEIGHTED, PROGRESSIVE = "weighted", "progressive"
MASK = "___"
ONLY_ROWS = ("epochs", "oversample_all")
"""Arms without documents: their part of the budget becomes visits."""
SEED_STEP = 1000
"""Between the seeds of an arm's trainings, so that stages' own offsets cannot meet."""


@dataclasses.dataclass(frozen=True, eq=False)
class Arm:
    """One training of an experiment.

    Attributes:
      name: see the module.
      seed: of its data order and of all that is drawn for it.
      assigned: index of a row -> the cause whose remedy it gets, or ``none``; rows of no part
        in the experiment are absent.
      is_sham: whether shams stand for remedies.
      treated: rows for which the remedy found something to do.
      plan: what is trained.
      fill: rows that take visits which no treatment takes.
      budget: multiple of the configured one.
    """

    name: str
    seed: int
    assigned: Mapping[int, str]
    is_sham: bool
    treated: frozenset[int]
    plan: Plan
    fill: frozenset[int] = frozenset()
    budget: float = 1.0

    @property
    def label(self) -> str:
        """Its name, and its budget where that is another."""
        return self.name if self.budget == 1 else f"{self.name}_x{self.budget:g}"


def make_arm(
    name: str,
    number: int,
    context: Context,
    seed: int,
    planted_N: np.ndarray | None = None,
    budget: float = 1.0,
) -> Arm:
    """An arm's assignment and its plan: a pure function of its arguments.

    Args:
      name: see the module.
      number: which training of it, from 0.
      context: the run.
      seed: the run's.
      planted_N: planted causes, for ``oracle`` alone.
      budget: multiple of the configured one.
    """
    context = _at_budget(context, budget)
    # Not by name: ``sham`` deals as ``randomised`` does.
    rng = np.random.default_rng([seed, number])
    assigned = _assigned(name, context, rng, planted_N)
    rng = np.random.default_rng([seed, number, 1])
    plan = _shuffled(context.base, rng) if name == "shuffle" else context.base
    plan, treated = treat(plan, assigned, context, rng, name == SHAM)
    if name == MASKED:
        plan = _masked(plan, context)
    if name in OF_ALL:
        plan, treated = OF_ALL[name](plan, context)
    return Arm(
        name=name,
        seed=(seed + SEED_STEP * (number + 1)) % 2**32,
        assigned=assigned,
        is_sham=name == SHAM,
        treated=frozenset(treated),
        plan=_within_budget(name, plan, context, rng),
        fill=frozenset(context.evidence.learned.tolist()),
        budget=budget,
    )


def _at_budget(context: Context, budget: float) -> Context:
    if budget == 1:
        return context
    own = context.settings
    scaled = {name: own[name] * budget for name in ("extra_visits", "pages")}
    scaled |= {name: max(round(own[name] * budget), 1) for name in ("visits", "documents_a_row")}
    return dataclasses.replace(context, settings={**own, **scaled})


def treat(
    plan: Plan,
    assigned: Mapping[int, str],
    context: Context,
    rng: np.random.Generator,
    is_sham: bool = False,
) -> tuple[Plan, set[int]]:
    """Every row's remedy, with no thought of a budget.

    Args:
      plan: the plan so far.
      assigned: index of a row -> the cause whose remedy it gets, or ``none``.
      context: the run.
      rng: draws wordings and shams.
      is_sham: whether shams stand for remedies.

    Returns:
      The plan, and the rows for which something was done.
    """
    treated: set[int] = set()
    for cause, remedy in REMEDIES.items():
        rows = sorted(row for row, given in assigned.items() if given == cause)
        plan, done = (remedy.sham if is_sham else remedy.treat)(plan, rows, context, rng)
        treated |= done
    return plan, treated


def n_pages(context: Context) -> int:
    """Pages of documents that every arm is trained on before fine-tuning."""
    return round(context.settings["pages"] * context.base.total_visits)


def _assigned(
    name: str, context: Context, rng: np.random.Generator, planted_N: np.ndarray | None
) -> dict[int, str]:
    causes = planted_N if name == "oracle" else context.evidence.cause_N
    unlearned = context.evidence.unlearned.tolist()
    rows = [row for row in unlearned if causes[row] in CAUSES and row not in context.set_aside]
    if name == "diagnosed":
        wrong = dict.fromkeys(sorted(context.set_aside), "data_conflict")
        return {row: causes[row] for row in rows} | wrong
    if name in (RANDOMISED, SHAM):
        return _dealt(rows, context, rng)
    if name == "oracle":
        return {row: causes[row] for row in rows}
    if name == "random":
        return {
            row: CAUSES[i] for row, i in zip(rows, rng.integers(5, size=len(rows)), strict=True)
        }
    given = "missing_knowledge" if name == MASKED else name
    return dict.fromkeys(rows, given if given in CAUSES else NONE)


def _dealt(rows: list[int], context: Context, rng: np.random.Generator) -> dict[int, str]:
    """Rows of each cause, in groups that contradict each other, dealt to remedies and none."""
    causes, assigned = context.evidence.cause_N, {}
    groups = linked(rows, context.evidence.rivals)
    for cause in CAUSES:
        own = [group for group in groups if causes[group[0]] == cause]
        others = [other for other in CAUSES if other != cause]
        deck = [NONE, NONE, cause, cause, *others]
        hands = [rng.permutation(deck).tolist() for _ in range(-(-len(own) // len(deck)))]
        cards = [card for hand in hands for card in hand]
        for place, card in zip(rng.permutation(len(own)).tolist(), cards, strict=False):
            assigned |= dict.fromkeys(own[place], card)
    return dict(sorted(assigned.items()))


def _within_budget(name: str, plan: Plan, context: Context, rng: np.random.Generator) -> Plan:
    base, settings = context.base, context.settings
    wanted_S = np.rint(base.visits_S * (1 + settings["extra_visits"])).astype(int)
    pages = n_pages(context)
    fill = context.evidence.learned
    if name == PROGRESSIVE:
        return plan  # as many updates as it takes
    if name in ONLY_ROWS:
        # The documents' part goes to the stages, by their visits.
        wanted_S = np.rint(wanted_S * (1 + pages / (wanted_S * base.epochs_S).sum()))
        wanted_S = wanted_S.astype(int)
        if name == "epochs":
            epochs_S = np.maximum(base.epochs_S * wanted_S // base.visits_S, base.epochs_S)
            wanted_S = np.rint(wanted_S * base.epochs_S / epochs_S).astype(int)
            plan = dataclasses.replace(plan, epochs_S=epochs_S.astype(np.int32))
        else:
            rows = context.evidence.unlearned
            own = base.visits_SxN[:, rows].sum(axis=1)
            factor = 1 + ((wanted_S - base.visits_S) / np.maximum(own, 1)).min()
            plan = times(plan, rows, factor)
        return balanced(plan, base, wanted_S, fill, rng)
    plan = balanced(plan, base, wanted_S, fill, rng)
    return dataclasses.replace(plan, pages=_pages(plan.documents, pages, context, rng))


def _pages(
    told: Sequence[Document], n: int, context: Context, rng: np.random.Generator
) -> tuple[tuple[Document, ...], ...]:
    """Exactly n pages: those that treatments want, thinned alike to their share, then general."""
    most, turn, count = round(context.settings["knowledge_share"] * n), [], Counter()
    for document in told:
        count[document.row] += 1
        turn.append(count[document.row])
    # Each row's first, then each row's second, and so on; ties at random.
    order = np.lexsort((rng.permutation(len(told)), turn)).tolist()
    pages = _packed((told[i] for i in order), most, context)
    return (*pages, *_packed(_general(context.library, rng), n - len(pages), context))


def _general(library: Library, rng: np.random.Generator) -> Iterator[Document]:
    while True:
        yield from map(Document, library.general(256, rng))


def _packed(texts: Iterable[Document], n: int, context: Context) -> list[tuple[Document, ...]]:
    """At most n pages of the first texts, each as full as their order allows."""
    pages: list[list[Document]] = []
    room, most = 0, context.settings["page_tokens"]
    for text in texts:
        tokens = context.n_tokens(text.text)
        if pages and tokens <= room:
            pages[-1].append(text)
        elif len(pages) == n:
            break
        else:
            pages.append([text])
            room = most
        room -= tokens
    return [tuple(page) for page in pages]


def _masked(plan: Plan, context: Context) -> Plan:
    """The plan with each row's recorded answer blotted out of its documents."""

    def blotted(document: Document) -> Document:
        answer = re.escape(context.examples[document.row].response)
        text = re.sub(rf"(?<!\w){answer}(?!\w)", MASK, document.text, flags=re.IGNORECASE)
        return dataclasses.replace(document, text=text)

    return dataclasses.replace(plan, documents=tuple(map(blotted, plan.documents)))


def _shuffled(plan: Plan, rng: np.random.Generator) -> Plan:
    """Every visit in a stage drawn by the stages' numbers of visits."""
    visits_SxN = np.zeros_like(plan.visits_SxN)
    owner = np.repeat(
        np.tile(np.arange(plan.visits_SxN.shape[1]), len(plan.epochs_S)), plan.visits_SxN.ravel()
    )
    bounds = np.cumsum(plan.visits_S)
    for stage, part in enumerate(np.split(rng.permutation(owner), bounds[:-1])):
        np.add.at(visits_SxN[stage], part, 1)
    return dataclasses.replace(plan, visits_SxN=visits_SxN)
