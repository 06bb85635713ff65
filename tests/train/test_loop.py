"""The loop in one process: what its fields change, and interruptions at every update."""

import dataclasses

import jax
import numpy as np
import polars as pl
import pytest

from ilp_jax.config import load
from ilp_jax.models import weights
from ilp_jax.stats.reader import check_unique, read_inference, read_stats
from ilp_jax.train import loop
from ilp_jax.train.metrics import read_metrics
from ilp_jax.workspace import open_workspace

LAST = 12


@pytest.fixture(scope="module")
def ws(tiny, tmp_path_factory):
    """Two stages of 10 rows, 2 epochs of 3 updates each; programs compile once."""
    config = load(
        f"configs/own.py:model={tiny}/model,data={tiny}/rows.jsonl,epochs=2,held_out=2,"
        "learning_rate=0.01,batch_size=4",
        ["--config.checkpoint.every_steps=5", "--config.convergence.relative_fall=1.0"],
    )
    return open_workspace(config, tmp_path_factory.mktemp("loop"))


@pytest.fixture(scope="module")
def base(tiny):
    return weights.load(tiny / "model").params


@pytest.fixture
def train(ws, base):
    """``train(folder, field=value, ...)``: a training under changed fields; its rows."""

    def run(folder, **fields):
        config = ws.config.copy_and_resolve_references()
        with config.unlocked():
            config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
        changed = dataclasses.replace(ws, config=config, workdir=folder)
        if "train__microbatches" in fields or "stages__own__optimizer_state" in fields:
            changed = open_workspace(config.lock(), folder)
            changed = dataclasses.replace(changed, programs=ws.programs, optimizer=ws.optimizer)
        loop.train(changed, lambda: jax.device_put(base))
        return read_stats(folder)

    return run


@pytest.fixture(scope="module")
def rows(ws, base):
    """The rows of an uninterrupted training."""
    loop.train(ws, lambda: jax.device_put(base))
    return read_stats(ws.workdir)


def test_rows_are_complete(rows):
    check_unique(rows)
    train = rows.filter(pl.col("kind") == "train")
    assert len(train) == 2 * 2 * 10 and train["step"].n_unique() == LAST


@pytest.mark.parametrize("every", [0, 1, 3])
def test_rhythm_of_checkpoints(train, rows, tmp_path, every):
    assert train(tmp_path, checkpoint__every_steps=every).equals(rows)


def test_checkpoints_by_time(train, rows, tmp_path):
    changed = {"checkpoint__every_minutes": 1e-9, "checkpoint__keep": 20}
    assert train(tmp_path, checkpoint__every_steps=0, **changed).equals(rows)
    saved = sorted(int(p.name) for p in (tmp_path / loop.CHECKPOINTS).iterdir())
    assert saved == list(range(1, LAST + 1))


def test_interrupted_at_every_update(train, ws, rows, tmp_path, monkeypatch):
    """One training that gets through a single further update before each interruption."""
    real, seen = loop.record, []

    def record(ws, pending, *rest):
        if pending.place.step not in seen:
            seen.append(pending.place.step)
            raise KeyboardInterrupt
        real(ws, pending, *rest)

    monkeypatch.setattr(loop, "record", record)
    for _ in range(LAST):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
        check_unique(read_stats(tmp_path))
    found = train(tmp_path)
    assert len(seen) == LAST
    assert found.equals(rows)
    assert read_inference(tmp_path).equals(read_inference(ws.workdir))
    logs = [
        [{**line, "time": 0} for line in read_metrics(folder)] for folder in (tmp_path, ws.workdir)
    ]
    assert logs[0] == logs[1]


def test_fresh_moments_change_the_second_update_of_a_stage(train, rows, tmp_path):
    fresh = train(tmp_path, stages__own__optimizer_state="fresh")
    key = pl.col("kind") == "train", pl.col("step") <= 7
    assert fresh.filter(*key).equals(rows.filter(*key))
    second = pl.col("kind") == "train", pl.col("step") == 8
    assert not fresh.filter(*second).equals(rows.filter(*second))


def test_microbatches(train, rows, tmp_path):
    found = train(tmp_path, train__microbatches=2)
    first = pl.col("kind") == "train", pl.col("step") == 1
    a, b = found.filter(*first), rows.filter(*first)
    assert set(a["microbatch"]) == {0, 1} and set(a["row"]) == {0, 1}
    order = b["row"].to_list()
    assert (a["microbatch"] * 2 + a["row"]).to_list() == order
    for name, kind in b.schema.items():
        if kind.is_float():
            assert np.allclose(a[name], b[name], rtol=1e-5), name
        elif name not in ("microbatch", "row"):
            assert a[name].equals(b[name]), name


def test_norms_every_other_update(train, rows, tmp_path):
    found = train(tmp_path, train__norms_every=2, probe__norms_at=("epoch",))
    for (kind, step, epoch), part in found.group_by("kind", "step", "epoch"):
        taken = step % 2 == 1 if kind == "train" else epoch == 1
        assert part["grad_norm"].is_null().to_list() == [not taken] * len(part)
    # A program without norms rounds in its own way; the losses are the same otherwise.
    both = found.join(rows, on=["example_id", "kind", "stage", "epoch", "step", "visit"])
    assert len(both) == len(rows)
    early = both.filter(pl.col("step") <= 3)
    assert np.allclose(early["loss_sum"], early["loss_sum_right"], rtol=1e-4)


def test_probing_all_rows(train, tmp_path):
    found = train(tmp_path, probe__rows="all", probe__every_epochs=2, detect__points=())
    probes = found.filter(pl.col("kind") == "probe").group_by("step").len().sort("step")
    assert probes.rows() == [(6, 23), (12, 23)]
    assert not (tmp_path / "inference").exists()
