"""Several real processes as one run, and what is said where they are not together."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest

from ilp_jax import cli, parquet
from ilp_jax.config import default_config
from ilp_jax.errors import UserError
from ilp_jax.mesh import LAUNCHED, processes
from ilp_jax.stats.reader import read_stats
from ilp_jax.stats.schema import KEY
from ilp_jax.train import loop

LOCAL = [sys.executable, "-m", "ilp_jax.mesh.local", "--processes", "2", "--devices", "2", "--"]
VERDICT = ["example_id", "point", "detector", "method"]


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def together(words, cache, **kwargs):
    """A command run by two processes with two devices each."""
    env = {**os.environ, **cache}
    return subprocess.run([*LOCAL, *words], env=env, capture_output=True, text=True, **kwargs)


@pytest.fixture
def two(tmp_path, monkeypatch):
    """``two(code, *words)`` runs a program in two processes of a device each; its exit code."""
    from ilp_jax.mesh import local

    def run(code, *words):
        (tmp_path / "program.py").write_text(code)
        path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
        monkeypatch.setenv("PYTHONPATH", path)
        return local.wait(local.start(words, 2, 1, module="program"))

    return run


def by_key(workdir):
    return read_stats(workdir).sort(KEY)


def largest_difference(one, other, up_to):
    """Of all statistics of updates 0 to ``up_to``, relative where they are above 0.001.

    A margin is a difference of logits, so it is held to their size, about 1, not to its own.
    """
    worst = 0.0
    for name, column in one.to_dict().items():
        if not column.dtype.is_float():
            continue
        a, b = (rows.filter(pl.col("step") <= up_to)[name].to_numpy() for rows in (one, other))
        assert np.array_equal(np.isnan(a), np.isnan(b)), name
        there = ~np.isnan(a)
        least = 1.0 if name == "margin_mean" else 1e-3
        near = np.abs(a - b)[there] / np.maximum(np.abs(a[there]), least)
        worst = max(worst, near.max(initial=0.0))
    return worst


def differing_verdicts(a, b):
    """Rows whose verdict or cause differs, but for scores within 0.001 of a threshold."""
    columns = [*VERDICT, "unlearned", "cause"]
    one, other = (parquet.read(run / "diagnosis.parquet") for run in (a, b))
    assert one.select(VERDICT).sort(VERDICT).equals(other.select(VERDICT).sort(VERDICT))
    both = one.select(columns).join(other.select(columns), on=VERDICT, suffix="_b")
    return both.filter(
        (pl.col("unlearned") != pl.col("unlearned_b"))
        | pl.col("cause").ne_missing(pl.col("cause_b"))
    )


@pytest.mark.multi_device
def test_two_processes_run_the_study_of_one(finished_run, tiny_arguments, cache, tmp_path):
    workdir = tmp_path / "run"
    done = together(["run", *tiny_arguments(workdir)], cache)
    assert done.returncode == 0, done.stderr
    assert "2 processes, 4 devices (cpu), mesh data 1 x fsdp 4 x tensor 1" in done.stderr
    assert done.stdout.count("Report:") == 1
    hosts = {path.name.split(".host-")[1][:4] for path in (workdir / "stats").iterdir()}
    assert hosts == {"0000", "0001"}
    one, two = by_key(finished_run), by_key(workdir)
    assert one.select(KEY).equals(two.select(KEY))
    assert largest_difference(one, two, up_to=10) < 1e-5
    assert differing_verdicts(finished_run, workdir).height == 0
    for name in ("examples.parquet", "plan.parquet"):
        assert parquet.read(workdir / name).equals(parquet.read(finished_run / name))


SLOW_SECOND = """
import sys, time
from ilp_jax import parquet
from ilp_jax.mesh import processes

# The second process takes its time to read what both have asked, and to merge its statistics.
real = parquet.read_arrow, parquet.write_parts

def read_arrow(path):
    time.sleep(0.3 * processes.index())
    return real[0](path)

def write_parts(*args, **kwargs):
    time.sleep(2.0 * processes.index() * ("stats/" in str(args[0])))
    return real[1](*args, **kwargs)

parquet.read_arrow, parquet.write_parts = read_arrow, write_parts
from ilp_jax.cli import main

