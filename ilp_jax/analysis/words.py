"""Text as words and sentences, for comparing prompts: vectorised, in every script."""

from __future__ import annotations

import polars as pl

# Scripts without spaces count every character as a word.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = rf"\p{{N}}+|[{_UNSPACED}]|[[\p{{L}}\p{{M}}]--[{_UNSPACED}]]+"
_SENTENCE = r"[^.?!。？！\n]+"
_PUNCTUATION = r"[!-/:-@\[-`{-~]"

# What turns a question into another one, however alike the rest is: numbers and symbols in
# their order, and words that reverse or order. The words are English; of other languages the
# numbers and symbols remain.
_TURNING = (
    *("not", "no", "never", "none", "neither", "nor", "cannot", "without", "except", "unless"),
    *("false", "incorrect", "wrong", "untrue", "first", "last", "second", "third", "next"),
    *("previous", "before", "after", "more", "less", "most", "least", "fewer", "fewest"),
    *("highest", "lowest", "largest", "smallest", "maximum", "minimum", "best", "worst"),
    *("increase", "increases", "decrease", "decreases", "above", "below", "north", "south"),
    *("east", "west", "left", "right", "always"),
)
_TELLING = (
    r"\p{N}+(?:[.,]\p{N}+)*|[\p{S}*/%&@#•·\\]|\s-\s|-\p{N}|n['’]t\b"
    rf"|\b(?:{'|'.join(_TURNING)})\b"
)
# The first word of a sentence, clause or quotation says nothing by its capital.
_OPENING = r"(?:^|[.?!:\n\"“”(\[])\P{L}*\p{L}+"
_NAME = r"\b\p{Lu}[\p{L}\p{M}\p{N}]*"


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


def sentences(text: pl.Expr) -> pl.Expr:
    """The sentences of a text in order, as a list; lines end sentences too."""
    return text.str.extract_all(_SENTENCE)


def telling(text: pl.Expr) -> pl.Expr:
    """Numbers, symbols and words that reverse or order, in order of appearance, as one string."""
    return text.str.to_lowercase().str.extract_all(_TELLING).list.join("\n")


def names(text: pl.Expr) -> pl.Expr:
    """Capitalised words that open no sentence, each once, sorted, as one string."""
    inside = text.str.replace_all(_OPENING, " ")
    return inside.str.extract_all(_NAME).list.unique().list.sort().list.join("\n")
