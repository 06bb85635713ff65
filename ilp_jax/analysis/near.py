"""Pairs of texts that are nearly the same, found exactly and without comparing all pairs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from scipy import sparse

from ilp_jax.analysis.words import names, sentences, telling, words

_PAIRS_AT_ONCE = 2_000_000
_ROWS_AT_ONCE = 1024
_TEXTS_AT_ONCE = 1 << 17
_EPSILON = 1e-9


def near_texts(texts: pl.Series, threshold: float) -> pl.DataFrame:
    """All pairs of distinct texts at least so similar.

    The similarity of two texts is the smaller of two cosines between their sets of words: each
    word weighted by its inverse document frequency, log((1 + n) / (1 + df)) + 1, and all words
    alike. The first alone would call two questions about one rare name the same, the second two
    names in one frame. Both must reach the threshold over the whole texts and over what is left
    of them without the sentences that they share: of two questions about one passage only the
    questions count. Texts whose numbers, symbols, reversing words or names differ are no pair.

    Exact at any size, by prefix filtering (Bayardo et al. 2007, "Scaling up all pairs similarity
    search"): where a text's words are put in one global order, rarest first, two texts of unit
    norm with cosine >= t share a word that lies, in both, before the tail of norm < t. So only
    pairs that share such a word, mostly a rare one, are compared.

    Args:
      texts: distinct texts.
      threshold: least similarity, in (0, 1].

    Returns:
      ``left`` < ``right`` (uint32, indices into ``texts``), ``similarity`` (the smallest of the
      four cosines); sorted.
    """
    vocabulary, terms = _weighted_terms(texts)
    n_words = terms.group_by("text").agg(pl.len().alias("n_words"))
    prefix = terms.filter(pl.col("tail_square") >= threshold**2 - _EPSILON)
    guard = pl.struct(telling(pl.col("t")).alias("telling"), names(pl.col("t")).alias("names"))
    guards = pl.DataFrame({"t": texts}).select(
        pl.int_range(pl.len(), dtype=pl.UInt32).alias("text"),
        guard.rank("dense").cast(pl.UInt32).alias("guard"),
    )
    prefix = prefix.select("text", "word").join(guards, on="text").join(n_words, on="text")
    weighted, alike = _matrices(terms, len(texts))
    del terms
    found = [_no_pairs()]
    for pairs in _candidates(prefix, threshold):
        left, right = pairs["left"].to_numpy(), pairs["right"].to_numpy()
        similarity = np.minimum(_dots(weighted, left, right), _dots(alike, left, right))
        pairs = pairs.with_columns(pl.Series("similarity", np.minimum(similarity, 1.0)))
        found.append(pairs.filter(pl.col("similarity") >= threshold - _EPSILON))
    whole = pl.concat(found).unique(("left", "right")).sort("left", "right")
    return _without_shared_sentences(whole, texts, vocabulary).filter(
        pl.col("similarity") >= threshold - _EPSILON
    )


def near_vectors(vectors: np.ndarray, threshold: float, most: int = 50) -> pl.DataFrame:
    """All pairs of rows at least so similar, by cosine after the mean row is taken off.

    Mean-pooled hidden states share a large common part, which would make every cosine near 1
    (Ethayarajh 2019, arXiv:1909.00512); without it the cosine tells texts apart.

    Args:
      vectors: float32 [n, d].
      threshold: least cosine.
      most: neighbours that a row looks at, its nearest.

    Returns:
      As ``near_texts``.
    """
    if len(vectors) < 2:
        return _no_pairs()
    centred = vectors - vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = np.divide(centred, norms, out=np.zeros_like(centred), where=norms > 0)
    found = [_no_pairs()]
    for start in range(0, len(unit), _ROWS_AT_ONCE):
        cosines = unit[start : start + _ROWS_AT_ONCE] @ unit.T
        own = np.arange(len(cosines))
        cosines[own, own + start] = -np.inf
        if cosines.shape[1] > most:
            beyond = np.argpartition(-cosines, most, axis=1)[:, most:]
            np.put_along_axis(cosines, beyond, -np.inf, axis=1)
        rows, columns = np.nonzero(cosines >= threshold)
        pairs = np.sort(np.stack([rows + start, columns]), axis=0).astype(np.uint32)
        similarity = cosines[rows, columns].astype(np.float64)
        found.append(pl.DataFrame({"left": pairs[0], "right": pairs[1], "similarity": similarity}))
    return (
        pl.concat(found)
        .group_by("left", "right")
        .agg(pl.col("similarity").max().clip(upper_bound=1.0))
        .sort("left", "right")
    )


def _weighted_terms(texts: pl.Series) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The vocabulary and each text's distinct words.

    Returns:
      ``word`` (text), ``id`` (dense, rarest first), ``idf``; and ``text``, ``word`` (the id),
      ``weight`` of the unit vector, ``tail_square`` (squared norm of this word and all more
      common ones); by text and word.
    """
    starts = range(0, max(len(texts), 1), _TEXTS_AT_ONCE)
    counts = (_terms(texts, start).group_by("word").len("df") for start in starts)
    vocabulary = pl.concat(counts).group_by("word").agg(pl.col("df").sum())
    vocabulary = vocabulary.sort("df", "word").with_row_index("id")
    idf = ((1 + len(texts)) / (1 + pl.col("df"))).log() + 1
    vocabulary = vocabulary.select("word", "id", idf.alias("idf"))
    norm = pl.col("idf").pow(2).sum().over("text").sqrt()
    square = pl.col("weight").pow(2)
    parts = [
        _terms(texts, start)
        .join(vocabulary, on="word")
        .sort("text", "id")
        .select("text", pl.col("id").alias("word"), (pl.col("idf") / norm).alias("weight"))
        .with_columns(square.reverse().cum_sum().reverse().over("text").alias("tail_square"))
        for start in starts
    ]
    return vocabulary, pl.concat(parts)


def _terms(texts: pl.Series, start: int) -> pl.DataFrame:
    """``text`` and its distinct ``word``s, of the texts from a place on that are taken at once."""
    part = texts[start : start + _TEXTS_AT_ONCE].alias("word").to_frame()
    return (
        part.select(
            (pl.int_range(pl.len(), dtype=pl.UInt32) + start).cast(pl.UInt32).alias("text"),
            words(pl.col("word")),
        )
        .explode("word")
        .drop_nulls()
        .unique()
    )


def _matrices(terms: pl.DataFrame, n_texts: int) -> tuple[sparse.csr_array, ...]:
    """The texts' unit vectors [n_texts, n_words]: weighted by rarity, and all words alike."""
    words_K = terms["word"].to_numpy().astype(np.int32)
    counts_N = np.bincount(terms["text"].to_numpy(), minlength=n_texts)
    ends = np.concatenate([[0], np.cumsum(counts_N)])
    shape = (n_texts, int(words_K.max(initial=-1)) + 1)
    alike_N = 1 / np.sqrt(np.maximum(counts_N, 1))
    both = terms["weight"].to_numpy(), np.repeat(alike_N, counts_N)
    return tuple(sparse.csr_array((values, words_K, ends), shape=shape) for values in both)


def _candidates(prefix: pl.DataFrame, threshold: float) -> Iterator[pl.DataFrame]:
    """Pairs that share a word of their prefixes, and could be similar by their lengths."""
    shared = ("word", "guard")
    prefix = prefix.filter(pl.len().over(shared) > 1).sort("text", "word")
    # How many pairs each row opens settles how many rows fit in a part.
    opened = pl.len().over(shared).cast(pl.Int64).cum_sum() // _PAIRS_AT_ONCE
    parts = prefix.rename({"text": "left"}).with_columns(opened.alias("part"))
    others = prefix.rename({"text": "right"}).lazy()
    shorter = pl.min_horizontal("n_words", "n_words_right")
    longer = pl.max_horizontal("n_words", "n_words_right")
    for (_,), rows in parts.group_by("part", maintain_order=True):
        yield (
            rows.lazy()
            .join(others, on=shared)
            .filter(pl.col("left") < pl.col("right"))
            .filter(shorter >= threshold**2 * longer - _EPSILON)
            .select("left", "right")
            .unique()
            .collect()
        )


def _dots(matrix: sparse.csr_array, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    parts = [np.zeros(0)]
    for start in range(0, len(left), _PAIRS_AT_ONCE // 20):
        part = slice(start, start + _PAIRS_AT_ONCE // 20)
        parts.append(matrix[left[part]].multiply(matrix[right[part]]).sum(axis=1))
    return np.concatenate(parts)


def _without_shared_sentences(
    pairs: pl.DataFrame, texts: pl.Series, vocabulary: pl.DataFrame
) -> pl.DataFrame:
    """The pairs with the least of their similarity and that of their own sentences alone."""
    ids = pl.concat([pairs["left"], pairs["right"]]).unique().sort()
    own = pl.DataFrame({"text": ids, "sentence": texts.gather(ids)}).with_columns(
        sentences(pl.col("sentence"))
    )
    of_text = own.explode("sentence").with_columns(words(pl.col("sentence")).alias("word"))
    of_text = of_text.with_columns(pl.col("word").list.join(" ").rank("dense").alias("sentence"))
    of_text = of_text.explode("word").drop_nulls().join(vocabulary, on="word")
    pairs = pairs.with_row_index("pair")
    # One row a pair, side and word of a sentence, unless the other side has the sentence too.
    sides = [
        pairs.select("pair", pl.col(side).alias("text"), pl.lit(side).alias("side"))
        .join(of_text.select("text", "sentence", "id", "idf"), on="text")
        .drop("text")
        for side in ("left", "right")
    ]
    both = pl.concat(sides)
    shared = pl.col("side").n_unique().over("pair", "sentence") == 2
    left_over = both.filter(~shared).drop("sentence").unique(("pair", "side", "id"))
    in_both = pl.len().over("pair", "id") == 2
    square, is_left = pl.col("idf").pow(2), pl.col("side") == "left"
    cosines = []
    for weight in (square, square * 0 + 1):
        # Every shared word stands there twice, once a side.
        dot = weight.filter(pl.col("in_both") & is_left).sum()
        norms = (weight.filter(is_left).sum() * weight.filter(~is_left).sum()).sqrt()
        cosines.append(pl.when(norms > 0).then(dot / norms).otherwise(0.0))
    rest = (
        left_over.with_columns(in_both.alias("in_both"))
        .group_by("pair")
        .agg(pl.min_horizontal(cosines).alias("rest"))
    )
    least = pl.min_horizontal("similarity", pl.col("rest").fill_null(1.0))
    return (
        pairs.join(rest, on="pair", how="left")
        .select("left", "right", least.alias("similarity"))
        .sort("left", "right")
    )


def _no_pairs() -> pl.DataFrame:
    return pl.DataFrame(schema={"left": pl.UInt32, "right": pl.UInt32, "similarity": pl.Float64})
