"""Checkpoints of the training state: saved in the background, committed whole.

Orbax writes a checkpoint into a temporary folder and renames it when every host has
finished (in a bucket: puts a marker file last), so a killed save leaves the checkpoint
before it untouched. Arrays are stored as arrays; nothing is pickled.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from etils import epath

from ilp_jax import files
from ilp_jax.errors import RunFailure, UserError
from ilp_jax.mesh import processes
from ilp_jax.train.checksums import check_checksums, write_checksums

log = logging.getLogger(__name__)

PyTree = Any

_STATE = "state"
_META = "meta"
_ASIDE = "unreadable"
_NOTES_BYTES = 1 << 20  # What a checkpoint takes beside its arrays.
_FULL_TEXTS = ("no space left", "disk quota exceeded")
_DEEPEST = 300  # Bytes of the longest path within a run's folder, Orbax's temporary names included.


class Restored(NamedTuple):
    """A state read back, and the step that it really is from."""

    step: int
    state: PyTree


def abstract(state: PyTree) -> PyTree:
    """Shapes, dtypes and shardings of a state, without its values.

    Args:
      state: a pytree of arrays (typed random keys and Python numbers included).

    Returns:
      The same tree with a `jax.ShapeDtypeStruct` for every array.
    """
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, state)


def check_place(workdir: epath.PathLike) -> None:
    """Refuses a folder whose checkpoints could not be written or read, before there are any.

    Args:
      workdir: the run's folder.

    Raises:
      UserError: TensorStore takes its path for another one, or it is too long.
    """
    if re.match(r"\w+://", os.fspath(workdir)):
        return
    path = os.path.abspath(workdir)
    if "\\" in path:
        what = "has a backslash in its path"
    elif "/gs:/" in f"{path}/":
        what = 'has "gs:" in its path'
    elif len(os.fsencode(path)) + _DEEPEST > os.pathconf("/", "PC_PATH_MAX"):
        what = "is too long a path"
    else:
        return
    raise UserError(workdir, f"{what}: checkpoints there cannot be read", "give another --workdir")


class Checkpoints:
    """The newest states of a run, for going on where it stopped.

    The rows of the statistics up to step s must be durable before ``save(s, ...)`` is
    called: a checkpoint promises that everything before it is on disk.

    Args:
      folder: where they lie; made if need be. What a killed save left is deleted.
      keep: how many of the newest to keep.
    """

    def __init__(self, folder: epath.PathLike, keep: int = 1):
        self.folder = files.as_path(folder)
        self._manager = _manager(self.folder, keep)
        self._n_bytes = 0

    def save(self, step: int, state: PyTree) -> None:
        """Starts a save and returns when the state may change again.

        Args:
          step: updates made so far. A step that is already saved is not saved again.
          state: a pytree of arrays; every host passes its own shards.

        Raises:
          RunFailure: this or the save before it met a full disk.
        """
        self._n_bytes = _size(state)
        with _failures(self.folder, self._n_bytes):
            if step in self._manager.all_steps():
                return
            _require_space(self.folder, self._n_bytes)
            self._manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state)))

    def latest_step(self) -> int | None:
        """Step of the newest committed checkpoint; None where there is none."""
        return self._manager.latest_step()

    def restore(self, step: int, abstract_state: PyTree) -> Restored:
        """Reads a state back, bit for bit, onto the shardings asked for.

        A checkpoint that cannot be read is passed over for the newest readable one
        before it, and moved into ``unreadable/``; so look at the step that comes back.

        Args:
          step: the checkpoint wanted, usually `latest_step()`.
          abstract_state: see `abstract`; the structure (named tuples of optax
            included), shapes and dtypes that the state must have.

        Returns:
          The step restored and its state.

        Raises:
          RunFailure: neither that checkpoint nor an older one can be read.
        """
        self.wait()
        candidates = [s for s in sorted(self._manager.all_steps(), reverse=True) if s <= step]
        if step not in candidates:
            raise RunFailure(self.folder, f"there is no checkpoint of step {step}")
        first: Exception | None = None
        unreadable: list[int] = []
        for candidate in candidates:
            state, error = self._try(candidate, abstract_state)
            if error is not None:
                first = first or error
                unreadable.append(candidate)
                log.warning("checkpoint %d cannot be read: %s", candidate, _one_line(error))
                continue
            if unreadable:
                self._set_aside(unreadable)
                log.warning("going on from checkpoint %d instead", candidate)
            return Restored(candidate, state)
        raise RunFailure(
            self.folder / str(step),
            f"the checkpoint cannot be read ({_one_line(first)}) and there is no older one",
            "delete the checkpoints folder to train again from the start, or use another --workdir",
        ) from first

    def wait(self) -> None:
        """Blocks until the last save is committed.

        Raises:
          RunFailure: it met a full disk.
        """
        with _failures(self.folder, self._n_bytes):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and lets go of the background threads."""
        with _failures(self.folder, self._n_bytes):
            self._manager.close()

    def _try(self, step: int, target: PyTree) -> tuple[PyTree, Exception | None]:
        """A checkpoint's state, or what is wrong with it: the same in every process."""
        damage = processes.on_first(_damage, self._manager, step)
        if damage:
            return None, ValueError(damage)
        state = error = None
        try:
            state = _read(self._manager, step, target)
        except Exception as one:  # Orbax has no common class for damaged files.
            error = one
        told = [text for text in processes.exchange(error and _one_line(error)) if text]
        if told and error is None:
            error = ValueError(f"in another process: {told[0]}")
        return state, error

    def _set_aside(self, steps: list[int]) -> None:
        # Moved, not deleted: if the fault lies elsewhere, the user can put it back.
        def move() -> None:
            for step in steps:
                source = _step_folder(self.folder, step)
                target = self.folder / _ASIDE / source.name
                if target.exists():
                    target.rmtree()
                target.parent.mkdir(parents=True, exist_ok=True)
                source.rename(target)

        processes.on_first(move)
        self._manager.reload()


