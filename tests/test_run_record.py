import json
import os
import signal
import subprocess
import sys

import pytest

from ilp_jax import run_record
from ilp_jax.errors import UserError
from ilp_jax.run_record import (
    begin_phase,
    computed_under,
    finish_phase,
    forget_phase,
    is_finished,
    locked,
    open_run,
)

CONFIG = {"seed": 0, "train": {"batch_size": 8, "rates": [1e-3, 1e-4]}, "stages": {}}


def test_record_says_what_the_run_is(tmp_path):
    record = open_run(tmp_path / "run", CONFIG, device="cpu", seeds={"data": 1}, weights_hash="abc")
    stored = json.loads((tmp_path / "run" / "run.json").read_text())
    assert stored == record
    assert stored["config"] == CONFIG
    assert len(stored["config_hash"]) == 64
    assert stored["versions"]["python"].startswith("3.") and stored["versions"]["jax"]
    assert stored["device"] == "cpu" and stored["seeds"] == {"data": 1}
    assert stored["schema_version"] == 1
    assert {"git_commit", "weights_hash", "seconds", "finished"} <= set(stored)


def test_opening_again_goes_on(tmp_path):
    open_run(tmp_path, CONFIG, device="cpu", weights_hash="abc")
    assert not is_finished(tmp_path, "train")
    finish_phase(tmp_path, "train", 12.3456)
    finish_phase(tmp_path, "detect", 1, identity="x")
    record = open_run(tmp_path, CONFIG)
    assert record["seconds"] == {"train": 12.346, "detect": 1.0}
    assert record["device"] == "cpu" and record["weights_hash"] == "abc"
    assert is_finished(tmp_path, "train")
    assert is_finished(tmp_path, "detect", "x") and not is_finished(tmp_path, "detect", "y")
    forget_phase(tmp_path, "train", "never")
    assert not is_finished(tmp_path, "train")
    assert not is_finished(tmp_path / "none", "train")


def test_another_config_is_refused_with_the_fields(tmp_path):
    open_run(tmp_path, CONFIG)
    before = (tmp_path / "run.json").read_text()
    other = {"seed": 1, "train": {"batch_size": 8, "rates": [1e-3]}, "stages": {"a": {"n": 1}}}
    with pytest.raises(UserError) as caught:
        open_run(tmp_path, other)
    text = str(caught.value)
    assert caught.value.exit_code == 2
    assert "seed was 0, now 1" in text and "stages.a.n was absent, now 1" in text
    assert "and 1 more" in text and "--workdir" in text and "batch_size" not in text
    assert (tmp_path / "run.json").read_text() == before


def test_fields_that_may_differ(tmp_path):
    open_run(tmp_path, CONFIG, ignore=["train"])
    open_run(tmp_path, {**CONFIG, "train": {"batch_size": 9}}, ignore=["train"])
    assert json.loads((tmp_path / "run.json").read_text())["config"]["train"] == {"batch_size": 9}
    with pytest.raises(UserError, match="seed"):
        open_run(tmp_path, {"seed": 3}, ignore=["train", "stages"])


def test_given_hash_decides(tmp_path):
    open_run(tmp_path, CONFIG, config_hash="same")
    open_run(tmp_path, {**CONFIG, "seed": 5}, config_hash="same")
    with pytest.raises(UserError, match="another config"):
        open_run(tmp_path, {**CONFIG, "seed": 5}, config_hash="different")


def test_other_weights_are_refused(tmp_path):
    open_run(tmp_path, CONFIG, weights_hash="a")
    with pytest.raises(UserError, match="other weights"):
        open_run(tmp_path, CONFIG, weights_hash="b")


def test_damaged_record(tmp_path):
    for text in ("{", "[]", '{"config": 3}'):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(UserError):
            open_run(tmp_path, CONFIG)


def test_changed_versions_are_said(tmp_path, caplog, monkeypatch):
    open_run(tmp_path, CONFIG)
    now = run_record.versions()
    monkeypatch.setattr(run_record, "versions", lambda: {**now, "jax": "99.0"})
    with caplog.at_level("WARNING"):
        begin_phase(tmp_path, "train", "cpu")
    assert f"jax {now['jax']} -> 99.0" in caplog.text


def test_what_parts_were_computed_under_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(run_record, "git_commit", lambda: "0a1b")
    open_run(tmp_path, CONFIG, device="1 x cpu")
    then = run_record.versions()
    for phase in ("probe", "train"):
        begin_phase(tmp_path, phase, "1 x cpu")
    assert computed_under(tmp_path) == []
    now = {**then, "jax": "99.0"}
    monkeypatch.setattr(run_record, "versions", lambda: now)
    monkeypatch.setattr(run_record, "git_commit", lambda: "0a1b-dirty")
    for _ in range(2):  # killed and gone on with under the same adds nothing
        open_run(tmp_path, CONFIG, device="2 x tpu")
        begin_phase(tmp_path, "train", "2 x tpu")
    begin_phase(tmp_path, "diagnose", anew=True)
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["device"], record["versions"]) == ("1 x cpu", then)
    changed = {"commit": "0a1b-dirty", "jax": "99.0"}
    assert record["history"] == {
        "probe": [{}],
        "train": [{}, {"device": "2 x tpu"} | changed],
        "diagnose": [changed],
    }
    (told,) = computed_under(tmp_path)
    both = f"commit 0a1b -> 0a1b-dirty, jax {then['jax']} -> 99.0"
    assert f"train (in part): device 1 x cpu -> 2 x tpu, {both}; diagnose: {both}." in told
    monkeypatch.setattr(run_record, "versions", lambda: then)
    monkeypatch.setattr(run_record, "git_commit", lambda: "0a1b")
    begin_phase(tmp_path, "diagnose", anew=True)
    assert "diagnose" not in computed_under(tmp_path)[0]


def test_a_run_of_which_nothing_is_computed_begins_where_it_is(tmp_path):
    open_run(tmp_path, CONFIG, device="1 x cpu")
    assert open_run(tmp_path, CONFIG, device="8 x tpu")["device"] == "8 x tpu"
    begin_phase(tmp_path, "probe", "8 x tpu")
    assert open_run(tmp_path, CONFIG, device="1 x cpu")["device"] == "8 x tpu"


def test_hash_does_not_depend_on_order():
    turned = {"train": {"rates": [1e-3, 1e-4], "batch_size": 8}, "stages": {}, "seed": 0}
    assert run_record.hash_config(CONFIG) == run_record.hash_config(turned)
    assert run_record.hash_config(CONFIG) != run_record.hash_config({**CONFIG, "seed": 1})


def test_checks_without_writing(tmp_path):
    open_run(tmp_path, CONFIG, write=False)
    assert os.listdir(tmp_path) == []


def test_one_process_at_a_time_and_a_killed_one_lets_go(tmp_path):
    code = f"""
import sys, time
from ilp_jax.run_record import locked
with locked({str(tmp_path)!r}):
    print("in", flush=True)
    time.sleep(600)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "in\n"
        with pytest.raises(UserError, match=f"another process .pid {child.pid} on .* is running"):
            with locked(tmp_path):
                pass
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    with locked(tmp_path):
        pass
    with locked(tmp_path):
        pass
