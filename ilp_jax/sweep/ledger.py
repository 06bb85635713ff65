"""``sweep.json``: the runs of a sweep, what they change, and how far they have come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from ilp_jax import files, outputs, parquet, run_record
from ilp_jax.errors import UserError
from ilp_jax.sweep.runs import Run

FILE = "sweep.json"
WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
_LAST_PHASE = "report"


def read(folder: epath.Path, runs: Sequence[Run], in_use: bool) -> dict[str, Any]:
    """The ledger of a sweep's folder, brought up to date with its runs.

    Args:
      folder: the sweep's folder; it may be missing.
      runs: the runs that the config file names now.
      in_use: whether a sweep is at work in the folder, so that a run may be running.

    Returns:
      ``schema_version`` and ``runs``: by name, ``arguments``, ``config`` (the overrides),
      ``command``, ``config_hash``, ``state`` (waiting, running, done, failed), ``line`` (why it
      failed, else null) and ``seconds`` (wall clock of the attempts that came to an end). Runs
      that the file does not name any more stand behind, as they were.

    Raises:
      UserError: the folder is that of a run, or its ledger is damaged.
    """
    if (folder / run_record.FILE).exists():
        raise UserError(folder, "holds a run, not a sweep", "give another --workdir")
    path = folder / FILE
    before = files.read_json(path) if path.exists() else {"runs": {}}
    if not isinstance(before, dict) or not isinstance(before.get("runs"), dict):
        raise UserError(path, "is not a sweep's ledger", "restore or delete it")
    entries = {run.name: _entry(folder, run, before["runs"], in_use) for run in runs}
    others = {name: one for name, one in before["runs"].items() if name not in entries}
    return {"schema_version": parquet.SCHEMA_VERSION, "runs": entries | others}


def put(folder: epath.Path, ledger: Mapping[str, Any], name: str, **changes: Any) -> dict[str, Any]:
    """Changes a run's entry, on disk as well.

    Args:
      folder: the sweep's folder.
      ledger: of `read`; it is left as it is.
      name: of the run.
      **changes: the entry's fields.

    Returns:
      The new ledger.
    """
    runs = ledger["runs"]
    changed = {**ledger, "runs": {**runs, name: {**runs[name], **changes}}}
    files.write_json(folder / FILE, changed)
    return changed


def _entry(folder: epath.Path, run: Run, before: Mapping[str, Any], in_use: bool) -> dict[str, Any]:
    old = before.get(run.name)
    old = old if isinstance(old, dict) and old.get("config_hash") == run.config_hash else {}
    state = old.get("state", WAITING)
    if (state == RUNNING and not in_use) or (state == DONE and not finished(folder / run.name)):
        state = WAITING
    return {
        **run.overrides,
        "command": ["ilp", "run", *run.words, "--workdir", str(folder / run.name)],
        "config_hash": run.config_hash,
        "state": state,
        "line": old.get("line") if state == FAILED else None,
        "seconds": old.get("seconds", 0.0),
    }


def finished(workdir: epath.Path) -> bool:
    """Whether a folder holds a run that came to its end, its files there still and whole.

    Args:
      workdir: the run's folder, local or gs://; it may be missing.
    """
    path = workdir / run_record.FILE
    record = files.read_json(path) if path.exists() else {}
    done = _LAST_PHASE in (record.get("finished") or {})
    return done and not any(outputs.fault(workdir, phase) for phase in record.get("made") or ())
