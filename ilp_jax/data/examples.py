"""The record of one example, its id, and the file ``examples.parquet``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pyarrow as pa

from ilp_jax.errors import UserError
from ilp_jax.files import read_arrow, write_parquet

if TYPE_CHECKING:
    from ilp_jax.data.stages import StudyData

ROLES = ("train", "distractor_of", "paraphrase", "prerequisite", "held_out")

SCHEMA = pa.schema(
    [
        pa.field("example_id", pa.int64(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_key", pa.string(), nullable=False),
        pa.field("role", pa.string(), nullable=False),
        pa.field("parent_id", pa.int64()),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("messages", pa.string()),
        pa.field("response", pa.string(), nullable=False),
        pa.field("options", pa.list_(pa.string()), nullable=False),
        pa.field("answer_index", pa.int32()),
        pa.field("knowledge", pa.list_(pa.string()), nullable=False),
        pa.field("n_prompt_tokens", pa.int32(), nullable=False),
        pa.field("n_target_tokens", pa.int32(), nullable=False),
        pa.field("truncated", pa.bool_(), nullable=False),
        pa.field("meta", pa.string(), nullable=False),
    ]
)


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
      messages: turns before the response (each with ``role`` and ``content``); None when
        the example was built from a prompt.
      response: text to be learned.
      options: the answers to choose from, the response among them; or empty.
      answer_index: the response's index in ``options``; None without options.
      knowledge: passages that hold what the response rests on.
      meta: everything else known of the row, as strings.
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

    def __post_init__(self):
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


def write_examples(path, study_data: StudyData) -> None:
    """Writes every example of a study, atomically, as ``examples.parquet``.

    Args:
      path: file to write.
      study_data: the examples and their tokens, in the same order.
    """
    rows = [
        {
            **{
                name: getattr(example, name)
                for name in SCHEMA.names
                if hasattr(example, name) and name not in ("messages", "meta")
            },
            "options": list(example.options),
            "knowledge": list(example.knowledge),
            "messages": None if example.messages is None else _json(example.messages),
            "meta": _json(dict(example.meta)),
            "n_prompt_tokens": len(tokens.prompt_ids),
            "n_target_tokens": len(tokens.target_ids),
            "truncated": tokens.truncated,
        }
        for example, tokens in zip(study_data.examples, study_data.tokens, strict=True)
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    write_parquet(path, table, {"file": "examples"})


def read_examples(path) -> tuple[Example, ...]:
    """Reads ``examples.parquet``; token counts stay in the file.

    Args:
      path: file written by ``write_examples``.

    Returns:
      The examples in the file's order.

    Raises:
      UserError: the file is missing, is not Parquet, or lacks a column.
    """
    table = read_arrow(path)
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise UserError(path, f"lacks the columns {', '.join(missing)}", "write it again")
    fields = [field.name for field in dataclasses.fields(Example)]
    return tuple(
        Example(
            **{
                **{name: row[name] for name in fields},
                "messages": None if row["messages"] is None else tuple(json.loads(row["messages"])),
                "options": tuple(row["options"]),
                "knowledge": tuple(row["knowledge"]),
                "meta": json.loads(row["meta"]),
            }
        )
        for row in table.to_pylist()
    )


def _json(value) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
