"""How many trained rows share an example's pattern: its prompt with one place left open.

Rare *words* say little: on real text practically every prompt has a word that no other has (a
name, a number), and so has a question of a family of thousands. A *pattern* is the prompt with
one slot of a few words left open: "what is the colour of _ ?". An example's pattern is that of
its slots which most trained rows share, so what varies within a family is the slot, and a frame
or operation that few rows have stays rare. On data without templates no row shares a pattern
and the ranks are all the same: then this measure says nothing, and looks so.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from ilp_jax.analysis.words import words

LONGEST = 128
"""Prompts of more words have no open place: a long text is no template of one word."""

_AT_ONCE = 1 << 16  # Prompts whose words are in memory.
_KEYS_AT_ONCE = 1 << 22  # Patterns that are counted together, about.
_BASE = np.uint64(0x9E3779B97F4A7C15)
_SIDE = np.uint64(0xD1B54A32D192ED03)


def patterns(examples: pl.DataFrame, trained_ids: pl.Series) -> pl.DataFrame:
    """Rarity of every example's pattern.

    A prompt of fewer than two words or more than ``LONGEST`` is its own pattern.

    Args:
      examples: ``examples.parquet``.
      trained_ids: ids of the trained rows: only they are counted.

    Returns:
      One row an example: ``example_id``; ``pattern_count``, trained rows that share its pattern,
      itself included where it is trained; ``pattern_rarity``, mid-rank of that count among
      trained rows from the most shared (0) to the rarest (1), null for others; and
      ``pattern_relative``, the count over the median count of trained rows.
    """
    trained = pl.col("example_id").is_in(trained_ids.implode())
    counts = examples.select("example_id").with_columns(
        pl.Series("pattern_count", _shared(examples, examples.select(trained).to_series()))
    )
    counts = counts.sort("example_id")
    of_trained = pl.when(trained).then("pattern_count")
    rank = (of_trained.rank("average", descending=True) - 0.5) / trained.sum()
    return counts.with_columns(
        rank.alias("pattern_rarity"),
        (pl.col("pattern_count") / of_trained.median()).alias("pattern_relative"),
    )


def _shared(examples: pl.DataFrame, trained: pl.Series) -> np.ndarray:
    """Of each example, the trained rows of its commonest pattern; int32 [n_examples]."""
    prompts, parts = examples["prompt"], []
    for start in range(0, len(examples), _AT_ONCE):
        # The number of the row stands for the example.
        part = prompts[start : start + _AT_ONCE].to_frame().with_row_index("example_id", start)
        parts.append(_keys(part.select("example_id", words(pl.col("prompt")).alias("words"))))
    keys = pl.concat([pl.DataFrame(schema={"example_id": pl.UInt32, "key": pl.UInt64}), *parts])
    row_K, key_K = keys["example_id"].to_numpy(), keys["key"].to_numpy()
    most_N, is_trained_N = np.zeros(len(examples), np.int32), trained.to_numpy()
    n_parts = -(-len(key_K) // _KEYS_AT_ONCE)
    for part in range(n_parts):
        own = np.flatnonzero(key_K % np.uint64(n_parts) == part)
        _, place = np.unique(key_K[own], return_inverse=True)
        n_of_key = np.bincount(place[is_trained_N[row_K[own]]], minlength=int(place.max()) + 1)
        np.maximum.at(most_N, row_K[own], n_of_key[place].astype(np.int32))
    return most_N


def commonest_patterns(examples: pl.DataFrame, trained_ids: pl.Series) -> pl.DataFrame:
    """The pattern of every example that most trained rows share.

    Args:
      examples: ``examples.parquet``.
      trained_ids: ids of the trained rows: only they are counted.

    Returns:
      One row an example, sorted: ``example_id`` and ``pattern``, a name that is the same for
      all rows of a pattern.
    """
    keys = _keys(examples.select("example_id", words(pl.col("prompt")).alias("words")))
    trained = pl.col("example_id").is_in(trained_ids.to_list())
    shared = keys.filter(trained).group_by("key").agg(pl.len().alias("n"))
    return (
        keys.join(shared, on="key", how="left")
        .sort("example_id", pl.col("n").fill_null(0), "key", descending=[False, True, False])
        .unique("example_id", keep="first", maintain_order=True)
        .select("example_id", pl.col("key").cast(pl.String).alias("pattern"))
    )


def _keys(prompts: pl.DataFrame) -> pl.DataFrame:
    """Distinct ``key`` (uint64) of every pattern of every example.

    A key adds the hash of the words before the open one to that of the words after it; both are
    polynomials in a fixed odd base modulo 2**64, so that all places cost a few array operations.
    """
    n_words = prompts["words"].list.len().to_numpy().astype(np.int64)
    flat = prompts.select(pl.col("words").explode())["words"]
    if n_words.size and (n_words == 0).any():  # an empty list explodes to a null
        flat = flat.drop_nulls()
    hashed = flat.hash(seed=0).to_numpy().astype(np.uint64)
    row = np.repeat(np.arange(len(n_words)), n_words)
    start = np.repeat(np.cumsum(n_words) - n_words, n_words)
    length = n_words[row]
    place = np.arange(len(hashed)) - start

    powers = np.cumprod(np.full(int(n_words.max(initial=0)) + 1, _BASE, np.uint64))
    from_left = np.concatenate([[np.uint64(0)], np.cumsum(hashed * powers[place])])
    from_right = np.concatenate([[np.uint64(0)], np.cumsum(hashed * powers[length - 1 - place])])
    fits = (length > 1) & (length <= LONGEST)
    at, begin, stop = np.flatnonzero(fits), start[fits], (start + length)[fits]
    before = from_left[at] - from_left[begin]
    after = from_right[stop] - from_right[at + 1]
    # Without one: the whole prompt, told apart from patterns by another factor.
    first = np.cumsum(n_words) - n_words
    whole = (from_left[first + n_words] - from_left[first]) * _SIDE * _BASE + np.uint64(1)
    without = (n_words < 2) | (n_words > LONGEST)
    rows = np.concatenate([row[fits], np.flatnonzero(without)])
    keys = np.concatenate([before * _SIDE + after, whole[without]])
    return pl.DataFrame({"example_id": prompts["example_id"].gather(rows), "key": keys}).unique()
