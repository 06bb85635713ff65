"""The run's scalars over time: ``metrics.jsonl``, mirrored to TensorBoard.

One JSON object a line, in the order of the steps. Means over batches (where several processes
train, over the first one's rows of each), for curves and alarms; the analysis reads the
per-example statistics instead. ``loss`` is what the update minimised: in a run normalised by
``token`` the mean over target tokens, by ``example`` that over examples of each one's mean
(`batch_loss`). Losses of probes are means over examples in both. Wall-clock numbers may
stand here, so resumed and uninterrupted runs agree in all columns but those.
"""

from __future__ import annotations

import json
import logging
import math
import time
from numbers import Real
from typing import Any

import numpy as np
from etils import epath

from ilp_jax import files, storage

log = logging.getLogger(__name__)

FILE = "metrics.jsonl"
TENSORBOARD = "tensorboard"

_UPLOAD_SECONDS = 60.0


class MetricsLog:
    """Appends scalars to the run's log; a context manager.

    Args:
      folder: the run's folder.
      resume_step: the step that the run goes on from: lines of later steps are dropped,
        since they will come again, and so is a line that a kill cut short. None keeps
        all whole lines.
      tensorboard: whether to mirror the scalars to ``tensorboard/``.
      enabled: whether this process writes at all (one host does).
    """

    def __init__(
        self,
        folder: epath.PathLike,
        resume_step: int | None = None,
        tensorboard: bool = True,
        enabled: bool = True,
    ):
        self.path = files.as_path(folder) / FILE
        self._enabled = enabled
        self._file = self._board = None
        self._text, self._uploaded = "", time.monotonic()
        if not enabled:
            return
        _keep_until(self.path, resume_step)
        if files.is_local(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "a", buffering=1, encoding="utf-8")
        elif self.path.exists():
            self._text = self.path.read_text()
        if tensorboard:
            self._board = _board(files.as_path(folder) / TENSORBOARD, resume_step)

    def log(self, step: int, event: str = "train", **values: Any) -> None:
        """Writes one line: step, event, the values, and the time.

        Args:
          step: updates made so far.
          event: what was measured (``train``, ``probe``); groups the TensorBoard curves.
          **values: numbers and short texts by name. Numbers that are not finite become
            null in the file.

        Raises:
          RunFailure: the disk is full.
        """
        if not self._enabled:
            return
        line = files.to_json({"step": step, "event": event, **values, "time": time.time()}) + "\n"
        if self._file is not None:
            with files.disk_full_as_failure(self.path, len(line)):
                self._file.write(line)
        else:
            # Objects of a bucket cannot grow: the whole text goes up now and then.
            self._text += line
            if time.monotonic() - self._uploaded > _UPLOAD_SECONDS:
                self._upload()
        if self._board is not None:
            self._draw(step, event, values)

    def close(self) -> None:
        """Ends the log; harmless when called again.

        Raises:
          RunFailure: the disk is full.
        """
        if not self._enabled:
            return
        self._enabled = False
        if self._board is not None:
            self._board.close()
        if self._file is None:
            self._upload()
            return
        with files.disk_full_as_failure(self.path):
            self._file.close()

    def __enter__(self) -> MetricsLog:
        """Returns the log itself."""
        return self

    def __exit__(self, kind, error, traceback) -> None:
        """Closes it; an error under way is not hidden by one of the log's own."""
        try:
            self.close()
        except Exception:
            if error is None:
                raise

    def _draw(self, step: int, event: str, values: dict[str, Any]) -> None:
        try:
            for name, value in values.items():
                if isinstance(value, Real) and math.isfinite(value):
                    self._board.add(f"{event}/{name}", float(value), step)
        except Exception as error:  # The curves are a mirror: a full disk shows in the log itself.
            if storage.failure(error) is None and not isinstance(error, OSError):
                raise
            self._board.close()
            self._board = None

    def _upload(self) -> None:
        if not self._text:
            return
        files.write_text(self.path, self._text)
        self._uploaded = time.monotonic()


def batch_loss(loss_sum_B: np.ndarray, n_tokens_B: np.ndarray, normalization: str) -> float:
    """The loss of some rows as the step weighs them (``losses.example_weights``), in nats a token.

    Args:
      loss_sum_B: float, each row's summed loss.
      n_tokens_B: int, its target tokens, at least one.
      normalization: ``token`` or ``example``.
    """
    weights = n_tokens_B if normalization == "token" else None
    return float(np.average(np.asarray(loss_sum_B, np.float64) / n_tokens_B, weights=weights))


def read_metrics(folder: epath.PathLike) -> list[dict[str, Any]]:
    """Lines of a run's log so far; one that is still being written is left out.

    Args:
      folder: the run's folder.

    Returns:
      One dict a line, in order; empty where there is no log.
    """
    path = files.as_path(folder) / FILE
    return [line for _, line in _lines(path)] if path.exists() else []


def _lines(path: epath.Path) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for text in path.read_text().splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and "step" in line:
            found.append((text, line))
    return found


def _keep_until(path: epath.Path, step: int | None) -> None:
    if not path.exists():
        return
    kept = "".join(
        text + "\n" for text, line in _lines(path) if step is None or line["step"] <= step
    )
    if kept != path.read_text():
        files.write_text(path, kept)


def _board(folder: epath.Path, resume_step: int | None) -> Any:
    from ilp_jax.train.board import Board  # slow to import

    # TensorBoard itself hides what earlier event files say of later steps.
    purge = None if not resume_step else resume_step + 1
    try:
        return Board(folder, purge)
    except OSError as error:  # a full disk
        log.warning("no TensorBoard files: %s", error)
        return None
