"""A project folder with the examples, tools that note how they are called, and a bucket."""

import os
import shutil
from pathlib import Path

import pytest

from ilp_jax.launch import spec

ROOT = Path(__file__).parents[2]

# A tool that notes its words. `gcloud ... ssh` runs its command as a worker would.
TOOL = r"""#!/usr/bin/env bash
{ printf '%s\x1f' "${0##*/}" "$@"; printf '\x1e'; } >>"$CALLS"
case "${0##*/} $*" in
  *--format=value\(state.state\)*) echo ACTIVE ;;
  gcloud*describe*) [ -z "$MISSING" ] || exit 1 ;;
  kubectl*get\ jobset*) printf %s "$JOBSET" ;;
  sudo*inspect*) exit 1 ;;
  gcloud*ssh*)
    for word in "$@"; do
      case "$word" in --command=*) exec bash -c "${word#--command=}" ;; esac
    done
    ;;
esac
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The working folder: the examples, and what they name."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "launch" / "examples", folder / "launch" / "examples")
    shutil.copytree(ROOT / "configs", folder / "configs")
    (folder / "examples").mkdir()
    (folder / "examples" / "rows.jsonl").write_text('{"prompt": "a", "response": "b"}\n')
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def example(project):
    """``example(name, **fields)``: one of launch/examples with some fields changed."""
    import yaml

    def read(name, **fields):
        path = f"launch/examples/{name}.yaml"
        if fields:
            values = {**yaml.safe_load(Path(path).read_text()), **fields}
            Path(path).write_text(yaml.safe_dump(values))
        return spec.read(path)

    return read


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """``tools()``: calls of gcloud, kubectl, xpk, sudo and hf so far, as lists of words."""
    folder, calls = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    for name in ("gcloud", "kubectl", "xpk", "sudo", "hf"):
        (folder / name).write_text(TOOL)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(calls))

    def read():
        told = calls.read_text() if calls.exists() else ""
        return [call.split("\x1f")[:-1] for call in told.split("\x1e")[:-1]]

    return read
