"""What a finished phase left in the run's folder, and whether it is there still and whole."""

from __future__ import annotations

from collections.abc import Collection

from etils import epath

from ilp_jax import files, parquet, run_record
from ilp_jax.analysis import summary_file
from ilp_jax.errors import UserError

# Beginnings of the names of what each phase writes; what a phase before it claimed is that one's.
# No phase rests on truth.parquet: without it a planted study is a study like others.
_OF = {
    "probe": ("examples.", "plan.", "stats/base.", "inference/base.", "projections/"),
    "train": ("stats/train.", "inference/"),
    "detect": ("examples.", "plan.", "inference/"),
    "diagnose": ("signals.", "diagnosis.", "summary."),
    "report": ("report.html",),
}
# What is lost of these stays lost, as of the training: the data may have changed.
_ONCE = ("examples.", "plan.")
_ASIDE = ".damaged"
_FOLDERS = ("", "stats", "inference", "projections")
_ALWAYS = {
    "diagnose": ("signals.parquet", "diagnosis.parquet", summary_file.FILE),
    "report": ("report.html",),
}


def of(workdir: epath.PathLike, phase: str, before: Collection[str]) -> list[str]:
    """Names, within a run's folder, of the files that a phase just finished has written.

    Args:
      workdir: the run's folder.
      phase: the phase.
      before: the phases before it.
    """
    workdir = files.as_path(workdir)
    made = run_record.read(workdir)["made"]
    claimed = {name for phase in before for name in made.get(phase, ())}
    names = [
        f"{folder}/{path.name}".lstrip("/")
        for folder in _FOLDERS
        for path in files.list_files(workdir / folder)
        if path.suffix != _ASIDE
    ]
    return [name for name in names if name.startswith(_OF.get(phase, ())) and name not in claimed]


class Fault(UserError):
    """A file of a finished phase is gone or damaged.

    Args:
      phase: the phase.
      name: the file's name within the run's folder.
      found: what is wrong with it.
    """

    def __init__(self, phase: str, name: str, found: UserError):
        self.made_again = phase != "train" and not name.startswith(_ONCE)
        again = f"`ilp {phase}` makes it again, and `ilp run` all that rests on it"
        once = "restore it from a copy, or delete the workdir and run again"
        super().__init__(found.where, found.what, again if self.made_again else once)


def fault(workdir: epath.PathLike, phase: str) -> Fault | None:
    """What is wrong with the files of a finished phase; None where they are whole.

    Args:
      workdir: the run's folder.
      phase: the phase.
    """
    workdir = files.as_path(workdir)
    listed = run_record.read(workdir)["made"].get(phase)  # runs of before have no lists
    for name in listed or _ALWAYS.get(phase, ()):
        try:
            _check(workdir, name, bool(listed))
        except UserError as error:
            return Fault(phase, name, error)
    return None


def set_aside(fault: Fault) -> None:
    """Moves a damaged file out of the way of the phase that makes it again; a folder stays."""
    path = files.as_path(fault.where)
    if path.exists() and not path.is_dir():
        path.rename(path.parent / f"{path.name}{_ASIDE}")


def _check(workdir: epath.Path, name: str, listed: bool) -> None:
    path = workdir / name
    if name == summary_file.FILE:
        summary_file.read(workdir, of_a_phase=listed)
    elif name.endswith(".parquet"):
        parquet.check(path)
    elif not path.exists():
        raise UserError(path, "there is no such file")
    elif path.is_dir():
        raise UserError(path, "is a folder, not a file")
    elif not path.read_bytes().rstrip().endswith(b"</html>"):
        raise UserError(path, "has no end")
