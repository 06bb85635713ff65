"""A user's JSONL file about examples of a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any

from ilp_jax.data import lines
from ilp_jax.data.row_faults import RowFaults
from ilp_jax.errors import UserError


def rows_of(
    path: str,
    known: Collection[int],
    kind: str,
    mend: str,
    fault: Callable[[dict[str, Any]], str],
) -> list[tuple[int, dict[str, Any]]]:
    """Its lines, each an object that names an example; empty ones are passed over.

    Args:
      path: the file.
      known: the run's example ids.
      kind: what a line is, for messages.
      mend: how to write one.
      fault: what is wrong with an object, '' where nothing is.

    Returns:
      The ``example_id`` of each line, and its object.

    Raises:
      UserError: the file is missing, or lines are no such objects or name no example.
    """
    faults, found = RowFaults(path), []
    for place, line in lines.read(path):
        with faults.of_row():
            try:
                row = json.loads(lines.text_of(place, line))
                one = int(row["example_id"])
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                raise UserError(place, f"is no {kind}", mend) from None
            if one not in known:
                what = f"names example {one}, which the run does not have"
                raise UserError(place, what, "take ids from examples.parquet")
            if what := fault(row):
                raise UserError(place, what, mend)
            found.append((one, row))
    faults.tell()
    return found
