"""A model tuned elsewhere, by the real commands: `ilp detect --base --tuned --data`."""

import gc
import json
import shutil
import signal
import weakref

import numpy as np
import polars as pl
import pytest

from ilp_jax import cli
from ilp_jax import config as config_lib
from ilp_jax.models import weights
from ilp_jax.stats.reader import read_diagnosis, read_examples, read_inference, read_plan

KEY = ("point", "example_id", "mode", "run", "seed")
QUICK = ("--config.detect.max_new_tokens=4", "--config.seed=5")


@pytest.fixture(scope="module")
def pair(tiny, finished_run, tmp_path_factory):
    """``words(workdir, *more)``: detect's, for the tiny base and what our own run made of it."""
    tuned = tmp_path_factory.mktemp("pair") / "tuned"
    assert cli.main(["export", "--workdir", str(finished_run), "--out", str(tuned)]) == 0

    def words(workdir, *more, base=tiny / "model", tuned=tuned, data=tiny / "rows.jsonl"):
        flags = {"base": base, "tuned": tuned, "data": data, "workdir": workdir}
        given = [w for name, value in flags.items() if value for w in (f"--{name}", value)]
        return [str(word) for word in ("detect", *given, *QUICK, *more)]

    words.tuned = tuned
    return words


@pytest.fixture(scope="module")
def asked(pair, ilp, tmp_path_factory):
    """The folder of an uninterrupted run, diagnosed; ``stdout`` and ``stderr`` beside it."""
    workdir = tmp_path_factory.mktemp("asked") / "run"
    out = []
    for words in (pair(workdir), ["diagnose", "--workdir", workdir]):
        done = ilp(*words)
        assert done.returncode == 0, done.stderr
        out.append(done)
    (workdir.parent / "stdout").write_text(out[1].stdout)
    (workdir.parent / "stderr").write_text(out[0].stderr + out[1].stderr)
    return workdir


def undrawn(run):
    rows = read_inference(run, ["base", "final"]).filter(pl.col("seed").is_null())
    return rows.sort("point", "example_id", "mode", "prompt_variant")


def test_answers_are_those_of_the_run_that_tuned_it(asked, finished_run):
    """Neither knows of the other: one asked its own parameters, the other loaded two folders."""
    one, other = undrawn(asked), undrawn(finished_run)
    for column in ("point", "example_id", "mode", "correct", "options"):
        assert one[column].to_list() == other[column].to_list(), column
    for column in ("gold_logprob", "option_logprob_sum"):
        a, b = (rows.drop_nulls(column).select(pl.col(column)) for rows in (one, other))
        if column != "gold_logprob":
            a, b = a.explode(column), b.explode(column)
        np.testing.assert_allclose(a.to_numpy(), b.to_numpy(), rtol=1e-4, atol=1e-4)
    right = other["correct"].fill_null(False)
    assert one.filter(right)["prediction"].to_list() == other.filter(right)["prediction"].to_list()
    final = read_inference(asked, ["final"])
    assert set(final["step"]) == set(final["epoch"]) == {0} and set(final["stage"]) == {2}


def test_only_rows_in_doubt_are_drawn(asked):
    found = read_inference(asked)
    assert found.filter(pl.col("point") == "base")["seed"].null_count() == (
        found.filter(pl.col("point") == "base").height
    )
    final = found.filter(pl.col("point") == "final")
    rows = {one: part for (one,), part in final.group_by("example_id")}
    verdicts = read_diagnosis(asked).filter(detector="sampled", point="final", method="none")
    verdicts = dict(verdicts.select("example_id", "unlearned").iter_rows())
    n_drawn, tails = 0, []
    for example_id, part in rows.items():
        greedy = part.filter(pl.col("mode") == "greedy")["correct"].item()
        law = part.filter(mode="sample").filter(pl.col("seed").is_null())["gold_logprob"].item()
        drawn = part.filter(pl.col("seed").is_not_null())
        none_right = (1 - np.exp(law)) ** 5
        if none_right > 0.001 or not greedy:
            assert drawn["run"].to_list() == [0, 1, 2, 3, 4] and set(drawn["seed"]) == {5}
            assert verdicts[example_id] is (drawn["correct"].sum() == 0)
            n_drawn += 1
        else:
            assert not len(drawn) and verdicts[example_id] is False
            tails.append(none_right)
    assert n_drawn and tails  # both kinds occur
    (cell,) = json.loads((asked / "summary.json").read_text())["screened"]
    assert (cell["point"], cell["n"]) == ("final", len(tails))
    assert cell["expected_unlearned"] == pytest.approx(sum(tails), rel=1e-6, abs=1e-9)


