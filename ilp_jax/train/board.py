"""Curves for TensorBoard, written in the caller's thread.

tensorboardX's own ``SummaryWriter`` writes in a thread and at exit, where a full disk ends in
tracebacks that no one can catch; here it ends in an ``OSError`` at the call.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time

from etils import epath
from tensorboardX.event_file_writer import directory_check
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import scalar

_FLUSH_SECONDS = 30.0


class Board:
    """One event file.

    Args:
      folder: where event files lie; made if need be.
      purge_step: TensorBoard hides what earlier files of the folder say of this step and
        later; None hides nothing.

    Raises:
      OSError: the disk is full.
      ImportError: the folder is in a bucket whose client is not installed.
    """

    def __init__(self, folder: epath.PathLike, purge_step: int | None = None):
        folder = os.fspath(folder)
        directory_check(folder)
        now = time.time()
        name = f"events.out.tfevents.{int(now)}.{socket.gethostname()}.{os.getpid()}"
        self._writer = RecordWriter(os.path.join(folder, name))
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
          OSError: the disk is full.
        """
        self._write(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._writer.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Ends the file; what a full disk does not take is lost."""
        with contextlib.suppress(OSError):
            self._writer.close()

    def _write(self, event: Event) -> None:
        self._writer.write(event.SerializeToString())
