"""Near-duplicates among trained rows, and whether their answers agree.

Two rows are near-duplicates when their normalised prompts are equal, or when they ask nearly the
same (``analysis.near``) by words or, where they were saved, by the base model's representations;
never when their numbers, operators or negations differ. A pair is evidence for a person to look
at: text alone cannot tell a paraphrase from another question about the same thing.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from ilp_jax.analysis.near import near_texts, near_vectors
from ilp_jax.analysis.words import normalised, telling

REPRESENTED = 100_000
"""Examples up to which representations are compared: each with each, so that twice as many cost
four times as much. At this number and a width of 576 that is 6e12 multiplications."""
LISTED = 10
"""Near-duplicates that an example lists at most; the count is of all."""


def duplicates(
    examples: pl.DataFrame,
    trained_ids: pl.Series,
    threshold: float,
    representations: pl.DataFrame | None = None,
    representation_threshold: float = 0.95,
) -> pl.DataFrame:
    """The trained near-duplicates of every example, held-out ones included.

    Args:
      examples: ``examples.parquet``.
      trained_ids: ids of the trained rows: only they count as duplicates of others.
      threshold: least similarity by words (``near.near_texts``).
      representations: ``example_id`` and ``vector`` (list of float32, unit norm: the base
        model's last hidden state of the prompt's last token); None for none.
      representation_threshold: least similarity by these (``near.near_vectors``).

    Returns:
      One row an example: ``example_id``; ``near_duplicates``, how many trained rows are near it,
      itself not counted; ``twin_disagreement``, the share of these whose normalised response is
      another, null where there are none; ``near_ids``, up to ``LISTED`` of them, disagreeing
      ones first, then the most similar.
    """
    rows = examples.select(
        "example_id",
        normalised(pl.col("prompt")).alias("prompt_key"),
        telling(pl.col("prompt")).alias("guard"),
        # A response of punctuation alone normalises to nothing: then it stands for itself.
        pl.when(normalised(pl.col("response")) != "")
        .then(normalised(pl.col("response")))
        .otherwise(pl.col("response").str.strip_chars())
        .alias("answer"),
        pl.col("example_id").is_in(trained_ids.to_list()).alias("trained"),
        pl.col("prompt"),
    ).with_columns(
        pl.struct("prompt_key", "guard").rank("dense").cast(pl.UInt32).sub(1).alias("group")
    )
    groups = rows.group_by("group").agg(pl.col("prompt").min(), pl.col("guard").first())
    groups = groups.sort("group")
    near = near_texts(groups["prompt"], threshold)
    if representations is not None:
        near = pl.concat([near, _represented(rows, representations, representation_threshold)])
    return _counted(rows.drop("prompt", "prompt_key", "guard"), _both_ways(near, groups["group"]))


def _represented(
    rows: pl.DataFrame, representations: pl.DataFrame, threshold: float
) -> pl.DataFrame:
    """Pairs of groups whose representations are near; the first example stands for its group."""
    known = (
        rows.join(representations, on="example_id")
        .sort("example_id")
        .unique("group", keep="first", maintain_order=True)
    )
    if known.is_empty():
        return near_texts(pl.Series([], dtype=pl.String), threshold)
    vectors = np.stack(known["vector"].to_numpy()).astype(np.float32)
    pairs = near_vectors(vectors, threshold)
    group, guard = known["group"], known["guard"].rank("dense")
    left, right = (group.gather(pairs[side]) for side in ("left", "right"))
    same = guard.gather(pairs["left"]) == guard.gather(pairs["right"])
    return pl.DataFrame({"left": left, "right": right, "similarity": pairs["similarity"]}).filter(
        same
    )


def _both_ways(near: pl.DataFrame, groups: pl.Series) -> pl.DataFrame:
    """Pairs of groups in both directions, each near itself: ``group, near, similarity``."""
    one, other, itself = (
        (near.select(pl.col(a).alias("group"), pl.col(b).alias("near"), "similarity"))
        for near, a, b in (
            (near, "left", "right"),
            (near, "right", "left"),
            (groups.to_frame("left").with_columns(similarity=pl.lit(1.0)), "left", "left"),
        )
    )
    pairs = pl.concat([one, other, itself]).group_by("group", "near")
    return pairs.agg(pl.col("similarity").max())


def _counted(rows: pl.DataFrame, near: pl.DataFrame) -> pl.DataFrame:
    trained = rows.filter("trained")
    per_answer = trained.group_by("group", "answer").agg(pl.len().alias("n"))
    # Counts of all near rows, by (group, answer): never a join of rows with rows, which would
    # be quadratic where thousands of rows share a prompt.
    reachable = near.join(per_answer, left_on="near", right_on="group")
    whole = reachable.group_by("group").agg(pl.col("n").sum().alias("all"))
    alike = reachable.group_by("group", "answer").agg(pl.col("n").sum().alias("alike"))
    own = pl.col("trained").cast(pl.Int64)
    counts = (
        rows.join(whole, on="group", how="left")
        .join(alike, on=("group", "answer"), how="left")
        .with_columns(pl.col("all", "alike").fill_null(0).cast(pl.Int64) - own)
    )
    listed = _listed(rows, trained, near)
    return (
        counts.join(listed, on="example_id", how="left")
        .select(
            "example_id",
            pl.col("all").cast(pl.Int32).alias("near_duplicates"),
            pl.when(pl.col("all") > 0)
            .then(1 - pl.col("alike") / pl.col("all"))
            .alias("twin_disagreement"),
            pl.col("near_ids").fill_null(pl.lit([], dtype=pl.List(pl.Int64))),
        )
        .sort("example_id")
    )


def _listed(rows: pl.DataFrame, trained: pl.DataFrame, near: pl.DataFrame) -> pl.DataFrame:
    """Up to LISTED near rows of every example that has any."""
    # Of each group the first rows of each answer suffice, of few answers: bounded.
    few = (
        trained.sort("example_id")
        .filter(pl.int_range(pl.len()).over("group", "answer") <= LISTED)
        .filter(pl.col("answer").rank("dense").over("group") <= LISTED + 1)
        .select(pl.col("group").alias("near"), pl.col("example_id").alias("other"), "answer")
    )
    crowd = (
        near.join(few, on="near")
        .sort(-pl.col("similarity"), "other")
        .filter(pl.int_range(pl.len()).over("group", "answer") <= LISTED)
    )
    return (
        rows.select("example_id", "group", "answer")
        .join(crowd, on="group", suffix="_other")
        .filter(pl.col("other") != pl.col("example_id"))
        .sort(
            "example_id",
            pl.col("answer") == pl.col("answer_other"),
            -pl.col("similarity"),
            "other",
        )
        .group_by("example_id", maintain_order=True)
        .agg(pl.col("other").head(LISTED).alias("near_ids"))
    )
