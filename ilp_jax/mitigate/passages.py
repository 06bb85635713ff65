"""The library of real rows: their own passages, a folder of texts, and general texts."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from etils import epath
from sklearn.feature_extraction.text import TfidfVectorizer

from ilp_jax import files
from ilp_jax.data import packaged
from ilp_jax.data.conversation import plain_prompt
from ilp_jax.data.examples import Example
from ilp_jax.detect.normalise import normalise
from ilp_jax.detect.variants import split
from ilp_jax.errors import UserError
from ilp_jax.mitigate.library import Fact, told

GENERAL = "sciq"
"""Packaged data set whose passages are general text where no folder is given."""
_FOUND = 3  # texts of the folder that a row gets, the most similar ones. Ours.
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


class PassageLibrary:
    """See ``mitigate.library.Library``.

    Args:
      examples: the study's examples; their ``knowledge`` tells what they rest on.
      folder: text files (``.txt``, ``.md``), searched by TF-IDF for rows without passages, and
        the general texts; '' for neither: general texts are then the passages of the packaged
        set ``GENERAL``, without the study's own.
      words: of a document, about; longer texts are cut at sentences.

    Raises:
      UserError: the folder is missing or empty, or there is no general text.
    """

    def __init__(self, examples: Sequence[Example], folder: str = "", words: int = 48):
        self._words = words
        own = {text for one in examples for text in one.knowledge}
        if folder:
            texts = _texts(files.as_path(folder))
        else:
            known = [text for one in packaged.load(GENERAL) for text in one.knowledge]
            texts = [text for text in known if text not in own]
        self._general = [part for text in texts for part in self._parts(text)]
        if not self._general:
            raise UserError("config.mitigate.library", "has no text", "give a folder of .txt files")
        self._search = None
        if folder:
            self._vectorizer = TfidfVectorizer(sublinear_tf=True, stop_words="english")
            self._search = self._vectorizer.fit_transform(self._general)

    def facts(self, example: Example) -> tuple[Fact, ...]:
        """Its passages in parts, or the most similar parts of the folder; none has a question."""
        parts = [part for text in example.knowledge for part in self._parts(text)]
        if not parts and self._search is not None:
            query = self._vectorizer.transform([f"{_question(example)} {example.response}"])
            scores = (self._search @ query.T).toarray().ravel()
            best = np.argsort(-scores, kind="stable")[:_FOUND]
            parts = [self._general[i] for i in best if scores[i] > 0]
        return tuple(Fact(part) for part in parts)

    def says(self, example: Example, answers: Sequence[str]) -> str:
        """The only one of the answers that stands in the example's own passages."""
        text = f" {normalise(' '.join(example.knowledge))} "
        found = [one for one in answers if f" {normalise(one)} " in text]
        return found[0] if len(found) == 1 else ""

    def tell(self, fact: Fact, rng: np.random.Generator) -> str:
        """The part itself."""
        return fact.key

    def restate(self, example: Example, rng: np.random.Generator) -> str:
        """A sentence with the question and the recorded answer, in none of the prompt's layouts."""
        return told(_question(example), example.response, rng)

    def general(self, n: int, rng: np.random.Generator) -> list[str]:
        """Parts of general texts, drawn with replacement."""
        return [self._general[i] for i in rng.integers(len(self._general), size=n)]

    def _parts(self, text: str) -> list[str]:
        """Whole sentences up to about so many words; a longer sentence is cut."""
        parts: list[list[str]] = [[]]
        for sentence in _SENTENCE.split(" ".join(text.split())):
            words = sentence.split()
            for start in range(0, len(words), self._words):
                some = words[start : start + self._words]
                if parts[-1] and len(parts[-1]) + len(some) > self._words:
                    parts.append([])
                parts[-1] += some
        return [" ".join(part) for part in parts if part]


def _texts(folder: epath.Path) -> list[str]:
    if not folder.is_dir():
        raise UserError(folder, "is no folder", "check config.mitigate.library")
    found = [path for suffix in (".txt", ".md") for path in files.list_files(folder, suffix)]
    texts, unread = [], []
    for path in found:
        try:
            texts.append(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            unread.append(path.name)
    if unread:
        more = f" and {len(unread) - 5} more" if len(unread) > 5 else ""
        what = f"holds files that are not UTF-8: {', '.join(unread[:5])}{more}"
        raise UserError(folder, what, "save them as UTF-8")
    return texts


def _question(example: Example) -> str:
    text = plain_prompt(example.messages) if example.messages else example.prompt
    return " ".join(split(text)[2].split())
