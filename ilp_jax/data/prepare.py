"""Writes the local copies of TensorFlow Datasets data sets that a config's stages read."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import socket
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from ilp_jax.data import tfds_source
from ilp_jax.data.tfds_source import ELSEWHERE
from ilp_jax.errors import UserError

_CATALOGUE = "the names are at https://www.tensorflow.org/datasets/catalog"


def prepare(config: ConfigDict) -> str:
    """Downloads and prepares every ``'tfds'`` stage's data set that is not there yet.

    Rows are written as array_record, which is read without TensorFlow; whether they can be
    written without it depends on the data set.

    Args:
      config: a resolved config.

    Returns:
      One line a stage: what was written, where, and how many rows each split has.

    Raises:
      UserError: a name, version or split that does not exist, no network, or a package that
        the data set's own code needs.
      OSError: the disk is full.
    """
    names = [n for n in dict.fromkeys(config.sequence) if config.stages[n].source == "tfds"]
    if not names:
        return "no stage of config.sequence has the source 'tfds': nothing to prepare"
    return "\n".join(_prepare(name, config.stages[name]) for name in names)


def _prepare(name: str, stage: ConfigDict) -> str:
    where = f"config.stages.{name}"
    with _quiet():
        builder = tfds_source.builder_of(stage, where, _CATALOGUE)
        there = builder.is_prepared()
        if not there:
            _write(builder, stage, where)
        tfds_source.source_of(builder, stage, where)
    rows = ", ".join(
        f"{split} {info.num_examples:,}" for split, info in builder.info.splits.items()
    )
    done = "was there" if there else "written"
    return f"stage {name}: {builder.info.full_name} {done}, in {builder.data_path}; rows: {rows}"


def _write(builder: Any, stage: ConfigDict, where: str) -> None:
    _check_network(builder, stage, where)
    try:
        # The library prints banners of its own; its progress bars are on standard error.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(file_format="array_record")
    except ImportError as error:
        package = tfds_source.package_of(error)
        raise UserError(
            f"{where}.tfds_name",
            f"{stage.tfds_name!r} needs the package {package} to be prepared",
            f"install it in an environment of its own and prepare it there, or {ELSEWHERE}",
        ) from error
    except Exception as error:  # whatever the data set's own code and its downloads raise
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"{where}.tfds_name",
            f"{stage.tfds_name!r} cannot be prepared "
            f"({type(error).__name__}: {tfds_source.first_line(error)[:300]})",
            f"try again, or {ELSEWHERE}",
        ) from error


def _check_network(builder: Any, stage: ConfigDict, where: str) -> None:
    """Fails at once where no host of the data set has an address.

    The library itself would try each download for minutes. Behind a proxy, names need not
    resolve on this machine, so nothing is concluded there.
    """
    known = getattr(builder, "url_infos", None) or {}
    hosts = sorted({urllib.parse.urlsplit(url).hostname or "" for url in known} - {""})
    if not hosts or set(urllib.request.getproxies()) & {"http", "https", "all"}:
        return
    for host in hosts:
        with contextlib.suppress(OSError):
            socket.getaddrinfo(host, 443)
            return
    raise UserError(
        f"{where}.tfds_name",
        f"{stage.tfds_name!r} cannot be downloaded: {hosts[0]} is not found (no network?)",
        ELSEWHERE,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the library's warnings to itself, and its progress bars out of logs."""
    loggers = [logging.getLogger(name) for name in ("absl", "urllib3.connectionpool")]
    levels = [logger.level for logger in loggers]
    if not sys.stderr.isatty():
        with contextlib.suppress(ImportError):
            import tensorflow_datasets as tfds

            tfds.disable_progress_bar()
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
