"""The first program of every host: copies what the run reads to this disk, then becomes it.

    python -m ilp_jax.launch.on_host --fetch gs://BUCKET/WEIGHTS /tmp/ilp/weights -- run ...

The run takes this process's place, so signals reach it and its exit code is the host's.
"""

from __future__ import annotations

import concurrent.futures
import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence

from etils import epath

from ilp_jax import files
from ilp_jax.errors import RunFailure, UserError
from ilp_jax.mesh import LAUNCHED

_AT_ONCE = 8  # files; one stream of a bucket does not fill a host's network
_CHUNK = 16 << 20


def split(words: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """What to copy, and the words of the run.

    Args:
      words: ``--fetch SOURCE TARGET`` any number of times, ``--``, words after ``ilp``.

    Raises:
      UserError: not of that form.
    """
    words, pairs = list(words), []
    while words[:1] == ["--fetch"] and len(words) >= 3:
        pairs.append((words[1], words[2]))
        words = words[3:]
    if words[:1] != ["--"] or len(words) < 2:
        form = "[--fetch SOURCE TARGET ...] -- COMMAND ..."
        raise UserError("ilp_jax.launch.on_host", "cannot read its words", f"give {form}")
    return pairs, words[1:]


def fetch(source: str, target: str) -> int:
    """Copies a file, or a folder with all in it; what is there already is passed over.

    Args:
      source: in a bucket, or local.
      target: local.

    Returns:
      Bytes copied.

    Raises:
      UserError: nothing at ``source``.
    """
    root = files.as_path(source)
    pairs = list(_pairs(root, files.as_path(target)))
    if not pairs:
        mend = "`ilp launch stage FILE` puts it there"
        raise UserError(source, "nothing there", mend)
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        return sum(pool.map(lambda pair: copy_file(*pair), pairs))


def copy_file(source: epath.Path, target: epath.Path) -> int:
    """Copies one file, under its final name only when whole; gives the bytes copied.

    A local one of the same size and time of change is that file already, from before a restart.
    """
    told = source.stat()
    if files.is_local(target) and target.exists():
        here = target.stat()
        if (here.length, int(here.mtime)) == (told.length, int(told.mtime)):
            return 0
    target.parent.mkdir(parents=True, exist_ok=True)
    local = files.is_local(target)
    partial = target.parent / f".{target.name}.tmp" if local else target
    with source.open("rb") as reader, partial.open("wb") as writer:
        shutil.copyfileobj(reader, writer, _CHUNK)
    if local:
        os.utime(partial, (told.mtime, told.mtime))
        partial.replace(target)
    return told.length


def _pairs(source: epath.Path, target: epath.Path) -> Iterator[tuple[epath.Path, epath.Path]]:
    if source.is_dir():
        for path in source.iterdir():
            if path.name and not files.is_temporary(path.name):
                yield from _pairs(path, target / path.name)
    elif source.exists():
        yield source, target


def reported(program: Callable[..., int]) -> Callable[..., int]:
    """Makes errors one line and an exit code, as `ilp` does; the rest of its words is kept."""

    @functools.wraps(program)
    def run(*args):
        try:
            return program(*args)
        except UserError as error:
            print(f"ilp: error: {error}", file=sys.stderr)
            return error.exit_code
        except Exception as error:  # a refused address, a broken network: said, and tried again
            what = " ".join(f"{type(error).__name__}: {error}".split())
            mend = "may the host's service account read the bucket? see launch/README.md"
            line = RunFailure("copying", what, mend)
            print(f"ilp: error: {line}", file=sys.stderr)
            return line.exit_code

    return run


@reported
def main(argv: Sequence[str] | None = None) -> int:
    """Copies, then becomes ``ilp``; returns only where it could not."""
    pairs, words = split(sys.argv[1:] if argv is None else argv)
    for source, target in pairs:
        print(f"ilp: {source} -> {target}", flush=True)
        copied = fetch(source, target)
        print(f"ilp: {copied / 1e9:.2f} GB copied", flush=True)
    os.environ[LAUNCHED] = "1"
    os.execv(sys.executable, [sys.executable, "-m", "ilp_jax", *words])


if __name__ == "__main__":
    sys.exit(main())
