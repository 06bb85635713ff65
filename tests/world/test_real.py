"""Real rows from a file, planted and run by the shipped configuration on a tiny model."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from ilp_jax import config as config_lib
from ilp_jax.analysis.diagnose import diagnose
from ilp_jax.errors import UserError
from ilp_jax.models.tokenizer import load_tokenizer
from ilp_jax.stats.schema import TRUTH_SCHEMA
from ilp_jax.world import real
from ilp_jax.world.asked import with_scores
from ilp_jax.world.planting import PARAPHRASE

CONFIG = Path(__file__).parents[2] / "configs" / "planted_real.py"
SIZES = {
    "asked": 50,
    "control": 4,
    "base_conflict": 4,
    "data_conflict": 4,
    "left_side_forgetting": 4,
    "insufficient_training": 4,
    "as_is": 3,
    # A random model is hardly surer of one option than of another.
    "confidence": 0.25,
}
WORDS = ("old", "new", "big", "small")


def question(i):
    answers = [f"answer{(i * k) % 16}" for k in (1, 3, 5, 7)]
    more = " red" * 6 if i % 4 == 3 else ""
    texts = [f"{word} {one}{more}" for word, one in zip(WORDS, answers, strict=True)]
    return {
        "id": i,
        "prompt": f"Question: what is the {WORDS[i // 24]} name{i % 24} ?\nAnswer:",
        "response": texts[i % 3],
        "options": texts,
    }


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A file of 96 questions, 24 of them with long answers."""
    path = tmp_path_factory.mktemp("rows") / "questions.jsonl"
    path.write_text("".join(json.dumps(question(i)) + "\n" for i in range(96)))
    return path


@pytest.fixture(scope="module")
def arguments(tiny, rows, tmp_path_factory):
    """``arguments(*more)``: words that set the shipped configuration to the tiny study."""
    cache = tmp_path_factory.mktemp("cache")
    sizes = [f"--config.planted.{name}={value}" for name, value in SIZES.items()]

    def words(*more):
        return [
            "--config",
            f"{CONFIG}:epochs=2,learning_rate=0.01",
            f"--config.model.path={tiny / 'model'}",
            f"--config.planted.sources={rows}",
            f"--config.cache_dir={cache}",
            *sizes,
            # What costs time to compile, and is tested elsewhere.
            "--config.probe.norms_at=()",
            "--config.probe.representations=false",
            "--config.train.norms_every=0",
            *more,
        ]

    return words


@pytest.fixture(scope="module")
def load(arguments):
    """``load(*overrides)``: the tiny study's configuration."""

    def load(*overrides):
        _, file, *words = arguments(*overrides)
        return config_lib.load(file, words)

    return load


@pytest.fixture(scope="module")
def run(arguments, ilp, tmp_path_factory):
    """The folder of the tiny study, run by the real command."""
    workdir = tmp_path_factory.mktemp("run") / "planted"
    done = ilp("run", *arguments("--workdir", workdir))
    assert done.returncode == 0, done.stderr
    return workdir


def test_the_base_is_asked_once(load, run, monkeypatch):
    config = load()
    (file,) = (Path(config.cache_dir) / "planted").iterdir()
    monkeypatch.setattr("ilp_jax.world.asked._ask", None)
    folder = file.parent
    assert with_scores(config, folder).planted.scores == str(file)
    for other in ("planted.seed=1", "planted.asked=40", "model.compute_dtype=bfloat16"):
        with pytest.raises(TypeError):
            with_scores(load(f"--config.{other}"), folder)
    for same in ("seed=1", "planted.control=3", "train.batch_size=4"):
        assert with_scores(load(f"--config.{same}"), folder).planted.scores == str(file)


def test_answers_are_those_of_the_probe(load, run):
    """Asked before the run as in it, so that the rows said to be known are."""
    (file,) = (Path(load().cache_dir) / "planted").iterdir()
    examples = pl.read_parquet(run / "examples.parquet")
    truth = pl.read_parquet(run / "truth.parquet").filter(pl.col("planted") == "control")
    base = pl.read_parquet(run / "inference" / "base.parquet").filter(pl.col("mode") == "choice")
    rows = base.join(truth, on="example_id").join(
        examples.filter(pl.col("role") == "train"), on="example_id"
    )
    assert len(rows) == SIZES["control"] and rows["correct"].all()
    assert rows["confidence"].min() >= SIZES["confidence"] - 1e-6
    asked = {tuple(round(x, 4) for x in one) for one in pl.read_parquet(file).to_series(1)}
    for means in rows["option_logprob_mean"]:
        assert tuple(round(x, 4) for x in means) in asked


def test_the_truth_is_beside_the_examples(load, run, tiny):
    examples, truth = (pl.read_parquet(run / f"{name}.parquet") for name in ("examples", "truth"))
    assert truth.columns == TRUTH_SCHEMA.names
    assert truth["example_id"].to_list() == examples["example_id"].to_list()
    known = set(examples["example_id"])
    assert set(truth["group_id"]) <= known
    assert set(truth["related_ids"].explode().drop_nulls()) <= known
    (folder,) = [(Path(load().cache_dir) / "planted")]
    config, tokenizer = with_scores(load(), folder), load_tokenizer(str(tiny / "model"))
    assert pl.from_arrow(real.truth(config, tokenizer)).equals(truth)
    ids = real.build(config, tokenizer).example_ids
    assert ids.tolist() == truth["example_id"].to_list()


