"""Remedy of left-side forgetting: the row is replayed in every stage after its last.

Local, unlike the study's global shuffle (arXiv:2604.10079, section 4.4; the arm ``shuffle``):
stages and their learning-rate cycles stay as they are. Replayed are rows of this diagnosis, and of
the others those that are being erased: learned in part at the end of their own stage
(``diagnose.learned_probability``), and since then fallen by ``mitigate.relapse`` of that. A row
that was never learned has nothing to keep.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ilp_jax.mitigate.context import Context, Treated, others
from ilp_jax.mitigate.plan import Plan, more

CAUSE = "left_side_forgetting"


def treat(plan: Plan, rows: Sequence[int], context: Context, rng: np.random.Generator) -> Treated:
    """``mitigate.visits`` visits to each row in the stages after its last.

    Args:
      plan: the plan so far.
      rows: indices of the rows to treat.
      context: the run.
      rng: not used; nothing is drawn.
    """
    return _replayed(plan, [(row, row) for row in rows], context)


def sham(plan: Plan, rows: Sequence[int], context: Context, rng: np.random.Generator) -> Treated:
    """As many visits, in the same stages, to random learned rows."""
    return _replayed(plan, list(zip(rows, others(context, len(rows), rng), strict=True)), context)


def erased(row: int, context: Context) -> bool:
    """Whether a row is diagnosed so, or was learned in part in its own stage and has lost some."""
    if context.evidence.cause_N[row] == CAUSE:
        return True
    learned = context.evidence.kept_N[row] >= context.thresholds["learned_probability"]
    return bool(learned and context.evidence.drop_N[row] >= context.settings["relapse"])


def _replayed(plan: Plan, pairs: list[tuple[int, int]], context: Context) -> Treated:
    treated, n_stages = set(), len(plan.epochs_S)
    for row, replayed in pairs:
        last = np.flatnonzero(context.base.visits_SxN[:, row])[-1]
        if erased(row, context) and last + 1 < n_stages:
            plan = more(plan, replayed, range(last + 1, n_stages), context.settings["visits"])
            treated.add(row)
    return plan, treated
