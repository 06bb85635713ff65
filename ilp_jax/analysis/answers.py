"""What the models' own greedy answers are among the run's answers."""

from __future__ import annotations

import polars as pl

from ilp_jax.analysis.words import normalised

BASE = "base"


def known_texts(examples: pl.DataFrame) -> pl.Series:
    """Responses and options of a run, normalised, each once."""
    texts = pl.concat(
        [
            examples.select(text="response"),
            examples.select(pl.col("options").list.explode().alias("text")).drop_nulls(),
        ]
    )
    return texts.select(normalised(pl.col("text")).unique())["text"]


def base_in_kind(
    inference: pl.DataFrame, examples: pl.DataFrame, known: pl.Series | None = None
) -> pl.DataFrame:
    """Whether the base model's own answer is an answer at all, so that it can be believed.

    A base model that does not know a data set's format goes on with other text; of one that
    does, the probability of the response and of its own answer say what it knows.

    Args:
      inference: answers with a ``point`` column.
      examples: ``examples.parquet``.
      known: the run's texts (`known_texts`), where the examples are not all of the run's.

    Returns:
      One row an example asked at the base: ``example_id`` and ``base_in_kind``, whether its
      greedy answer is the response or an option of any example of the run, but for case and
      punctuation.
    """
    known = known_texts(examples) if known is None else known
    greedy = inference.filter(pl.col("mode") == "greedy", pl.col("point") == BASE)
    said = normalised(pl.col("prediction").fill_null(""))
    return greedy.select(
        "example_id", (said.is_in(known.implode()) & (said != "")).alias("base_in_kind")
    )


def given_now(inference: pl.DataFrame) -> pl.DataFrame:
    """The greedy answer at each point, beside the base model's.

    A base model that believes another answer still gives it; one that knew nothing does not
    keep to what it said by chance.

    Args:
      inference: answers with a ``point`` column.

    Returns:
      One row an example and point: ``example_id``, ``point``, ``greedy_confidence`` (the
      answer's probability) and ``keeps_base_answer`` (it is the base's, but for case and
      punctuation; null where the base was not asked, or has no text).
    """
    greedy = inference.filter(pl.col("mode") == "greedy").select(
        "example_id", "point", "confidence", normalised(pl.col("prediction")).alias("said")
    )
    base = greedy.filter(pl.col("point") == BASE).select("example_id", pl.col("said").alias("base"))
    return greedy.join(base, on="example_id", how="left").select(
        "example_id",
        "point",
        pl.col("confidence").alias("greedy_confidence"),
        (pl.col("said") == pl.col("base")).alias("keeps_base_answer"),
    )


def reproduced(inference: pl.DataFrame) -> pl.DataFrame:
    """Whether each example was reproduced exactly: ``example_id``, ``point``, ``correct``."""
    greedy = inference.filter(pl.col("mode") == "greedy")
    return greedy.select("example_id", "point", pl.col("correct").fill_null(False))


def rival_predicted(
    inference: pl.DataFrame,
    examples: pl.DataFrame,
    near: pl.DataFrame,
    of_others: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Whether a model answers as a row does that contradicts the example.

    Args:
      inference: answers with a ``point`` column.
      examples: ``examples.parquet``; at least the examples asked about and those near them.
      near: ``example_id`` and ``near_ids`` (`duplicates.duplicates`).
      of_others: `reproduced` of the examples in ``near_ids``, where not all of these are in
        ``inference``.

    Returns:
      One row an example and point that has near-duplicates: ``example_id``, ``point``,
      ``rival_predicted``: of those listed that give another response than its own, one is
      reproduced exactly at that point, or its greedy answer is one's response but for case and
      punctuation. (A wrong answer of several tokens may be known under teacher forcing alone,
      as a text that is nobody's.)
    """
    answer = normalised(pl.col("response")).alias("answer")
    rivals = (
        near.select("example_id", pl.col("near_ids").alias("other"))
        .explode("other")
        .drop_nulls()
        .join(examples.select(pl.col("example_id").alias("other"), answer), on="other")
        .join(examples.select("example_id", answer.alias("own")), on="example_id")
        .filter(pl.col("answer") != pl.col("own"))
    )
    greedy = inference.filter(pl.col("mode") == "greedy").select(
        "example_id",
        "point",
        normalised(pl.col("prediction").fill_null("")).alias("said"),
    )
    of_others = reproduced(inference) if of_others is None else of_others
    of_rivals = of_others.rename({"example_id": "other"})
    won = (
        rivals.join(greedy, on="example_id")
        .join(of_rivals, on=("other", "point"), how="left")
        .group_by("example_id", "point")
        .agg(
            ((pl.col("answer") == pl.col("said")) | pl.col("correct").fill_null(False))
            .any()
            .alias("rival_predicted")
        )
    )
    asked = near.filter(pl.col("near_ids").list.len() > 0).select("example_id")
    return (
        greedy.join(asked, on="example_id", how="semi")
        .select("example_id", "point")
        .join(won, on=("example_id", "point"), how="left")
        .with_columns(pl.col("rival_predicted").fill_null(False))
    )
