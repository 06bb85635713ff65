"""The step compiled for a slice that is not here, and what is said where it cannot be."""

import importlib.util
import json
from pathlib import Path

import pytest

from ilp_jax import cli

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


@WITH_LIBTPU
@pytest.mark.slow
def test_a_step_for_sixteen_chips(tmp_path, capsys):
    out = tmp_path / "steps.json"
    words = ["--topology", "v5e:4x4", "--tokens", "256", "--targets", "64", "--out", str(out)]
    small = f"{SCALE}:model=qwen3_0_6b,batch_size=16"
    assert cli.main(["compile", "--config", small, *words]) == 0, capsys.readouterr().err
    without, norms = json.loads(out.read_text())["steps"]
    assert without["fits"] and norms["fits"] and norms["norms"]
    assert norms["flops"] >= without["flops"] > 0
    for kind, one in norms["collectives"].items():
        assert one["runs"] <= without["collectives"][kind]["runs"], kind
    assert "with norms" in capsys.readouterr().out


@WITH_LIBTPU
@pytest.mark.slow
def test_what_does_not_fit_says_what_to_change(capsys):
    words = ["--topology", "v5e:2x2", "--tokens", "128", "--config.train.batch_size=4"]
    assert cli.main(["compile", "--config", f"{SCALE}:model=llama3_8b", *words]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "parameters and moments alone are more than one holds" in said and "LoRA" in said
