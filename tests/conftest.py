"""Shared by every test: JAX's strictness, Hypothesis profiles, markers, a subprocess helper."""

import importlib.util
import os
import subprocess
import sys

import hypothesis
import pytest

hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(scope="session", autouse=True)
def strict_jax():
    """No silent broadcast between arrays of different rank, in any test."""
    import jax

    jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def run_on_devices():
    """``run_on_devices(n, code)`` runs Python code where JAX sees n CPU devices; its output.

    The number of devices is fixed when JAX starts, so tests marked ``multi_device`` need a
    process of their own.
    """

    def run(n_devices: int, code: str) -> str:
        flags = f"--xla_force_host_platform_device_count={n_devices}"
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip(),
        }
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def pytest_runtest_setup(item):
    if item.get_closest_marker("torch_parity") and not importlib.util.find_spec("torch"):
        pytest.skip("torch is not installed")
