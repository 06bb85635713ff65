"""What became of each trained example in an arm, beside what the run made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from ilp_jax.analysis.unlearned import is_law, unlearned
from ilp_jax.stats.remedies import OF_PARAPHRASE

POINT = "final"


def states(
    inference: pl.DataFrame,
    examples: pl.DataFrame,
    config: Mapping[str, Any],
) -> pl.DataFrame:
    """Probability of the recorded answer, and whether it counts as learned.

    Args:
      inference: answers at the end, with a ``point`` column.
      examples: ``examples.parquet``.
      config: the resolved config as plain values.

    Returns:
      ``example_id``, ``p`` (one answer sampled at ``detect.temperature``; null where that was
      not asked) and ``learned`` by ``mitigate.detector``; rows to which it applies.
    """
    detect, detector = config["detect"], config["mitigate"]["detector"]
    found = unlearned(inference, examples, detect, config.get("trained_turns", "all"))
    found = found.drop_nulls("unlearned")
    rank = {"exact_match": 0, "choice": 1} if detector == "default" else {detector: 0}
    found = (
        found.with_columns(pl.col("detector").replace_strict(rank, default=None).alias("rank"))
        .drop_nulls("rank")
        .sort("example_id", "rank")
        .unique("example_id", keep="first", maintain_order=True)
    )
    law = inference.filter(is_law(detect["temperature"])).select(
        "example_id", p=pl.col("gold_logprob").exp().clip(0.0, 1.0)
    )
    return found.select("example_id", learned=~pl.col("unlearned")).join(
        law.unique("example_id"), on="example_id", how="left", maintain_order="left"
    )


def outcomes(before: pl.DataFrame, after: pl.DataFrame, examples: pl.DataFrame) -> pl.DataFrame:
    """Both states of every example, and of its first paraphrase.

    Args:
      before: of ``states``, the run's.
      after: the arm's.
      examples: ``examples.parquet``.

    Returns:
      ``example_id``, ``role`` (``train`` or ``held_out``) and the eight columns of outcome, null
      for paraphrases where there is none.
    """
    both = before.rename({"learned": "learned_before", "p": "p_before"}).join(
        after.rename({"learned": "learned_after", "p": "p_after"}), on="example_id"
    )
    first = (
        examples.filter(pl.col("role") == "paraphrase")
        .sort("example_id")
        .unique("parent_id", keep="first", maintain_order=True)
        .select("example_id", parent="parent_id")
    )
    paraphrases = (
        both.join(first, on="example_id").drop("example_id").rename({"parent": "example_id"})
    )
    asked = examples.filter(pl.col("role") != "paraphrase").select("example_id", "role")
    is_held_out = pl.col("role") == "held_out"
    return (
        both.join(asked, on="example_id", maintain_order="left")
        .with_columns(role=pl.when(is_held_out).then("role").otherwise(pl.lit("train")))
        .join(paraphrases, on="example_id", how="left", suffix=OF_PARAPHRASE, maintain_order="left")
    )
