"""What the base model knew of an example, and how far training moved its answer.

All of it rests on answers of mode ``choice``: the response among its options, each option's
probability being the softmax over options of its mean log-likelihood a token. Examples without
options have none of these measures.
"""

from __future__ import annotations

import polars as pl

BASE = "base"
WORDINGS = (0, 1, 2)
"""Prompt variants that ask the same question in other words: no draw and no listed options."""

_ASKED = ("example_id", "point", "prompt_variant")


def option_probabilities(
    inference: pl.DataFrame, points: list[str] | None = None, variants: tuple[int, ...] = WORDINGS
) -> pl.DataFrame:
    """Probability of every option, by example, point and wording.

    Args:
      inference: answers with a ``point`` column (``stats.reader.read_inference``).
      points: only these; all by default.
      variants: only these wordings; of each, run 0.

    Returns:
      One row an option: ``example_id``, ``point``, ``prompt_variant``, ``option`` (its place,
      from 0) and ``probability``, softmax over the options of ``option_logprob_mean`` (nats a
      token).
    """
    asked = inference.filter(
        pl.col("mode") == "choice",
        pl.col("run") == 0,
        pl.col("prompt_variant").is_in(variants),
        pl.col("option_logprob_mean").list.len() > 0,
    )
    if points is not None:
        asked = asked.filter(pl.col("point").is_in(points))
    weight = (pl.element() - pl.element().max()).exp()
    return (
        asked.select(
            *_ASKED,
            pl.int_ranges(pl.col("option_logprob_mean").list.len()).alias("option"),
            # Of each answer by itself: no table of all options has to be grouped again.
            pl.col("option_logprob_mean").list.eval(weight / weight.sum()).alias("probability"),
        )
        .explode("option", "probability")
        .with_columns(pl.col("option").cast(pl.Int32))
    )


def by_wording(inference: pl.DataFrame, examples: pl.DataFrame) -> pl.DataFrame:
    """The base model's knowledge of each example, by wording of the question.

    Args:
      inference: answers with a ``point`` column.
      examples: ``examples.parquet``.

    Returns:
      One row an example with options and wording: ``example_id``, ``prompt_variant``,
      ``gold_rank`` (1 plus the options that are likelier than the response), ``gold_prob``,
      ``right`` (no other option is likelier, nor as likely and listed before), and
      ``wrong_confidence`` (probability of the likeliest wrong option where the base is wrong,
      0 where it is right).
    """
    of_question = ("example_id", "prompt_variant")
    is_gold = pl.col("option") == pl.col("answer_index")
    gold = pl.col("probability").filter(is_gold).first().over(of_question)
    best_wrong = pl.col("probability").filter(~is_gold).max()
    # An argmax takes the first of equals, as the detector does.
    beats = (pl.col("probability") > pl.col("gold")) | (
        (pl.col("probability") == pl.col("gold")) & (pl.col("option") < pl.col("answer_index"))
    )
    rows = option_probabilities(inference, [BASE]).join(
        examples.select("example_id", "answer_index").drop_nulls(), on="example_id"
    )
    return (
        rows.with_columns(gold.alias("gold"))
        .group_by(of_question, maintain_order=True)
        .agg(
            ((pl.col("probability") > pl.col("gold")).sum() + 1).cast(pl.Int32).alias("gold_rank"),
            pl.col("gold").first().alias("gold_prob"),
            ~beats.any().alias("right"),
            best_wrong.alias("best_wrong"),
        )
        .select(
            *of_question,
            "gold_rank",
            "gold_prob",
            "right",
            pl.when("right").then(0.0).otherwise("best_wrong").alias("wrong_confidence"),
        )
    )


def base_knowledge(
    inference: pl.DataFrame, examples: pl.DataFrame, exist_accuracy: float = 0.8
) -> pl.DataFrame:
    """The base model's knowledge of each example, over the wordings that were asked.

    Args:
      inference: answers with a ``point`` column.
      examples: ``examples.parquet``.
      exist_accuracy: the study's Eq. 2 (arXiv 2604.10079): knowledge exists in the base where
        its accuracy is above this. The study leaves open over what; here over wordings.

    Returns:
      One row an example with options that the base was asked about: ``base_gold_rank`` (median
      over wordings), ``base_gold_prob``, ``base_wrong_confidence`` and ``base_accuracy`` (means
      over wordings), ``p_exist``, ``base_wordings`` (how many were asked).
    """
    return (
        by_wording(inference, examples)
        .group_by("example_id", maintain_order=True)
        .agg(
            pl.col("gold_rank").median().alias("base_gold_rank"),
            pl.col("gold_prob").mean().alias("base_gold_prob"),
            pl.col("wrong_confidence").mean().alias("base_wrong_confidence"),
            pl.col("right").mean().alias("base_accuracy"),
            pl.len().cast(pl.Int32).alias("base_wordings"),
        )
        .with_columns((pl.col("base_accuracy") > exist_accuracy).alias("p_exist"))
    )


def divergence(inference: pl.DataFrame) -> pl.DataFrame:
    """How far each example's answer has moved from the base model's: the study's Eq. 3.

    The Jensen-Shannon divergence of the two distributions over the options, as trained
    (wording 0): D = (KL(P || M) + KL(Q || M)) / 2 with M = (P + Q) / 2. The study names neither
    support nor logarithm; with natural logarithms D is at most ln 2 = 0.693.

    Args:
      inference: answers with a ``point`` column.

    Returns:
      One row an example and point (the base included, where D is 0): ``example_id``, ``point``,
      ``d_js`` (nats). Examples not asked about at the base are absent.
    """
    rows = option_probabilities(inference, variants=(0,)).drop("prompt_variant")
    base = rows.filter(pl.col("point") == BASE).drop("point")
    p, q = pl.col("probability"), pl.col("probability_base")
    middle = (p + q) / 2

    def kl(part: pl.Expr) -> pl.Expr:
        # 0 log 0 = 0.
        return pl.when(part > 0).then(part * (part / middle).log()).otherwise(0.0).sum()

    return (
        rows.join(base, on=("example_id", "option"), suffix="_base", maintain_order="left")
        .group_by("example_id", "point", maintain_order=True)
        # Rounding can leave a tiny negative.
        .agg(((kl(p) + kl(q)) / 2).clip(0.0).alias("d_js"))
    )


def base_text(inference: pl.DataFrame, examples: pl.DataFrame) -> pl.DataFrame:
    """The base model's text: how likely the response was, how sure it was of a wrong one.

    Args:
      inference: answers with a ``point`` column.
      examples: ``examples.parquet``.

    Returns:
      One row an example: ``example_id``, ``base_prob`` (geometric mean over target tokens, end
      token included, of the target's probability) and ``base_greedy_confidence`` (probability
      of the base's own answer where that is wrong, null where it is right).
    """
    greedy = inference.filter(pl.col("mode") == "greedy", pl.col("point") == BASE)
    return greedy.join(
        examples.select("example_id", "n_target_tokens"), on="example_id", maintain_order="left"
    ).select(
        "example_id",
        (pl.col("gold_logprob") / pl.col("n_target_tokens")).exp().alias("base_prob"),
        pl.when(~pl.col("correct")).then("confidence").alias("base_greedy_confidence"),
    )
