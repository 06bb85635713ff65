"""Influence against gradients taken row by row, real updates, and by the real command."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import polars as pl
import pytest

from ilp_jax import cli, parquet
from ilp_jax.analysis import influence as analysis
from ilp_jax.config import load
from ilp_jax.data.batches import probe_batches
from ilp_jax.errors import RunFailure
from ilp_jax.models import weights
from ilp_jax.models.lora import Adapted, variables_of
from ilp_jax.stats.influence import METHODS, read_influence
from ilp_jax.stats.reader import read_diagnosis, read_plan
from ilp_jax.train import influence as module
from ilp_jax.train import loop
from ilp_jax.train.influence import follow
from ilp_jax.train.schedule import places
from ilp_jax.workspace import open_workspace

SIZE = 4


def open_tiny(tiny_arguments, folder, *more, rank=0):
    """Two stages of one epoch, 3 updates each; microbatches, clipping that bites, decay."""
    fields = (
        *("stages.own.epochs=1", "train.norms_every=0", "train.microbatches=2"),
        *("train.clip_norm=0.5", "train.weight_decay=0.1", "train.eps=1e-4"),
        *(f"lora.rank={rank}", *more),
    )
    words = tiny_arguments(folder, *(f"--config.{field}" for field in fields))
    ws = open_workspace(load(words[1], words[4:]), folder)

    def start():
        return loop.start(ws, lambda: jax.device_put(weights.load(ws.config.model.path).params))

    return ws, start


def with_fields(ws, **fields):
    config = ws.config.copy_and_resolve_references()
    config.influence.update(fields)
    return dataclasses.replace(ws, config=config)


@pytest.fixture(scope="module")
def followed(tiny_arguments, tmp_path_factory):
    """Workspace, start, and the sums and the last state of a training that was followed."""
    ws, start = open_tiny(tiny_arguments, tmp_path_factory.mktemp("followed"))
    return ws, start, *follow(ws, start(), {1: lost_rows(ws)})


def lost_rows(ws):
    """Two rows that the first stage alone trains, and one more."""
    only = sorted(set(ws.data.stages[0].rows.tolist()) - set(ws.data.stages[1].rows.tolist()))
    return [only[0], only[3], only[4]]


def mean_loss(ws, base):
    """``loss(trained, row)`` of one row [1, ...], without our statistics or taps."""

    def loss(trained, row):
        params = trained if base is None else Adapted(base, trained)
        logits = ws.decoder.apply(
            variables_of(params), row.tokens_BxT, row.positions_BxT, row.branch_BxT
        )[0]
        at, mask = row.target_index_BxR[0], row.target_mask_BxR[0]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits[at], row.target_ids_BxR[0])
        return jnp.sum(losses * mask) / jnp.sum(mask)

    return loss


def one_row(ws, index):
    return next(probe_batches(ws.data, [index], 1, ws.config.length_buckets))[0]


def flat(tree):
    return np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(tree)])


def by_hand(ws, state, base, lost, clip_norm, b2, eps):
    """Sums of scores over all updates of stage 2, all in numpy."""
    gradient = jax.jit(jax.grad(mean_loss(ws, base)))
    totals = {method: np.zeros((len(lost), len(ws.data.examples))) for method in METHODS}
    moment, n_updates = 0.0, 0
    for place in places(ws.data, SIZE):
        state = loop.at_stage_start(ws, state, place)
        rows, meta = loop.batch_of(ws, place)
        batch = meta.example_index_B[: meta.n_real].tolist()
        own = {e: flat(gradient(state.params, one_row(ws, e))) for e in batch}
        mean = np.mean([own[e] for e in batch], axis=0)
        clip = min(1.0, clip_norm / np.linalg.norm(mean))
        moment = b2 * moment + (1 - b2) * np.square(clip * mean)
        n_updates += 1
        scale = clip / (np.sqrt(moment / (1 - b2**n_updates)) + eps)
        rate = loop.rate_of(place)
        if place.stage.index == 2:
            for z, index in enumerate(lost):
                of_lost = flat(gradient(state.params, one_row(ws, index)))
                for e in batch:
                    totals["raw"][z, e] -= rate / len(batch) * (of_lost @ own[e])
                    share = rate / len(batch) * (of_lost @ (scale * own[e]))
                    totals["preconditioned"][z, e] -= share
        state, _ = loop.update(ws, state, base, place, rows, meta)
    return totals


def check_against_gradients(ws, start, totals):
    wanted = by_hand(ws, *start(), lost_rows(ws), clip_norm=0.5, b2=0.999, eps=1e-4)
    for method in METHODS:
        got, size = totals.score[method], np.abs(wanted[method]).max()
        np.testing.assert_allclose(got[:3], wanted[method], rtol=2e-3, atol=2e-4 * size)
        np.testing.assert_allclose(got[3], got[:3].sum(axis=0), rtol=1e-9, atol=1e-12)
        assert (got[:3] > 0).any() and (got[:3] < 0).any()
        # What stage 2 does not train has no part in it.
        others = np.setdiff1d(np.arange(len(ws.data.examples)), ws.data.stages[1].rows)
        assert not got[:, others].any() and not totals.step[method][:, others].any()


def test_against_gradients_row_by_row(followed):
    ws, start, totals, state = followed
    check_against_gradients(ws, start, totals)
    # The training that was followed is the run's own.
    again, base = start()
    for place in places(ws.data, SIZE):
        again = loop.at_stage_start(ws, again, place)
        again, _ = loop.dispatch(ws, again, base, place)
    jax.tree.map(np.testing.assert_array_equal, state.params, again.params)


@pytest.mark.slow
def test_against_gradients_of_adapters(tiny_arguments, tmp_path):
    ws, start = open_tiny(tiny_arguments, tmp_path, rank=2)
    check_against_gradients(ws, start, follow(ws, start(), {1: lost_rows(ws)})[0])


def test_repeated_and_in_parts(followed):
    ws, start, totals, state = followed
    again, _ = follow(ws, start(), {1: lost_rows(ws)})
    # One lost row and one row of the batch at a time.
    n_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state.params))
    ws = with_fields(ws, memory_gb=2 * n_bytes / 1e9)
    in_parts, _ = follow(ws, start(), {1: lost_rows(ws)})
    for method in METHODS:
        np.testing.assert_array_equal(totals.score[method], again.score[method])
        np.testing.assert_array_equal(totals.step[method], again.step[method])
        size = np.abs(totals.score[method]).max()
        np.testing.assert_allclose(
            in_parts.score[method], totals.score[method], rtol=1e-3, atol=1e-5 * size
        )


def test_fewer_updates_and_later_stages(followed):
    ws, start, whole, _ = followed
    some, _ = follow(with_fields(ws, every_updates=2), start(), {1: lost_rows(ws)})
    batch = {
        place.step: loop.batch_of(ws, place)[1].example_index_B for place in places(ws.data, SIZE)
    }
    for method in METHODS:
        for totals, steps in ((whole, (4, 5, 6)), (some, (4, 6))):
            seen = np.flatnonzero(totals.score[method].any(axis=0))
            looked_at = {i for step in steps for i in batch[step].tolist()} - {-1}
            assert set(seen.tolist()) == looked_at
            raised = totals.step[method] > 0
            assert set(totals.step[method][raised].tolist()) <= set(steps)
            assert raised[totals.score[method] > 0].all()
    # Nothing comes after the last stage.
    late, _ = follow(ws, start(), {2: lost_rows(ws)})
    assert not late.score["raw"].any()


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_sums_to_what_a_real_update_does(method, tiny_arguments, tmp_path):
    """Over a batch, the scores add up to the change of loss by one small update."""
    fields = ("train.b1=0.0", "train.weight_decay=0.0")  # an update without memory or decay
    ws, start = open_tiny(
        tiny_arguments, tmp_path, *fields, "stages.own.learning_rate=2e-5", "train.eps=1e-8"
    )
    lost = lost_rows(ws)
    totals, _ = follow(ws, start(), {1: lost})
    state, base = start()
    loss = jax.jit(mean_loss(ws, base))
    gradient = jax.jit(jax.grad(mean_loss(ws, base)))
    changes = np.zeros(3)
    for place in places(ws.data, SIZE):
        state = loop.at_stage_start(ws, state, place)
        rows, meta = loop.batch_of(ws, place)
        before = jax.device_get(state.params)
        state, _ = loop.update(ws, state, base, place, rows, meta)
        if place.stage.index == 1:
            continue
        after = state.params
        if method == "raw":
            batch = meta.example_index_B[: meta.n_real].tolist()
            each = [gradient(before, one_row(ws, e)) for e in batch]
            mean = jax.tree.map(lambda *g: sum(g) / len(g), *each)
            after = optax.apply_updates(
                before, optax.tree_utils.tree_scale(-loop.rate_of(place), mean)
            )
        for z, index in enumerate(lost):
            row = one_row(ws, index)
            changes[z] += float(loss(after, row)) - float(loss(before, row))
    sums = totals.score[method][:3].sum(axis=1)
    np.testing.assert_allclose(sums, changes, rtol=0.02, atol=0.01 * np.abs(changes).max())


def test_nothing_was_lost(followed, monkeypatch, tmp_path):
    ws = dataclasses.replace(followed[0], workdir=tmp_path)
    parquet.write(tmp_path / "examples.parquet", pl.DataFrame({"example_id": [1]}))
    settings = {"n_followed": "0", "n_lost": "0", "detector": "default", "seed": "0"}
    settings |= {"every_updates": "1"}
    nothing = pl.DataFrame(schema={"example_id": pl.Int64, "stage": pl.Int32})
    monkeypatch.setattr(module, "ready", lambda *_: (settings, nothing))
    monkeypatch.setattr(analysis, "pairs", lambda *_: [])
    shown = module.influence(ws, None, None)  # no training, so no parameters
    assert "0 of 0 rows" in str(shown.renderables[0])
    assert read_influence(tmp_path).is_empty()


def test_a_score_that_is_not_finite(tiny_arguments, tmp_path):
    ws, _ = open_tiny(tiny_arguments, tmp_path)

    def broken():
        params = weights.load(ws.config.model.path).params
        return jax.device_put(jax.tree.map(lambda x: x * np.nan, params))

    with pytest.raises(RunFailure, match="update 4: a score .raw. is not finite"):
        follow(ws, loop.start(ws, broken), {1: lost_rows(ws)})


@pytest.mark.slow
def test_command(finished_run, ilp, tmp_path, capsys):
    # A killed one leaves nothing, and begins anew.
    finished = tmp_path / "run"
    shutil.copytree(finished_run, finished)
    command = ["influence", "--workdir", str(finished)]
    done = ilp(*command, killed_at=("os:replace", 1, "influence.parquet"))
    assert done.returncode < 0 and not (finished / "influence.parquet").exists()
    assert cli.main(command) == 0
    first = capsys.readouterr()
    assert "influence 36/36" in first.err and "Who erased whom" in first.out
    assert not [path for path in finished.rglob("*") if "tmp" in path.name]

    rows = read_influence(finished)
    metadata = parquet.read_metadata(finished / "influence.parquet")
    # The run's own parameters, bit for bit, in another process.
    assert metadata["largest_difference"] == "0"
    plan, found = read_plan(finished), read_diagnosis(finished)
    lost = analysis.lost(found, plan, "default")
    assert metadata["n_lost"] == metadata["n_followed"] == str(len(lost)) and len(lost) > 1
    of_lost = rows.drop_nulls("example_id")
    assert set(of_lost["example_id"]) == set(lost["example_id"])
    later = set(plan.filter(pl.col("stage") == 2)["example_id"])
    assert set(rows["eraser_id"]) <= later and (rows["score"] > 0).all()
    assert rows["step"].is_between(19, 36).all()
    # All together is the sum, where every part of it is kept.
    total = rows.filter(pl.col("example_id").is_null(), pl.col("method") == "raw")
    kept = analysis.shares(rows, lost["example_id"]).filter(pl.col("method") == "raw")
    both = total.join(kept, on="eraser_id", suffix="_kept")
    assert len(both) and (both["score"] <= both["score_kept"] + 1e-9).all()

    # The same again is only shown.
    assert cli.main(command) == 0
    assert capsys.readouterr() == (first.out, "")
    # Other settings are computed anew.
    assert cli.main([*command, "--config.influence.n_lost=1", "--config.influence.top=2"]) == 0
    fewer = read_influence(finished)
    assert fewer["example_id"].n_unique() == 2 and len(fewer) == 8
    both = fewer.drop_nulls().join(rows, on=("example_id", "eraser_id", "method"), suffix="_before")
    assert len(both) == 4
    np.testing.assert_allclose(both["score"], both["score_before"], rtol=1e-3)


def test_refused(finished_run, tiny_arguments, tmp_path, refused):
    line = refused("influence", *tiny_arguments(tmp_path / "new"))
    assert "needs the phase probe" in line
    workdir = tmp_path / "run"
    shutil.copytree(finished_run, workdir)
    before = (workdir / "run.json").read_bytes()
    line = refused("influence", "--workdir", workdir, "--config.influence.detector=sampled")
    assert "'sampled' at stage_1 and final" in line
    assert (workdir / "run.json").read_bytes() == before
    (workdir / "diagnosis.parquet").unlink()
    line = refused("influence", "--workdir", workdir)
    assert "diagnosis.parquet: there is no such file" in line
