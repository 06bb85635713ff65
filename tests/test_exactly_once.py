"""A run killed at any moment and started again has the rows of one that was left alone."""

import random
import shutil
import signal
import time

import pytest

from ilp_jax import cli, run_record

STOPPED = -signal.SIGKILL

# (function, n, text): SIGKILL at the n-th call with that text in the arguments. Each is the
# next in the life of one run; checkpoints are at 5, 10, 15, 18, ..., epochs end at 3, 6, ...
ONE_RUN = {
    "probe, before any row": ("ilp_jax.study:probe_pass", 1, ""),
    "probe, in the base model's detection": ("ilp_jax.detect.point:ask", 1, ""),
    "train, before the first checkpoint": ("ilp_jax.train.loop:record", 4, ""),
    "train, in the first flush of statistics": ("os:replace", 1, "stats/.train"),
    "train, in a checkpoint's save": (
        "ilp_jax.train.checkpoint:write_checksums",
        2,
        "checkpoints/state",
    ),
    "train, in a probe at an epoch's end": ("ilp_jax.train.probe:columns_of", 2, ""),
    "train, at a point whose file has rows": ("os:replace", 2, "inference/.epoch_2"),
    "train, between compaction and finishing": ("ilp_jax.run_record:finish_phase", 1, "'train'"),
    "detect, in the last detection": ("ilp_jax.detect.point:ask", 1, ""),
    "diagnose, before the summary": ("os:replace", 1, "summary.json"),
}
ANYWHERE = ONE_RUN | {
    "data, between examples and plan": ("os:replace", 1, "/.plan.parquet"),
    "probe, in the compaction": ("os:replace", 2, "stats/.base"),
    "probe, between detection and finishing": ("ilp_jax.run_record:finish_phase", 1, "'probe'"),
    "train, in the best parameters' save": (
        "ilp_jax.train.checkpoint:write_checksums",
        3,
        "checkpoints/best",
    ),
    "train, a checkpoint is due and not begun": (
        "ilp_jax.train.checkpoint:Checkpoints.save",
        3,
        "",
    ),
    "train, after a flush and before its checkpoint": ("ilp_jax.stats.writer:_put", 5, "train"),
    "train, at the last update of the first stage": ("ilp_jax.train.loop:record", 18, ""),
    "train, at convergence": ("ilp_jax.train.milestones:put_inference", 1, "'converged'"),
    "train, at a stage's end": ("ilp_jax.train.milestones:put_inference", 1, "'stage_1'"),
    "train, in the second stage": ("ilp_jax.train.loop:dispatch", 23, ""),
    "train, at the very last checkpoint": (
        "ilp_jax.train.checkpoint:write_checksums",
        1,
        "000000036",
    ),
    "train, in the compaction": ("os:replace", 1, ".merged.parquet"),
    "train, deleting what was compacted": ("ilp_jax.files:remove", 4, "host-0000"),
    "detect, writing the last answers": ("os:replace", 1, "inference/.final"),
}


@pytest.mark.slow
def test_one_run_killed_ten_times(finished_run, tiny_arguments, ilp, same_run, tmp_path):
    workdir = tmp_path / "run"
    for moment, killed_at in ONE_RUN.items():
        done = ilp("run", *tiny_arguments(workdir), killed_at=killed_at)
        assert done.returncode == STOPPED, (moment, done.stderr)
    assert list(run_record._read(workdir)["finished"]) == ["probe", "train", "detect"]
    done = ilp("run", *tiny_arguments(workdir))
    assert done.returncode == 0, done.stderr
    same_run(finished_run, workdir)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ANYWHERE)
def test_killed_once(finished_run, tiny_arguments, ilp, same_run, tmp_path, moment):
    done = ilp("run", *tiny_arguments(tmp_path), killed_at=ANYWHERE[moment])
    assert done.returncode == STOPPED, done.stderr
    done = ilp("run", *tiny_arguments(tmp_path))
    assert done.returncode == 0, done.stderr
    same_run(finished_run, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_moments(finished_run, tiny_arguments, ilp, same_run, tmp_path, seed):
    """SIGKILL by the clock, again and again, until an attempt is quick enough."""
    draw = random.Random(seed)
    for attempt in range(40):
        with open(tmp_path / "stderr", "w+") as log:
            process = ilp("run", *tiny_arguments(tmp_path / "run"), start=True, stderr=log)
            # The clock starts when the run's work does: imports are not worth killing.
            while process.poll() is None and not log.tell():
                log.seek(0, 2)
                time.sleep(0.02)
            time.sleep(draw.uniform(0, 0.5 + 0.15 * attempt))
            process.send_signal(signal.SIGKILL)
            code = process.wait()
            log.seek(0)
            assert code in (0, STOPPED), log.read()
        if code == 0:
            break
    assert code == 0 and attempt
    same_run(finished_run, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("every", [2, pytest.param(0, marks=pytest.mark.slow)])
def test_rhythm_of_checkpoints_changes_no_row(
    finished_run, tiny_arguments, ilp, same_run, tmp_path, every
):
    words = tiny_arguments(tmp_path, f"--config.checkpoint.every_steps={every}")
    killed_at = ("ilp_jax.train.loop:record", 20, "")
    assert ilp("run", *words, killed_at=killed_at).returncode == STOPPED
    # Neither does a change of it on the way.
    words = tiny_arguments(tmp_path, "--config.checkpoint.every_steps=7")
    done = ilp("run", *words)
    assert done.returncode == 0, done.stderr
    same_run(finished_run, tmp_path)


@pytest.mark.slow
def test_a_damaged_checkpoint_costs_time_alone(
    finished_run, tiny_arguments, ilp, same_run, tmp_path
):
    words = tiny_arguments(tmp_path, "--config.checkpoint.keep=2")
    assert ilp("run", *words, killed_at=("ilp_jax.train.loop:record", 23, "")).returncode == STOPPED
    state = tmp_path / "checkpoints" / "state"
    newest = max(path for path in state.iterdir() if path.name.isdigit())
    largest = max(newest.rglob("d/*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-100])
    done = ilp("run", *tiny_arguments(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "cannot be read" in done.stderr and "going on from checkpoint" in done.stderr
    shutil.rmtree(state / "unreadable")
    same_run(finished_run, tmp_path)


def test_other_config_or_data_in_the_same_folder(
    finished_run, tiny, tiny_arguments, ilp, tmp_path, capsys
):
    def refused(*words):
        assert cli.main([*map(str, words)]) == 2
        line = capsys.readouterr().err
        assert line.startswith("ilp: error: ") and line.count("\n") == 1
        return line

    def contents(folder):
        return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}

    before = contents(finished_run)
    line = refused("run", *tiny_arguments(finished_run, "--config.train.batch_size=5"))
    assert "train.batch_size was 4, now 5" in line and "--workdir" in line
    assert contents(finished_run) == before

    # A run under way, whose data file changes.
    data = tmp_path / "rows.jsonl"
    shutil.copy(tiny / "rows.jsonl", data)
    words = ("run", *tiny_arguments(tmp_path / "run", data=data))
    assert ilp(*words, killed_at=ONE_RUN["train, before the first checkpoint"]).returncode
    before = contents(tmp_path / "run" / "stats")
    data.write_text(data.read_text().replace("name2 ", "name3 "))
    assert "data" in refused(*words)
    assert contents(tmp_path / "run" / "stats") == before
