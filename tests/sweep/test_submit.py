"""Runs of a sweep as workloads: what is done or submitted is not submitted again."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilp_jax import cli
from ilp_jax.launch import steps
from ilp_jax.sweep import submit as submit_lib

TWO = """
def get_sweep():
    for rate in (1e-5, 5e-5):
        yield f"LR_{rate}", {"config": {"stages.own.learning_rate": rate}}
"""
RUNS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def launch_file(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "launch" / "examples", tmp_path / "launch")
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "rows.jsonl").write_text("{}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ilp_jax.launch.spec.Path.is_file", lambda self: True)
    return "launch/xpk_8b_v5e.yaml"


def dry(file, launch_file, capsys, *more):
    words = [
        "--config",
        f"{Path(file(TWO)).name}:data={{data}}",
        "--workdir",
        "gs://my-project-ilp/lr",
    ]
    weights = "--config.model.path={weights}"
    code = cli.main(["sweep", *words, weights, "--launch", launch_file, "--dry-run", *more])
    return code, *capsys.readouterr()


@given(RUNS, RUNS, st.sampled_from(["own-8b", "a", "a" * 40]))
def test_names(run, other, prefix):
    name = submit_lib.workload_name(prefix, "gs://b/s", run)
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", name)
    assert name == submit_lib.workload_name(prefix, "gs://b/s/", run)
    assert name != submit_lib.workload_name(prefix, "gs://b/t", run)
    assert run == other or name != submit_lib.workload_name(prefix, "gs://b/s", other)


def test_each_run_is_a_workload_with_its_own_folder(file, launch_file, bucket, capsys):
    code, out, err = dry(file, launch_file, capsys)
    assert code == 0 and not err
    assert out.count("xpk workload create") == 2
    assert "--workdir gs://my-project-ilp/lr/LR_1e-05 " in out
    assert "--config.stages.own.learning_rate=5e-05" in out
    commands = "".join(line for line in out.splitlines() if "--command=" in line)
    assert commands.count("--config.mesh.fsdp=256") == 2
    assert "{data}" not in commands and "{weights}" not in commands
    assert len(set(re.findall(r"--workload=(own-8b-lr-\S+)", out))) == 2


def test_what_is_done_is_skipped(file, launch_file, bucket, capsys):
    done = bucket / "my-project-ilp" / "lr" / "LR_1e-05"
    done.mkdir(parents=True)
    (done / "run.json").write_text(json.dumps({"finished": {"train": ""}}))
    assert dry(file, launch_file, capsys)[1].count("xpk workload create") == 2
    (done / "run.json").write_text(json.dumps({"finished": {"report": ""}}))
    out = dry(file, launch_file, capsys)[1]
    assert out.count("xpk workload create") == 1 and "# LR_1e-05  done" in out
    shutil.copytree(done, done.with_name("LR_5e-05"))
    out = dry(file, launch_file, capsys)[1]
    assert "xpk" not in out and "0 of 2 runs" in out


@pytest.mark.parametrize(
    "state, called", [("", ["create"]), ("NAME/", []), ("NAME/Failed", ["delete", "create"])]
)
def test_what_is_submitted_is_left_and_what_has_ended_replaced(
    file, launch_file, bucket, tmp_path, monkeypatch, state, called
):
    config = f"{Path(file(TWO)).name}:data={{data}}"
    weights = ["--config.model.path={weights}"]
    wanted, names = submit_lib.submit(config, "gs://my-project-ilp/lr", weights, launch_file)
    name = names["LR_1e-05"]
    bash = f"kubectl() {{ printf %s '{state.replace('NAME', name)}'; }}\n"
    bash += 'xpk() { echo "called $2"; }\n'
    code, out = steps.output(bash + wanted[1].script)
    assert code == 0
    assert re.findall(r"called (\w+)", out) == called


def test_bad_input(file, launch_file, bucket, capsys):
    local = ["sweep", "--config", file(TWO), "--workdir", "here", "--launch", launch_file]
    assert cli.main(local) == 2
    assert "give a gs:// --workdir" in capsys.readouterr().err
    outside = ["sweep", "--config", file(TWO), "--workdir", "gs://b/s", "--launch", launch_file]
    assert cli.main(outside) == 2
    assert "lies outside" in capsys.readouterr().err
    code, out, err = dry(file, "launch/queued_v6e_spot.yaml", capsys)
    assert code == 2 and "use xpk or jobset" in err and not out


def test_a_missing_package_is_one_line(file, launch_file, capsys):
    if importlib.util.find_spec("gcsfs"):
        pytest.skip("gcsfs is installed")
    code, out, err = dry(file, launch_file, capsys)
    assert code == 2 and "needs the package gcsfs" in err and err.count("\n") == 1
