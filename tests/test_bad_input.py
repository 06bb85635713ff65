"""What a user gets wrong, and what fails on the way: one line, the right exit code, no loss."""

import json
import os
import shutil
import subprocess

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file

from ilp_jax.stats.reader import read_examples, read_inference, read_stats


def last_line(done, code):
    """The one error line of a finished process; progress may come before it, and no more."""
    *before, line = done.stderr.splitlines()
    assert done.returncode == code, done.stderr
    assert line.startswith("ilp: error: "), done.stderr
    for other in before:
        assert other.startswith(("probe ", "ask ", "train ")), done.stderr
    return line


@pytest.fixture
def model(tiny, tmp_path):
    """A copy of the tiny model that may be damaged."""
    return shutil.copytree(tiny / "model", tmp_path / "model")


def edit_config(model, **fields):
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_wrong_input_by_the_real_command(ilp, tiny_arguments, tmp_path):
    done = ilp("run", *tiny_arguments(tmp_path / "run", model=tmp_path / "nowhere"))
    line = last_line(done, 2)
    assert done.stderr.count("\n") == 1 and done.stdout == ""
    assert f"{tmp_path}/nowhere: no such file or folder" in line


@pytest.mark.parametrize("place", ["hf://org/x", "s3://b/x", "https://h/x", "file:///x"])
def test_addresses_are_one_line_wherever_they_stand(refused, tiny_arguments, tmp_path, place):
    run = tiny_arguments(tmp_path / "run")
    assert "--workdir: is" in refused("run", *tiny_arguments(place))
    assert "--workdir: is" in refused("report", "--workdir", place)
    assert "--out: is" in refused("export", *run, "--out", place)
    assert "--config: is" in refused("run", "--config", f"{place}.py", *run[2:])
    assert "config.model.path: is" in refused("run", *tiny_arguments("run", model=place))
    assert "config.stages.own.path: is" in refused("run", *tiny_arguments("run", data=place))
    for field in ("cache_dir", "model.tuned", "mitigate.library", "mitigate.verdicts"):
        assert f"config.{field}: is" in refused("run", *run, f"--config.{field}={place}")
    for flag in ("--base", "--tuned", "--data"):
        pair = {"--base": "x", "--tuned": "x", "--data": "x"} | {flag: place}
        words = [word for one in pair.items() for word in one]
        assert f"{flag}: is" in refused("detect", *words, "--workdir", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_name_on_the_hub_is_told_how_to_be_fetched(refused, tiny_arguments, tmp_path):
    line = refused("run", *tiny_arguments(tmp_path / "run", model="Qwen/Qwen3-0.6B"))
    assert "no such file or folder" in line and "hf download Qwen/Qwen3-0.6B --local-dir" in line


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (lambda m: (m / "model.safetensors").unlink(), ["has no safetensors file"]),
        (lambda m: os.truncate(m / "model.safetensors", 9000), ["truncated or damaged"]),
        (lambda m: os.truncate(m / "model.safetensors", 5), ["truncated or damaged"]),
        (lambda m: (m / "config.json").write_text('{"arch'), ["config.json", "JSON"]),
        (lambda m: (m / "config.json").unlink(), ["config.json: no such file"]),
        (lambda m: (m / "tokenizer.json").write_text("{}"), ["tokenizer cannot be loaded"]),
        (
            lambda m: edit_config(m, architectures=["MambaForCausalLM"]),
            ["architecture MambaForCausalLM is not supported", "LlamaForCausalLM"],
        ),
        (
            lambda m: edit_config(m, rope_scaling={"rope_type": "yarn", "factor": 4.0}),
            ["rope type yarn is not supported", "linear"],
        ),
        (lambda m: edit_config(m, hidden_size=30), ["config.json", "does not divide hidden_size"]),
        (lambda m: edit_config(m, intermediate_size=52), ["has shape (48, 32)", "(52, 32)"]),
        (lambda m: edit_config(m, vocab_size=60), ["embed_tokens"]),
    ],
)
def test_damaged_model(refused, tiny_arguments, model, tmp_path, damage, parts):
    damage(model)
    line = refused("run", *tiny_arguments(tmp_path / "run", model=model))
    assert str(model) in line
    for part in parts:
        assert part in line
    # Nothing was spent, so that a mended model may use the same folder.
    assert not (tmp_path / "run" / "stats").exists()


