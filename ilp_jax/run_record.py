"""``run.json``: what a run is (config, versions, device) and how far it has come."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import socket
import subprocess
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from etils import epath

from ilp_jax import files, parquet
from ilp_jax.errors import UserError

log = logging.getLogger(__name__)

FILE = "run.json"
LOCK = ".lock"

_PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "transformers",
    "tokenizers",
    "numpy",
    "scipy",
    "polars",
    "pyarrow",
    "ml_collections",
)
_MAY_LACK = (str, type(None))
_KINDS = {
    "config": dict,
    "seconds": dict,
    "finished": dict,
    "made": dict,
    "history": dict,
    "about": (dict, type(None)),
    "versions": (dict, type(None)),
    "config_hash": _MAY_LACK,
    "weights_hash": _MAY_LACK,
    "device": _MAY_LACK,
}
_SHOWN = 3  # differing fields named in an error


def open_run(
    workdir: epath.PathLike,
    resolved_config: Mapping[str, Any],
    *,
    device: str | None = None,
    seeds: Mapping[str, int] | None = None,
    weights_hash: str | None = None,
    config_hash: str | None = None,
    ignore: Collection[str] = (),
    write: bool = True,
) -> dict[str, Any]:
    """Makes a folder the run of a config, or goes on with the run that it holds.

    Args:
      workdir: the run's folder; made if need be.
      resolved_config: every field of the config, as plain JSON values.
      device: the accelerator, in words.
      seeds: seeds by what they are for.
      weights_hash: identity of the base weights.
      config_hash: what tells two configs apart; the SHA-256 of the config's canonical
        JSON (without ignored fields) by default.
      ignore: dotted fields or groups that may differ between runs of the same folder.
      write: whether this process writes (one host does); the others only check.

    Returns:
      The record: ``config``, ``config_hash``, ``versions``, ``git_commit`` and ``device`` as
      the run began, ``seeds``, ``weights_hash``, and by phase ``seconds``, ``finished`` and
      ``history`` (see ``begin_phase``).

    Raises:
      UserError: the folder holds a run of another config or other weights, or its
        record is damaged.
    """
    path = files.as_path(workdir) / FILE
    config = json.loads(files.to_json(resolved_config))
    record = {
        "schema_version": parquet.SCHEMA_VERSION,
        "config": config,
        "config_hash": config_hash or hash_config(config, ignore),
        **_here(),
        "device": device,
        "seeds": dict(seeds or {}),
        "weights_hash": weights_hash,
        "seconds": {},
        "finished": {},
        "history": {},
    }
    if path.exists():
        before = _read(workdir)
        _check_same(path, before, record, ignore)
        renewed = ("schema_version", "config")
        if not before["finished"] and not before["history"]:  # nothing is computed yet
            renewed += ("versions", "git_commit", "device")
        record |= {k: v for k, v in before.items() if k not in renewed and v not in (None, {})}
    if write:
        files.write_json(path, record)
    return record


def read(workdir: epath.PathLike) -> dict[str, Any]:
    """The record of a run.

    Args:
      workdir: the run's folder.

    Returns:
      What `open_run` returns, and ``made``: names of the files of each finished phase.

    Raises:
      UserError: it is missing or damaged.
    """
    return _read(workdir)


def is_finished(workdir: epath.PathLike, phase: str, identity: str = "") -> bool:
    """Whether a phase was finished in this folder.

    Args:
      workdir: the run's folder.
      phase: the phase's name.
      identity: what the phase's result depends on; finished under another identity
        does not count.
    """
    if not (files.as_path(workdir) / FILE).exists():
        return False
    return _read(workdir)["finished"].get(phase) == identity


def finish_phase(
    workdir: epath.PathLike,
    phase: str,
    seconds: float,
    identity: str = "",
    made: Collection[str] = (),
) -> None:
    """Records that a phase is finished; its files must be on disk by now.

    Args:
      workdir: the run's folder.
      phase: the phase's name.
      seconds: wall-clock time that it took.
      identity: see `is_finished`.
      made: names of these files, within the folder.
    """
    record = _read(workdir)
    record["seconds"][phase] = round(float(seconds), 3)
    record["finished"][phase] = identity
    record["made"][phase] = list(made)
    files.write_json(files.as_path(workdir) / FILE, record)


def begin_phase(
    workdir: epath.PathLike, phase: str, device: str | None = None, anew: bool = False
) -> None:
    """Records what a phase, or the rest of it, is computed under; warns where that has changed.

    ``history`` has a list for each phase, an entry for each change on the way: what is another
    than as the run began, empty where nothing is.

    Args:
      workdir: the run's folder.
      phase: the phase's name.
      device: the accelerator, in words; None where none is used.
      anew: whether nothing of an earlier attempt is kept.
    """
    record = _read(workdir)
    began, now = _conditions(record), _conditions({"device": device, **_here()})
    changed = {k: v for k, v in now.items() if v is not None and began.get(k) not in (None, v)}
    parts = [] if anew else record["history"].get(phase, [])
    if parts[-1:] != [changed]:
        parts = [*parts, changed]
    put(workdir, {"history": record["history"] | {phase: parts}})
    if changed:
        log.warning(
            "%s is not computed under what the run began with, so numbers may differ: %s",
            phase,
            _in_words(began, changed),
        )


def computed_under(workdir: epath.PathLike) -> list[str]:
    """Where parts of a run were computed under other versions, a sentence that says so.

    Args:
      workdir: the run's folder.
    """
    record = _read(workdir)
    began, phases = _conditions(record), {}
    for phase, parts in record["history"].items():
        for changed in filter(None, parts):
            part = f"{phase} (in part)" if len(parts) > 1 else phase
            phases.setdefault(_in_words(began, changed), []).append(part)
    if not phases:
        return []
    return [
        "Not all of this run was computed under the versions, device and commit that it began "
        "with, so numbers may differ between its parts. "
        + "; ".join(f"{', '.join(names)}: {words}" for words, names in phases.items())
        + "."
    ]


def put(workdir: epath.PathLike, fields: Mapping[str, Any]) -> None:
    """Sets fields of the record.

    Args:
      workdir: the run's folder.
      fields: names and plain JSON values.
    """
    files.write_json(files.as_path(workdir) / FILE, _read(workdir) | dict(fields))


def describe(workdir: epath.PathLike, weights_hash: str, about: Mapping[str, Any]) -> None:
    """Records which weights a run began from, and what its results should say of it.

    Args:
      workdir: the run's folder.
      weights_hash: identity of the base weights.
      about: plain JSON values, such as how the weights were stored; stands beside results.

    Raises:
      UserError: the run began from other weights.
    """
    record = _read(workdir)
    before = record.get("weights_hash")
    if before not in (None, weights_hash):
        raise UserError(
            workdir,
            "holds a run that began from other weights",
            f"put those weights back, give another --workdir, or delete {workdir}",
        )
    put(workdir, {"weights_hash": weights_hash, "about": dict(about)})


def forget_phase(workdir: epath.PathLike, *phases: str) -> None:
    """Takes back that phases are finished, before their input is made anew.

    Args:
      workdir: the run's folder.
      *phases: the phases' names; those not finished are passed over.
    """
    record = _read(workdir)
    for phase in phases:
        record["seconds"].pop(phase, None)
        record["finished"].pop(phase, None)
    files.write_json(files.as_path(workdir) / FILE, record)


class InUse(UserError):
    """Another process is in a run's folder."""


