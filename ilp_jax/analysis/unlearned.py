"""Which examples count as unlearned, by detector and point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

DEFAULT = "default"
"""``exact_match`` where it applies, else ``choice``: the share's default detector."""


def unlearned(
    inference: pl.DataFrame, examples: pl.DataFrame, detect: Mapping[str, Any]
) -> pl.DataFrame:
    """Applies every detector to a run's answers.

    * ``exact_match``: unlearned unless every target token and the end token is the argmax.
      Null for responses of more than ``exact_match_max_tokens`` tokens: of those, exact
      match measures length.
    * ``exact_law``: unlearned if P(0 of N) = (1 - p)^N >= 0.5, p being the probability that
      one answer sampled at ``temperature`` is the response (N = ``n_samples``).
    * ``sampled``: unlearned if the share of the answers really drawn that are the response is
      below ``pass_threshold``. At points where nothing was drawn there is no such verdict.
    * ``choice``: unlearned unless the response is the likeliest option by mean
      log-likelihood a token. Null for examples without options.

    Args:
      inference: answers with a ``point`` column (``stats.reader.read_inference``).
      examples: ``examples.parquet``.
      detect: the config's ``detect`` section.

    Returns:
      One row an example, point and detector: ``example_id``, ``point``, ``detector``,
      ``unlearned`` (null where the detector does not apply).
    """
    # n_target_tokens counts the end token, the response's length does not.
    lengths = examples.select(
        "example_id", (pl.col("n_target_tokens") - 1).alias("response_tokens")
    )
    answers = inference.join(lengths, on="example_id", how="left")
    of_mode = {mode: answers.filter(pl.col("mode") == mode) for mode in ("greedy", "sample")}
    short = pl.col("response_tokens") <= detect["exact_match_max_tokens"]
    exact = of_mode["greedy"].with_columns(
        pl.lit("exact_match").alias("detector"),
        pl.when(short).then(~pl.col("correct")).alias("unlearned"),
    )
    # A row of the exact law has no seed, a drawn answer has.
    law = (
        of_mode["sample"]
        .filter(pl.col("seed").is_null())
        .with_columns(
            pl.lit("exact_law").alias("detector"),
            (none_of(pl.col("gold_logprob"), detect["n_samples"]) >= 0.5).alias("unlearned"),
        )
    )
    share = pl.col("correct").mean()
    sampled = (
        of_mode["sample"]
        .filter(pl.col("seed").is_not_null())
        .group_by("example_id", "point")
        .agg((share < detect["pass_threshold"]).alias("unlearned"))
        .with_columns(pl.lit("sampled").alias("detector"))
    )
    choices = answers.filter(pl.col("mode") == "choice").with_columns(
        pl.lit("choice").alias("detector"), (~pl.col("correct")).alias("unlearned")
    )
    columns = ("example_id", "point", "detector", "unlearned")
    found = pl.concat([frame.select(columns) for frame in (exact, law, sampled, choices)])
    asked = answers.select("example_id", "point").unique()
    without = asked.join(choices, on=("example_id", "point"), how="anti").select(
        "example_id",
        "point",
        pl.lit("choice").alias("detector"),
        pl.lit(None, pl.Boolean).alias("unlearned"),
    )
    return pl.concat([found, without]).sort(columns[:3])


def none_of(logprob: pl.Expr, n: int) -> pl.Expr:
    """P(0 of n) = (1 - p)^n for p = exp(logprob), exact under independent sampling."""
    return (1.0 - logprob.exp().clip(0.0, 1.0)).pow(n)


def by_default(found: pl.DataFrame) -> pl.DataFrame:
    """The default detector's verdicts: ``exact_match`` where it applies, else ``choice``.

    Args:
      found: rows of ``unlearned``.

    Returns:
      ``example_id``, ``point``, ``detector`` (= ``default``) and ``unlearned``.
    """
    wide = found.filter(pl.col("detector").is_in(["exact_match", "choice"])).pivot(
        on="detector", index=("example_id", "point"), values="unlearned"
    )
    for name in ("exact_match", "choice"):
        if name not in wide.columns:
            wide = wide.with_columns(pl.lit(None, pl.Boolean).alias(name))
    return wide.select(
        "example_id",
        "point",
        pl.lit(DEFAULT).alias("detector"),
        pl.coalesce("exact_match", "choice").alias("unlearned"),
    )