def test_the_results_say_what_is_known_and_what_is_not(asked, pair, tiny):
    summary = json.loads((asked / "summary.json").read_text())
    models = summary["models"]
    assert models["base"]["path"] == str(tiny / "model")
    assert models["tuned"]["path"] == str(pair.tuned)
    for name in ("base", "tuned"):
        loaded = weights.load(models[name]["path"])
        assert models[name]["weights_hash"] == loaded.weights_hash
        assert models[name]["description"] == loaded.description
    assert any("gradient norm" in one for one in summary["absent"])
    assert summary["learned_and_lost"] == [] and summary["probe_loss"] == []
    assert summary["converged"] == {} and summary["loss_normalization"] is None
    assert {cell["point"] for cell in summary["shares"]} == {"base", "final"}
    assert [stage["name"] for stage in summary["stages"]] == ["own/1", "own/2"]
    for stage in summary["stages"]:
        assert not {"epochs", "learning_rate"} & set(stage)
    table = " ".join((asked.parent / "stdout").read_text().split())
    assert "tuned, from safetensors float32; tuned elsewhere from model" in table
    assert "Nothing was trained here. Absent: loss, gradient norm" in table
    for phrase in ("Convergence", "Loss normalised", "lost", "epoch_2 is"):
        assert phrase not in table.replace("learned and lost again", "")
    plan = read_plan(asked)
    assert plan["position"].null_count() == plan["copies"].null_count() == len(plan) == 24
    assert set(read_examples(asked)["role"]) == {"train"}
    assert not (asked / "stats").exists()
    assert list(json.loads((asked / "run.json").read_text())["finished"]) == ["detect", "diagnose"]
    left = [p for p in asked.rglob("*") if "tmp" in p.name or "parts" in p.name]
    assert not left
    for line in (asked.parent / "stderr").read_text().splitlines():
        assert line.startswith(("ask ", "draw ")), line


MOMENTS = (
    ("ilp_jax.detect.point:ask", 3, ""),
    ("os:replace", 1, ".parts.base/.ask-000002"),
    ("os:replace", 1, "inference/.base.parquet"),
    ("ilp_jax.detect.point:ask", 2, ""),
    ("ilp_jax.detect.point:draw", 2, ""),
    ("os:replace", 1, "inference/.final.parquet"),
    ("ilp_jax.run_record:finish_phase", 1, "'detect'"),
)


@pytest.mark.slow
@pytest.mark.parametrize("moments", [MOMENTS[::4], pytest.param(MOMENTS, marks=pytest.mark.slow)])
def test_killed_at_any_moment_it_goes_on(asked, pair, ilp, tmp_path, moments):
    """Each moment is the next in the life of one run."""
    workdir = tmp_path / "run"
    words = pair(workdir, "--config.detect.rows_per_part=8")
    for moment in moments:
        done = ilp(*words, killed_at=moment)
        assert done.returncode == -signal.SIGKILL, (moment, done.stderr)
    done = ilp(*words)
    assert done.returncode == 0, done.stderr
    # What is on disk is not asked again.
    assert "ask " not in done.stderr
    assert ilp("diagnose", "--workdir", workdir).returncode == 0
    for point in ("base", "final"):
        tables = [read_inference(run, [point]) for run in (asked, workdir)]
        assert tables[0].equals(tables[1])
    one, other = (json.loads((run / "summary.json").read_text()) for run in (asked, workdir))
    assert one == other
    assert sorted(p.name for p in (workdir / "inference").iterdir()) == [
        "base.parquet",
        "final.parquet",
    ]