sys.exit(main())
"""


@pytest.mark.multi_device
def test_the_first_does_not_run_ahead_of_a_slower_one(tiny_arguments, two, tmp_path):
    words = tiny_arguments(tmp_path / "run", "--config.detect.points=base,final")
    assert two(SLOW_SECOND, "run", *words) == 0
    assert not list((tmp_path / "run" / "inference").glob(".parts*"))


@pytest.mark.slow
@pytest.mark.multi_device
@pytest.mark.parametrize("first", ["one", "two"])
def test_checkpoints_move_between_one_process_and_two(
    finished_run, tiny_arguments, ilp, cache, tmp_path, first
):
    workdir = tmp_path / "run"
    words = ["run", *tiny_arguments(workdir)]
    stopped_at = ("ilp_jax.train.loop:record", 17, "")
    if first == "one":
        done = ilp(*words, killed_at=stopped_at)
        assert done.returncode == -signal.SIGKILL, done.stderr
        done = together(words, cache)
    else:
        assert terminated(words, cache, workdir) == 143
        done = ilp(*words)
    assert done.returncode == 0, done.stderr
    one, other = by_key(finished_run), by_key(workdir)
    assert one.select(KEY).equals(other.select(KEY))
    assert largest_difference(one, other, up_to=10) < 1e-5
    assert differing_verdicts(finished_run, workdir).height == 0


def terminated(words, cache, workdir):
    """Exit code of a run of two that gets SIGTERM in its training."""
    process = subprocess.Popen(
        [*LOCAL, *words], env={**os.environ, **cache}, stderr=subprocess.PIPE, text=True
    )
    metrics = workdir / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count("\n") > 6):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=300)
    assert "stopped by SIGTERM: update " in told, told
    return process.returncode


def test_sigterm_saves_and_ends_in_training(tiny_arguments, tmp_path, monkeypatch, capsys):
    real, calls = loop.record, []

    def record(*args):
        calls.append(real(*args))
        if len(calls) == 3:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(loop, "record", record)
    points = "--config.detect.points=final"
    assert cli.main(["run", *tiny_arguments(tmp_path / "run", points)]) == 143
    assert "ilp: stopped by SIGTERM: update 4 of 36 is saved" in capsys.readouterr().err
    assert (tmp_path / "run" / "checkpoints" / "state" / "000000004").is_dir()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    kept = by_key(tmp_path / "run").filter(pl.col("kind") == "train")
    assert kept["step"].unique().sort().to_list() == [1, 2, 3, 4]


@pytest.mark.slow
def test_sigterm_saves_and_ends(tiny_arguments, ilp, finished_run, same_run, tmp_path):
    workdir = tmp_path / "run"
    run = ilp("run", *tiny_arguments(workdir), start=True, stderr=subprocess.PIPE)
    metrics = workdir / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count("\n") > 6):
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.02)
    run.terminate()
    _, told = run.communicate(timeout=300)
    assert run.returncode == 143, told
    line = told.strip().splitlines()[-1]
    assert line.startswith("ilp: stopped by SIGTERM: update ") and "is saved" in line
    saved = int(line.split("update ")[1].split()[0])
    newest = max(int(p.name) for p in (workdir / "checkpoints/state").iterdir() if p.name.isdigit())
    assert newest == saved
    done = ilp("run", *tiny_arguments(workdir))
    assert done.returncode == 0, done.stderr
    same_run(finished_run, workdir)


AGREE = """
import json, sys
from ilp_jax.config import default_config
from ilp_jax.errors import UserError
from ilp_jax.mesh import LAUNCHED, processes

processes.join(default_config().mesh)
me = processes.index()
assert processes.exchange({"me": me}) == [{"me": 0}, {"me": 1}]
assert processes.on_first(lambda: me + 5) == 5
ran = []
assert processes.first_then_rest(lambda: ran.append(me) or me) == me and ran == [me]

def wrong():
    raise UserError("that file", "is not there", "make it")

try:
    processes.on_first(wrong)
except UserError as error:
    assert str(error) == "that file: is not there -- make it" and error.exit_code == 2
else:
    raise AssertionError
print("agreed", me)
"""


@pytest.mark.multi_device
def test_processes_agree(two):
    assert two(AGREE) == 0


UNREADABLE = """
import os, sys
from pathlib import Path
from ilp_jax.config import default_config
from ilp_jax.mesh import LAUNCHED, processes

processes.join(default_config().mesh)

import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from ilp_jax.train.checkpoint import Checkpoints, abstract

folder, me = Path(sys.argv[1]), processes.index()
split = NamedSharding(jax.make_mesh((2,), ("x",)), PartitionSpec("x"))
draw = lambda step: np.random.default_rng(step).normal(size=(2, 20_000)).astype(np.float32)
values = {step: draw(step) for step in (1, 2)}

def state(step):
    mine = values[step][me : me + 1]
    return {"a": jax.make_array_from_process_local_data(split, mine, (2, 20_000))}

kept = Checkpoints(folder, keep=3)
for step in values:
    kept.save(step, state(step))
    kept.wait()

