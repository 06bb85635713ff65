"""What the base model knows, by multiple choice before any training (the study's Eq. 2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from ilp_jax.analysis.base_knowledge import BASE, base_knowledge, option_probabilities
from ilp_jax.analysis.figures import share_of
from ilp_jax.analysis.parts import EXAMPLES_AT_ONCE


def summarise(
    inference: pl.DataFrame, examples: pl.DataFrame, config: dict[str, Any]
) -> dict[str, Any] | None:
    """Figures of the base model over the wordings of each question.

    Args:
      inference: answers with a ``point`` column.
      examples: ``examples.parquet``.
      config: the resolved config.

    Returns:
      ``exists`` (share of examples whose accuracy over wordings is above
      ``exist_accuracy``, with interval; ``guesser``, the share of a uniform guesser);
      ``n_wordings``; ``gold_rank`` (examples by the response's rank among the options,
      median over wordings, 1 = best); ``wrong_confidence`` (quartiles of the largest
      probability of a wrong option, mean over wordings with 0 where the base is right, among
      examples where it is ever wrong). None where no choice was asked at ``base``.
    """
    threshold = config["diagnose"]["exist_accuracy"]
    # Options are many rows a question, so some examples at a time; in the order of ids, so that
    # sums round alike.
    parts = [_known(part, examples, threshold) for part in _parts(inference)]
    rows = pl.concat(parts) if parts else pl.DataFrame()
    if rows.is_empty():
        return None
    exists = rows["p_exist"].sum()
    ranks = rows["base_gold_rank"].value_counts().sort("base_gold_rank")
    wrong = rows.filter(pl.col("base_accuracy") < 1)["base_wrong_confidence"]
    quartiles = (
        [float(value) for value in np.quantile(wrong, [0.25, 0.5, 0.75])] if len(wrong) else None
    )
    return {
        "exist_accuracy": threshold,
        "exists": share_of(exists, len(rows)) | {"guesser": _guesser(rows, threshold)},
        "n_wordings": int(rows["base_wordings"].max()),
        "gold_rank": {f"{rank:g}": n for rank, n in ranks.iter_rows()},
        "wrong_confidence": {"n": len(wrong), "quartiles": quartiles},
    }


def _parts(inference: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The answers of some examples after those of others, by ``example_id``."""
    asked = inference.filter(pl.col("point") == BASE, pl.col("mode") == "choice")
    ids = asked["example_id"].unique().sort()
    for start in range(0, len(ids), EXAMPLES_AT_ONCE):
        part = ids[start : start + EXAMPLES_AT_ONCE]
        yield asked.filter(pl.col("example_id").is_between(part[0], part[-1]))


def _known(inference: pl.DataFrame, examples: pl.DataFrame, threshold: float) -> pl.DataFrame:
    """What the base knows of each example, and among how many options; sorted."""
    rows = base_knowledge(inference, examples, threshold)
    options = option_probabilities(inference, [BASE]).group_by("example_id")
    counted = options.agg(pl.col("option").n_unique().alias("n_options"))
    return rows.join(counted, on="example_id").sort("example_id")


def _guesser(rows: pl.DataFrame, threshold: float) -> float:
    """Expected share above the threshold under uniform guessing, anew for each wording."""
    n, k = rows["base_wordings"].to_numpy(), rows["n_options"].to_numpy()
    counts = np.arange(n.max() + 1)
    above = counts[None] / n[:, None] > threshold
    return float((stats.binom.pmf(counts[None], n[:, None], 1 / k[:, None]) * above).sum(1).mean())
