"""A config file with a get_sweep, and runs that are a few lines of Python in place of a study."""

import sys

import pytest

from ilp_jax.sweep import command

CONFIG = """
from ilp_jax.config import default_config, default_stage


def get_config(data: str = "rows.jsonl", epochs: int = 3):
    config = default_config()
    config.stages.own = default_stage()
    config.stages.own.path = data
    config.stages.own.epochs = epochs
    config.sequence = ("own",)
    return config


"""

# What a run leaves behind when it comes to its end.
FINISH = """
import json, os, pathlib, signal, sys, time
folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
with open(folder.parent / "calls", "a") as calls:
    calls.write(name + "\\n")

def finish():
    text = json.dumps({"config": {}, "finished": {"report": ""}})
    (folder / "run.json").write_text(text)
"""


@pytest.fixture
def file(tmp_path):
    """``file(body)``: a config file whose ``get_sweep`` is given."""

    def write(body):
        path = tmp_path / "study.py"
        path.write_text(CONFIG + body)
        return str(path)

    return write


@pytest.fixture
def runner(tmp_path):
    """``runner(file, code={}, **options)``: the sweep in ``tmp_path/s``, made of stand-ins.

    ``code``: what a run does, by name; by default it comes to its end at once. The result has
    the entries and ``calls``, the names of the runs that were started this time.
    """
    folder = tmp_path / "s"

    def run(path, code=None, **options):
        def words(run, workdir):
            body = FINISH + (code or {}).get(run.name, "finish()")
            return [sys.executable, "-c", body, str(workdir), run.name]

        calls = folder / "calls"
        calls.unlink(missing_ok=True)
        try:
            entries = command.sweep(path, folder, command=words, **options)
        finally:
            run.calls = calls.read_text().split() if calls.exists() else []
        return entries

    run.folder, run.calls = folder, []
    return run
