"""Names of the statistics files, and which of them count.

A shard's name says what it holds: ``PREFIX.steps-FIRST-LAST.host-NUMBER.parquet``, an
ordinal before ``.parquet`` where the same range occurs again. A *merged* file
(``...host-NUMBER.merged.parquet``) takes the place of the shards that its metadata
lists: from the moment it exists those shards do not count, whether or not they have
been deleted yet. That is what makes compaction safe to kill at any moment.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from etils import epath

from ilp_jax import files, parquet

SUFFIX = ".parquet"
REPLACES = "replaces"
"""Metadata key of a merged file: JSON list of the names it replaces."""

_NAME = re.compile(
    r"(?P<prefix>[a-z][a-z0-9_]*)\.steps-(?P<first>\d{9,})-(?P<last>\d{9,})"
    r"\.host-(?P<host>\d{4,})(?:\.part-(?P<part>\d{2,}))?(?P<merged>\.merged)?\.parquet"
)


class Shard(NamedTuple):
    """What a shard's name says.

    Attributes:
      prefix: the phase that wrote it, such as ``base`` or ``train``.
      first: lowest step of its rows.
      last: highest step that its rows may have.
      host: index of the process that wrote it.
      part: ordinal among shards of the same range, from 1.
      merged: whether it is the result of a compaction.
    """

    prefix: str
    first: int
    last: int
    host: int
    part: int = 1
    merged: bool = False

    @property
    def name(self) -> str:
        """The file's name."""
        part = f".part-{self.part:02d}" if self.part > 1 else ""
        merged = ".merged" if self.merged else ""
        return (
            f"{self.prefix}.steps-{self.first:09d}-{self.last:09d}"
            f".host-{self.host:04d}{part}{merged}{SUFFIX}"
        )


def parse(name: str) -> Shard | None:
    """Reads a shard's name.

    Args:
      name: a file's name.

    Returns:
      What it says; None where it is not a shard's.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    return Shard(
        match["prefix"],
        int(match["first"]),
        int(match["last"]),
        int(match["host"]),
        int(match["part"] or 1),
        match["merged"] is not None,
    )


def find(
    folder: epath.PathLike, prefix: str | None = None, host: int | None = None
) -> list[tuple[Shard, epath.Path]]:
    """Shards of a folder, those that no longer count included.

    Args:
      folder: the statistics folder; it may be missing.
      prefix: only this phase's.
      host: only this process's.

    Returns:
      Pairs of what the name says and the path, sorted by name.
    """
    pairs = ((parse(p.name), p) for p in files.list_files(folder, SUFFIX))
    return [
        (shard, path)
        for shard, path in pairs
        if shard is not None and prefix in (None, shard.prefix) and host in (None, shard.host)
    ]


def replaced(path: epath.PathLike) -> frozenset[str]:
    """Names of the files that a merged file replaces.

    Args:
      path: any statistics file.

    Returns:
      The names; empty for a plain shard.
    """
    return frozenset(json.loads(parquet.read_metadata(path).get(REPLACES, "[]")))


def counting(folder: epath.PathLike) -> list[epath.Path]:
    """The Parquet files of a folder whose rows count, each row once.

    Args:
      folder: the statistics folder; it may be missing.

    Returns:
      Paths sorted by name: every finished file but those that a merged one replaces.
    """
    found = files.list_files(folder, SUFFIX)
    gone: set[str] = set()
    for path in found:
        shard = parse(path.name)
        if shard is not None and shard.merged:
            gone |= replaced(path)
    return [path for path in found if path.name not in gone]


def remove_replaced(
    folder: epath.PathLike, prefix: str | None = None, host: int | None = None
) -> None:
    """Finishes killed compactions: deletes the files that merged ones replace.

    Args:
      folder: the statistics folder.
      prefix: only this phase's.
      host: only this process's.
    """
    found = find(folder, prefix, host)
    for shard, path in found:
        if shard.merged:
            gone = replaced(path)
            for _, other in found:
                if other.name in gone:
                    files.remove(other)


def free_name(folder: epath.PathLike, wanted: Shard) -> Shard:
    """The name with the first ordinal that no file has and none replaces.

    A name that a merged file replaces must not come back: its rows would not count.

    Args:
      folder: the statistics folder.
      wanted: the name; its own ordinal is not looked at.

    Returns:
      The name to write under.
    """
    taken: set[str] = set()
    for shard, path in find(folder, wanted.prefix, wanted.host):
        taken.add(path.name)
        if shard.merged:
            taken |= replaced(path)
    part = 1
    while wanted._replace(part=part).name in taken:
        part += 1
    return wanted._replace(part=part)