class BestCheckpoint:
    """The parameters with the lowest held-out loss so far; one is kept.

    Args:
      folder: where they lie; made if need be.
    """

    def __init__(self, folder: epath.PathLike):
        self.folder = files.as_path(folder)
        self._manager = _manager(self.folder, keep=1)
        self._n_bytes = 0
        self._best: dict[str, Any] | None = None
        self._load()

    @property
    def step(self) -> int | None:
        """Step of the best parameters; None before the first."""
        return None if self._best is None else int(self._best["step"])

    @property
    def loss(self) -> float | None:
        """Their held-out loss in nats a token; None before the first."""
        return None if self._best is None else float(self._best["held_out_loss"])

    def offer(self, step: int, params: PyTree, held_out_loss: float) -> bool:
        """Saves the parameters if they are better than the best; ties keep the older.

        Args:
          step: updates made so far.
          params: the parameters.
          held_out_loss: mean held-out loss in nats a token, the same on every host.

        Returns:
          Whether they were better.

        Raises:
          RunFailure: the disk is full.
        """
        if self._best is not None and not held_out_loss < self.loss:
            return False
        meta = {"step": int(step), "held_out_loss": float(held_out_loss)}
        self._n_bytes = _size(params)
        with _failures(self.folder, self._n_bytes):
            _require_space(self.folder, self._n_bytes)
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(params), meta=ocp.args.JsonSave(meta)
                ),
            )
        self._best = meta
        return True

    def restore(self, abstract_params: PyTree) -> Restored:
        """Reads the best parameters back.

        Args:
          abstract_params: see `abstract`.

        Returns:
          Their step and the parameters.

        Raises:
          RunFailure: there are none, or they cannot be read.
        """
        self.wait()
        if self.step is None:
            raise RunFailure(self.folder, "there are no best parameters yet")
        try:
            if damage := processes.on_first(_damage, self._manager, self.step):
                raise ValueError(damage)
            return Restored(self.step, _read(self._manager, self.step, abstract_params))
        except Exception as error:
            raise RunFailure(
                self.folder,
                f"the best parameters cannot be read ({_one_line(error)})",
                "use the final ones, or train again",
            ) from error

    def discard_after(self, step: int) -> None:
        """Forgets parameters saved later than a step that the run goes back to.

        The steps after it are computed again, so the same parameters are offered again.

        Args:
          step: the checkpoint restored.
        """
        self.wait()
        for saved in self._manager.all_steps():
            if saved > step:
                self._manager.delete(saved)
        self._load()

    def wait(self) -> None:
        """Blocks until the last save is committed."""
        with _failures(self.folder, self._n_bytes):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and lets go of the background threads."""
        with _failures(self.folder, self._n_bytes):
            self._manager.close()

    def _load(self) -> None:
        self._best = None
        newest = self._manager.latest_step()
        if newest is None:
            return
        folder = _step_folder(self.folder, newest) / _META
        try:
            self._best = processes.on_first(
                _read_alone, ocp.JsonCheckpointHandler, folder, ocp.args.JsonRestore()
            )
        except Exception as error:
            log.warning("the best parameters are forgotten: %s", _one_line(error))
            self._manager.delete(newest)


def _manager(folder: epath.Path, keep: int) -> ocp.CheckpointManager:
    # Buckets check their objects themselves. Of several processes the first reads again what all
    # of them wrote, in the background.
    checked = files.is_local(folder)
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        step_format_fixed_length=9,
        cleanup_tmp_directories=True,
        enable_async_checkpointing=True,
        # Several processes meet at barriers named after the step alone: without a front of their
        # own, the state's and the best parameters' of one step are taken for the same.
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            barrier_sync_key_prefix=folder.name
        ),
        async_options=ocp.AsyncOptions(
            post_finalization_callback=functools.partial(_add_checksums, Path(folder))
            if checked
            else None
        ),
    )
    logger = logging.getLogger("absl")
    if not any(isinstance(one, _NotOrbaxErrors) for one in logger.filters):
        logger.addFilter(_NotOrbaxErrors())
        logging.getLogger("asyncio").addFilter(_NotOrbaxErrors())
        sys.unraisablehook = functools.partial(_not_of_a_failed_save, sys.unraisablehook)
    with _failures(folder):
        return ocp.CheckpointManager(
            # Orbax wants an absolute path, and globs beneath it.
            folder if not files.is_local(folder) else _Literal(folder.absolute()),
            options=options,
            item_names=(_STATE, _META),
        )


def _add_checksums(folder: Path) -> None:
    """Runs when the arrays are written and the folder still has its temporary name."""
    for unfinished in folder.glob("*.orbax-checkpoint-tmp*"):
        write_checksums(unfinished)


def _damage(manager: ocp.CheckpointManager, step: int) -> str:
    """What the checksums say against a checkpoint; '' where they are right or there are none."""
    folder = files.as_path(manager.directory)
    if not files.is_local(folder):
        return ""
    try:
        check_checksums(Path(_step_folder(folder, step)))
    except Exception as error:  # an unreadable list of checksums is damage, too
        return _one_line(error)
    return ""


def _read(manager: ocp.CheckpointManager, step: int, target: PyTree) -> PyTree:
    """This process's parts of a state."""
    folder = _step_folder(files.as_path(manager.directory), step) / _STATE
    return _read_alone(ocp.StandardCheckpointHandler, folder, ocp.args.StandardRestore(target))


