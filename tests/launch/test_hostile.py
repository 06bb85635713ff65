"""What users name never becomes a command: hostile texts in every field, under a real bash."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from ilp_jax import cli
from ilp_jax.errors import UserError
from ilp_jax.launch import command, spec, steps, watch, xpk
from ilp_jax.launch.command import ACTIONS
from ilp_jax.sweep import submit

NAMES = ("xpk_8b_v5e", "jobset_8b_v5p", "queued_v6e_spot")
FIELDS = (*spec._REQUIRED, *spec._OPTIONAL)
INNER = ("repo", "folder", "at", "revision", "secret", "where")
_PAYLOADS = [  # `{}` is a program that leaves a file
    "\n{}\n",
    "\r\n{}\r\n#",
    ";{};",
    "$({})",
    "`{}`",
    "'\n{}\n'",
    '"\n{}\n"',
    "\u2028{}\u2029",
    "\nILP_END\n{}\n",
    "\x1b]0;{}\x07",
    " || {} ||",
    "\\\n{}",
]
_QUICK = ("\n{}\n", "$({})", "'\n{}\n'")
PAYLOADS = [
    one if one in _QUICK else pytest.param(one, marks=pytest.mark.slow) for one in _PAYLOADS
]


@pytest.fixture
def canary(tmp_path, monkeypatch, tools):
    """A command that leaves a file; gives it and whether it ran."""
    tools()
    mark = tmp_path / "canary"
    (tmp_path / "bin" / "canary").write_text(f"#!/bin/sh\ntouch {mark}\n")
    (tmp_path / "bin" / "canary").chmod(0o755)
    return "canary", mark.exists


def scripts(file, capsys):
    """What every action's dry run prints, where the description is taken; else one line."""
    for action in sorted(ACTIONS):
        code = cli.main(["launch", action, str(file), "--dry-run"])
        out, err = capsys.readouterr()
        assert code in (0, 2) and err.count("\n") == (code == 2), (action, code, out, err)
        if code == 0 and action != "check":
            yield out


def held(script, canary):
    """The script is bash, and run with tools that only note their words it runs no payload."""
    ran = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, ""), (ran.stderr, script)
    # With no terminal and no input of its own, as it would run from a file.
    subprocess.run(["bash", "-c", script], stdin=subprocess.DEVNULL, capture_output=True)
    assert not canary[1](), script


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("payload", PAYLOADS)
def test_fields(project, capsys, canary, name, payload):
    text = payload.format(canary[0])
    path = Path(f"launch/examples/{name}.yaml")
    values = yaml.safe_load(path.read_text())
    (project / f"rows{text}").write_text("{}\n")
    (project / f"weights{text}").mkdir()
    changed = [{**values, field: text} for field in FIELDS]
    changed += [{**values, field: f"{values[field]}{text}"} for field in FIELDS if field in values]
    changed += [{**values, "weights": {**values["weights"], key: text}} for key in INNER]
    changed += [
        {**values, "data": f"rows{text}"},
        {**values, "weights": {"folder": f"weights{text}"}},
        {**values, "weights": {"at": f"gs://bucket/a{text}"}},
        {**values, "workdir": f"gs://bucket/a{text}"},
        {**values, "arguments": [*values["arguments"], f"--config.model.path=x{text}"]},
        {**values, "environment": {"A": text}},
        {**values, "environment": {text: "a"}},
        {**values, text: 1},
    ]
    found = set()
    for fields in changed:
        path.write_text(yaml.safe_dump(fields))
        try:
            launch = spec.read(str(path))
        except UserError:
            continue
        for action in set(ACTIONS) - {"check", "watch"}:
            try:
                wanted = command.steps_of(action, launch)
            except UserError:
                continue
            found.add(steps.script(action, wanted, command.after(action, launch)))
        if launch.by == "queued":
            found.add(watch.told_as_script(launch))
    found = {script for script in found if canary[0] in script}
    assert found
    for script in found:
        held(script, canary)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_names_of_files(project, capsys, canary, payload):
    text = payload.format(canary[0])
    for name in NAMES:
        path = Path(f"launch/examples/{name}{text}.yaml")
        path.write_text(Path(f"launch/examples/{name}.yaml").read_text())
        for script in scripts(path, capsys):
            held(script, canary)
        code = cli.main(["launch", "collect", str(path), "--dry-run", "--out", f"runs{text}"])
        assert code == 0
        held(capsys.readouterr().out, canary)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_sweeps_arguments(project, capsys, canary, bucket, monkeypatch, payload):
    text = payload.format(canary[0])
    sweep = '\n\ndef get_sweep():\n    yield "one", {"config": {"seed": 1}}\n'
    config = Path("configs/own.py")
    config.write_text(config.read_text() + sweep)
    monkeypatch.setattr(submit.ledger, "finished", lambda folder: False)
    file = f"configs/own.py:model={{weights}}{text},data={{data}}"
    for name in NAMES[:2]:
        words = ["--config", file, "--workdir", "gs://my-project-ilp/s"]
        launch = ["--launch", f"launch/examples/{name}.yaml", "--dry-run"]
        code = cli.main(["sweep", *words, *launch])
        out, err = capsys.readouterr()
        assert code in (0, 2) and err.count("\n") == (code == 2), err
        if code == 0:
            held(out, canary)


@pytest.mark.parametrize("break_", ["\n", "\r", "\x0b", "\x85", "\u2028", "\u2029", "\x00"])
def test_xpk_takes_no_word_that_breaks_its_manifest(example, refused, break_):
    path = "launch/examples/xpk_8b_v5e.yaml"
    for fields in (
        {"arguments": [f"--config.model.path=a{break_}b"]},
        {"environment": {"A": f"a{break_}b"}},
    ):
        values = {**yaml.safe_load(Path(path).read_text()), **fields}
        Path("bad.yaml").write_text(json.dumps(values))
        refused("launch", "start", "bad.yaml", "--dry-run")


def test_values_of_other_kinds_are_one_line(project, refused, capsys):
    """Each field as each kind of value; also what YAML's aliases and own types can do."""
    path = Path("launch/examples/xpk_8b_v5e.yaml")
    values = yaml.safe_load(path.read_text())
    odd = [5, 1e30, float("nan"), True, [], [[]], {}, {"a": 1}, "", "\0", "\ud800", "-x", 10**400]
    for field in FIELDS:
        for value in odd:
            path.write_text(json.dumps({**values, field: value}))
            assert cli.main(["launch", "start", str(path), "--dry-run"]) in (0, 2)
    for key in INNER:
        for value in odd:
            path.write_text(json.dumps({**values, "weights": {key: value}}))
            assert cli.main(["launch", "stage", str(path), "--dry-run"]) in (0, 2)
    capsys.readouterr()
    bomb = "\n".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]" for i in range(30))
    for text in (
        f"a0: &a0 [x]\n{bomb}\nname: *a30",
        f"a0: &a0 [x]\n{bomb}",
        "[" * 5000,
        "name: 2020-99-99",
        f"slices: {'9' * 5000}",
        f"tpu: v5e-{'9' * 5000}",
    ):
        path.write_text(text)
        refused("launch", "start", str(path), "--dry-run")
        path.write_text(yaml.safe_dump(values) + text)
        refused("launch", "start", str(path), "--dry-run")


def test_the_words_of_xpk_are_still_whole(example):
    launch = example("xpk_8b_v5e", arguments=["--config.model.path=a\tb 'c'"])
    assert "--config.model.path=a\tb 'c'" in shlex.split(xpk.shell_command(launch))
