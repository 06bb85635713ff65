"""``summary.json``: every figure of a run, with a checksum, so that a changed digit is noticed."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

from etils import epath

from ilp_jax import files
from ilp_jax.errors import UserError

FILE = "summary.json"

_CHECKSUM = "checksum"
_MEND = "run `ilp diagnose`, or `ilp run` for all"


def write(workdir: epath.PathLike, figures: Mapping[str, Any]) -> None:
    """Writes the figures whole.

    Args:
      workdir: the run's folder.
      figures: see `files.write_json`; the CRC-32 of their JSON stands beside them.

    Raises:
      RunFailure: the disk is full.
    """
    figures = {name: value for name, value in figures.items() if name != _CHECKSUM}
    files.write_json(files.as_path(workdir) / FILE, {**figures, _CHECKSUM: _crc32(figures)})


def read(workdir: epath.PathLike, of_a_phase: bool = False) -> dict[str, Any]:
    """Reads the figures.

    Args:
      workdir: the run's folder.
      of_a_phase: refuse those without a checksum, which no phase writes.

    Returns:
      The figures by name.

    Raises:
      UserError: the file is missing or damaged.
    """
    path = files.as_path(workdir) / FILE
    figures = files.read_json(path, mend=_MEND)
    known = figures.pop(_CHECKSUM, None)
    if (known is None and of_a_phase) or known not in (None, _crc32(figures)):
        told = "has no checksum" if known is None else "differs from its checksum"
        raise UserError(path, told, _MEND)
    return figures


def _crc32(figures: Mapping[str, Any]) -> str:
    text = files.to_json(figures, sort_keys=True, separators=(",", ":"))
    return f"{zlib.crc32(text.encode()):08x}"
