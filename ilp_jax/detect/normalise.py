"""Text equality that forgives what does not change an answer."""

from __future__ import annotations

import re
import string

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalise(text: str) -> str:
    """Lower case, without ASCII punctuation, English articles and repeated white space.

    The steps and their order are those of SQuAD's evaluation (Rajpurkar et al. 2016,
    arXiv:1606.05250).

    Args:
      text: an answer.

    Returns:
      The normalised answer; perhaps empty.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())
