"""Files of a run, on a local disk or in a bucket: JSON, text and what lies in a folder.

Each is written whole or not at all; see `atomic`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from ilp_jax.atomic import as_path as as_path
from ilp_jax.atomic import disk_full as disk_full
from ilp_jax.atomic import disk_full_as_failure as disk_full_as_failure
from ilp_jax.atomic import is_local as is_local
from ilp_jax.atomic import is_temporary as is_temporary
from ilp_jax.atomic import sync_folder
from ilp_jax.atomic import write_with as write_with
from ilp_jax.errors import UserError


def list_files(folder: epath.PathLike, suffix: str = "") -> list[epath.Path]:
    """Finished files of a folder, by name.

    Args:
      folder: the folder; it may be missing.
      suffix: how the names end, such as ``.parquet``.

    Returns:
      Paths of the files with that suffix, sorted by name, without temporary files;
      empty where there is no such folder.
    """
    folder = as_path(folder)
    if not folder.exists():
        return []
    found = [p for p in folder.iterdir() if p.name.endswith(suffix) and not is_temporary(p.name)]
    return sorted(found, key=lambda p: p.name)


def remove_temporaries(folder: epath.PathLike, containing: str = "") -> int:
    """Deletes what killed writers left behind.

    Only for a folder (or, by ``containing``, a part of it) in which nobody writes now.

    Args:
      folder: the folder; it may be missing. Folders within it are not entered.
      containing: only temporary files whose name contains this text, for instance
        ``host-0003`` where several hosts share a folder.

    Returns:
      The number of files deleted.
    """
    folder = as_path(folder)
    if not folder.exists():
        return 0
    left = [p for p in folder.iterdir() if is_temporary(p.name) and containing in p.name]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


def remove(path: epath.PathLike) -> None:
    """Deletes a file durably: after a power cut it does not come back.

    Args:
      path: the file; it may be missing.
    """
    path = as_path(path)
    path.unlink(missing_ok=True)
    if is_local(path):
        sync_folder(os.fspath(path.parent))


def write_bytes(path: epath.PathLike, content: bytes) -> None:
    """Writes a file atomically.

    Args:
      path: the file; its folder is made if need be.
      content: the whole content.

    Raises:
      RunFailure: the disk is full; no temporary file is left.
    """
    write_with(path, lambda file: file.write(content), len(content))


def write_text(path: epath.PathLike, text: str) -> None:
    """Writes a UTF-8 text file atomically; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: epath.PathLike, value: Any) -> None:
    """Writes a JSON file atomically, indented, keys in the order given.

    Args:
      path: the file.
      value: what ``json`` can write, and numpy scalars and arrays. NaN and infinities
        become null, since JSON has no name for them.

    Raises:
      RunFailure: the disk is full.
      TypeError: a value has no JSON form.
    """
    write_text(path, to_json(value, indent=2) + "\n")


def to_json(value: Any, **options: Any) -> str:
    """``json.dumps`` that knows numpy and writes non-finite numbers as null.

    Args:
      value: the value; see `write_json`.
      **options: passed to ``json.dumps``.

    Returns:
      The text, strictly valid JSON.
    """
    return json.dumps(_plain(value), allow_nan=False, ensure_ascii=False, **options)


def read_json(path: epath.PathLike, mend: str = "restore it from a copy") -> dict[str, Any]:
    """Reads a JSON file that holds an object, as all of a run's do.

    Args:
      path: the file.
      mend: how a damaged one is put right.

    Returns:
      The object.

    Raises:
      UserError: the file is missing, or is not a JSON object.
    """
    path = as_path(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(path, "there is no such file", "check the path") from None
    except IsADirectoryError:
        raise UserError(path, "is a folder, not a file", mend) from None
    except (ValueError, RecursionError) as error:
        raise UserError(path, f"is not JSON ({error})", mend) from error
    if not isinstance(value, dict):
        raise UserError(path, f"holds no JSON object but {_short(value)}", mend)
    return value


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 20 else f"{text[:20]}..."


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k if isinstance(k, str) else str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value
