"""A checksum of a whole Parquet file, kept within the file itself.

Checksums of pages, which Parquet has, cover neither the pages' headers nor the footer with the
columns, counts and places of everything: a flipped bit there gives other rows. So 16 bytes stand
before the footer, where readers of Parquet do not look: a mark, and the CRC-32 (the polynomial of
zlib and PNG) of all other bytes in hex.
"""

from __future__ import annotations

import os
import time
import zlib
from typing import BinaryIO

MARK = b"ilpcrc32"

_SIZE = len(MARK) + 8
_TAIL = 8  # The footer's length and "PAR1".
_BLOCK = 1 << 22
_SETTLED_NS = (
    10**9
)  # A file may change after a check and still have its times within a clock's tick.
_checked: dict[str, tuple[int, ...]] = {}


def seal(file: BinaryIO) -> None:
    """Puts the checksum into a file that was just written, open for reading and writing."""
    end, footer = _ends(file)
    file.seek(footer)
    kept = file.read(end - footer)
    value = zlib.crc32(kept, _crc32(file, footer))
    file.seek(footer)
    file.write(MARK + b"%08x" % value + kept)


def check(path: str) -> bool:
    """Compares a file of this machine with its checksum; one found right is not read again.

    Args:
      path: the file.

    Returns:
      Whether it has a checksum.

    Raises:
      ValueError: it differs from it.
      OSError: it cannot be read.
    """
    about = os.stat(path)
    seen = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
    if _checked.get(path) == seen:
        return True
    settled = max(seen[3:]) < time.time_ns() - _SETTLED_NS
    with open(path, "rb") as file:
        end, footer = _ends(file)
        file.seek(max(footer - _SIZE, 0))
        mark, value = file.read(len(MARK)), file.read(8)
        if footer < _SIZE or mark != MARK:
            return False
        kept = file.read(end - footer)
        if b"%08x" % zlib.crc32(kept, _crc32(file, footer - _SIZE)) != value:
            raise ValueError("it differs from its checksum")
    if settled:
        _checked[path] = seen
    return True


def _ends(file: BinaryIO) -> tuple[int, int]:
    """Where the file ends, and where its footer begins (0 where no footer fits)."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(end - _TAIL, 0))
    return end, max(end - _TAIL - int.from_bytes(file.read(4), "little"), 0)


def _crc32(file: BinaryIO, stop: int) -> int:
    """CRC-32 of the bytes before a place."""
    file.seek(0)
    value = 0
    while stop > 0 and (block := file.read(min(stop, _BLOCK))):
        value = zlib.crc32(block, value)
        stop -= len(block)
    return value
