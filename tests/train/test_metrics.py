import json
import os

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from ilp_jax.errors import RunFailure
from ilp_jax.train.losses import example_weights
from ilp_jax.train.metrics import MetricsLog, batch_loss, read_metrics


def test_lines_are_there_at_once_and_strict_json(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.log(1, stage=1, epoch=1, loss=0.5, learning_rate=1e-3, name="text")
        log.log(1, event="probe", held_out_loss=float("nan"))
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
        assert len(lines) == 2
    first, second = (json.loads(line, parse_constant=pytest.fail) for line in lines)
    assert first["step"] == 1 and first["event"] == "train" and first["loss"] == 0.5
    assert second["held_out_loss"] is None and second["event"] == "probe"
    assert read_metrics(tmp_path) == [first, second]
    assert os.listdir(tmp_path / "tensorboard")


@pytest.mark.parametrize("normalization", ["token", "example"])
def test_the_loss_is_what_the_step_minimises(normalization):
    rng = np.random.default_rng(0)
    n_tokens = np.array([1, 30, 4, 4, 211])
    loss_sum = rng.gamma(2.0, n_tokens).astype(np.float32)
    weights = np.asarray(example_weights(jnp.asarray(n_tokens), normalization), np.float64)
    wanted = (weights * loss_sum / n_tokens).sum()
    assert batch_loss(loss_sum, n_tokens, normalization) == pytest.approx(wanted, rel=1e-6)


def test_resume_drops_later_and_half_lines(tmp_path):
    assert read_metrics(tmp_path) == []
    with MetricsLog(tmp_path, tensorboard=False) as log:
        for step in range(1, 6):
            log.log(step, loss=float(step))
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "lo')
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]
    with MetricsLog(tmp_path, tensorboard=False) as log:
        log.log(6)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4, 5, 6]
    with MetricsLog(tmp_path, resume_step=3, tensorboard=False) as log:
        log.log(4)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4]
    with MetricsLog(tmp_path, resume_step=0, tensorboard=False):
        pass
    assert read_metrics(tmp_path) == []


def test_other_hosts_write_nothing(tmp_path):
    with MetricsLog(tmp_path, enabled=False) as log:
        log.log(1, loss=1.0)
    assert os.listdir(tmp_path) == []


def test_in_a_bucket_the_log_goes_up_whole(monkeypatch):
    stored = {}
    bucket = type(epath.Path("gs://bucket"))
    monkeypatch.setattr(bucket, "exists", lambda self: str(self) in stored)
    monkeypatch.setattr(bucket, "write_bytes", lambda self, data: stored.update({str(self): data}))
    monkeypatch.setattr(bucket, "read_text", lambda self: stored[str(self)].decode())
    for start in (None, 1):
        with MetricsLog("gs://bucket/run", resume_step=start, tensorboard=False) as log:
            log.log(1 if start is None else 2, loss=1.0)
            log.log(3, loss=1.0)
    assert list(stored) == ["gs://bucket/run/metrics.jsonl"]
    assert [line["step"] for line in read_metrics("gs://bucket/run")] == [1, 2, 3]


def test_full_disk_is_a_run_failure(tmp_path, monkeypatch):
    # Opened only once the log has read what was there: that device reads without end.
    real = open
    monkeypatch.setattr("builtins.open", lambda path, *a, **k: real("/dev/full", *a, **k))
    with pytest.raises(RunFailure, match="the disk is full"):
        with MetricsLog(tmp_path, tensorboard=False) as log:
            log.log(1, loss=1.0)
