"""Counts of true causes by told ones, and the scores that follow from them."""

from __future__ import annotations

import numpy as np

from ilp_jax.stats.schema import CAUSES, UNATTRIBUTED

TRUE = (*CAUSES, "fault", "control")
TOLD = (*CAUSES, UNATTRIBUTED)
_N = len(CAUSES)


def per_unit(
    true_N: np.ndarray, told_N: np.ndarray, unit_N: np.ndarray, n_units: int
) -> np.ndarray:
    """Confusion matrices of units of rows.

    Args:
      true_N: int [n_rows], places in `TRUE`.
      told_N: int [n_rows], places in `TOLD`.
      unit_N: int [n_rows], each row's unit.
      n_units: U.

    Returns:
      float32 [U, 7, 6] of counts; float, to be weighted by one matrix product.
    """
    size = len(TRUE) * len(TOLD)
    cell_N = unit_N.astype(np.int64) * size + true_N * len(TOLD) + told_N
    counts = np.bincount(cell_N, minlength=n_units * size)
    return counts.reshape(n_units, len(TRUE), len(TOLD)).astype(np.float32)


def scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Scores over the rows of the five causes.

    With tp right rows of a cause, fn rows of it told otherwise or left unattributed, and fp
    rows of the other four told as it: recall = tp / (tp + fn), precision = tp / (tp + fp),
    F1 = 2 tp / (2 tp + fn + fp) (van Rijsbergen 1979). Unattributed rows count as wrong, but
    ``unattributed`` is no sixth class. Rows of ``fault`` and ``control`` enter none of these.

    Args:
      counts: float [..., 7, 6].

    Returns:
      ``recall``, ``precision``, ``f1`` [..., 5] in the order of ``CAUSES``, and ``macro_f1``
      [...]: the mean of F1 over the causes that have rows. Recall and F1 are nan for a cause
      without rows, precision for one that is never told, macro_f1 without any row.
    """
    among = np.asarray(counts, np.float64)[..., :_N, :]
    right = np.diagonal(among[..., :_N], axis1=-2, axis2=-1)
    rows, told = among.sum(axis=-1), among[..., :_N].sum(axis=-2)
    exists = rows > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = np.where(exists, 2 * right / (rows + told), np.nan)
        return {
            "macro_f1": np.where(exists, f1, 0.0).sum(axis=-1) / exists.sum(axis=-1),
            "recall": right / rows,
            "precision": right / told,
            "f1": f1,
        }


def unattributed(counts: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Rows left unattributed.

    Args:
      counts: float [..., 7, 6].

    Returns:
      For ``causes`` (the five together), ``fault`` and ``control``: rows left unattributed,
      and rows, each [...].
    """
    counts = np.asarray(counts, np.float64)
    left, rows = counts[..., -1], counts.sum(axis=-1)
    parts = {"causes": slice(0, _N), "fault": slice(_N, _N + 1), "control": slice(_N + 1, None)}
    return {
        name: (left[..., part].sum(axis=-1), rows[..., part].sum(axis=-1))
        for name, part in parts.items()
    }
