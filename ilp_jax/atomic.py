"""Writing a file whole or not at all, on a local disk or in a bucket.

A local file is written under a temporary name in its own folder, forced to the disk,
renamed over its final name, and the folder is forced to the disk as well, so that a
process killed at any moment leaves the old file or the new one. In a bucket
(``gs://``) an object appears when its upload ends, so it is written directly; a large one
takes several requests and is renamed when it is whole.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from etils import epath

from ilp_jax.errors import RunFailure
from ilp_jax.storage import check_place

_FULL = (errno.ENOSPC, errno.EDQUOT)
_SUFFIX = ".tmp"
_LONGEST = 200  # Bytes of a name that its temporary one has; a file system takes 255 in all.
_IN_MEMORY = 1 << 26  # Bytes of an object that are uploaded as one.


def as_path(path: epath.PathLike) -> epath.Path:
    """The path as an ``epath.Path``, with a leading ``~`` of a text expanded.

    Args:
      path: local path or ``gs://`` address.

    Returns:
      The path; nothing is opened. That of a folder whose own name begins with ``~``, such as
      ``./~x``, is absolute, so that read as a text again it is the same.

    Raises:
      UserError: it is another address, such as ``s3://``.
    """
    check_place(path)
    found = epath.Path(os.path.expanduser(path) if isinstance(path, str) else path)
    return found.absolute() if str(found).startswith("~") else found


def is_local(path: epath.PathLike) -> bool:
    """Whether the path lies on a file system of this machine (not in a bucket)."""
    return "://" not in os.fspath(as_path(path))


def is_temporary(name: str) -> bool:
    """Whether a file's name is that of an unfinished write: readers pass over it."""
    return name.startswith(".") and name.endswith(_SUFFIX)


def write_with(path: epath.PathLike, put: Callable[[BinaryIO], Any], n_bytes: int = 0) -> None:
    """Writes a file atomically; ``put`` fills it and may read it, ``n_bytes`` is for the advice."""
    path = as_path(path)
    if not is_local(path):
        _upload(path, put)
        return
    folder = path.parent
    temporary = folder / _temporary_name(path.name)
    try:
        with disk_full_as_failure(path, n_bytes):
            folder.mkdir(parents=True, exist_ok=True)
            with open(temporary, "w+b") as file:
                put(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(os.fspath(folder))
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def disk_full_as_failure(where: object, n_bytes: int = 0) -> Iterator[None]:
    """Turns "no space left" and "quota exceeded" into a `RunFailure` that says so.

    Args:
      where: what was being written.
      n_bytes: the most that it takes, for the advice.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise disk_full(where, n_bytes) from error


def disk_full(where: object, n_bytes: int = 0) -> RunFailure:
    """The failure for a full disk: how much to free, and that nothing written is lost."""
    need = max(1, math.ceil(n_bytes / 1e6))
    return RunFailure(
        where,
        "the disk is full",
        f"free at least {need} MB there and run the same command again; "
        "nothing written so far is lost",
    )


def sync_folder(folder: str) -> None:
    """Forces a folder of this machine to the disk: what was renamed or deleted in it stays so."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot force a folder to the disk.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def _upload(path: epath.Path, put: Callable[[BinaryIO], Any]) -> None:
    """Writes an object of a bucket; it appears when all of it is there."""
    # A failed upload must not become an object, so the content is complete first.
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as content:
        put(content)
        n_bytes = content.tell()
        content.seek(0)
        if n_bytes <= _IN_MEMORY:
            path.write_bytes(content.read())
            return
        # In several requests, of which the last may fail and leave an object cut short.
        temporary = path.parent / _temporary_name(path.name)
        with temporary.open("wb") as file:
            shutil.copyfileobj(content, file, _IN_MEMORY)
        temporary.replace(path)


def _temporary_name(name: str) -> str:
    shown = name.encode()[:_LONGEST].decode(errors="ignore")
    return f".{shown}.{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
