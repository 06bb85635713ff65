"""Remedy of a data conflict: the row that is judged wrong is deleted.

The judge: a person's verdict; else the library's word, else the base model's firm belief, where
it is one of the answers; else the row that is treated has the benefit of the doubt. Copies of one
answer are no independent witnesses, so they are not counted. A row that is judged wrong is itself
deleted: it is mended by being gone, and does not count as recovered.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ilp_jax.mitigate.context import Context, Treated, others
from ilp_jax.mitigate.evidence import judged_wrong, linked
from ilp_jax.mitigate.plan import Plan, without


def treat(plan: Plan, rows: Sequence[int], context: Context, rng: np.random.Generator) -> Treated:
    """Deletes the rivals of each row, or the row itself where it is judged wrong.

    Args:
      plan: the plan so far.
      rows: indices of the rows to treat.
      context: the run.
      rng: not used; nothing is drawn.
    """
    deleted, treated = set(), set()
    for row in sorted(rows, key=lambda row: _standing(row, context)):
        rivals = context.evidence.rivals.get(row, ())
        if rivals and row not in deleted:
            deleted |= {row} if judged_wrong(row, context.evidence) else set(rivals)
            treated.add(row)
    return without(plan, sorted(deleted)), treated


def sham(plan: Plan, rows: Sequence[int], context: Context, rng: np.random.Generator) -> Treated:
    """Deletes as many random learned rows that contradict nothing."""
    _, treated = treat(plan, rows, context, rng)
    rivals = context.evidence.rivals
    n = sum(
        1 if judged_wrong(row, context.evidence) else len(rivals.get(row, ())) for row in treated
    )
    return without(plan, others(context, n, rng)), treated


def relabel(plan: Plan, context: Context) -> Treated:
    """All rows of a group get the answer that most of its rows have.

    Where several answers have as many rows, the one that the library bears out or the base model
    firmly gives; where that is none of them, the group stays as it is.

    Args:
      plan: the plan so far.
      context: the run.
    """
    evidence, found = context.evidence, {}
    for group in linked(evidence.rivals, evidence.rivals):
        counts = Counter(evidence.responses[row] for row in group)
        most = [answer for answer, n in counts.items() if n == max(counts.values())]
        said = {evidence.witness(row) for row in group}
        most = [answer for answer in most if answer in said] if len(most) > 1 else most
        if len(most) == 1:
            text = next(
                context.examples[row].response
                for row in group
                if evidence.responses[row] == most[0]
            )
            found |= {row: text for row in group if evidence.responses[row] != most[0]}
    unlearned = set(evidence.unlearned.tolist())
    return dataclasses.replace(plan, relabelled=found), set(found) & unlearned


def buckets(plan: Plan, context: Context) -> Treated:
    """Rows that contradict each other stand in different mini-batches.

    The study's grouping (arXiv:2604.10079, section 4.3), arranged anew every
    ``mitigate.buckets_every`` updates.

    Args:
      plan: the plan so far.
      context: the run.
    """
    evidence = context.evidence
    groups = tuple(map(tuple, linked(evidence.rivals, evidence.rivals)))
    members = {row for group in groups for row in group}
    return dataclasses.replace(plan, apart=groups), members & set(evidence.unlearned.tolist())


def _standing(row: int, context: Context) -> tuple:
    """Rows that are sure to be right first, then those with more visits in the run."""
    evidence = context.evidence
    borne_out = evidence.witness(row) == evidence.responses[row]
    sure = evidence.wrong.get(row) is False or (row not in evidence.wrong and borne_out)
    visits = int((context.base.visits_SxN[:, row] * context.base.epochs_S).sum())
    return not sure, -visits, int(evidence.ids_N[row])
