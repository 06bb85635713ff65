"""A wrong description is one line and exit code 2, before anything is spent."""

from pathlib import Path

import pytest
import yaml

from ilp_jax import cli

FILE = "launch/examples/xpk_8b_v5e.yaml"


@pytest.fixture
def refused(project, capsys):
    """``refused(*words, **fields)``: the one line, with fields of the example changed."""

    def run(*words, **fields):
        if fields:
            values = yaml.safe_load(Path(FILE).read_text()) | fields
            Path(FILE).write_text(yaml.safe_dump({k: v for k, v in values.items() if v != "GONE"}))
        assert cli.main(["launch", *(words or ("start", FILE, "--dry-run"))]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("ilp: error: ") and err.count("\n") == 1, (out, err)
        return err

    return run


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"tpu": "v5e-250"}, "tpu: v5e-250: no such size -- did you mean v5e-256?"),
        ({"tpu": "v5e-4"}, "XPK has no v5litepod-4"),
        ({"tpu": "GONE"}, "tpu: is needed"),
        ({"bucket": "my-bucket"}, "did you mean gs://my-bucket?"),
        ({"bucket": "s3://b"}, "give gs://BUCKET"),
        ({"workdir": "runs/x"}, "did you mean gs://runs/x?"),
        ({"name": "Own_8B"}, "use up to 40 of a-z"),
        ({"name": "a" * 41}, "use up to 40"),
        ({"name": "own-"}, "use up to 40"),
        ({"cluster": "GONE"}, "cluster: is needed for xpk"),
        ({"config": "configs/owm.py:model={weights},data={data}"}, "did you mean configs/own.py?"),
        ({"config": "/etc/x.py"}, "put it under configs/"),
        ({"config": "GONE"}, "config: is needed"),
        ({"config": "configs/own.py:modle={weights},data={data}"}, "modle"),
        ({"arguments": ["--config.train.batch_sise=2"]}, "did you mean"),
        ({"arguments": ["--workdir=x"]}, "--config.FIELD=VALUE"),
        ({"arguments": "--config.seed=1"}, "is no list of texts"),
        ({"data": "examples/row.jsonl"}, "no such file or folder examples/row.jsonl"),
        ({"data": "GONE"}, "a word has {data} -- give data"),
        ({"weights": {"repo": "a/b", "at": "gs://bucket/w"}}, "needs one of repo, folder and at"),
        ({"weights": {"repo": "a b"}}, "give OWNER/NAME"),
        ({"weights": {"rep": "a/b"}}, "did you mean repo?"),
        ({"config": "configs/own.py:model=m,data={data}"}, "weights: is brought to every host"),
        ({"by": "xkp"}, "did you mean xpk?"),
        ({"by": "queued", "slices": 2}, "one slice at a time -- use xpk"),
        ({"slices": 0}, "a whole number of at least 1"),
        ({"spot": "yes"}, "true or false"),
        ({"image": "ilp_jax"}, "give REGION-docker.pkg.dev"),
        ({"zone": "us-west4"}, "such as us-west4-b"),
        ({"project": "My Project"}, "the project's id"),
        ({"clutser": "x"}, "did you mean cluster?"),
        ({"environment": {"A": 'say "x"'}}, "between double quotes"),
        ({"priority": "urgent"}, "one of very-low"),
    ],
)
def test_fields(refused, fields, words):
    assert words in refused(**fields)


def test_words(refused):
    assert "did you mean start?" in refused("strat", FILE)
    assert "needs an action and a file" in refused("start")
    assert "did you mean --dry-run?" in refused("start", FILE, "--dryrun")
    assert "is of collect" in refused("start", FILE, "--out", "x")
    assert "no such file" in refused("start", "nope.yaml")
    assert "needs no watch" in refused("watch", FILE)
    Path(FILE).write_text("a: [")
    assert "is not YAML at line 1" in refused("start", FILE)
    Path(FILE).write_text("- a")
    assert "is no mapping" in refused("start", FILE)
