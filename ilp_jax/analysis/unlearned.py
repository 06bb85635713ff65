"""Which examples count as unlearned, by detector and point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from ilp_jax.analysis.lengths import response_tokens
from ilp_jax.analysis.rouge import rouge_l
from ilp_jax.analysis.screened import screened

DEFAULT = "default"
"""The share's default detector: ``rouge_l`` for summaries, else ``exact_match`` where it
applies, else ``choice``."""
SUMMARY_TASK = "summary"
"""``marks['task']`` of rows that are judged by ROUGE-L (a stage's field ``task``)."""


def unlearned(
    inference: pl.DataFrame,
    examples: pl.DataFrame,
    detect: Mapping[str, Any],
    trained_turns: str = "all",
) -> pl.DataFrame:
    """Applies every detector to a run's answers.

    * ``exact_match``: unlearned unless every target token and the end token is the argmax.
      Null for responses of more than ``exact_match_max_tokens`` tokens: of those, exact
      match measures length.
    * ``exact_law``: unlearned if P(0 of N) = (1 - p)^N >= 0.5, p being the probability that
      one answer sampled at ``temperature`` is the response (N = ``n_samples``).
    * ``sampled``: unlearned if the share of the answers really drawn that are the response is
      below ``pass_threshold``. A row that the screen left out as surely learned (see
      ``screened``) is learned. At points where nothing was drawn there is no such verdict.
    * ``choice``: unlearned unless the response is the likeliest option by mean
      log-likelihood a token, asked once, as trained. Null for examples without options.
    * ``rouge_l``, for summaries alone: unlearned if ROUGE-L's F1 between the greedy answer
      and the response is below ``rouge_l_threshold``. Null where no answer was generated.

    Args:
      inference: answers with a ``point`` column (``stats.reader.read_inference``).
      examples: ``examples.parquet``.
      detect: the config's ``detect`` section, as plain values.
      trained_turns: the config's field of that name.

    Returns:
      One row an example, point and detector: ``example_id``, ``point``, ``detector``,
      ``unlearned`` (null where the detector does not apply).
    """
    lengths = response_tokens(examples, trained_turns)
    answers = inference.join(lengths, on="example_id", how="left")
    of_mode = {mode: answers.filter(pl.col("mode") == mode) for mode in ("greedy", "sample")}
    short = pl.col("response_tokens") <= detect["exact_match_max_tokens"]
    exact = of_mode["greedy"].with_columns(
        pl.lit("exact_match").alias("detector"),
        pl.when(short).then(~pl.col("correct")).alias("unlearned"),
    )
    law = answers.filter(is_law(detect["temperature"])).with_columns(
        pl.lit("exact_law").alias("detector"),
        (none_of(pl.col("gold_logprob"), detect["n_samples"]) >= 0.5).alias("unlearned"),
    )
    share = pl.col("correct").mean()
    sampled = (
        of_mode["sample"]
        .filter(pl.col("seed").is_not_null())
        .group_by("example_id", "point")
        .agg((share < detect["pass_threshold"]).alias("unlearned"))
        .with_columns(pl.lit("sampled").alias("detector"))
    )
    sure = screened(answers, detect).select(
        "example_id", "point", pl.lit("sampled").alias("detector"), unlearned=pl.lit(False)
    )
    choices = answers.filter(is_choice_as_trained()).with_columns(
        pl.lit("choice").alias("detector"), (~pl.col("correct")).alias("unlearned")
    )
    columns = ("example_id", "point", "detector", "unlearned")
    low = pl.col("rouge_l") < detect["rouge_l_threshold"]
    summaries = (
        rouge_scores(inference, examples)
        .join(
            sure.select("example_id", "point", sure=pl.lit(True)),
            on=("example_id", "point"),
            how="left",
        )
        # The greedy answer of a row that the screen left out is the response.
        .with_columns(
            pl.lit("rouge_l").alias("detector"),
            pl.when("sure").then(False).otherwise(low).alias("unlearned"),
        )
    )
    found = pl.concat(
        [frame.select(columns) for frame in (exact, law, sampled, sure, choices, summaries)]
    )
    asked = answers.select("example_id", "point").unique()
    without = asked.join(choices, on=("example_id", "point"), how="anti").select(
        "example_id",
        "point",
        pl.lit("choice").alias("detector"),
        pl.lit(None, pl.Boolean).alias("unlearned"),
    )
    return pl.concat([found, without]).sort(columns[:3])


def is_law(temperature: float) -> pl.Expr:
    """Rows of the exact law at a temperature: nothing was drawn, so they have no seed."""
    at = pl.col("temperature") == temperature
    return (pl.col("mode") == "sample") & pl.col("seed").is_null() & at


def is_choice_as_trained() -> pl.Expr:
    """The one question among options that is asked as trained, with nothing drawn."""
    first = (pl.col("run") == 0) & (pl.col("prompt_variant") == 0)
    return (pl.col("mode") == "choice") & pl.col("seed").is_null() & first


def none_of(logprob: pl.Expr, n: int) -> pl.Expr:
    """P(0 of n) = (1 - p)^n for p = exp(logprob), exact under independent sampling."""
    return (1.0 - logprob.exp().clip(0.0, 1.0)).pow(n)


def rouge_scores(inference: pl.DataFrame, examples: pl.DataFrame) -> pl.DataFrame:
    """ROUGE-L (F1) of the generated greedy answer against the response, for summaries.

    Args:
      inference: answers with a ``point`` column.
      examples: ``examples.parquet``.

    Returns:
      One row a summary and point, sorted: ``example_id``, ``point``, ``rouge_l`` in [0, 1];
      null where no greedy answer was generated (where none was drawn, the prediction is of
      teacher forcing), where the response has no words, and for conversations of several
      replies, whose answers are no one text.
    """
    marked = examples.filter(mark("task") == SUMMARY_TASK).select(
        "example_id", "response", one_reply().alias("one_reply")
    )
    drawn = inference.filter(pl.col("mode") == "sample", pl.col("seed").is_not_null())
    drawn = drawn.select("example_id", "point", pl.lit(True).alias("generated")).unique()
    rows = (
        inference.filter(pl.col("mode") == "greedy")
        .join(marked, on="example_id")
        .join(drawn, on=("example_id", "point"), how="left")
        .sort("example_id", "point")
    )
    scores = [
        rouge_l(answer, response) if generated and single and answer is not None else None
        for answer, response, generated, single in rows.select(
            "prediction", "response", "generated", "one_reply"
        ).iter_rows()
    ]
    return rows.select("example_id", "point").with_columns(pl.Series("rouge_l", scores, pl.Float64))


def mark(key: str) -> pl.Expr:
    """A value of the column ``marks`` of ``examples.parquet``; null where the key is absent."""
    return pl.col("marks").str.json_path_match(f"$.{key}")


def one_reply() -> pl.Expr:
    """Whether an example has no earlier reply in its ``messages``."""
    return pl.col("messages").str.json_path_match('$[?(@.role=="assistant")]').is_null()


def by_default(found: pl.DataFrame) -> pl.DataFrame:
    """The default detector's verdicts.

    ``rouge_l`` for summaries (null where it is null: points stay comparable), else
    ``exact_match`` where it applies, else ``choice``.

    Args:
      found: rows of ``unlearned``.

    Returns:
      ``example_id``, ``point``, ``detector`` (= ``default``) and ``unlearned``.
    """
    key = ("example_id", "point")
    summaries = found.filter(pl.col("detector") == "rouge_l")
    others = found.join(summaries, on=key, how="anti")
    wide = others.filter(pl.col("detector").is_in(["exact_match", "choice"])).pivot(
        on="detector", index=key, values="unlearned"
    )
    for name in ("exact_match", "choice"):
        if name not in wide.columns:
            wide = wide.with_columns(pl.lit(None, pl.Boolean).alias(name))
    chosen = wide.select(*key, pl.coalesce("exact_match", "choice").alias("unlearned"))
    rows = pl.concat([chosen, summaries.select(*key, "unlearned")]).sort(key)
    return rows.select(*key, pl.lit(DEFAULT).alias("detector"), "unlearned")