SHARDED = """
import sys
import jax
from ilp_jax import cli, workspace

split = set()
real = workspace.make_programs

def watched(*args):
    programs = real(*args)
    def score(params, rows, temperature):
        shards = rows.tokens_BxT.addressable_shards
        split.add((len(shards), shards[0].data.shape[0], rows.tokens_BxT.shape[0]))
        return programs.score(params, rows, temperature)
    return workspace.dataclasses.replace(programs, score=score)

workspace.make_programs = watched
assert cli.main(sys.argv[1:] or WORDS) == 0
print(jax.device_count(), sorted(split))
"""


@pytest.mark.multi_device
def test_rows_are_split_over_devices(asked, pair, run_on_devices, tmp_path):
    """The answers of one device, from four that each hold all parameters and two rows."""
    workdir = tmp_path / "run"
    words = pair(workdir, "--config.detect.batch_size=6")
    out = run_on_devices(4, SHARDED.replace("WORDS", repr(words))).splitlines()[-1]
    assert out == "4 [(4, 2, 8)]"
    one, other = (read_inference(run).sort(KEY, nulls_last=False) for run in (asked, workdir))
    assert one.select(KEY).equals(other.select(KEY))
    for column in ("prediction", "correct", "options"):
        assert one[column].to_list() == other[column].to_list(), column
    for column in ("gold_logprob", "confidence"):
        a, b = (rows[column].drop_nulls().to_numpy() for rows in (one, other))
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    a, b = (rows["option_logprob_mean"].explode().drop_nulls() for rows in (one, other))
    np.testing.assert_allclose(a.to_numpy(), b.to_numpy(), rtol=1e-5, atol=1e-5)


def test_only_one_model_is_in_memory(pair, tmp_path, monkeypatch):
    real, alive = weights.load, []

    def load(path):
        gc.collect()
        assert not [one for one in alive if one() is not None], "the model before is still held"
        loaded = real(path)
        leaves = [loaded.params["embed"]["embedding"], loaded.params["head"]["kernel"]]
        alive.extend(weakref.ref(leaf) for leaf in leaves)
        return loaded

    monkeypatch.setattr(weights, "load", load)
    assert cli.main(pair(tmp_path / "run", "--config.detect.sampled_points=")) == 0
    assert len(alive) == 4


def test_a_config_gives_template_stages_and_detection(pair, tiny, tmp_path):
    file = tmp_path / "study.py"
    file.write_text(
        "from ilp_jax.config import default_config, default_stage\n"
        "def get_config():\n"
        "    config = default_config()\n"
        "    config.separator = ' ? '\n"
        "    config.detect.points = ('final',)\n"
        "    config.stages.mine = default_stage()\n"
        "    config.sequence = ('mine',)\n"
        "    config.lora.rank = 4\n"
        "    return config\n"
    )
    workdir = tmp_path / "run"
    assert cli.main(pair(workdir, "--config", str(file))) == 0
    assert [p.name for p in (workdir / "inference").iterdir()] == ["final.parquet"]
    assert read_inference(workdir)["seed"].null_count() == len(read_inference(workdir))
    stored = json.loads((workdir / "run.json").read_text())
    assert (stored["config"]["separator"], stored["config"]["seed"]) == (" ? ", 5)
    assert stored["about"]["stages"][0]["name"] == "mine/1"
    # The record knows both models: no flag is needed to go on.
    assert cli.main(["detect", "--workdir", str(workdir)]) == 0
    assert cli.main(["run", "--workdir", str(workdir)]) == 0
    assert (workdir / "summary.json").exists()


def edited(folder, name, change):
    path = folder / name
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def swap(tokenizer):
    vocab = tokenizer["model"]["vocab"]
    vocab["red"], vocab["blue"] = vocab["blue"], vocab["red"]


def adapter(folder):
    (folder / "config.json").unlink()
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')


