"""The command: what it prints and writes, what it refuses, and rows that are assumed."""

import json

import pytest

from ilp_jax import cli, files
from ilp_jax.models import presets
from ilp_jax.planning import flops
from ilp_jax.stats.reader import read_stats

QUICKSTART = "configs/quickstart.py"


@pytest.fixture
def plan(tmp_path, capsys):
    """``plan(*words)`` gives what is printed, and the JSON."""

    def run(*words):
        out = tmp_path / "plan.json"
        assert cli.main(["plan", *map(str, words), "--out", str(out)]) == 0
        return capsys.readouterr().out, json.loads(out.read_text())

    return run


@pytest.fixture
def own(tiny_arguments):
    """Words that name the tiny study, without a folder."""
    return [word for word in tiny_arguments("nowhere") if word not in ("--workdir", "nowhere")]


def test_a_plan_reads_no_weights_and_agrees_with_the_run(plan, own, finished_run, monkeypatch):
    monkeypatch.setattr("ilp_jax.models.hf.load_params", None)
    text, found = plan(*own, "--topology", "v5e:2x2")
    assert "v5e:2x2" in text and "train stage 2" in text and "0.4 of the peak" in text
    assert found["rows"]["stats"] == len(read_stats(finished_run))
    assert found["updates"] == 36 and found["chips"] == 4
    assert found["rows"]["inference"]["converged"]["at_most"]
    # Bytes of this tiny run are file heads above all; a plan must not miss them by far.
    sizes = {
        "statistics": sum(p.stat().st_size for p in (finished_run / "stats").iterdir()),
        "answers": sum(p.stat().st_size for p in (finished_run / "inference").iterdir()),
    }
    for name, size in sizes.items():
        assert 0.5 < found["bytes"][name] / size < 2, (name, found["bytes"][name], size)
    lines = [line for line in found["lines"] if line["what"] == "train stage 1 own/1"]
    assert lines[0]["updates"] == 18 and lines[0]["rows"] == 60
    seconds = sum(line["seconds"] for line in found["lines"])
    assert found["total"]["seconds"] == pytest.approx(seconds)
    assert sum(p["flops"] for p in found["phases"].values()) == found["total"]["flops"]


def test_the_cpu_is_measured(plan, own):
    text, found = plan(*own)
    assert found["device"] == "cpu:1" and "measured here" in text
    assert 1e8 < found["peak_flops"] < 1e14


def test_a_finished_run_names_its_config(plan, finished_run):
    _, found = plan("--workdir", finished_run, "--device", "h100", "--mfu", "0.3")
    assert (found["device"], found["mfu"], found["updates"]) == ("h100:1", 0.3, 36)


def test_a_published_shape_with_assumed_rows(plan):
    words = ["--config", QUICKSTART, "--config.model.path=preset:llama3_1_8b"]
    words += ["--config.train.batch_size=100", "--config.model.compute_dtype=bfloat16"]
    words += ["--rows", "1000", "--tokens", "200", "--topology", "v5e:2x2"]
    text, found = plan(*words)
    assert found["parameters"] == flops.n_params(presets.preset("llama3_1_8b"))
    assert found["updates"] == 3 * 8 * 10 and found["examples"] == 3 * (1000 + 8)
    assert "1,000 rows a stage of 200 tokens" in text
    # 16 bytes a parameter on four chips of 16 GB.
    assert "will not fit" in text
    trained = [line for line in found["lines"] if line["updates"]]
    assert sum(line["rows"] for line in trained) == 3 * 8 * 1000
    assert {line["tokens"] // line["rows"] for line in trained} == {200}


def test_options_are_assumed_as_the_stage_asks_for_them(plan):
    words = ["--config", QUICKSTART, "--config.model.path=preset:qwen3_0_6b", "--device", "v5e"]
    words += ["--rows", "10", "--tokens", "100", "--config.detect.choice_runs=2"]
    _, found = plan(*words)
    asked = found["rows"]["inference"]
    # Of 54 rows: greedy, law and choice; two more wordings at the base; two runs.
    assert asked["base"]["rows"] == 54 * (3 + 2 + 2)
    assert asked["final"]["rows"] == 54 * (3 + 2) and asked["stage_1"]["rows"] == 54 * 3


def test_a_tuned_model_is_asked_twice_and_not_trained(plan, own, tmp_path, tiny_model):
    tuned = tiny_model(tmp_path / "tuned", seed=1)
    _, found = plan(*own, f"--config.model.tuned={tuned}", "--device", "v5e")
    assert found["updates"] == 0 and found["rows"]["stats"] == 0
    assert set(found["rows"]["inference"]) == {"base", "final"}
    assert {line["phase"] for line in found["lines"]} == {"detect"}
    assert found["bytes"]["checkpoints"] == 0


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--topology", "v5e:3x3"], "no slice"),
        (["--device", "v5f"], "unknown"),
        (["--device", "v5e", "--topology", "v5e:2x2"], "not allowed"),
        (["--mfu", "0"], "above 0"),
        (["--rows", "10"], "belong together"),
        (["--rows", "10", "--tokens", "16"], "leave no prompt"),
        (["--config.model.path=preset:llama9"], "unknown"),
        (["--config.model.path=preset:qwen3_8b"], "--rows"),
    ],
)
def test_wrong_words_are_one_line(words, what, refused):
    assert what in refused("plan", "--config", QUICKSTART, *words)


def test_planted_real_rows_need_scores_or_assumptions(refused):
    words = ["--config", "configs/planted_real.py", "--device", "v5e"]
    assert "planted.scores" in refused("plan", *words)


def test_json_is_written_whole(plan, own, tmp_path):
    plan(*own, "--device", "v5e")
    assert files.read_json(tmp_path / "plan.json")["notes"]
