"""A run that goes on from something else than it began from is refused, by every command."""

import json
import re
import shutil

import numpy as np
import pytest

from ilp_jax import cli, identity
from ilp_jax.data.study import StudyData
from ilp_jax.data.tokens import TokenRow

KILLED_AT = ("ilp_jax.train.loop:record", 12, "")  # checkpoints at 5 and 10
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}what {{ m['content'] }} <end> "
    "{% else %}{{ m['content'] }} {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}what {% endif %}"
)


@pytest.fixture(scope="module")
def inputs(tiny, tmp_path_factory):
    """A model and data that tests change and ``unchanged`` puts back."""
    folder = tmp_path_factory.mktemp("inputs")
    shutil.copytree(tiny / "model", folder / "model")
    shutil.copy(tiny / "rows.jsonl", folder)
    shutil.copytree(folder, folder.with_name("kept"))
    return folder


@pytest.fixture
def unchanged(inputs):
    yield
    shutil.rmtree(inputs)
    shutil.copytree(inputs.with_name("kept"), inputs)


@pytest.fixture(scope="module")
def words(inputs, tiny_arguments):
    return lambda workdir, *more: tiny_arguments(
        workdir, *more, model=inputs / "model", data=inputs / "rows.jsonl"
    )


@pytest.fixture(scope="module")
def killed(words, ilp, tmp_path_factory):
    """A run killed in its training, behind a checkpoint."""
    workdir = tmp_path_factory.mktemp("killed") / "run"
    done = ilp("run", *words(workdir), killed_at=KILLED_AT)
    assert done.returncode == -9, done.stderr
    return workdir


@pytest.fixture(scope="module")
def finished(killed, words, ilp, tmp_path_factory):
    """The same run, gone on with to its end."""
    workdir = tmp_path_factory.mktemp("resumed") / "run"
    shutil.copytree(killed, workdir)
    done = ilp("run", *words(workdir))
    assert done.returncode == 0, done.stderr
    assert "not known" not in done.stderr
    return workdir