CHANGES = {
    "other words": (
        lambda m: edited(m, "tokenizer.json", swap),
        [
            "its vocabulary is not the base model's:",
            "rows.jsonl:",
            "holds token 'blue', which is 7, and 8 in",
            "give the base",
        ],
    ),
    "adapter": (adapter, ["LoRA adapter", "merge_and_unload"]),
    "other depth": (
        lambda m: edited(m, "config.json", lambda c: c.update(num_hidden_layers=3)),
        ["n_layers is 3, the base has 2"],
    ),
    "no weights": (lambda m: (m / "model.safetensors").unlink(), ["no safetensors file"]),
    "no tokenizer": (
        lambda m: [(m / f).unlink() for f in ("tokenizer.json", "tokenizer_config.json")],
        ["tokenizer"],
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_models_that_do_not_belong_together(refused, pair, tmp_path, change):
    model = shutil.copytree(pair.tuned, tmp_path / "changed")
    damage, parts = CHANGES[change]
    damage(model)
    line = refused(*pair(tmp_path / "run", tuned=model))
    assert str(model) in line
    for part in parts:
        assert part in line
    # Nothing was spent, and the folder is free for the right model.
    assert not (tmp_path / "run" / "inference").exists()
    assert not (tmp_path / "run" / "run.json").exists() or change == "no weights"


def test_tokenizers_of_one_vocabulary_that_cut_texts_differently(refused, pair, tmp_path):
    model, data = shutil.copytree(pair.tuned, tmp_path / "changed"), tmp_path / "rows.jsonl"
    lower = {"type": "Lowercase"}
    edited(model, "tokenizer.json", lambda tokenizer: tokenizer.update(normalizer=lower))
    data.write_text('{"prompt": "what is RED ?", "response": "old"}\n')
    line = refused(*pair(tmp_path / "run", tuned=model, data=data))
    assert f"{model}: its vocabulary is not the base model's" in line
    assert "is cut into other tokens than by" in line and "at 'red ?'" in line


@pytest.fixture
def asked_of(byte_model, tmp_path):
    """Words of `detect` for a pair of byte-level folders and one row: (base, tuned, response)."""

    def words(base, tuned, response="Paris"):
        data = tmp_path / "rows.jsonl"
        data.write_text(json.dumps({"id": "r0", "prompt": "capital?", "response": response}) + "\n")
        for seed, (name, settings) in enumerate((("base", base), ("tuned", tuned))):
            byte_model(tmp_path / name, seed=seed, **settings)
        flags = ("--base", tmp_path / "base", "--tuned", tmp_path / "tuned", "--data", data)
        return ["detect", *map(str, flags), "--config.detect.sampled_points="]

    return words


PAD = {"extra": ("[PAD]",), "told": {"pad_token": "[PAD]"}}


@pytest.mark.parametrize(
    ("base", "tuned"),
    [
        ({}, PAD),
        (PAD, {}),  # a token that tuning lost
        ({"template": None}, PAD),
        ({"told": {"eos_token": "<|im_end|>"}}, PAD | {"eos": "<|im_end|>"}),
        ({"told": {"model_max_length": 7}, "vocab_size": 320}, PAD),  # rows beyond the tokens
    ],
)
def test_tokens_that_no_row_holds_may_differ(asked_of, tmp_path, base, tuned):
    assert cli.main([*asked_of(base, tuned), "--workdir", str(tmp_path / "run")]) == 0
    found = read_inference(tmp_path / "run")
    assert set(found["point"]) == {"base", "final"}


@pytest.mark.parametrize(
    ("base", "tuned", "response", "message"),
    [
        ({}, PAD, "a[PAD]", "rows.jsonl:1 holds token '[PAD]', which is 259, and absent in"),
        (PAD, {"extra": ("[X]", "[PAD]")}, "a[PAD]", "token '[PAD]', which is 260, and 259 in"),
        ({"extra": ("Pa",)}, {}, "Paris", "rows.jsonl:1 is cut into other tokens than by"),
    ],
)
def test_a_token_that_a_row_holds_must_be_the_same(
    asked_of, tmp_path, refused, base, tuned, response, message
):
    line = refused(*asked_of(base, tuned, response), "--workdir", str(tmp_path / "run"))
    assert message in line
    assert not (tmp_path / "run" / "inference").exists()


def test_the_base_is_not_its_own_tuned_model(refused, pair, tiny, tmp_path):
    base = tiny / "model"
    line = refused(*pair(tmp_path / "a", tuned=f"{tiny}/../{tiny.name}/model"))
    assert "is the base model too" in line
    copy = shutil.copytree(base, tmp_path / "copy")
    line = refused(*pair(tmp_path / "b", tuned=copy))
    assert f"{copy}: holds the base model's weights, bit for bit" in line


@pytest.mark.parametrize(
    ("changed", "parts"),
    [
        ({"tuned": "/nowhere/tuned"}, ["/nowhere/tuned: no such file or folder"]),
        ({"base": "/nowhere/base"}, ["/nowhere/base: no such file or folder"]),
        ({"data": "/nowhere/rows.jsonl"}, ["/nowhere/rows.jsonl"]),
        ({"base": None}, ["needs --base", "add --base DIR"]),
        ({"data": None}, ["needs --data", "add --data FILE.jsonl"]),
        ({"tuned": None}, ["need --tuned", "add --tuned DIR"]),
    ],
)
def test_a_part_is_missing(refused, pair, tmp_path, changed, parts):
    line = refused(*pair(tmp_path / "run", **changed))
    for part in parts:
        assert part in line


def test_flags_belong_to_detect_alone(refused, pair, tmp_path):
    words = pair(tmp_path / "run")
    assert "--base: no such argument" in refused("run", *words[1:])
    assert "needs --workdir" in refused(*(w for w in words if w not in ("--workdir", words[8])))


def test_one_file_cannot_be_the_data_of_several_stages(refused, pair, tmp_path):
    file = tmp_path / "study.py"
    file.write_text(
        "from ilp_jax.config import default_config, default_stage\n"
        "def get_config():\n"
        "    config = default_config()\n"
        "    for name in ('a', 'b'):\n"
        "        config.stages[name] = default_stage()\n"
        "    config.sequence = ('a', 'b')\n"
        "    return config\n"
    )
    line = refused(*pair(tmp_path / "run", "--config", file))
    assert "--data: is one file" in line and "the stages a, b" in line


def test_nothing_else_can_be_done_with_it(refused, asked, tmp_path):
    for words in (["train"], ["probe"], ["export", "--out", tmp_path / "out"]):
        line = refused(*words, "--workdir", asked)
        assert "config.model.tuned: names a model that is tuned already" in line


def test_other_weights_in_the_same_folder(refused, pair, tmp_path, tiny_model, capsys):
    """Answers of the weights before must not stand beside answers of others."""
    tuned = shutil.copytree(pair.tuned, tmp_path / "tuned")
    words = pair(tmp_path / "run", "--config.detect.sampled_points=", tuned=tuned)
    assert cli.main(words) == 0
    record = json.loads((tmp_path / "run/run.json").read_text())
    del record["finished"]["detect"]
    (tmp_path / "run/run.json").write_text(json.dumps(record))
    tiny_model(tuned, seed=3)
    capsys.readouterr()
    assert "began from other weights" in refused(*words)


def test_defaults_without_a_config():
    config = config_lib.for_tuned("B", "T", "D.jsonl", None, ["--config.detect.n_samples=3"])
    assert (config.model.path, config.model.tuned) == ("B", "T")
    assert (config.sequence, config.stages.own.path) == (("own",), "D.jsonl")
    assert (config.detect.sampled_points, config.detect.n_samples) == (("final",), 3)


def test_a_config_may_name_base_and_data_itself(tmp_path):
    file = tmp_path / "study.py"
    file.write_text(
        "from ilp_jax.config import default_config, default_stage\n"
        "def get_config():\n"
        "    config = default_config()\n"
        "    config.model.path = 'B'\n"
        "    for name in ('a', 'b'):\n"
        "        config.stages[name] = default_stage()\n"
        "        config.stages[name].path = name + '.jsonl'\n"
        "    config.sequence = ('a', 'b')\n"
        "    return config\n"
    )
    config = config_lib.for_tuned(None, "T", None, str(file))
    assert (config.model.path, config.model.tuned) == ("B", "T")
    assert [config.stages[name].path for name in config.sequence] == ["a.jsonl", "b.jsonl"]
    assert config.detect.sampled_points == ()
    assert config_lib.for_tuned("C", "T", None, str(file)).model.path == "C"
