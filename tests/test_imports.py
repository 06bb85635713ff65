"""What can be read without JAX stays so: the notebooks run on a laptop."""

import subprocess
import sys
from pathlib import Path

import pytest

import ilp_jax

ROOT = Path(ilp_jax.__file__).parent
WITHOUT_JAX = (
    "__init__.py",
    "cli.py",
    "config.py",
    "fields/**/*.py",
    "errors.py",
    "atomic.py",
    "files.py",
    "parquet.py",
    "stats/schema.py",
    "stats/reader.py",
    "analysis/**/*.py",
    "data/**/*.py",
    "launch/**/*.py",
    *(f"mitigate/{name}.py" for name in ("arms", "context", "evidence", "outcome", "passages")),
    "stats/remedies.py",
    "sweep/**/*.py",
)


def modules():
    """Dotted names of the existing modules that must not need JAX."""
    for pattern in WITHOUT_JAX:
        for path in sorted(ROOT.glob(pattern)):
            parts = path.relative_to(ROOT.parent).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def in_fresh_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_no_jax():
    names = list(modules())
    assert "ilp_jax.config" in names
    code = f"""
import importlib, sys
for name in {names}:
    importlib.import_module(name)
    assert "jax" not in sys.modules, name + " imports jax"
"""
    done = in_fresh_python(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("heavy", ["numpy", "ml_collections", "jax", "transformers"])
def test_package_itself_is_light(heavy):
    done = in_fresh_python(f"import sys, ilp_jax; assert {heavy!r} not in sys.modules")
    assert done.returncode == 0, done.stderr
