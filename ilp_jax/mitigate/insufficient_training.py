"""Remedy of insufficient training: the row is visited more often in its own stages.

Only rows whose training was too short by the test of the diagnosis: rare in their pattern and no
news to the base model, or still improving when training stopped. More visits would help many
other rows as well; that is what the arm ``oversample_all`` shows. Local, unlike the study's
growing number of epochs (arXiv:2604.10079, section 4.5; the arm ``epochs``), which trains
everything longer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ilp_jax.mitigate.context import Context, Treated, others
from ilp_jax.mitigate.plan import Plan, more
from ilp_jax.stats.schema import UNATTRIBUTED


def treat(plan: Plan, rows: Sequence[int], context: Context, rng: np.random.Generator) -> Treated:
    """``mitigate.visits`` more visits to each row in its own stages.

    Args:
      plan: the plan so far.
      rows: indices of the rows to treat.
      context: the run.
      rng: not used; nothing is drawn.
    """
    return _more(plan, [(row, row) for row in rows], context)


def sham(plan: Plan, rows: Sequence[int], context: Context, rng: np.random.Generator) -> Treated:
    """As many further visits, in the same stages, to random unlearned rows without a cause.

    No arm treats these, so that nothing else is disturbed; learned ones where they are too few.
    """
    causes, taken = context.evidence.cause_N, set(rows)
    unlearned = context.evidence.unlearned.tolist()
    pool = [row for row in unlearned if causes[row] == UNATTRIBUTED and row not in taken]
    drawn = rng.permutation(pool).tolist()[: len(rows)] if pool else []
    drawn += others(context, len(rows) - len(drawn), rng)
    return _more(plan, list(zip(rows, drawn, strict=True)), context)


def _more(plan: Plan, pairs: list[tuple[int, int]], context: Context) -> Treated:
    pairs = [pair for pair in pairs if context.evidence.short_N[pair[0]]]
    for row, visited in pairs:
        own = np.flatnonzero(context.base.visits_SxN[:, row])
        plan = more(plan, visited, own, context.settings["visits"])
    return plan, {row for row, _ in pairs}
