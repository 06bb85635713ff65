"""Rows longer than the model has positions: named before training, by the real commands."""

import json

import pytest

from ilp_jax import config as config_lib
from ilp_jax.cli import main
from ilp_jax.stats.reader import read_examples
from ilp_jax.workspace import open_workspace

POSITIONS = 48
LONG = "Stage own: 2 rows are longer than 48 tokens"


@pytest.fixture(scope="module")
def words(byte_model, tmp_path_factory):
    """Words of a command: four rows, of which two are longer than the model's 48 positions."""
    folder = tmp_path_factory.mktemp("long")
    byte_model(folder / "model", template=None, max_position_embeddings=POSITIONS)
    rows = [{"id": f"r{i}", "prompt": "what is it?", "response": "x" * n} for i, n in LENGTHS]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        "--config",
        f"configs/own.py:model={folder / 'model'},data={folder / 'rows.jsonl'},epochs=1",
    ]


# With prompt (11 tokens), separator and end token: 46, 48, 49 and 92 tokens.
LENGTHS = ((0, 33), (1, 35), (2, 36), (3, 79))


def config_of(words, *more):
    return config_lib.load(words[1], list(more))


def test_preview_and_plan_name_them(words, capsys):
    assert main(["data", "preview", *words]) == 0
    out = " ".join(capsys.readouterr().out.split())
    said, shown = out.split("Stage 1", 1)
    assert f"{LONG} (config.max_length, or the model's positions where they are fewer) and" in said
    data = words[1].split("data=")[1].split(",")[0]
    assert f"left out: {data}:3, {data}:4." in said and "2 truncated" in said
    assert "rows:r1 (11 + 37 tokens)" in shown and "r2" not in shown
    assert main(["plan", *words]) == 0
    assert LONG in " ".join(capsys.readouterr().out.split())


def test_a_run_says_so_before_training_and_in_its_results(words, tmp_path, capsys):
    assert main(["probe", *words, "--workdir", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().err.startswith(LONG)
    about = json.loads((tmp_path / "run/run.json").read_text())["about"]
    assert any(note.startswith(LONG) for note in about["notes"])
    assert set(read_examples(tmp_path / "run")["source_key"]) == {"r0", "r1"}


def test_they_are_cut_where_the_config_keeps_them(words, tmp_path):
    ws = open_workspace(config_of(words, "--config.drop_truncated=False"), tmp_path)
    keys = (example.source_key for example in ws.data.examples)
    found = {
        key: (row.n_tokens, row.truncated) for key, row in zip(keys, ws.data.tokens, strict=True)
    }
    assert found == {"r0": (46, False), "r1": (48, False), "r2": (48, True), "r3": (48, True)}
    (sentence,) = ws.data.long_rows
    assert "rows.jsonl:3, " in sentence and sentence.endswith("rows.jsonl:4.")
    assert "and cut there: " in sentence


def test_a_smaller_max_length_stands(words, tmp_path):
    ws = open_workspace(config_of(words, "--config.max_length=46"), tmp_path)
    assert len(ws.data.tokens) == 1 and ws.config.max_length == 46
    assert "3 rows are longer than 46 tokens" in ws.data.long_rows[0]
    ws = open_workspace(config_of(words, "--config.max_length=4096"), tmp_path)
    assert ws.config.max_length == POSITIONS


def test_rows_that_are_all_too_long_are_refused_by_name(words, tmp_path, refused):
    data = tmp_path / "rows.jsonl"
    rows = [{"id": f"r{i}", "prompt": "what?", "response": "x" * 99} for i in range(8)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = refused("data", "preview", "--config", f"{words[1]},data={data}")
    assert "8 rows are longer than 48 tokens" in line and f"{data}:5 and 3 more" in line


def test_both_models_of_a_pair_count(words, byte_model, tmp_path, capsys):
    base = words[1].split("model=")[1].split(",")[0]
    tuned = byte_model(tmp_path / "tuned", template=None, seed=2, max_position_embeddings=96)
    data = words[1].split("data=")[1].split(",")[0]
    given = ["--tuned", str(tuned), "--data", data, "--workdir", str(tmp_path / "run")]
    assert main(["detect", "--base", base, *given, "--config.detect.sampled_points="]) == 0
    assert LONG in capsys.readouterr().err
    about = json.loads((tmp_path / "run/run.json").read_text())["about"]
    assert any(note.startswith(LONG) for note in about["notes"])
