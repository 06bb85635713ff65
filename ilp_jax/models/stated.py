"""What a model's files state, read in one place: each value by its name, kind and range.

Such files come from anywhere: a value may be of any kind, or so large that a loop over it never
ends. config.json, an index of shards, tokenizer_config.json and the metadata of a GGUF file are
all asked through `Stated`; whatever cannot be is one line that names file and field.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ilp_jax.errors import UserError, brief

MAX_BYTES = 1 << 26
"""Of a JSON file; an index of the largest published models has 10 MB."""

Range = tuple[float, float]
_T = TypeVar("_T")
_NEEDED: Any = object()


class Stated:
    """Values of one file, or of one object within it.

    Every method takes a key, and gives ``default`` where the value is absent or null; without
    a default such a value, like one of another kind or out of range, is a UserError.

    Args:
      get: key to value, None where there is none.
      where: the file, for messages.
      mend: what to do about a wrong value.
      prefix: what stands before keys in messages.
    """

    def __init__(self, get: Callable[[str], Any], where: object, mend: str, prefix: str = ""):
        self._get, self._where, self._mend, self._prefix = get, where, mend, prefix

    def value(self, key: str) -> Any:
        """The value as it stands, None where there is none."""
        return self._get(key)

    def whole(self, key: str, within: Range, default: _T = _NEEDED) -> int | _T:
        """A whole number; JSON may write it as 2.0."""
        value = self._found(key, default)
        if value is default:
            return default
        whole = type(value) is int or (isinstance(value, float) and value.is_integer())
        if not (whole and within[0] <= value <= within[1]):
            raise self.wrong(key, value, f"no whole number {_span(within)}")
        return int(value)

    def number(self, key: str, within: Range, default: _T = _NEEDED) -> float | _T:
        """A number."""
        value = self._found(key, default)
        if value is default:
            return default
        if type(value) not in (int, float) or not within[0] <= value <= within[1]:
            raise self.wrong(key, value, f"no number {_span(within)}")
        return float(value)

    def flag(self, key: str, default: _T = _NEEDED) -> bool | _T:
        """True or false."""
        return self._of(bool, key, default, "neither true nor false")

    def text(self, key: str, default: _T = _NEEDED) -> str | _T:
        """A text."""
        return self._of(str, key, default, "no text")

    def texts(self, key: str, default: _T = _NEEDED) -> list[str] | _T:
        """A list of texts."""
        value = self._of(list, key, default, "no list of texts")
        if value is not default and not all(isinstance(one, str) for one in value):
            raise self.wrong(key, value, "no list of texts")
        return value

    def group(self, key: str) -> dict[str, Any]:
        """An object; empty where there is none."""
        return self._of(dict, key, None, "no JSON object") or {}

    def within(self, key: str) -> Stated:
        """The values of the object at a key."""
        return Stated(self.group(key).get, self._where, self._mend, f"{self._prefix}{key}.")

    def wrong(self, key: str, value: Any, what: str) -> UserError:
        """The error for a value."""
        told = f"{self._prefix}{key} is {brief(value)}, {what}"
        return UserError(self._where, told, self._mend)

    def _found(self, key: str, default: Any) -> Any:
        value = self._get(key)
        if value is not None:
            return value
        if default is _NEEDED:
            raise UserError(self._where, f"{self._prefix}{key} is missing", self._mend)
        return default

    def _of(self, kind: type, key: str, default: Any, what: str) -> Any:
        value = self._found(key, default)
        if value is not default and not isinstance(value, kind):
            raise self.wrong(key, value, what)
        return value


def read(path: Path, mend: str) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
      path: the file.
      mend: what to do where it cannot be read.

    Raises:
      UserError: no such file, or no plain one; too large; no JSON object in UTF-8; a name twice.
    """
    check_plain(path, mend)
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise UserError(path, f"has {size:,} bytes, more than {MAX_BYTES:,}", mend)
        value = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except FileNotFoundError as error:
        raise UserError(path, "no such file", mend) from error
    except (OSError, ValueError) as error:
        raise UserError(path, f"cannot be read as JSON ({error})", mend) from error
    except RecursionError as error:
        raise UserError(path, "cannot be read as JSON (nested too deeply)", mend) from error
    if not isinstance(value, dict):
        raise UserError(path, "is not a JSON object", mend)
    return value


def check_plain(path: Path, mend: str) -> None:
    """Raises UserError where something other than a file lies at a path."""
    if path.exists() and not path.is_file():  # a pipe would be waited for without end
        raise UserError(path, "is a folder, not a file" if path.is_dir() else "is no file", mend)


def _once(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"{twice!r} stands there twice")
    return found


def _span(within: Range) -> str:
    low, high = within
    if high == math.inf:
        return f"of at least {low:g}"
    return f"from {low:,} to {high:,}" if isinstance(high, int) else f"from {low:g} to {high:g}"
