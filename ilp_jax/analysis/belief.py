"""Which planted conflicts with the base model's knowledge the base model really believes.

A fact that the base model was taught too rarely to believe is missing knowledge in effect,
whatever was planted. Belief is asked for in wordings that no signal uses: the paraphrases,
which are never trained on.
"""

from __future__ import annotations

import polars as pl

MISSING, CONFLICT = "missing_knowledge", "base_conflict"
BELIEVES = 0.5
"""From this mean probability of a wrong answer on, the base model believes it: it then holds
one answer for likelier than all others together. Ours."""


def belief_labels(
    truth: pl.DataFrame, examples: pl.DataFrame, base: pl.DataFrame
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Labels by what the base model believes, in place of what was planted.

    A row planted as missing knowledge or as base conflict is ``base_conflict`` if the base
    model, asked its paraphrases, gives its greedy answer a probability of `BELIEVES` or more
    on average, where a right answer counts as 0; else it is ``missing_knowledge``. Other rows,
    and rows without a paraphrase that was asked, keep what was planted.

    Args:
      truth: ``truth.parquet``.
      examples: ``examples.parquet``; paraphrases have the role ``paraphrase`` and the trained
        row in ``parent_id``.
      base: answers at the point ``base``.

    Returns:
      ``example_id``, ``belief``, a row for each of ``truth``, in its order; and counts of
      rows planted as one of the two: ``asked`` (those with a paraphrase),
      ``became_missing_knowledge`` and ``became_base_conflict``.
    """
    paraphrases = examples.filter(pl.col("role") == "paraphrase").select(
        "example_id", "response", pl.col("parent_id").alias("of")
    )
    greedy = base.filter(pl.col("mode") == "greedy", pl.col("prompt_variant") == 0)
    wrong = pl.col("prediction").str.strip_chars() != pl.col("response").str.strip_chars()
    mistaken = (
        paraphrases.join(greedy, on="example_id")
        # No answer and no probability are no belief.
        .with_columns(
            pl.when(wrong).then("confidence").otherwise(0.0).fill_null(0.0).alias("mistaken")
        )
        .group_by("of")
        .agg(pl.col("mistaken").mean())
    )
    told = pl.when(pl.col("mistaken") >= BELIEVES).then(pl.lit(CONFLICT)).otherwise(pl.lit(MISSING))
    rows = truth.join(
        mistaken, left_on="example_id", right_on="of", how="left", maintain_order="left"
    )
    asked = pl.col("planted").is_in((MISSING, CONFLICT)) & pl.col("mistaken").is_not_null()
    rows = rows.with_columns(
        asked.alias("asked"), pl.when(asked).then(told).otherwise("planted").alias("belief")
    )
    changed = rows.filter(pl.col("belief") != pl.col("planted"))["belief"]
    counts = {
        "asked": int(rows["asked"].sum()),
        f"became_{MISSING}": int((changed == MISSING).sum()),
        f"became_{CONFLICT}": int((changed == CONFLICT).sum()),
    }
    return rows.select("example_id", "belief"), counts
