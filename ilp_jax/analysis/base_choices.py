"""What the base model knows, by multiple choice before any training (the study's Eq. 2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from ilp_jax.analysis.choice_runs import padded, probability
from ilp_jax.analysis.figures import share_of

EXIST_ACCURACY = 0.8
"""P_exist: accuracy above this (the study, Eq. 2), where ``diagnose.exist_accuracy`` is not
among a run's fields."""


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
    threshold = config.get("diagnose", {}).get("exist_accuracy", EXIST_ACCURACY)
    rows = _per_row(inference, examples)
    if rows.is_empty():
        return None
    exists = (rows["accuracy"] > threshold).sum()
    ranks = rows["gold_rank"].value_counts().sort("gold_rank")
    wrong = rows.filter(pl.col("accuracy") < 1)["wrong_confidence"]
    quartiles = (
        [float(value) for value in np.quantile(wrong, [0.25, 0.5, 0.75])] if len(wrong) else None
    )
    return {
        "exist_accuracy": threshold,
        "exists": share_of(exists, len(rows)) | {"guesser": _guesser(rows, threshold)},
        "n_wordings": int(rows["n_wordings"].max()),
        "gold_rank": {f"{rank:g}": n for rank, n in ranks.iter_rows()},
        "wrong_confidence": {"n": len(wrong), "quartiles": quartiles},
    }


def _per_row(inference: pl.DataFrame, examples: pl.DataFrame) -> pl.DataFrame:
    """One row an example; means and median over the wordings asked."""
    asked = (
        inference.filter(
            pl.col("point") == "base",
            pl.col("mode") == "choice",
            pl.col("run") == 0,
            pl.col("seed").is_null(),
        )
        .join(examples.select("example_id", "answer_index"), on="example_id")
        .sort("example_id", "prompt_variant")
    )
    scores, right = asked["option_logprob_mean"], asked["correct"].to_numpy()
    table, place = padded(scores), asked["answer_index"].to_numpy()[:, None]
    confidence = probability(scores, pl.Series(table.argmax(axis=1)), np.ones(len(asked)))
    # Options that score as the response does are not better.
    ranks = 1 + (table > np.take_along_axis(table, place, axis=1)).sum(axis=1)
    asked = asked.with_columns(
        pl.Series("rank", ranks, pl.Int64),
        pl.Series("wrong", np.where(right, 0.0, confidence), pl.Float64),
    )
    return asked.group_by("example_id", maintain_order=True).agg(
        pl.col("correct").mean().alias("accuracy"),
        pl.col("rank").median().alias("gold_rank"),
        pl.col("wrong").mean().alias("wrong_confidence"),
        pl.col("options").first().list.len().alias("n_options"),
        pl.len().alias("n_wordings"),
    )


def _guesser(rows: pl.DataFrame, threshold: float) -> float:
    """Expected share above the threshold under uniform guessing, anew for each wording."""
    n, k = rows["n_wordings"].to_numpy(), rows["n_options"].to_numpy()
    counts = np.arange(n.max() + 1)
    above = counts[None] / n[:, None] > threshold
    return float((stats.binom.pmf(counts[None], n[:, None], 1 / k[:, None]) * above).sum(1).mean())
