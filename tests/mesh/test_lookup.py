"""An embedding table that is split: rows and gradient are those of a whole one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("lookups.py")


@pytest.mark.multi_device
def test_tables_split_in_every_way():
    flags = "--xla_force_host_platform_device_count=24"
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    cases = list(map(json.loads, done.stdout.splitlines()))
    assert len({case["table"] for case in cases}) == len(cases) == 49
    for case in cases:
        assert case["rows"] == 0 and case["gradient"] < 1e-5 and case["kept"], case
