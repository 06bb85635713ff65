"""Lengths of responses, from the token counts of ``examples.parquet``."""

from __future__ import annotations

import json

import polars as pl

from ilp_jax.data.conversation import replies_in


def response_tokens(examples: pl.DataFrame, trained_turns: str = "all") -> pl.DataFrame:
    """Tokens of all the text that is trained of each example, without its end tokens.

    ``n_target_tokens`` counts one end token a trained reply, and none for a response whose tail
    was cut.

    Args:
      examples: ``examples.parquet``; without ``messages`` every example has one reply, without
        ``truncated`` none is cut.
      trained_turns: the config's field: ``all`` replies of a conversation, or the ``last``.

    Returns:
      One row an example, in the same order: ``example_id``, ``response_tokens`` (int32).
    """
    counts = examples["n_target_tokens"].to_list()
    nothing = [None] * len(counts)
    messages = examples["messages"].to_list() if "messages" in examples.columns else nothing
    truncated = examples["truncated"].to_list() if "truncated" in examples.columns else nothing
    lengths = [
        count - _earlier(turns, trained_turns) - (not cut)
        for count, turns, cut in zip(counts, messages, truncated, strict=True)
    ]
    return examples.select("example_id", pl.Series("response_tokens", lengths, pl.Int32))


def _earlier(turns: str | None, trained_turns: str) -> int:
    """Trained replies before the response, from the column ``messages`` (JSON or null)."""
    return len(replies_in(json.loads(turns))) if turns and trained_turns == "all" else 0
