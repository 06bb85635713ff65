"""Checksums of a checkpoint's files, so that a damaged one is noticed and not trained on.

Truncated files fail to decode by themselves; flipped bits in array data would not.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from ilp_jax import files

NAME = "checksums.json"

_BLOCK = 1 << 22


def write_checksums(folder: Path) -> None:
    """Stores the checksum of every file in the folders of a checkpoint.

    Args:
      folder: a checkpoint on a local disk whose arrays are written.
    """
    files.write_json(folder / NAME, {name: crc32(folder / name) for name in _names(folder)})


def check_checksums(folder: Path) -> None:
    """Compares the files of a checkpoint with their checksums; none stored is no fault.

    Args:
      folder: a checkpoint on a local disk.

    Raises:
      ValueError: a file is missing or differs.
    """
    if not (folder / NAME).exists():
        return
    for name, wanted in files.read_json(folder / NAME).items():
        path = folder / name
        if not path.exists():
            raise ValueError(f"{name} is missing")
        if crc32(path) != wanted:
            raise ValueError(f"{name} differs from its checksum")


def crc32(path: Path) -> str:
    """CRC-32 of a file (the polynomial of zlib and PNG) as 8 hex digits."""
    value = 0
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            value = zlib.crc32(block, value)
    return f"{value:08x}"


def _names(folder: Path) -> list[str]:
    # Files beside the items are Orbax's notes on the commit, still to be written.
    return sorted(
        os.path.relpath(os.path.join(top, name), folder)
        for item in folder.iterdir()
        if item.is_dir()
        for top, _, names in os.walk(item)
        for name in names
    )
