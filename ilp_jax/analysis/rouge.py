"""ROUGE-L: how much of a text's word sequence an answer gives (Lin 2004, W04-1013)."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Letters and digits of any script; the package rouge-score knows those of ASCII alone.
_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """Lower-case words, in order; what is neither letter nor digit separates.

    No stemming. On ASCII text these are the tokens of the package rouge-score. A script that
    puts no space between words gives one word a run of characters.

    Args:
      text: any text.
    """
    return _WORD.findall(text.lower())


def longest_common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest sequence that both hold in order, with gaps allowed.

    Bit-parallel (Hyyrö 2004): one addition on a number of len(one) bits for each word of
    ``other``.

    Args:
      one: words.
      other: words.
    """
    places: dict[str, int] = {}
    for place, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << place
    every = (1 << len(one)) - 1
    # A bit is 0 where the length so far grows at that place of `one`.
    row = every
    for word in other:
        found = row & places.get(word, 0)
        row = (row + found | row - found) & every
    return len(one) - row.bit_count()


def rouge_l(answer: str, response: str) -> float | None:
    """ROUGE-L over the whole text: the harmonic mean of its precision and recall (F1).

    Args:
      answer: the text to judge.
      response: the text wanted.

    Returns:
      In [0, 1]; 0 for an answer without words; None where the response has none.
    """
    given, wanted = words(answer), words(response)
    if not wanted:
        return None
    # 2PR / (P + R) for P = common / given and R = common / wanted.
    return 2 * longest_common_subsequence(given, wanted) / (len(given) + len(wanted))
