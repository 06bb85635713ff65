"""The lines of a file of JSON objects: gzip is unpacked, and no other kind is taken for text."""

from __future__ import annotations

import codecs
import errno
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from typing import Any

from ilp_jax.errors import UserError
from ilp_jax.files import as_path

_HEAD = 512  # bytes looked at; the furthest sign, that of tar, stands at 257
_LONGEST = 1 << 28  # bytes of a line; 256 MB, so that a small archive cannot fill the memory
_GZIP = b"\x1f\x8b"
_POLARS = "convert it: python -c \"import polars as pl; pl.{}('FILE').write_ndjson('FILE.jsonl')\""
_LIST = (
    'convert it: python -c "import json; [print(json.dumps(row)) for row in '
    "json.load(open('FILE'))]\" > FILE.jsonl"
)
_UNPACK = "unpack it first and give the file in it"
_SAVE = "save it as UTF-8, such as with: iconv -f {} -t UTF-8 FILE > FILE.jsonl"
_SIGNS = (
    (b"PAR1", "is a Parquet file", _POLARS.format("read_parquet")),
    (b"ARROW1", "is an Arrow file", _POLARS.format("read_ipc")),
    (b"PK\x03\x04", "is a zip archive (or .xlsx, .docx)", _UNPACK),
    (b"PK\x05\x06", "is an empty zip archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "is compressed (zstd)", "unpack it first: unzstd FILE"),
    (b"BZh", "is compressed (bzip2)", "unpack it first: bunzip2 FILE"),
    (b"\xfd7zXZ\x00", "is compressed (xz)", "unpack it first: unxz FILE"),
    (b"\x04\x22\x4d\x18", "is compressed (lz4)", "unpack it first: unlz4 FILE"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7-Zip archive", _UNPACK),
    (b"Rar!", "is a RAR archive", _UNPACK),
    (b"SQLite format 3\x00", "is an SQLite database", "write its rows as JSONL"),
    (b"\x89HDF", "is an HDF5 file", "write its rows as JSONL"),
    (b"\x93NUMPY", "is a NumPy array", "write its rows as JSONL"),
    (b"\xd0\xcf\x11\xe0", "is an old Office file", "save its table as CSV, and that as JSONL"),
    (b"%PDF", "is a PDF", "write its rows as JSONL"),
    (b"GGUF", "is a GGUF model, not data", "give the model's and the data's paths in their places"),
    (b"version https://git-lfs", "is a pointer of Git LFS, not the file itself", "git lfs pull"),
    (codecs.BOM_UTF32_LE, "is UTF-32 text, not UTF-8", _SAVE.format("UTF-32")),
    (codecs.BOM_UTF32_BE, "is UTF-32 text, not UTF-8", _SAVE.format("UTF-32")),
    (codecs.BOM_UTF16_LE, "is UTF-16 text, not UTF-8", _SAVE.format("UTF-16")),
    (codecs.BOM_UTF16_BE, "is UTF-16 text, not UTF-8", _SAVE.format("UTF-16")),
)
"""How files begin that are no UTF-8 text, what they are, and how to make JSONL of them."""
_FIELD = r'(?:"[^"]*"|[\w.-]+(?: [\w.-]+){0,2})'
_TABLE = re.compile(rf"{_FIELD}(?:([,;\t]){_FIELD})(?:\1{_FIELD})*")
_NOT_THERE = {
    *(errno.EISDIR, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP),
}


def read(path) -> Iterator[tuple[str, bytes]]:
    """The lines of a file, local or in a bucket, that are not blank.

    Args:
      path: the file; it may be compressed with gzip.

    Yields:
      (``FILE:LINE``, the line's bytes without the line end, nor the mark before the first).

    Raises:
      UserError: it is missing, cannot be read, is damaged, or begins as a file of another kind.
    """
    try:
        with as_path(path).open("rb") as opened:
            file = _buffered(opened)
            if file.peek(_HEAD).startswith(_GZIP):
                with gzip.open(file) as unpacked:
                    yield from _lines(path, unpacked)
            else:
                yield from _lines(path, file)
    except FileNotFoundError as error:
        raise UserError(path, "no such file", "give the path of a JSONL file") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        what = f"is compressed (gzip), and damaged or cut short ({error})"
        raise UserError(path, what, "copy it again") from error
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise
        raise UserError(path, f"cannot be read ({error.strerror})", "give a JSONL file") from error


def text_of(where: str, line: bytes) -> str:
    """A line as text.

    Raises:
      UserError: it is not UTF-8.
    """
    try:
        return line.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise UserError(where, "not UTF-8", "save the file as UTF-8") from error


def _refuse_other_text(path, text: str) -> None:
    """Refuses a file whose first line shows that it is not one JSON object a line."""
    name = as_path(path).name.lower().removesuffix(".gz")
    if text.startswith("["):
        what = "begins with '[': a JSON list, not JSONL, which has one object on each line"
        raise UserError(path, what, _LIST)
    if text == "{":
        what = "is JSON laid out over several lines, not JSONL"
        raise UserError(path, what, "put each row, one whole JSON object, on a line of its own")
    if text.startswith("<"):
        what = "is a web page or XML, not JSONL"
        raise UserError(path, what, "download the file itself, not the page that shows it")
    if text.startswith("{"):
        return
    found = _TABLE.fullmatch(text)
    if name.endswith((".csv", ".tsv")) or found:
        tabs = name.endswith(".tsv") or (found and found[1] == "\t")
        what = f"is a table ({'TSV' if tabs else 'CSV'}), not JSONL"
        sign = "\\t" if tabs else (found and found[1]) or ","
        more = "" if sign == "," else f", separator='{sign}'"
        mend = _POLARS.format("read_csv").replace("('FILE')", f"('FILE'{more})")
        raise UserError(path, what, f"{mend}; columns become keys: prompt and response, or others")


def _buffered(file: Any) -> Any:
    """A file that can be peeked into: a pipe cannot go back, and buckets' files cannot do all."""
    if hasattr(file, "peek"):
        return file
    # TensorFlow's files, which epath gives where it is installed, cannot be read in parts.
    return io.BufferedReader(file if hasattr(file, "readinto") else io.BytesIO(file.read()))


def _lines(path, file: Any) -> Iterator[tuple[str, bytes]]:
    head = file.peek(_HEAD)[:_HEAD]
    for sign, what, mend in _SIGNS:
        if head.startswith(sign):
            raise UserError(path, what, mend)
    if head.startswith(_GZIP):
        raise UserError(path, "is compressed with gzip twice", "unpack it once: gunzip FILE")
    if head[257:262] == b"ustar":
        raise UserError(path, "is a tar archive", _UNPACK)
    if b"\0" in head:
        halves = sum(not byte for byte in head[::2]), sum(not byte for byte in head[1::2])
        # Every other byte is zero, or some of them where much is no ASCII.
        if len(head) > 3 and min(halves) == 0 and max(halves) * 4 > len(head):
            order = "LE" if halves[0] == 0 else "BE"
            raise UserError(path, "is UTF-16 text, not UTF-8", _SAVE.format(f"UTF-16{order}"))
        raise UserError(path, "is binary, not text (it has zero bytes)", "give a file of text")
    number, begun = 0, False
    while line := file.readline(_LONGEST + 1):
        number += 1
        where = f"{path}:{number}"
        if len(line) > _LONGEST:
            what = f"the line is longer than {_LONGEST >> 20} MB"
            raise UserError(where, what, "put each row on a line of its own")
        line = (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).strip()
        if line and not begun:
            _refuse_other_text(path, line.decode("utf-8", "replace"))
            begun = True
        if line:
            yield where, line