@contextlib.contextmanager
def locked(workdir: epath.PathLike) -> Iterator[None]:
    """Keeps other processes of this machine out of a run's folder.

    The kernel lets go of the lock when the process ends, however it ends. Buckets have
    no locks: there nothing is done.

    Args:
      workdir: the run's folder; made if need be.

    Raises:
      InUse: another process is in it.
    """
    workdir = files.as_path(workdir)
    if not files.is_local(workdir):
        yield
        return
    workdir.mkdir(parents=True, exist_ok=True)
    with open(workdir / LOCK, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InUse(
                workdir,
                f"another process ({file.read().strip() or 'unknown'}) is running in this workdir",
                "wait for it or end it, or give another --workdir",
            ) from None
        except OSError as error:
            # Some network file systems have no locks; working there is still allowed.
            log.warning("no lock on %s: %s", workdir, error)
        file.truncate(0)
        file.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def hash_config(config: Mapping[str, Any], ignore: Collection[str] = ()) -> str:
    """SHA-256 of a config's canonical JSON (sorted keys, no spaces), in hex.

    Args:
      config: plain JSON values.
      ignore: dotted fields or groups left out.
    """
    kept = {k: v for k, v in _leaves(config).items() if not _within(k, ignore)}
    text = files.to_json(kept, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def versions() -> dict[str, str | None]:
    """Versions of Python, of this package and of those whose results depend on them."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in ("ilp_jax", *_PACKAGES):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


@functools.cache  # the code that runs is that of the process's start
def git_commit() -> str | None:
    """Commit of the checkout that this package lies in, ``-dirty`` if it was changed.

    Returns:
      The commit's hash; None where the package is installed, or git cannot say.
    """
    root = Path(__file__).resolve().parent.parent
    # Only the package's own checkout: an installed copy may lie within some other one.
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("-dirty" if changed else "")


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "--no-optional-locks", "-C", str(root), *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout.strip()


def _read(workdir: epath.PathLike) -> dict[str, Any]:
    path = files.as_path(workdir) / FILE
    mend = "restore it from a copy, delete the folder, or use another --workdir"
    record = files.read_json(path, mend)
    for name in ("seconds", "finished", "made", "history"):  # in the file's order, these last
        record.setdefault(name, {})
    wrong = [name for name, kind in _KINDS.items() if not isinstance(record.get(name), kind)]
    if wrong or not all(isinstance(one, int | float) for one in record["seconds"].values()):
        raise UserError(path, f"is not a run's record ({', '.join(wrong) or 'seconds'})", mend)
    return record


def _here() -> dict[str, Any]:
    return {"versions": versions(), "git_commit": git_commit()}


def _conditions(record: Mapping[str, Any]) -> dict[str, str | None]:
    """What a part of a run is computed under, by name."""
    named = {"device": record.get("device"), "commit": record.get("git_commit")}
    return named | (record.get("versions") or {})


def _in_words(began: Mapping[str, Any], changed: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {began[name]} -> {now}" for name, now in changed.items())


def _check_same(
    path: epath.Path, before: dict[str, Any], now: dict[str, Any], ignore: Collection[str]
) -> None:
    mend = f"give another --workdir, or delete {path.parent}"
    if before.get("config_hash") != now["config_hash"]:
        old, new = _leaves(before["config"]), _leaves(now["config"])
        differ = [
            f"{name} was {_shown(old, name)}, now {_shown(new, name)}"
            for name in sorted({*old, *new})
            if not _within(name, ignore) and _shown(old, name) != _shown(new, name)
        ]
        more = f" and {len(differ) - _SHOWN} more" if len(differ) > _SHOWN else ""
        what = "; ".join(differ[:_SHOWN]) or "its hash differs"
        raise UserError(path.parent, f"holds a run of another config ({what}{more})", mend)
    if None not in (weights := (before.get("weights_hash"), now["weights_hash"])):
        if weights[0] != weights[1]:
            raise UserError(path.parent, "holds a run that began from other weights", mend)


def _leaves(config: Mapping[str, Any], front: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= _leaves(value, f"{front}{name}.")
        else:
            found[f"{front}{name}"] = value
    return found


def _within(name: str, groups: Collection[str]) -> bool:
    return any(f"{name}.".startswith(f"{group}.") for group in groups)


def _shown(leaves: Mapping[str, Any], name: str) -> str:
    return json.dumps(leaves[name]) if name in leaves else "absent"
