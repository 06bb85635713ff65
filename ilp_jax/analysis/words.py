"""Text as words, for comparing prompts: vectorised, in every script."""

from __future__ import annotations

import polars as pl

# Scripts without spaces count every character as a word.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = rf"\p{{N}}+|[{_UNSPACED}]|[[\p{{L}}\p{{M}}]--[{_UNSPACED}]]+"
# What turns a question into another one, however alike the rest is: its numbers and operators
# in their order, and negations.
_TELLING = (
    r"\p{N}+(?:[.,]\p{N}+)*|[+*/=<>^%×÷−]|\s-\s|-\p{N}"
    r"|\b(?:not|no|never|none|neither|nor|cannot|without|except|least|incorrect|false)\b|n['’]t\b"
)
_PUNCTUATION = r"[!-/:-@\[-`{-~]"


def normalised(text: pl.Expr) -> pl.Expr:
    """Lower case without ASCII punctuation, English articles and repeated white space.

    The same as ``detect.normalise.normalise``, over a column.
    """
    bare = text.str.to_lowercase().str.replace_all(_PUNCTUATION, "")
    bare = bare.str.replace_all(r"\b(?:a|an|the)\b", " ")
    return bare.str.replace_all(r"\s+", " ").str.strip_chars()


def words(text: pl.Expr) -> pl.Expr:
    """The words of a text in order, in lower case, as a list."""
    return text.str.to_lowercase().str.extract_all(_WORD)


def telling(text: pl.Expr) -> pl.Expr:
    """Numbers, operators and negations of a text in order, as one string."""
    return text.str.to_lowercase().str.extract_all(_TELLING).list.join("\n")
