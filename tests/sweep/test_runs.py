"""Which runs a config file's get_sweep stands for, and what is refused."""

import pytest

from ilp_jax import config as config_lib
from ilp_jax.errors import UserError
from ilp_jax.sweep.runs import runs_of

SEEDS = """
def get_sweep(n: int = 2):
    for seed in range(n):
        yield f"seed_{seed}", {"config": {"seed": seed}}
    yield "b", {"arguments": {"data": "b,c.jsonl"}, "config": {"train.batch_size": 2}}
"""


def resolved(run):
    words = list(run.words)
    assert words.pop(0) == "--config"
    return config_lib.load(words[0], words[1:])


def test_names_and_configurations(file):
    runs = runs_of(file(SEEDS))
    assert [run.name for run in runs] == ["seed_0", "seed_1", "b"]
    assert runs[1].overrides == {"arguments": {}, "config": {"seed": 1}}
    configs = [resolved(run) for run in runs]
    assert [one.seed for one in configs] == [0, 1, 0]
    assert [one.train.batch_size for one in configs[1:]] == [configs[0].train.batch_size, 2]
    assert configs[2].stages.own.path == "b,c.jsonl"


def test_arguments_and_overrides_for_all(file):
    path = file(SEEDS)
    runs = runs_of(f"{path}:n=3,epochs=7", ["--config.detect.n_samples=4"])
    assert len(runs) == 4
    configs = [resolved(run) for run in runs]
    assert {(one.stages.own.epochs, one.detect.n_samples) for one in configs} == {(7, 4)}
    # What the command line says counts over a run's own; where that makes two alike, it is told.
    batch = [resolved(run) for run in runs_of(path, ["--config.train.batch_size", "5"])]
    assert [one.train.batch_size for one in batch] == [5, 5, 5]
    with pytest.raises(UserError, match="'seed_0' and 'seed_1' have one configuration"):
        runs_of(path, ["--config.seed=3"])


@pytest.mark.parametrize(
    "value",
    [0, 2.5, 1e-05, True, "a b", "1", "(1, 2)", ("a",), ("a", "b=c"), [1, 2], "", "a,b"],
    ids=repr,
)
def test_values_come_through_the_command_line(file, value):
    value = tuple(value) if isinstance(value, list) else value
    body = f"""
def get_sweep():
    return {{"one": {{"arguments": {{"x": {value!r}}}}}}}

fixed = get_config

def get_config(x={type(value)()!r}):
    config = fixed()
    config.stages.own.path = "got " + repr(x)
    return config
"""
    (run,) = runs_of(file(body))
    assert resolved(run).stages.own.path == f"got {value!r}"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("", "has no function get_sweep"),
        ("def get_sweep(): return None", "gave NoneType, no runs"),
        ("def get_sweep(): return 'a'", "gave str, no runs"),
        ("def get_sweep(): return {}", "names no run"),
        ("def get_sweep():\n    yield 'a'", "gave 'a', no pair"),
        ("def get_sweep(): return [('../a', {})]", "the name '../a' is no folder's"),
        ("def get_sweep(): return [(1, {})]", "the name 1 is no folder's"),
        ("def get_sweep(): return [('a', 1)]", "a: gave int, no dict"),
        ("def get_sweep(): return {'a': {'confg': {}}}", "did you mean config?"),
        ("def get_sweep(): return {'a': {'config': 1}}", "config is no dict"),
        ("def get_sweep(): return {'a': {'config': {'sed': 1}}}", "a: --config.sed: no field"),
        ("def get_sweep(): return {'a': {'config': {'seed': 'x'}}}", "a whole number"),
        ("def get_sweep(): return {'a': {'arguments': {'dta': 1}}}", "did you mean data?"),
        ("def get_sweep(): return {'a': {'arguments': {'data': 'a,b=c'}}}", "two arguments"),
        ("def get_sweep(): return [('a', {}), ('a', {})]", "names two runs 'a'"),
        ("def get_sweep(): return {'a': {}, 'b': {}}", "'a' and 'b' have one configuration"),
        ("def get_sweep(n): return {}", "needs n"),
        ("def get_sweep():\n    yield 'a', {}\n    1 / 0", "ZeroDivisionError"),
        ("def get_sweep(: return {}", "syntax error"),
    ],
)
def test_bad_functions_are_one_line(file, refused, tmp_path, body, says):
    path = file(body)
    assert says in refused("sweep", "--config", path, "--workdir", tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_bad_arguments_are_one_line(file, refused, tmp_path):
    path, words = file(SEEDS), ("--workdir", tmp_path / "s")
    assert "no such argument" in refused("sweep", "--config", f"{path}:m=3", *words)
    assert "a whole number" in refused("sweep", "--config", f"{path}:n=x", *words)
    assert "no such config file" in refused("sweep", "--config", f"{path}x.py", *words)
    assert "needs --config" in refused("sweep", *words)
    assert "needs --workdir" in refused("sweep", "--config", path)
    assert "at least 1" in refused("sweep", "--config", path, *words, "--jobs", "0")
    bucket = refused("sweep", "--config", path, "--workdir", "gs://bucket/s")
    assert "lies in a bucket" in bucket