def _read_alone(handler: Callable[..., Any], folder: epath.Path, wanted: Any) -> Any:
    """What this process reads by itself, whatever the others do.

    A manager's own ``restore`` ends at a barrier, where processes that could read would wait for
    ever for one that could not.
    """
    own = ocp.options.MultiprocessingOptions(
        primary_host=processes.index(),
        active_processes={processes.index()},
        barrier_sync_key_prefix=f"read_{processes.index()}",
    )
    with ocp.Checkpointer(
        handler(multiprocessing_options=own), multiprocessing_options=own
    ) as reader:
        return reader.restore(folder, args=wanted)


def _size(tree: PyTree) -> int:
    return sum(getattr(leaf, "nbytes", 0) for leaf in jax.tree.leaves(tree))


def _require_space(folder: epath.Path, n_bytes: int) -> None:
    """Fails before a save that cannot fit: in its midst, the threads all print tracebacks."""
    if not files.is_local(folder) or jax.process_count() > 1:
        return
    needed = n_bytes + n_bytes // 20 + _NOTES_BYTES
    if shutil.disk_usage(folder).free < needed:
        raise files.disk_full(folder, needed)


class _Literal(type(epath.Path("/"))):
    """A local path of which ``glob`` takes the pattern alone as one, not the path as well."""

    def glob(self, pattern: str) -> Iterator[epath.Path]:
        return (self / os.path.relpath(one, self) for one in Path(self).glob(pattern))


class _NotOrbaxErrors(logging.Filter):
    """Keeps back errors that Orbax logs, with their tracebacks, before it raises them."""

    def filter(self, record: logging.LogRecord) -> bool:
        places = [record.pathname]
        if record.exc_info:  # of asyncio, whose tasks run Orbax's code
            places += [frame.filename for frame in traceback.extract_tb(record.exc_info[2])]
        return record.levelno < logging.ERROR or not any("orbax" in one for one in places)


def _not_of_a_failed_save(before: Callable[[Any], None], told: Any) -> None:
    """``sys.unraisablehook`` without what TensorStore's threads print after a failed save.

    The save's own error is raised; parts of it that end later find its event loop closed.
    """
    if not (told.exc_type is RuntimeError and str(told.exc_value) == "Event loop is closed"):
        before(told)


def _step_folder(folder: epath.Path, step: int) -> epath.Path:
    return folder / f"{step:09d}"


class _failures:
    """Turns a full disk, however the libraries report it, into a `RunFailure`."""

    def __init__(self, folder: epath.Path, n_bytes: int = 0):
        self._folder, self._n_bytes = folder, n_bytes

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error, traceback) -> None:
        seen: BaseException | None = error
        while seen is not None:
            if isinstance(seen, RunFailure) and seen is not error:
                raise seen
            if any(text in str(seen).lower() for text in _FULL_TEXTS):
                raise files.disk_full(self._folder, self._n_bytes) from error
            seen = seen.__cause__ or seen.__context__


def _one_line(error: BaseException | None, length: int = 200) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= length else text[:length] + "..."
