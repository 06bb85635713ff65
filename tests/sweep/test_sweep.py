"""A sweep runs what is not done, stops for no failure, and goes on after any end."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from ilp_jax import cli, run_record
from ilp_jax.errors import RunFailure, UserError
from ilp_jax.sweep import command, ledger

THREE = """
def get_sweep(last: int = 2):
    for seed in range(last + 1):
        yield f"seed_{seed}", {"config": {"seed": seed}}
"""
FAILS = "print('working'); print('ilp: error: no space', file=sys.stderr); sys.exit(1)"


def states(entries):
    return {name: one["state"] for name, one in entries.items()}


def test_all_runs_in_order_and_then_none(file, runner):
    path = file(THREE)
    entries = runner(path)
    assert runner.calls == ["seed_0", "seed_1", "seed_2"]
    assert set(states(entries).values()) == {"done"}
    stored = json.loads((runner.folder / "sweep.json").read_text())
    assert stored["runs"] == entries
    assert stored["runs"]["seed_1"]["config"] == {"seed": 1}
    assert "--config.seed=1" in stored["runs"]["seed_1"]["command"]
    assert entries["seed_1"]["seconds"] > 0
    again = runner(path)
    assert runner.calls == [] and again == entries
    command.check(runner.folder, again)


def test_more_runs_a_deleted_one_and_one_of_another_config(file, runner):
    path = file(THREE)
    runner(path)
    (runner.folder / "seed_0" / "run.json").unlink()
    entries = runner(f"{path}:last=3")
    assert runner.calls == ["seed_0", "seed_3"] and len(entries) == 4
    runner(path.replace(".py", ".py:last=1"), overrides=["--config.detect.n_samples=4"])
    assert runner.calls == ["seed_0", "seed_1"]
    # The others stand in the ledger as they were.
    assert ledger.read(runner.folder, [], in_use=False)["runs"]["seed_3"]["state"] == "done"


def test_a_failed_run_stops_no_other_and_is_tried_again(file, runner):
    path = file(THREE)
    entries = runner(path, {"seed_1": FAILS, "seed_2": "os.kill(os.getpid(), signal.SIGKILL)"})
    assert states(entries) == {"seed_0": "done", "seed_1": "failed", "seed_2": "failed"}
    assert entries["seed_1"]["line"] == "error: no space"
    assert entries["seed_2"]["line"] == "ended by SIGKILL (out of memory?)"
    assert (runner.folder / "seed_1" / "log.txt").read_text().count("working") == 1
    with pytest.raises(RunFailure, match=r"2 of 3 runs failed \(seed_1, seed_2\)"):
        command.check(runner.folder, entries)
    told = json.loads((runner.folder / "sweep_summary.json").read_text())
    assert told["done"] == ["seed_0"] and told["failed"]["seed_1"] == "error: no space"
    assert told["compare"] == {}
    before = entries["seed_1"]["seconds"]
    entries = runner(path, {"seed_2": "raise ValueError('what it was')"})
    assert runner.calls == ["seed_1", "seed_2"]
    assert entries["seed_1"]["line"] is None and entries["seed_1"]["seconds"] > before
    assert entries["seed_2"]["line"] == "ValueError: what it was"


def test_the_commands_that_compare(file, runner):
    (runner.folder / "seed_1").mkdir(parents=True)
    (runner.folder / "seed_1" / "truth.parquet").touch()
    runner(file(THREE))
    told = json.loads((runner.folder / "sweep_summary.json").read_text())
    folders = " ".join(str(runner.folder / f"seed_{i}") for i in range(3))
    out = runner.folder / "report.html"
    assert told["compare"]["report"] == f"ilp report --workdir {folders} --out {out}"
    assert told["compare"]["evaluate"].startswith(f"ilp evaluate --workdir {folders.split()[1]} ")


def test_two_at_a_time(file, runner):
    # Each of the first two waits for the other to begin.
    wait = """
other = folder.parent / ("seed_1" if name == "seed_0" else "seed_0") / "begun"
(folder / "begun").touch()
while not other.exists():
    time.sleep(0.01)