def edited(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def rows_edited(folder, change):
    path = folder / "rows.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def of_config(**fields):
    return lambda folder: edited(folder / "model/config.json", lambda c: c.update(fields))


def weights_byte(folder):
    path = folder / "model/model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def swap(tokenizer):
    vocab = tokenizer["model"]["vocab"]
    vocab["red"], vocab["blue"] = vocab["blue"], vocab["red"]


def set_template(folder):
    (folder / "model/chat_template.jinja").write_text(TEMPLATE)


def in_both(row):
    return row["id"] == "q3" and row["stage"] == 2


CHANGES = {
    "a row out of one of its stages": (
        lambda f: rows_edited(f, lambda rows: rows.remove(next(filter(in_both, rows)))),
        ["another plan (row rows:q3 of stage 2: copies 1, now 0"],
    ),
    "a row out": (lambda f: rows_edited(f, lambda rows: rows.pop(0)), ["rows:q0 is gone"]),
    "a row's text": (
        lambda f: rows_edited(f, lambda rows: rows[1].update(prompt="what is old ?")),
        ["rows:q1 has another prompt"],
    ),
    "a row in another stage": (
        lambda f: rows_edited(f, lambda rows: rows[2].update(stage=2)),
        ["data is no longer"],
    ),
    "rope_theta": (of_config(rope_theta=5e5), ["rope_theta was 10000.0, now 500000.0"]),
    "epsilon": (of_config(rms_norm_eps=1e-3), ["norm_eps was 1e-05, now 0.001"]),
    "template": (set_template, ["another chat template", "other tokens of its rows"]),
    "tokenizer": (
        lambda f: edited(f / "model/tokenizer.json", swap),
        ["another tokenizer", "other tokens of its rows"],
    ),
    "ends": (
        lambda f: (f / "model/generation_config.json").write_text('{"eos_token_id": [1, 9]}'),
        ["other ends of answers ([1], now [1, 9])"],
    ),
    "weights": (weights_byte, ["began from other weights"]),
}


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


@pytest.mark.parametrize("change", CHANGES)
def test_a_killed_run_does_not_go_on_from_something_else(
    change, killed, inputs, words, refused, unchanged
):
    before = contents(killed)
    make, parts = CHANGES[change]
    make(inputs)
    line = refused("run", *words(killed))
    for part in [*parts, "put ", "--workdir"]:
        assert part in line, line
    assert len(line) < 500
    assert contents(killed) == before


def test_other_visits_are_refused_too(killed, words, refused):
    before = contents(killed)
    stage = next(iter(json.loads((killed / "run.json").read_text())["config"]["stages"]))
    for field, value in (("copies", 2), ("epochs", 7)):
        line = refused("run", *words(killed, f"--config.stages.{stage}.{field}={value}"))
        assert f"{field} was" in line
    assert contents(killed) == before


RECORDED = {
    "rope_theta": lambda record: record["identity"]["model"].update(rope_theta=5e5),
    "chat template": lambda record: record["identity"].update(chat_template="0"),
    "weights": lambda record: record.update(weights_hash="0"),
}


@pytest.mark.parametrize("change", RECORDED)
def test_no_command_computes_from_something_else(change, finished_run, refused, tmp_path):
    """The record is edited in place of the model."""
    run = shutil.copytree(finished_run, tmp_path / "run")
    edited(run / "run.json", RECORDED[change])
    before = contents(run)
    for command in (
        ["replay"],
        ["influence"],
        ["mitigate"],
        ["mitigate", "--train-only"],
        ["mitigate", "--apply", "--out", tmp_path / "new"],
        ["export", "--out", tmp_path / "out"],
    ):
        line = refused(*command, "--workdir", run)
        assert "holds a run that began from " in line and change in line, (command, line)
    assert contents(run).keys() == before.keys()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    # What reads files alone does not ask.
    assert cli.main(["report", "--workdir", str(run)]) == 0


@pytest.mark.parametrize("command", ["probe", "train", "detect"])
def test_no_phase_does(command, killed, inputs, refused, unchanged, tmp_path):
    """Each as the first that is left to do."""
    run = shutil.copytree(killed, tmp_path / "run")
    done = ("probe", "train")[: ("probe", "train", "detect").index(command)]
    edited(run / "run.json", lambda r: r.update(finished=dict.fromkeys(done, "")))
    weights_byte(inputs)
    assert "other weights" in refused(command, "--workdir", run)


@pytest.mark.slow
def test_weights_that_change_under_a_command_are_found(finished, inputs, unchanged, tmp_path):
    """An arm loads them long after they were checked."""
    from ilp_jax.config import from_run
    from ilp_jax.errors import UserError
    from ilp_jax.session import open_session

    run = shutil.copytree(finished, tmp_path / "run")
    with open_session(from_run(str(run)), run) as session:
        session.begin("mitigate")
        session.read_base()
        weights_byte(inputs)
        with pytest.raises(UserError, match="other weights"):
            session.read_base()


@pytest.mark.slow
def test_unchanged_it_goes_on_to_the_same_bits(finished, finished_run, same_run):
    same_run(finished_run, finished)


@pytest.mark.slow
def test_arms_are_held_to_what_they_began_from(finished, inputs, ilp, unchanged, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    arms = ("--config.mitigate.arms=none", "--config.mitigate.pages=0.5")
    command = ("mitigate", "--workdir", run, "--train-only", *arms)
    assert ilp(*command, killed_at=KILLED_AT).returncode == -9
    (arm,) = (run / "arms" / "none").iterdir()
    own, whole = (json.loads((folder / "run.json").read_text()) for folder in (arm, run))
    assert own["identity"]["model"] == whole["identity"]["model"]
    assert own["identity"]["tokens"] and own["history"] == {"train": [{}]}
    before = contents(arm)
    # The run's own record would stop it first: the arm's stands by itself.
    of_config(rope_theta=5e5)(inputs)
    edited(run / "run.json", lambda r: r["identity"]["model"].update(rope_theta=5e5))
    done = ilp(*command)
    assert done.returncode == 2 and "rope_theta was 10000.0" in done.stderr, done.stderr
    assert contents(arm) == before


@pytest.mark.slow
def test_a_model_tuned_elsewhere_and_its_base(
    inputs, ilp, tiny_model, refused, unchanged, tmp_path
):
    tuned = tiny_model(tmp_path / "tuned", seed=1)
    kept = shutil.copytree(tuned, tmp_path / "kept")
    flags = {"base": inputs / "model", "tuned": tuned, "data": inputs / "rows.jsonl"}
    command = ["detect", *(word for name, one in flags.items() for word in (f"--{name}", one))]
    command += ["--workdir", tmp_path / "run", "--config.detect.sampled_points="]
    # The first point is asked, the second is not.
    done = ilp(*command, killed_at=("ilp_jax.detect.point:ask", 2, ""))
    assert done.returncode == -9, done.stderr
    before = contents(tmp_path / "run")
    theta = of_config(rope_theta=5e5)
    theta(inputs)
    line = refused(*command)
    assert "another config of the base model (rope_theta was 10000.0, now 500000.0)" in line
    of_config(rope_theta=1e4)(inputs)
    edited(tuned / "config.json", lambda c: c.update(rms_norm_eps=1e-3))
    assert "another config of the model (norm_eps was 1e-05, now 0.001)" in refused(*command)
    shutil.copy(kept / "config.json", tuned)
    for folder in (inputs / "model", tuned):
        content = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert "began from other weights" in refused(*command)
        (folder / "model.safetensors").write_bytes(content)
    assert contents(tmp_path / "run") == before
    assert ilp(*command).returncode == 0


@pytest.mark.slow
def test_a_run_without_a_digest_goes_on_and_says_so(killed, words, ilp, tmp_path):
    run = shutil.copytree(killed, tmp_path / "run")

    def older(record):
        del record["identity"], record["history"]

    edited(run / "run.json", older)
    done = ilp("train", *words(run))
    assert done.returncode == 0, done.stderr
    assert "is not known" in done.stderr
    assert "tokens" in json.loads((run / "run.json").read_text())["identity"]


@pytest.mark.slow
def test_other_versions_and_devices_are_kept_and_told(killed, words, ilp, tmp_path):
    """The record is edited as if the run had begun on another machine."""
    run = shutil.copytree(killed, tmp_path / "run")

    def elsewhere(record):
        record["versions"]["jax"], record["device"] = "0.1", "8 x TPU v9"

    edited(run / "run.json", elsewhere)
    done = ilp("run", *words(run))
    assert done.returncode == 0, done.stderr
    record = json.loads((run / "run.json").read_text())
    assert (record["device"], record["versions"]["jax"]) == ("8 x TPU v9", "0.1")
    history = record["history"]
    assert history["probe"] == [{}] and history["train"][0] == {}
    (later,) = history["train"][1:]
    assert later["device"] == "1 x cpu" and later["jax"] != "0.1"
    assert history["detect"] == [later]
    said = "train (in part), detect: device 8 x TPU v9 -> 1 x cpu, jax 0.1 -> "
    (summary,) = json.loads((run / "summary.json").read_text())["computed_under"]
    assert said + later["jax"] in summary
    for text in (done.stdout, (run / "report.html").read_text()):
        text = re.sub(r"\s+", " ", text.replace("&gt;", ">"))
        assert summary in text
    # Nothing is told of a run that was computed under the same throughout.
    summary = json.loads((killed / "run.json").read_text())
    assert summary["history"] == {"probe": [{}], "train": [{}]}


def test_processes_with_other_files_are_refused(monkeypatch, tiny_arguments, refused, tmp_path):
    """The second of two processes is this one with another model."""

    def exchange(value):
        if not isinstance(value, dict):
            return [value]
        return [value, value | {"model": value["model"] | {"norm_eps": 1.0}}]

    monkeypatch.setattr(identity.processes, "exchange", exchange)
    line = refused("probe", *tiny_arguments(tmp_path / "run"))
    assert "not the same in all processes (process 1 has another config of the model)" in line
    assert not (tmp_path / "run" / "plan.parquet").exists()


def test_what_the_tokens_digest_tells_apart():
    def digest(*rows, ids=(1, 2), **fields):
        data = StudyData((), tuple(rows), (), **fields)
        data.__dict__["example_ids"] = np.array(ids[: len(rows)], np.int64)
        return identity._of_tokens(data)

    def row(prompt=(5, 6), target=(7, 1), options=(), **fields):
        arrays = (np.array(one, np.int32) for one in (prompt, target))
        options = tuple(np.array(one, np.int32) for one in options)
        return TokenRow(1, *arrays, options, **fields)

    found = [
        digest(row()),
        digest(row(), row()),
        digest(row(), ids=(3,)),
        digest(row(prompt=(5,), target=(6, 7, 1))),
        digest(row(target=(7, 2))),
        digest(row(options=((7,), (8, 9)))),
        digest(row(options=((7, 8), (9,)))),
        digest(row(earlier_replies=((1, 2),))),
        digest(row(truncated=True)),
        digest(row(), row(), faults={0: (np.array([7, 8], np.int32),)}),
        digest(row(), row(), faults={1: (np.array([7, 8], np.int32),)}),
    ]
    assert len(set(found)) == len(found)
    assert digest(row()) == found[0]
