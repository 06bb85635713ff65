"""The command line: what is called, what is printed, which exit code."""

import errno
import json
import subprocess
import sys
import types

import pytest
import yaml

import ilp_jax
from ilp_jax import cli
from ilp_jax import config as config_lib
from ilp_jax.errors import RunFailure, UserError

FILE = """
from ilp_jax.config import default_config, default_stage


def get_config(data: str = "rows.jsonl"):
    config = default_config()
    config.stages.own = default_stage()
    config.stages.own.path = data
    config.sequence = ("own",)
    return config
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(FILE)
    return str(path)


@pytest.fixture
def calls(monkeypatch):
    """Stands in for ilp_jax.study: notes calls; ``calls.act`` may raise or return."""
    noted = types.SimpleNamespace(list=[], act=lambda: None)

    def stand_in(name):
        def function(config, *rest):
            noted.list.append((name, config, *rest))
            return noted.act()

        return function

    names = ("run", "probe", "train", "detect", "diagnose", "preview", "replay")
    study = types.SimpleNamespace(**{name: stand_in(name) for name in names})
    monkeypatch.setattr(ilp_jax, "study", study, raising=False)
    return noted


@pytest.fixture
def error_line(capsys):
    """The one line on standard error; nothing may be on standard output."""

    def read():
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("ilp: ") and err.count("\n") == 1, (out, err)
        return err

    return read


@pytest.mark.parametrize("command", ["run", "probe", "train", "detect", "diagnose"])
def test_a_phase_gets_config_and_workdir(command, file, calls):
    words = [command, "--config", f"{file}:data=a,b", "--config.seed=3", "--workdir", "gs://b/w"]
    assert cli.main(words) == 0
    ((name, config, workdir),) = calls.list
    assert (name, workdir) == (command, "gs://b/w")
    assert (config.seed, config.stages.own.path) == (3, "a,b")


@pytest.mark.parametrize(
    "words",
    [
        ["--config.seed=3", "run", "--config=FILE", "--workdir=w"],
        ["run", "--config.seed", "3", "--workdir", "w", "--config", "FILE"],
        ["run", "--workdir", "w", "--config", "FILE", "--config.seed", "3"],
    ],
)
def test_order_and_form_of_arguments(words, file, calls):
    assert cli.main([word.replace("FILE", file) for word in words]) == 0
    assert calls.list[0][1].seed == 3 and calls.list[0][2] == "w"


def test_configuration_of_an_earlier_run(file, calls, tmp_path):
    config = config_lib.to_dict(config_lib.load(file, ["--config.seed=11"]))
    (tmp_path / "run.json").write_text(json.dumps({"config": config}))
    assert cli.main(["diagnose", "--workdir", str(tmp_path)]) == 0
    assert calls.list[0][1].seed == 11
    assert cli.main(["train", "--workdir", str(tmp_path), "--config.seed=12"]) == 0
    assert calls.list[1][1].seed == 12


def test_config_show(file, capsys):
    assert cli.main(["config", "show", "--config", file, "--config.seed=5"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown == config_lib.to_dict(config_lib.load(file, ["--config.seed=5"]))


def test_data_preview(file, calls, capsys):
    calls.act = lambda: "two rows"
    assert cli.main(["data", "preview", "--config", file, "--rows", "2"]) == 0
    assert calls.list[0][0::2] == ("preview", 2)
    assert capsys.readouterr().out == "two rows\n"


@pytest.mark.parametrize(("words", "limit"), [([], None), (["--limit", "3"], 3)])
def test_replay(words, limit, file, calls):
    assert cli.main(["replay", "--config", file, "--workdir", "w", *words]) == 0
    ((name, _, *rest),) = calls.list
    assert (name, rest) == ("replay", ["w", limit])


def test_rich_results_are_drawn(file, calls, capsys):
    from rich.table import Table

    table = Table("header")
    table.add_row("cell")
    calls.act = lambda: table
    assert cli.main(["run", "--config", file, "--workdir", "w"]) == 0
    out = capsys.readouterr().out
    assert "header" in out and "cell" in out


def test_check_norms(file, monkeypatch, capsys):
    found = {"grad_norm": 1e-7, "grad_norm_attn": 3e-6}
    monkeypatch.setattr("ilp_jax.norms.check.check_norms", lambda config: found)
    assert cli.main(["check-norms", "--config", file]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["grad_norm", "1.00e-07"]
    assert " ".join(" ".join(lines[2:]).split()).startswith("largest relative error 3.00e-06")
    found["grad_norm"] = 1e-3
    assert cli.main(["check-norms", "--config", file]) == 1
    assert "off by 1.00e-03" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["rnu"], ["ilp rnu", "did you mean ilp run?"]),
        (["xyzzy"], ["no such command", "ilp --help"]),
        (["config"], ["did you mean ilp config show?"]),
        (["data", "previw"], ["did you mean ilp data preview?"]),
        (["run", "--confg", "x"], ["--confg", "did you mean --config?"]),
        (["run", "--work=x"], ["--work:", "did you mean --workdir?"]),
        (["run", "--config"], ["--config", "expected one argument"]),
        (["run", "stray", "--config", "FILE"], ["stray"]),
        (["run", "--config", "FILE"], ["needs --workdir"]),
        (["run", "--config", "FILE", "--workdir", "FILE"], ["not a folder"]),
        (["run", "--config", "nowhere.py", "--workdir", "w"], ["nowhere.py"]),
        (["run", "--config", "FILE:dta=x", "--workdir", "w"], ["dta", "did you mean data?"]),
        (["run", "--config", "FILE", "--workdir", "w", "--config.sed=1"], ["config.seed?"]),
        (["run", "--config", "FILE", "--workdir", "w", "--config.seed"], ["no value"]),
        (["train", "--workdir", "nowhere"], ["nowhere/run.json", "--config"]),
        (["config", "show"], ["needs --config"]),
        (["data", "preview", "--config", "FILE", "--rows", "0"], ["--rows", "at least 1"]),
        (["replay", "--config", "FILE"], ["needs --workdir"]),
        (["replay", "--config", "FILE", "--workdir", "w", "--limit", "0"], ["--limit", "at least"]),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(words, parts, file, calls, error_line):
    assert cli.main([word.replace("FILE", file) for word in words]) == 2
    line = error_line()
    assert line.startswith("ilp: error: ")
    for part in parts:
        assert part in line
    assert not calls.list


def wrapped(inner):
    try:
        raise inner
    except OSError as error:
        raise RuntimeError("write failed") from error


@pytest.mark.parametrize(
    ("act", "code", "part"),
    [
        (UserError("rows.jsonl:3", "no response", "add one"), 2, "rows.jsonl:3: no response"),
        (RunFailure("step 7", "loss is nan"), 1, "step 7: loss is nan"),
        (KeyboardInterrupt(), 130, "the same command goes on"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 1, "/x/y: no space left"),
        (ValueError("Error writing: No space left on device [OS error 28]"), 1, "no space left"),
        (OSError(errno.EIO, "Input/output error", "/x/y"), 1, "/x/y: does not answer"),
    ],
)
def test_failures(act, code, part, file, calls, error_line):
    def fail():
        raise act

    calls.act = fail
    assert cli.main(["run", "--config", file, "--workdir", "w"]) == code
    assert part in error_line()


def test_full_disk_behind_another_error(file, calls, error_line):
    calls.act = lambda: wrapped(OSError(errno.ENOSPC, "No space left on device", "/x/y"))
    assert cli.main(["run", "--config", file, "--workdir", "w"]) == 1
    assert "/x/y: no space left" in error_line()


def test_a_fault_of_ours_keeps_its_traceback(file, calls):
    calls.act = lambda: wrapped(OSError(errno.EINVAL, "invalid argument"))
    with pytest.raises(RuntimeError, match="write failed"):
        cli.main(["run", "--config", file, "--workdir", "w"])


def test_help(capsys):
    assert cli.main(["--help"]) == 0
    overview = capsys.readouterr().out
    for command in cli.COMMANDS:
        assert f"\n  {command} " in overview
        assert cli.main([*command.split(), "--help"]) == 0
        out = capsys.readouterr().out
        words = "ACTION FILE" if command == "launch" else "--config FILE"
        assert f"usage: ilp {command} {words}" in out and "exit code" in out
        assert max(map(len, out.splitlines())) <= 100
    assert cli.main([]) == 2


def ilp(*words, **kwargs):
    command = [sys.executable, "-m", "ilp_jax", *words]
    return subprocess.run(command, capture_output=True, text=True, **kwargs)


def test_as_a_process(file):
    assert ilp("--version").stdout == f"ilp_jax {ilp_jax.__version__}\n"
    done = ilp("rnu")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_a_closed_pipe_is_quiet(file):
    process = subprocess.Popen(
        [sys.executable, "-m", "ilp_jax", "config", "show", "--config", file],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141