finish()
"""
    entries = runner(file(THREE), {"seed_0": wait, "seed_1": wait}, jobs=2)
    assert set(states(entries).values()) == {"done"} and len(runner.calls) == 3


def test_an_interrupt_ends_the_runs_and_leaves_them_waiting(file, runner, request):
    # Tests that a script starts in the background begin with the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    path = file(THREE)
    interrupt = f"os.kill({os.getpid()}, signal.SIGINT); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        runner(path, {"seed_1": interrupt})
    assert runner.calls == ["seed_0", "seed_1"]
    log = (runner.folder / "seed_1" / "log.txt").read_text()
    assert log.endswith("KeyboardInterrupt\n")  # so it was interrupted, and not killed
    stored = json.loads((runner.folder / "sweep.json").read_text())["runs"]
    assert states(stored) == {"seed_0": "done", "seed_1": "waiting", "seed_2": "waiting"}
    runner(path)
    assert runner.calls == ["seed_1", "seed_2"]


def test_one_sweep_at_a_time_in_a_folder(file, runner, refused, capsys):
    path = file(THREE)
    runner(path, {"seed_2": FAILS})
    stored = json.loads((runner.folder / "sweep.json").read_text())
    stored["runs"]["seed_2"]["state"] = "running"
    (runner.folder / "sweep.json").write_text(json.dumps(stored))
    words = ["sweep", "--config", path, "--workdir", str(runner.folder)]
    capsys.readouterr()
    with run_record.locked(runner.folder):
        assert "another process (pid" in refused(*words)
        assert cli.main([*words, "--dry-run"]) == 0
        assert "running" in capsys.readouterr().out
    assert cli.main([*words, "--dry-run"]) == 0
    assert "running" not in capsys.readouterr().out


def test_a_dry_run_lists_and_writes_nothing(file, runner, capsys):
    words = ["sweep", "--config", file(THREE), "--workdir", str(runner.folder), "--dry-run"]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "config.seed=1" in out and out.count("waiting") == 3 and "0 of 3 runs are done" in out
    assert not runner.folder.exists()
    runner(words[2], {"seed_1": FAILS})
    before = {path: path.stat().st_mtime_ns for path in runner.folder.rglob("*.json")}
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "2 of 3 runs are done" in out and "failed" in out
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_folders_that_are_no_sweep(file, runner):
    path = file(THREE)
    runner.folder.mkdir()
    (runner.folder / "run.json").write_text("{}")
    with pytest.raises(UserError, match="holds a run, not a sweep"):
        runner(path)
    (runner.folder / "run.json").unlink()
    (runner.folder / "sweep.json").write_text("[]")
    with pytest.raises(UserError, match="sweep.json: holds no JSON object"):
        runner(path)


@pytest.mark.slow
def test_a_real_run_killed(tiny, ilp, tmp_path):
    """SIGKILL of the sweep ends its run too; the same command goes on within that run."""
    own = Path(cli.__file__).parent.parent / "configs" / "own.py"
    path = tmp_path / "study.py"
    path.write_text(
        own.read_text()
        + """

def get_sweep(data, model):
    common = {"data": data, "model": model, "epochs": 1, "batch_size": 4}
    yield "one", {"arguments": common, "config": {"seed": 1}}
"""
    )
    folder, one = tmp_path / "s", tmp_path / "s" / "one"
    given = f"{path}:model={tiny / 'model'},data={tiny / 'rows.jsonl'}"
    words = ("sweep", "--config", given, "--workdir", folder, "--config.detect.points=final")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    killed, until = ilp(*words, start=True, **quiet), time.monotonic() + 120
    while not ((one / "run.json").exists() and "probe" in _finished(one)):
        assert killed.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    while _in_use(one):
        assert time.monotonic() < until
        time.sleep(0.02)
    assert "report" not in _finished(one)
    assert json.loads((folder / "sweep.json").read_text())["runs"]["one"]["state"] == "running"
    (one / "log.txt").write_text("")

    done = ilp(*words)
    assert done.returncode == 0, done.stderr
    log = (one / "log.txt").read_text()
    assert "probe base" not in log and "report.html" in log
    assert (one / "report.html").exists() and "report" in _finished(one)
    assert done.stdout.splitlines()[-1] == f"{folder}: 1 of 1 runs are done"
    stored = json.loads((folder / "sweep.json").read_text())["runs"]["one"]
    assert stored["state"] == "done" and stored["command"][:2] == ["ilp", "run"]


def _finished(workdir):
    return json.loads((workdir / "run.json").read_text())["finished"]


def _in_use(workdir):
    try:
        with run_record.locked(workdir):
            return False
    except UserError:
        return True
