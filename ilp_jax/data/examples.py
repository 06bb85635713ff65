"""The record of one example, and its id."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

ROLES = ("train", "distractor_of", "paraphrase", "prerequisite", "held_out", "document")
MARKS = ("aliases", "distractors", "planted", "task")
"""Names of ``Example.marks``: other right answers (a JSON list), where made options come from,
what a planted row is, and the stage's task."""


@dataclasses.dataclass(frozen=True)
class Example:
    """One prompt with the response to be learned.

    Attributes:
      example_id: int64 >= 0, see ``example_id``.
      source: name of the data set or file.
      source_key: the source's own key of the row.
      role: one of ``ROLES``.
      parent_id: id of the example that this one was made from, or None.
      prompt: text before the response.
      messages: turns before the response, each with ``role``, ``content`` and whatever else the
        row gives it; None when the example was built from a prompt.
      response: text to be learned.
      options: the answers to choose from, the response among them; or empty.
      answer_index: the response's index in ``options``; None without options.
      knowledge: passages that hold what the response rests on.
      meta: the source's other columns, under their own names, as strings; nothing reads them.
      marks: what this package notes of the row, by names of ``MARKS``; no file fills them.
      chat: what a chat template is given beside the turns: ``tools``, ``documents``,
        ``chat_template_kwargs``, and ``reply``, the turn whose text the response is, where it
        has other keys than ``role`` and ``content``.
      notes: what was changed of the row or left unused, as sentences.
      place: file and line, where known; '' otherwise. Two equal examples may differ in it.
    """

    example_id: int
    source: str
    source_key: str
    prompt: str
    response: str
    role: str = "train"
    parent_id: int | None = None
    messages: tuple[dict, ...] | None = None
    options: tuple[str, ...] = ()
    answer_index: int | None = None
    knowledge: tuple[str, ...] = ()
    meta: Mapping[str, str] = dataclasses.field(default_factory=dict)
    marks: Mapping[str, str] = dataclasses.field(default_factory=dict)
    chat: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    place: str = dataclasses.field(default="", compare=False)

    @property
    def label(self) -> str:
        """How messages name the row: its file and line, or else its source and key."""
        return self.place or f"{self.source}:{self.source_key}"

    def __post_init__(self):
        if not self.marks.keys() <= set(MARKS):
            raise ValueError(f"marks={dict(self.marks)!r} are not of {MARKS}")
        if self.role not in ROLES:
            raise ValueError(f"role={self.role!r} is not one of {ROLES}")
        if not 0 <= self.example_id < 2**63:
            raise ValueError(f"example_id={self.example_id} is not a non-negative int64")
        if self.options and (
            self.answer_index is None or self.options[self.answer_index] != self.response
        ):
            raise ValueError(f"{self.source}:{self.source_key}: answer_index misses the response")


def example_id(source: str, source_key: str, duplicate_ordinal: int = 0) -> int:
    """The id of a row: the same on every machine and in every version.

    Args:
      source: name of the data set or file.
      source_key: the source's own key of the row.
      duplicate_ordinal: 0 for the first row with this key, 1 for the second, and so on.

    Returns:
      63 bits of BLAKE2b (RFC 7693) over the three, as an int in [0, 2**63).
    """
    text = json.dumps([source, source_key, duplicate_ordinal], separators=(",", ":"))
    digest = hashlib.blake2b(text.encode("ascii"), digest_size=8).digest()
    return int.from_bytes(digest, "big") & (2**63 - 1)


def duplicate_ordinal(example: Example) -> int:
    """The ordinal that ``example.example_id`` was made with, found by trying 0, 1, 2, ...

    Args:
      example: an example whose id ``example_id`` made.

    Returns:
      The ordinal, from 0.

    Raises:
      ValueError: no ordinal below a million gives this id.
    """
    for ordinal in range(1_000_000):
        if example_id(example.source, example.source_key, ordinal) == example.example_id:
            return ordinal
    raise ValueError(f"{example.source}:{example.source_key}: id not made by example_id")
