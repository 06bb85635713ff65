"""The step compiled for a slice that is not here, and what is said where it cannot be."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilp_jax import chips, cli
from ilp_jax.ahead import program
from ilp_jax.ahead.command import _largest
from ilp_jax.ahead.program import Compiled
from ilp_jax.config import default_config

SCALE = Path(__file__).parents[2] / "configs" / "scale.py"
WITH_LIBTPU = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"
)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "ilp compile: needs --topology"),
        (["--topology", "v5e:16x17"], "v5e:16x17"),
        (["--topology", "h100:8"], "is no TPU slice"),
    ],
)
def test_bad_slices(words, line, capsys):
    assert cli.main(["compile", "--config", str(SCALE), *words]) == 2
    assert line in capsys.readouterr().err


def test_without_the_compiler(monkeypatch, capsys):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "libtpu" else real(name, *a)
    )
    assert cli.main(["compile", "--config", str(SCALE), "--topology", "v5e:4x4"]) == 2
    assert "needs libtpu" in capsys.readouterr().err


@given(
    fixed=st.floats(1e9, 14e9),
    a_row=st.floats(0.3e9, 6e9),
    cheaper_by=st.floats(0.0, 2e9),
    rows=st.integers(1, 3),
)
def test_the_most_rows_that_fit(fixed, a_row, cheaper_by, rows):
    """Steps of two rows and more may be laid out in another way than one of a lone row."""
    config, where, tried = default_config(), chips.topology("v5e:4x4"), []

    def held(n):
        return fixed + a_row * n - (cheaper_by if n > 1 else 0.0)

    def compiled(batch_size, norms=True):
        n, rest = divmod(batch_size, where.n_chips)
        assert rest == 0 and n not in tried
        tried.append(n)
        return Compiled(batch_size, 64, 64, norms, held(n) <= where.chip.hbm_bytes, 0.0, held(n))

    found = _largest(config, where, compiled(rows * where.n_chips), compiled)
    fit = [held(n) <= where.chip.hbm_bytes for n in range(1, 65)]
    assert found % where.n_chips == 0 and (not found or fit[found // where.n_chips - 1])
    if fit == sorted(fit, reverse=True):  # else one row may not fit where two do
        assert found == sum(fit) * where.n_chips


@pytest.mark.parametrize(
    ("told", "beside"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 40.00G of 15.75G hbm.",
            39,
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (33.00G) exceeds available HBM (15.75G).",
            33,
        ),
        ("INTERNAL: something else", None),
    ],
)
def test_what_the_compiler_says_of_memory(told, beside):
    found = program._asked(told, 2.0**30)
    assert found == (None if beside is None else beside * 2**30)


@WITH_LIBTPU
@pytest.mark.slow
def test_norms_of_a_tied_model_add_no_collective_on_sixteen_chips(tmp_path):
    out = tmp_path / "steps.json"
    words = ["--topology", "v5e:4x4", "--tokens", "256", "--targets", "64", "--out", str(out)]
    small = f"{SCALE}:model=qwen3_0_6b,batch_size=16"
    words = [sys.executable, "-m", "ilp_jax", "compile", "--config", small, *words]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "with norms" in done.stdout
    without, norms = json.loads(out.read_text())["steps"]
    assert without["fits"] and norms["fits"] and norms["norms"]
    assert norms["flops"] >= without["flops"] > 0
    assert set(norms["collectives"]) <= set(without["collectives"])
    for kind, one in norms["collectives"].items():
        assert one["runs"] <= without["collectives"][kind]["runs"], kind
        assert one["received"] <= without["collectives"][kind]["received"], kind


@WITH_LIBTPU
@pytest.mark.slow
def test_what_does_not_fit_says_what_to_change(capsys):
    words = ["--topology", "v5e:2x2", "--tokens", "128", "--config.train.batch_size=4"]
    assert cli.main(["compile", "--config", f"{SCALE}:model=llama3_8b", *words]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "parameters and moments alone are more than one holds" in said and "LoRA" in said
