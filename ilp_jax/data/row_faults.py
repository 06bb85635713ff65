"""What is wrong with the rows of a file, told in one line for all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ilp_jax.errors import UserError

_KINDS, _LINES = 3, 5
"""Kinds of faults that are told, and lines that are named of each; the rest are counted."""


class RowFaults:
    """Collects the faults of a file's rows."""

    def __init__(self, path):
        self._path = str(path)
        self._found: list[UserError] = []

    @contextlib.contextmanager
    def of_row(self) -> Iterator[None]:
        """Keeps the error that reading a row raises; what follows in the block is not done."""
        try:
            yield
        except UserError as error:
            self._found.append(error)

    def tell(self) -> None:
        """Raises one error for all that was collected, if anything was.

        Raises:
          UserError: the only one, or how many rows of which lines have what fault.
        """
        if not self._found:
            return
        if len(self._found) == 1:
            raise self._found[0]
        kinds: dict[tuple[str, str], list[str]] = {}
        for error in self._found:
            line = error.where.removeprefix(self._path)
            kinds.setdefault((error.what, error.mend), []).append(line)
        told = [*kinds.items()][:_KINDS]
        parts = [f"{what} ({_places(lines)})" for (what, _), lines in told]
        more = len(self._found) - sum(len(lines) for _, lines in told)
        parts += [f"other faults ({more} more)"] if more else []
        what = f"{len(self._found)} rows cannot be used: {'; '.join(parts)}"
        raise UserError(self._path, what, "; ".join(dict.fromkeys(mend for (_, mend), _ in told)))


def _places(lines: list[str]) -> str:
    more = f" and {len(lines) - _LINES} more" if len(lines) > _LINES else ""
    return ", ".join(lines[:_LINES]) + more
