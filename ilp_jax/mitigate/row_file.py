"""A user's JSONL file about examples of a run."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

from ilp_jax import files
from ilp_jax.errors import UserError


def rows_of(
    path: str, known: Collection[int], field: str, kind: str, mend: str
) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Its lines, each an object that names an example; empty ones are passed over.

    Args:
      path: the file.
      known: the run's example ids.
      field: of the configuration, for messages.
      kind: what a line is, for messages.
      mend: how to write one.

    Yields:
      Place in the file for messages, the ``example_id``, and the object.

    Raises:
      UserError: the file is missing, or a line is no such object or names no example.
    """
    try:
        lines = files.as_path(path).read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(path, "there is no such file", f"check config.{field}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            row = json.loads(line)
            one = int(row["example_id"])
        except (ValueError, KeyError, TypeError):
            raise UserError(place, f"is no {kind}", mend) from None
        if one not in known:
            what = f"names example {one}, which the run does not have"
            raise UserError(place, what, "take ids from examples.parquet")
        yield place, one, row
