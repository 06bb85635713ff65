"""A project folder with the examples, tools that note how they are called, and a bucket."""

import json
import os
import shutil
from pathlib import Path

import pytest

from ilp_jax.launch import spec

ROOT = Path(__file__).parents[2]

# A tool that writes its words to a file. `gcloud ... ssh` runs its command as a worker would.
TOOL = """\
#!/usr/bin/env python3
import json, os, subprocess, sys
name = os.path.basename(sys.argv[0])
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps([name, *sys.argv[1:]]) + "\\n")
if "describe" in sys.argv and os.environ.get("MISSING"):
    sys.exit(1)
if "--format=value(state.state)" in sys.argv:
    print("ACTIVE")
if "ssh" in sys.argv:
    command = [w for w in sys.argv if w.startswith("--command=")][0]
    sys.exit(subprocess.run(["bash", "-c", command.removeprefix("--command=")]).returncode)
if name == "kubectl" and "jobset" in sys.argv and "get" in sys.argv:
    print(os.environ.get("JOBSET", ""), end="")
if name == "sudo" and "inspect" in sys.argv:
    sys.exit(1)
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
        return [json.loads(line) for line in calls.read_text().splitlines()]

    return read