def test_a_vocabulary_smaller_than_the_tokenizer(refused, tiny_arguments, tiny_model, tmp_path):
    """JAX would clip an id past the embedding to its last row and say nothing."""
    model = tiny_model(tmp_path / "model", vocab_size=40)
    line = refused("run", *tiny_arguments(tmp_path / "run", model=model))
    assert "40" in line


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ('{"prompt": "what", "response": "old"', ["rows.jsonl:4", "JSON"]),
        ('["what", "old"]', ["rows.jsonl:4"]),
        ('{"prompt": "what"}', ["rows.jsonl:4", "'response'"]),
        ('{"prompt": "what", "response": 3, "stage": 1}', ["rows.jsonl:4", "int"]),
        ('{"prompt": "what", "response": "old", "options": ["new", "red"], "stage": 1}', [":4"]),
        ('{"prompt": "what", "response": "old"}', ["rows.jsonl:4", "no stage"]),
        ('{"prompt": "what", "response": "old", "id": "q0", "stage": 1}', [":4", "'q0'"]),
    ],
)
def test_damaged_data(refused, tiny, tiny_arguments, tmp_path, row, parts):
    data = tmp_path / "rows.jsonl"
    lines = (tiny / "rows.jsonl").read_text().splitlines()
    data.write_text("\n".join([*lines[:3], row, *lines[3:]]))
    line = refused("run", *tiny_arguments(tmp_path / "run", data=data))
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("field", "parts"),
    [
        ("train.batch_sise=4", ["batch_sise", "did you mean config.train.batch_size?"]),
        ("train.batch_size=0", ["train.batch_size", "at least 1"]),
        ("train.microbatches=3", ["microbatches", "choose a divisor"]),
        ("stages.own.held_out_rows=12", ["own/1", "12 held out"]),
        ("stages.own.schedule=steps", ["'steps' is not allowed", "cosine"]),
        ("template=chat", ["no chat template"]),
        ("max_length=3", ["own/1"]),
    ],
)
def test_wrong_fields(refused, tiny_arguments, tmp_path, field, parts):
    line = refused("run", *tiny_arguments(tmp_path / "run", f"--config.{field}"))
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    "path, words", [("x/" + "y" * 5000, "too long"), ("~nobody-here/x", "no such folder")]
)
def test_paths_that_cannot_be(refused, tiny_arguments, tmp_path, path, words):
    for field in ("model.path", "stages.own.path"):
        line = refused("run", *tiny_arguments(tmp_path / field, f"--config.{field}={path}"))
        assert words in line or "no such file" in line


def test_two_processes_in_one_folder(ilp, finished_run, tiny_arguments, refused):
    from ilp_jax.run_record import locked

    with locked(finished_run):
        done = ilp("run", *tiny_arguments(finished_run))
    line = last_line(done, 2)
    assert f"({os.getpid()}" in line or f"pid {os.getpid()}" in line


def test_weights_that_are_not_numbers(tiny_arguments, ilp, model, tmp_path):
    tensors = load_file(model / "model.safetensors")
    tensors["model.norm.weight"] = np.full_like(tensors["model.norm.weight"], np.nan)
    save_file(tensors, model / "model.safetensors")
    done = ilp("run", *tiny_arguments(tmp_path / "run", model=model))
    line = last_line(done, 1)
    assert "update 0, example " in line and "loss_sum is nan" in line


def test_loss_that_leaves_the_numbers(
    tiny_arguments, ilp, finished_run, same_run, tmp_path, monkeypatch
):
    """The line names update and example; rows before it are kept; mended, the run goes on."""
    workdir = tmp_path / "run"
    words = tiny_arguments(workdir, "--config.stages.own.learning_rate=1e20")
    line = last_line(ilp("run", *words), 1)
    step = int(line.split("update ")[1].split(",")[0])
    example = int(line.split("example ")[1].split()[0])
    assert step >= 2 and "is nan" in line or "is inf" in line
    assert example in read_examples(workdir)["example_id"].to_list()
    kept = read_stats(workdir)
    train = kept.filter(pl.col("kind") == "train")
    assert train["step"].unique().to_list() == list(range(1, step))
    assert np.isfinite(train["loss_sum"].to_numpy()).all()
    assert kept.filter(pl.col("kind") == "probe")["step"].unique().to_list() == [0]
    assert read_inference(workdir)["point"].unique().to_list() == ["base"]
    # The same command fails in the same way, from the same rows.
    assert last_line(ilp("run", *words), 1) == line
    assert read_stats(workdir).equals(kept)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of some hundred kilobytes; ``small_disk(n)`` gives it n more."""
    folder, size = tmp_path / "disk", [0]
    folder.mkdir()

    def mount(kilobytes):
        size[0] += kilobytes
        again = ",remount" if size[0] > kilobytes else ""
        options = f"size={size[0]}k{again}"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"no file system can be mounted here ({done.stderr.strip()})")
        return folder

    yield mount
    if size[0]:
        subprocess.run(["umount", "-l", folder], capture_output=True)


@pytest.mark.parametrize(
    "kilobytes", [200, *(pytest.param(n, marks=pytest.mark.slow) for n in range(20, 500, 40))]
)
def test_full_disk(small_disk, tiny_arguments, ilp, finished_run, same_run, kilobytes):
    workdir = small_disk(kilobytes) / "run"
    line = last_line(ilp("run", *tiny_arguments(workdir)), 1)
    assert "the disk is full" in line or "no space left" in line
    assert "free " in line
    small_disk(20_000)
    done = ilp("run", *tiny_arguments(workdir))
    assert done.returncode == 0, done.stderr
    same_run(finished_run, workdir)
