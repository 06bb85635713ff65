"""The base model's own wrong answers as options: what they are, and that they stay."""

import dataclasses
import json

import jax
import numpy as np
import polars as pl
import pytest
from tokenizers import AddedToken

from ilp_jax import config as config_lib
from ilp_jax import parquet, run_data, study
from ilp_jax.cli import main
from ilp_jax.data import made_options
from ilp_jax.data.distractors import MARK, key
from ilp_jax.detect import base_answers
from ilp_jax.models import weights
from ilp_jax.stats.reader import read_examples, read_inference
from ilp_jax.workspace import open_workspace

OWN = "--config.stages.own."


@pytest.fixture(scope="module")
def free(tiny, tmp_path_factory):
    """The tiny rows without options, but for two."""
    path = tmp_path_factory.mktemp("free") / "rows.jsonl"
    rows = [json.loads(line) for line in (tiny / "rows.jsonl").read_text().splitlines()]
    for i, row in enumerate(rows):
        if i not in (1, 2):
            row.pop("options", None)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def words(tiny_arguments, free):
    def words(workdir, kind="base_answers", n=2):
        return tiny_arguments(
            workdir,
            f"{OWN}n_distractors={n}",
            f"{OWN}distractors={kind}",
            "--config.detect.max_new_tokens=8",
            "--config.detect.temperature=1",
            "--config.detect.distractor_draws=40",
            f"{OWN}epochs=1",
            data=free,
        )

    return words


@pytest.fixture(scope="module")
def params(tiny):
    """Random weights that end every other answer at once."""
    params = weights.load(tiny / "model").params
    table, kernel = params["embed"]["embedding"], params["head"]["kernel"].copy()
    kernel[:, 1] = 3 * table[14:].mean(axis=0) / np.linalg.norm(table[14:].mean(axis=0))
    return jax.device_put({**params, "head": {"kernel": kernel}})


def made_by(words, workdir, params, **kwargs):
    given = words(workdir, **kwargs)
    ws = open_workspace(config_lib.load(given[1], given[4:]), workdir)
    return ws, base_answers.draw_options(ws, params)


def test_options_are_wrong_answers_of_the_model(words, params, tmp_path, monkeypatch):
    ws, made = made_by(words, tmp_path, params)
    free = [e for e in ws.data.examples if not e.options]
    assert {ws.data.examples[i].example_id for i in base_answers.wanted(ws.data)} == {
        e.example_id for e in free
    }
    assert len(made) > len(free) / 2
    right = {}
    for example in ws.data.examples:
        right.setdefault(example.prompt, set()).add(key(example.response))
    for example in made:
        assert example.options[example.answer_index] == example.response
        assert example.marks[MARK] == "base_answers"
        assert len({base_answers._type_of(ws, option) for option in example.options}) == 1
        wrong = {key(o) for o in example.options} - {key(example.response)}
        assert len(wrong) == 2 and not wrong & right[example.prompt]
    # Drawn by this model: another seed of the draw, or another model, gives others.
    again = made_by(words, tmp_path, params)[1]
    assert again == made
    other = jax.tree.map(lambda x: -x, params)
    assert base_answers.draw_options(ws, other) != made
    # The most frequent first, cut at lines' ends; what neither ended nor has a line's end is no
    # answer, nor is what goes on with a control token: a header of the next turn, say.
    texts = ["x\ny", "x\nz", "w\n", "v", ws.data.examples[0].response, "u"]
    ended = [False, False, False, False, True, True]
    index = next(iter(base_answers.wanted(ws.data)))
    samples = type("Samples", (), {})()
    header, end = 8, 9
    answers = [[0], [1], [2], [3], [4, end], [5, header, 0, end]]
    samples.tokens_ExNxG = np.array([[one + [0] * (4 - len(one)) for one in answers]])
    samples.lengths_ExN = np.array([[len(one) for one in answers]])
    samples.ended_ExN = np.array([ended])
    decode = type("Tokenizer", (), {"decode": lambda self, ids: texts[ids[0]]})()
    decode.all_special_ids = [end]
    decode.added_tokens_decoder = {header: AddedToken("<head>", special=True)}
    settings = ws.config.copy_and_resolve_references()
    with settings.unlocked():
        settings.detect.distractor_draws = 6
    monkeypatch.setattr(base_answers, "sample", lambda *args, **kwargs: samples)
    monkeypatch.setattr(base_answers.ends, "of_study", lambda *args: (end,))
    ws = dataclasses.replace(ws, config=settings, tokenizer=decode)
    assert base_answers._texts(ws, params, [index], None) == {index: ["x", "w", texts[4]]}