def cut():
    # As in a bucket, where there are no checksums: what a process cannot read it learns alone.
    for path in folder.rglob("checksums.json"):
        path.unlink()
    newest = folder / "000000002" / "state" / "ocdbt.process_1"
    victim = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    os.truncate(victim, victim.stat().st_size // 2)

processes.on_first(cut)
step, back = kept.restore(2, abstract(state(1)))
assert step == 1, step
(part,) = back["a"].addressable_shards
assert np.array_equal(part.data, values[1][me : me + 1])
kept.save(3, back)
kept.close()
assert sorted(p.name for p in folder.iterdir() if p.name.isdigit()) == ["000000001", "000000003"]
print("went on from", step)
"""


@pytest.mark.multi_device
def test_a_part_that_one_process_cannot_read_is_passed_over_by_all(two, tmp_path):
    assert two(UNREADABLE, str(tmp_path / "state")) == 0


LOST = """
import os, signal, sys, time
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from ilp_jax import cli
from ilp_jax.config import default_config
from ilp_jax.mesh import processes

settings = default_config().mesh
settings.heartbeat_seconds = 3
processes.join(settings)

def work(words):
    processes.exchange(None)
    if processes.index() == int(words[0]):
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)
    if words[1] == "waiting":
        processes.exchange(None)
    split = NamedSharding(jax.make_mesh((2,), ("x",)), PartitionSpec("x"))
    rows = jax.make_array_from_process_local_data(split, jnp.ones((1, 4)), (2, 4))
    total = jax.jit(jnp.sum)
    while True:
        jax.block_until_ready(total(rows))

cli._dispatch = work
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.multi_device
@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("meanwhile", ["waiting", pytest.param("adding", marks=pytest.mark.slow)])
def test_who_is_left_says_so(tmp_path, lost, meanwhile):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{one.getsockname()[1]}"
    (tmp_path / "program.py").write_text(LOST)
    words = [sys.executable, str(tmp_path / "program.py"), str(lost), meanwhile]
    place = {"JAX_PLATFORMS": "cpu", processes.ADDRESS: address, processes.COUNT: "2"}
    started = [
        subprocess.Popen(
            words,
            env={**os.environ, **place, processes.NUMBER: str(number)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    _, told = started[1 - lost].communicate(timeout=120)
    started[lost].communicate()
    assert started[1 - lost].returncode == 1, told
    assert told.splitlines()[-1].startswith("ilp: error: the run's 2 processes: one ended"), told
    assert "Traceback" not in told


def test_a_run_meant_for_more_processes_is_refused(tiny_arguments, tmp_path, capsys):
    words = ["run", *tiny_arguments(tmp_path / "run", "--config.mesh.processes=1")]
    settings = default_config().mesh
    settings.processes = 64
    settings.join_seconds = 1
    with pytest.raises(UserError, match="start the same command on every worker"):
        processes.join(settings, {})
    assert cli.main([*words[:-1], "--config.mesh.fsdp=3"]) == 2
    assert "asks for 3 devices, and there are 1" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.multi_device
@pytest.mark.parametrize("number, launched", [("0", False), ("1", False), ("1", True)])
def test_one_of_two_says_that_it_is_alone(tiny_arguments, ilp, tmp_path, number, launched):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{one.getsockname()[1]}"
    where = dict(zip((processes.ADDRESS, processes.COUNT), (address, "2"), strict=True))
    env = {**os.environ, "JAX_PLATFORMS": "cpu", **where, processes.NUMBER: number}
    # Wrong input is never tried again; a host that is lost while others start is no such thing.
    env |= {LAUNCHED: "1"} if launched else {}
    mend = "the launcher starts the run again" if launched else "start the same command"
    words = tiny_arguments(tmp_path / "run", "--config.mesh.join_seconds=1")
    done = ilp("run", *words, env=env)
    assert done.returncode == (1 if launched else 2), done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        f"ilp: error: the run's 2 processes: did not all come within 1 s -- {mend}"
    )
    assert not (tmp_path / "run").exists()


def test_one_process_of_a_cluster_may_run_alone():
    settings = default_config().mesh
    settings.processes = 1
    processes.join(settings, {"SLURM_NTASKS": "4"})
    assert processes.count() == 1


@pytest.mark.parametrize(
    "environ", [{"JAX_NUM_PROCESSES": "2"}, {"JAX_PROCESS_ID": "0", "JAX_NUM_PROCESSES": "two"}]
)
def test_half_of_the_environment_is_refused(environ):
    with pytest.raises(UserError, match="set all three"):
        processes.join(default_config().mesh, environ)


def test_commands_of_one_process_say_so(finished_run, monkeypatch, capsys):
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "leave", lambda code: None)
    monkeypatch.setattr(processes, "join", lambda settings: None)
    assert cli.main(["replay", "--workdir", str(finished_run)]) == 2
    assert "runs in one process, and this run has 2" in capsys.readouterr().err


def test_the_mesh_is_no_part_of_a_runs_identity(finished_run):
    from ilp_jax.config import config_hash, from_run

    stored = json.loads((finished_run / "run.json").read_text())
    moved = from_run(str(finished_run), ["--config.mesh.tensor=2", "--config.mesh.processes=4"])
    assert config_hash(moved) == stored["config_hash"]
