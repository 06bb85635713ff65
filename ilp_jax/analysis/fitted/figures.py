"""How well probabilities of causes tell the planted ones; worlds left out are judged so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ilp_jax.analysis import calibration
from ilp_jax.stats.schema import CAUSES, UNATTRIBUTED


def decide(p_NxK: np.ndarray, classes: Sequence[str], least: float) -> np.ndarray:
    """The cause that is told of each row.

    Args:
      p_NxK: probabilities.
      classes: their names, the five causes and perhaps ``unattributed``.
      least: a row whose likeliest cause has less is ``unattributed``; so is one of which
        ``unattributed`` itself is likelier than any cause.

    Returns:
      Names, [n_rows].
    """
    of_cause = [list(classes).index(cause) for cause in CAUSES]
    p_NxC = p_NxK[:, of_cause]
    best = p_NxC.max(axis=1)
    none = p_NxK[:, list(classes).index(UNATTRIBUTED)] if UNATTRIBUTED in classes else 0.0
    causes = np.array(CAUSES)[p_NxC.argmax(axis=1)]
    return np.where((best < least) | (none > best), UNATTRIBUTED, causes)


def figures(
    p_NxK: np.ndarray, classes: Sequence[str], planted: Sequence[str], least: float
) -> dict[str, Any]:
    """Agreement with what was planted.

    Args:
      p_NxK: probabilities.
      classes: their names.
      planted: what was planted in each row: a cause, ``control`` or ``fault``.
      least: see `decide`.

    Returns:
      ``n``, ``macro_f1`` and ``recall`` (by cause) over rows of the five causes, where
      ``unattributed`` counts as wrong; ``ece`` over the same, of the likeliest cause's
      probability; ``fault_unattributed``, ``control_unattributed``: shares, with
      ``n_fault``, ``n_control``; ``wrongly_unattributed``: share of the rows of the five
      causes. Null where there are no rows.
    """
    from sklearn.metrics import f1_score, recall_score

    planted, told = np.asarray(planted), decide(p_NxK, classes, least)
    of_cause = np.isin(planted, CAUSES)
    p_NxC = p_NxK[:, [list(classes).index(cause) for cause in CAUSES]]
    right = np.array(CAUSES)[p_NxC.argmax(axis=1)] == planted
    truth, verdict = planted[of_cause], told[of_cause]
    options = {"labels": list(CAUSES), "zero_division": 0.0}
    recall = recall_score(truth, verdict, average=None, **options)
    return {
        "n": int(of_cause.sum()),
        "macro_f1": float(f1_score(truth, verdict, average="macro", **options)),
        "recall": dict(zip(CAUSES, recall.tolist(), strict=True)),
        "ece": calibration.ece(p_NxC.max(axis=1)[of_cause], right[of_cause]),
        "wrongly_unattributed": _share(verdict == UNATTRIBUTED),
        **{
            name: value
            for group in ("fault", "control")
            for name, value in (
                (f"{group}_unattributed", _share(told[planted == group] == UNATTRIBUTED)),
                (f"n_{group}", int((planted == group).sum())),
            )
        },
    }


def _share(hits: np.ndarray) -> float | None:
    return float(hits.mean()) if len(hits) else None