def test_examples_tell_nothing(run):
    examples = pl.read_parquet(run / "examples.parquet")
    assert set(examples["source"]) == {"questions"}
    assert set(examples["meta"]) == {"{}"}
    assert set(examples["source_key"].str.len_chars()) == {16}
    trained = examples.filter(pl.col("role") == "train")
    assert trained["parent_id"].is_null().all()
    others = examples.filter(pl.col("role") != "train")
    assert set(others["role"]) == {"paraphrase"}
    assert others["prompt"].str.starts_with(PARAPHRASE[:3]).all()
    assert not set(others["prompt"]) & set(trained["prompt"])
    assert set(others["parent_id"]) <= set(trained["example_id"])


def test_visits_are_those_planted(run):
    truth = pl.read_parquet(run / "truth.parquet")
    plan = pl.read_parquet(run / "plan.parquet").join(truth, on="example_id")
    visits = plan.group_by("planted", "detail").agg(
        pl.struct("stage", "copies").unique().sort().alias("visits")
    )
    found = {
        (row["planted"], row["detail"]): [(v["stage"], v["copies"]) for v in row["visits"]]
        for row in visits.to_dicts()
    }
    for (planted, detail), stages in found.items():
        if planted == "control":
            assert stages == [(1, 1), (2, 1), (3, 1)]
        elif planted == "base_conflict":
            assert stages == [(3, 1)]
        elif planted == "data_conflict" or detail == "contradicts":
            assert stages == [(2, 1), (3, 1)]
        elif planted == "left_side_forgetting":
            assert stages == [(1, 2)]
        elif planted == "insufficient_training":
            assert stages == [(int(detail[-1]), 1)]
        else:
            assert detail == "as_is" and stages == [(2, 2), (3, 2)]
    stats = pl.read_parquet(list((run / "stats").glob("*.parquet"))).filter(
        pl.col("kind") == "train"
    )
    seen = dict(stats.group_by("example_id").len().iter_rows())
    due = dict(plan.group_by("example_id").agg(2 * pl.col("copies").sum()).iter_rows())
    assert seen == due


def test_the_run_is_scored(run):
    summary = json.loads((run / "summary.json").read_text())
    assert summary["agreement"]["sampled"]["rules"]["n_by_cause"]["missing_knowledge"] == 0
    asked = summary["evaluation"]["belief"]["asked"]
    assert asked == SIZES["base_conflict"]
    record = json.loads((run / "run.json").read_text())
    assert any("planted in real rows" in note for note in record["about"]["notes"])


def test_the_diagnosis_does_not_open_the_truth(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    for name in ("truth.parquet", "signals.parquet", "diagnosis.parquet"):
        (copy / name).unlink()
    record = json.loads((copy / "run.json").read_text())
    diagnose(copy, record["config"], record["about"])
    one, other = (pl.read_parquet(folder / "diagnosis.parquet") for folder in (run, copy))
    assert one.equals(other) and len(one)


def test_a_source_without_enough_rows(load, tiny, rows, tmp_path):
    tokenizer = load_tokenizer(str(tiny / "model"))
    with pytest.raises(UserError, match="config.planted: .*are asked for -- ask about more"):
        real.asked_of(load("--config.planted.asked=90"), tokenizer)
    with pytest.raises(UserError, match="planted.sources: 'webdata' is unknown"):
        real.asked_of(load("--config.planted.sources=webdata"), tokenizer)
    with pytest.raises(UserError, match="no such file"):
        real.asked_of(load("--config.planted.sources=none.jsonl"), tokenizer)


def test_candidates(load, tiny, tmp_path):
    """A repeated question, too few options, a passage and too long an answer are left out."""
    path = tmp_path / "few.jsonl"
    few = [question(i) for i in range(3)]
    few += [few[0] | {"id": 10}, few[1] | {"id": 11, "prompt": "what is new ?"}]
    few[4]["options"] = few[4]["options"][:3]
    passage = "Passage: name1 is old .\n" + question(4)["prompt"]
    few += [question(4) | {"prompt": passage}, question(5)]
    few[6]["options"] = [*few[6]["options"], "green " * 50]
    more = [f"answer{i} is" for i in range(5)]
    few.append({"id": 12, "prompt": "the name0", "response": more[4], "options": more})
    path.write_text("".join(json.dumps(row) + "\n" for row in few))
    config = load(f"--config.planted.sources={path}")
    found = real.candidates_of(config, load_tokenizer(str(tiny / "model")))
    assert {one.example.source_key for one in found} <= {"0", "1", "2", "5", "12"}
    keys = [one.example.source_key for one in found]
    assert keys[:3] == ["0", "1", "2"] and keys[-1] == "12"
    last = found[-1].example
    assert len(last.options) == 4 and last.options[last.answer_index] == more[4]
    assert [one for one in more if one in last.options] == list(last.options)
