"""Pairs of texts that are nearly the same, found exactly and without comparing all pairs."""

from __future__ import annotations

import numpy as np
import polars as pl
from scipy import sparse

from ilp_jax.analysis.words import telling, words

_PAIRS_AT_ONCE = 2_000_000
_ROWS_AT_ONCE = 1024
_EPSILON = 1e-9


def near_texts(texts: pl.Series, threshold: float) -> pl.DataFrame:
    """All pairs of distinct texts at least so similar.

    The similarity of two texts is the smaller of two cosines between their sets of words: each
    word weighted by its inverse document frequency, log((1 + n) / (1 + df)) + 1, and all words
    alike. The first alone would call two questions about one rare name the same, the second two
    names in one frame. Texts whose numbers, operators or negations differ are no pair.

    Exact at any size, by prefix filtering (Bayardo et al. 2007, "Scaling up all pairs similarity
    search"): where a text's words are put in one global order, rarest first, two texts of unit
    norm with cosine >= t share a word that lies, in both, before the tail of norm < t. So only
    pairs that share such a word, mostly a rare one, are compared.

    Args:
      texts: distinct texts.
      threshold: least similarity, in (0, 1].

    Returns:
      ``left`` < ``right`` (uint32, indices into ``texts``), ``similarity``; sorted.
    """
    terms = _weighted_terms(texts)
    n_words = terms.group_by("text").agg(pl.len().alias("n_words"))
    prefix = terms.filter(pl.col("tail_square") >= threshold**2 - _EPSILON)
    guard = pl.DataFrame({"telling": texts}).select(
        pl.int_range(pl.len(), dtype=pl.UInt32).alias("text"),
        telling(pl.col("telling")).rank("dense").cast(pl.UInt32).alias("guard"),
    )
    prefix = prefix.select("text", "word").join(guard, on="text").join(n_words, on="text")
    weighted, alike = _matrices(terms, len(texts))
    found = [_no_pairs()]
    for pairs in _candidates(prefix, threshold):
        left, right = pairs["left"].to_numpy(), pairs["right"].to_numpy()
        similarity = np.minimum(_dots(weighted, left, right), _dots(alike, left, right))
        pairs = pairs.with_columns(pl.Series("similarity", np.minimum(similarity, 1.0)))
        found.append(pairs.filter(pl.col("similarity") >= threshold - _EPSILON))
    return pl.concat(found).unique(("left", "right")).sort("left", "right")


def near_vectors(vectors: np.ndarray, threshold: float, most: int = 50) -> pl.DataFrame:
    """All pairs of rows at least so similar, by cosine after the mean row is taken off.

    Mean-pooled hidden states share a large common part, which would make every cosine near 1
    (Ethayarajh 2019, arXiv:1909.00512); without it the cosine tells texts apart.

    Args:
      vectors: float32 [n, d].
      threshold: least cosine.
      most: a row takes part in about this many pairs at most, its nearest.

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


def _weighted_terms(texts: pl.Series) -> pl.DataFrame:
    """Each text's distinct words: ``text``, ``word`` (dense id, rarest first), ``weight`` of the
    unit vector, and ``tail_square``, the squared norm of this word and all more common ones.
    """
    terms = (
        pl.DataFrame({"word": texts})
        .select(pl.int_range(pl.len(), dtype=pl.UInt32).alias("text"), words(pl.col("word")))
        .explode("word")
        .drop_nulls()
        .unique()
    )
    frequency = terms.group_by("word").len("df").sort("df", "word").with_row_index("id")
    idf = ((1 + len(texts)) / (1 + pl.col("df"))).log() + 1
    norm = pl.col("idf").pow(2).sum().over("text").sqrt()
    return (
        terms.join(frequency, on="word")
        .with_columns(idf.alias("idf"))
        .select("text", pl.col("id").alias("word"), (pl.col("idf") / norm).alias("weight"))
        .sort("text", "word")
        .with_columns(
            pl.col("weight").pow(2).reverse().cum_sum().reverse().over("text").alias("tail_square")
        )
    )


def _matrices(terms: pl.DataFrame, n_texts: int) -> tuple[sparse.csr_array, sparse.csr_array]:
    """The texts' unit vectors [n_texts, n_words]: weighted by rarity, and all words alike."""
    at = terms["text"].to_numpy().astype(np.int64), terms["word"].to_numpy().astype(np.int64)
    shape = (n_texts, int(at[1].max(initial=-1)) + 1)
    counts = np.bincount(at[0], minlength=n_texts)
    alike = 1 / np.sqrt(counts[at[0]])
    return tuple(
        sparse.csr_array((values, at), shape=shape)
        for values in (terms["weight"].to_numpy(), alike)
    )


def _candidates(prefix: pl.DataFrame, threshold: float):
    """Pairs that share a word of their prefixes, and could be similar by their lengths."""
    shared = ("word", "guard")
    prefix = prefix.filter(pl.len().over(shared) > 1).sort("text")
    # How many pairs each row opens settles how many rows fit in a part.
    opened = prefix.select(pl.len().over(shared).cast(pl.Int64).cum_sum())["len"]
    part = (opened // _PAIRS_AT_ONCE).rle_id() if len(prefix) else opened
    prefix = prefix.rename({"text": "left"})
    others = prefix.rename({"left": "right"})
    for (_,), rows in prefix.with_columns(part.alias("part")).group_by("part", maintain_order=True):
        shorter = pl.min_horizontal("n_words", "n_words_right")
        longer = pl.max_horizontal("n_words", "n_words_right")
        yield (
            rows.lazy()
            .join(others.lazy(), on=shared)
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


def _no_pairs() -> pl.DataFrame:
    return pl.DataFrame(schema={"left": pl.UInt32, "right": pl.UInt32, "similarity": pl.Float64})
