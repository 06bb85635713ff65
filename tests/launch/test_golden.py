"""Dry runs of the examples, to the letter; ``ILP_GOLDEN=write`` writes them anew.

What they say was also given, once, to XPK's own parser of arguments (1.16.0), to ``gcloud meta
lint-gcloud-commands`` (528.0.0) and to ShellCheck (0.11.0), by hand.
"""

import os
from pathlib import Path

import pytest

from ilp_jax import cli

GOLDEN = Path(__file__).parent / "golden"
RUNS = [
    ("xpk_8b_v5e", ("setup", "stage", "start")),
    ("jobset_8b_v5p", ("setup", "stage", "start")),
    ("queued_v6e_spot", ("stage", "start", "status", "watch", "collect")),
]


@pytest.mark.parametrize("name, action", [(n, a) for n, actions in RUNS for a in actions])
def test_dry_run(project, capsys, name, action):
    assert cli.main(["launch", action, f"launch/examples/{name}.yaml", "--dry-run"]) == 0
    said = capsys.readouterr().out
    path = GOLDEN / f"{name}.{action}.sh"
    if os.environ.get("ILP_GOLDEN") == "write":
        path.write_text(said)
    assert said == path.read_text()


def test_every_golden_file_is_tested():
    names = {f"{name}.{action}.sh" for name, actions in RUNS for action in actions}
    assert {path.name for path in GOLDEN.iterdir()} == names


@pytest.mark.parametrize("name", [name for name, _ in RUNS])
def test_check_tells_chips_hosts_and_the_command(project, capsys, name):
    assert cli.main(["launch", "check", f"launch/examples/{name}.yaml"]) == 0
    said = capsys.readouterr().out
    chips, hosts = {"xpk_8b_v5e": (256, 64), "jobset_8b_v5p": (128, 32)}.get(name, (16, 4))
    assert f"{chips} chips, {hosts} hosts" in said
    assert f"--config.mesh.processes={hosts}" in said
