"""Curves for TensorBoard, written in the caller's thread.

tensorboardX's own ``SummaryWriter`` writes in a thread and at exit, where a full disk ends in
tracebacks that no one can catch; here it ends in an ``OSError`` at the call. Objects of a bucket
cannot grow, so there the file grows on this machine and goes up as a whole now and then.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import time

from etils import epath
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import scalar

from ilp_jax import files

_FLUSH_SECONDS = 30.0
_UPLOAD_SECONDS = 300.0


class Board:
    """One event file.

    Args:
      folder: where event files lie; made if need be.
      purge_step: TensorBoard hides what earlier files of the folder say of this step and
        later; None hides nothing.

    Raises:
      OSError: the disk is full.
    """

    def __init__(self, folder: epath.PathLike, purge_step: int | None = None):
        folder, now = files.as_path(folder), time.time()
        name = f"events.out.tfevents.{int(now)}.{socket.gethostname()}.{os.getpid()}"
        self._target = self._grows = None
        own = folder
        if not files.is_local(folder):
            self._target = folder / name
            self._grows = tempfile.TemporaryDirectory(prefix="ilp_board_")
            own = files.as_path(self._grows.name)
        own.mkdir(parents=True, exist_ok=True)
        self._path = os.fspath(own / name)
        self._writer = RecordWriter(self._path)
        self._flushed = time.monotonic()
        self._write(Event(wall_time=now, file_version="brain.Event:2"))
        if purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            self._write(Event(wall_time=now, step=purge_step, session_log=start))

    def add(self, name: str, value: float, step: int) -> None:
        """Adds one point to a curve.

        Args:
          name: the curve.
          value: the point's height.
          step: the point's place.

        Raises:
          OSError: the disk is full. A bucket's client raises errors of its own.
        """
        self._write(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
        every = _FLUSH_SECONDS if self._target is None else _UPLOAD_SECONDS
        if time.monotonic() - self._flushed > every:
            self._writer.flush()
            self._upload()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Ends the file; what a full disk or a bucket does not take is lost."""
        # Whatever it is that a bucket's client raises: the curves are a mirror.
        with contextlib.suppress(Exception):
            self._writer.close()
            self._upload()
        if self._grows is not None:
            self._grows.cleanup()

    def _upload(self) -> None:
        if self._target is not None:
            with open(self._path, "rb") as file:
                files.write_bytes(self._target, file.read())

    def _write(self, event: Event) -> None:
        self._writer.write(event.SerializeToString())
