"""Remedy of a base conflict: the contested answer in other words, against the base's belief.

As the study does for confident errors (arXiv:2604.10079, section 4.2): the same continued
pre-training, on texts that tell the recorded answer. Where the base model firmly believes
nothing else, nothing is contested and nothing is done.

Next to it stands `weighted`: more weight on contested rows themselves, and a penalty that holds all
else where the base model had it (``train.optim.towards_start``; the arm ``weighted``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ilp_jax.mitigate.context import Context, Treated, others
from ilp_jax.mitigate.plan import Document, Plan, more


def treat(plan: Plan, rows: Sequence[int], context: Context, rng: np.random.Generator) -> Treated:
    """Documents that tell each contested row's recorded answer; see the module.

    Args:
      plan: the plan so far.
      rows: indices of the rows to treat.
      context: the run.
      rng: draws wordings.
    """
    treated = [row for row in rows if contested(row, context)]
    return _told(plan, zip(treated, treated, strict=True), context, rng), set(treated)


def sham(plan: Plan, rows: Sequence[int], context: Context, rng: np.random.Generator) -> Treated:
    """As many documents, that tell the recorded answers of random learned rows."""
    treated = [row for row in rows if contested(row, context)]
    pairs = zip(treated, others(context, len(treated), rng), strict=True)
    return _told(plan, pairs, context, rng), set(treated)


def weighted(plan: Plan, context: Context) -> Treated:
    """``mitigate.visits`` more visits to each contested unlearned row in its own stages.

    A visit more is a loss weight more, spread over updates.

    Args:
      plan: the plan so far.
      context: the run.
    """
    unlearned = set(context.evidence.unlearned.tolist()) - context.set_aside
    treated = sorted(row for row in unlearned if contested(row, context))
    for row in treated:
        own = np.flatnonzero(context.base.visits_SxN[:, row])
        plan = more(plan, row, own, context.settings["visits"])
    return plan, set(treated)


def contested(row: int, context: Context) -> bool:
    """Whether the base model is confident of another answer than the recorded one."""
    return bool(context.evidence.base_confidence_N[row] >= context.settings["contested"])


def _told(plan: Plan, pairs, context: Context, rng: np.random.Generator) -> Plan:
    found = [
        Document(context.library.restate(context.examples[told], rng), row)
        for row, told in pairs
        for _ in range(context.settings["documents_a_row"])
    ]
    return dataclasses.replace(plan, documents=plan.documents + tuple(found))