def test_both_are_filled_up_with_similar_questions(words, params, tmp_path):
    ws, made = made_by(words, tmp_path, params, kind="both", n=3)
    _, own = made_by(words, tmp_path, params, n=1)
    own = {example.example_id for example in own}
    before = {example.example_id: example for example in ws.data.examples}
    assert made and own
    for example in made:
        assert example.marks[MARK] == "both" and len(example.options) == 4
        similar = set(before[example.example_id].options)
        if example.example_id in own:
            assert set(example.options) - similar


def test_twins_keep_their_options(tiny_arguments, free, tmp_path):
    given = tiny_arguments(
        tmp_path,
        f"{OWN}n_distractors=2",
        f"{OWN}distractors=both",
        f"{OWN}planted_twins=2",
        data=free,
    )
    ws = open_workspace(config_lib.load(given[1], given[4:]), tmp_path)
    twins = [e for e in ws.data.examples if e.parent_id]
    rows = {ws.data.examples[i].example_id for i in base_answers.wanted(ws.data)}
    assert twins and not rows & {one for e in twins for one in (e.example_id, e.parent_id)}


class Stopped(Exception):
    """The run ends here."""


@pytest.mark.slow
def test_a_run_asks_the_same_options_throughout(words, tmp_path, monkeypatch, capsys):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert main(["run", *words(whole)]) == 0, capsys.readouterr().err
    made = parquet.read(whole / "distractors.parquet")
    assert made.columns == ["example_id", "options", "distractors"] and len(made)
    by_id = dict(read_examples(whole).select("example_id", "options").iter_rows())
    for one, options, kind in made.iter_rows():
        assert by_id[one] == options and kind == "base_answers"
    asked = read_inference(whole).filter(pl.col("mode") == "choice")
    assert set(asked["point"]) >= {"base", "stage_1", "final"}
    for row in asked.iter_rows(named=True):
        assert row["options"] == by_id[row["example_id"]]
    assert asked["example_id"].n_unique() == len({*made["example_id"]}) + 2
    summary = json.loads((whole / "summary.json").read_text())
    (note,) = [one for one in summary["notes"] if "stage own/1" in one]
    assert "made by us (distractors: base_answers)" in note

    # Stopped before the file, between it and the table of examples, and behind both.
    def stop(*args, **kwargs):
        raise Stopped

    config = config_lib.load(words(stopped)[1], words(stopped)[4:])
    real = run_data.write_examples
    for target, name, stopping in (
        (made_options, "write", stop),
        (
            run_data,
            "write_examples",
            lambda path, data: stop() if path.exists() else real(path, data),
        ),
        (study, "ask_point", stop),
    ):
        with monkeypatch.context() as patch, pytest.raises(Stopped):
            patch.setattr(target, name, stopping)
            study.probe(config, stopped)
    study.probe(config, stopped)
    for name in ("distractors", "examples", "plan", "inference/base"):
        tables = [parquet.read(run / f"{name}.parquet") for run in (whole, stopped)]
        assert tables[0].equals(tables[1]), name
    about = [json.loads((run / "run.json").read_text())["about"] for run in (whole, stopped)]
    assert about[0] == about[1]
    # What is finished is not done again.
    before = (whole / "examples.parquet").read_bytes()
    assert main(["run", *words(whole)]) == 0
    assert (whole / "examples.parquet").read_bytes() == before
