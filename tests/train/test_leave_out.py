"""Rows left out of later stages: nothing else changes, and they truly have no part."""

import jax
import numpy as np
import pytest

from ilp_jax.config import load
from ilp_jax.data.batches import probe_batches
from ilp_jax.models import weights
from ilp_jax.train import loop
from ilp_jax.train.leave_out import leave_out, without
from ilp_jax.train.schedule import places
from ilp_jax.train.step import gradients, in_microbatches
from ilp_jax.workspace import open_workspace


@pytest.fixture(scope="module")
def setting(tiny_arguments, tmp_path_factory):
    """A workspace of two stages, one epoch each, and its start."""
    folder = tmp_path_factory.mktemp("leave_out")
    fields = ("stages.own.epochs=1", "train.norms_every=0", "stages.own.optimizer_state=fresh")
    words = tiny_arguments(folder, *(f"--config.{field}" for field in fields))
    ws = open_workspace(load(words[1], words[4:]), folder)

    def start():
        return loop.start(ws, lambda: jax.device_put(weights.load(ws.config.model.path).params))

    return ws, start


def test_without_is_the_batch_of_the_others(setting):
    ws, start = setting
    place = next(place for place in places(ws.data, 4) if place.stage.index == 2)
    rows, meta = loop.batch_of(ws, place)
    left_out = {int(meta.example_id_B[1]), 12345}
    masked = without(rows, meta, left_out)
    others = [int(meta.example_index_B[i]) for i in (0, 2, 3)]
    alone = next(probe_batches(ws.data, others, 3, ws.config.length_buckets))[0]
    of = {}
    for name, batch in (("masked", masked), ("alone", alone)):
        of[name], _ = gradients(
            start()[0].params,
            in_microbatches(batch, 1),
            decoder=ws.decoder,
            normalization="example",
            with_norms=False,
            with_gradient=True,
        )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        of["masked"],
        of["alone"],
    )
    assert without(rows, meta, []).target_mask_BxR.tolist() == rows.target_mask_BxR.tolist()


def test_arms(setting):
    ws, start = setting
    first, second = (set(stage.rows.tolist()) for stage in ws.data.stages)
    lost = sorted(first - second)[:5]
    ids = ws.data.example_ids
    everything = [int(ids[i]) for i in second]
    arms = {"none": [], "accused": everything[:3], "control_0": everything}
    rows = leave_out(ws, start(), lost, 1, arms)
    assert rows["arm"].unique(maintain_order=True).to_list() == list(arms)
    assert len(rows) == 15 and set(rows["example_id"]) == set(ids[lost].tolist())
    of = dict(rows.partition_by("arm", as_dict=True, include_key=False))
    of = {key[0]: part.sort("example_id") for key, part in of.items()}
    # Nothing left out: the run's own end.
    state, base = start()
    for place in places(ws.data, 4):
        state = loop.at_stage_start(ws, state, place)
        state, _ = loop.dispatch(ws, state, base, place)
    batch, meta = next(probe_batches(ws.data, lost, 8, ws.config.length_buckets))
    stats = jax.device_get(ws.programs.probe[False](state.params, in_microbatches(batch, 1)))
    wanted = dict(
        zip(
            meta.example_id_B[:5].tolist(),
            (stats["loss_sum"] / np.maximum(stats["n_tokens"], 1))[:5].tolist(),
            strict=True,
        )
    )
    own = of["none"]
    np.testing.assert_allclose(own["loss"], [wanted[one] for one in own["example_id"]], rtol=1e-6)
    # Everything left out: no gradient, no change (moments are fresh, nothing decays).
    still = of["control_0"]
    np.testing.assert_allclose(still["loss"], still["loss_before"], rtol=1e-6)
    assert still["correct"].to_list() == still["correct_before"].to_list()
    # All arms begin at the same state, and some rows left out are something in between.
    assert own["loss_before"].equals(still["loss_before"])
    assert not np.allclose(of["accused"]["loss"], own["loss"], rtol=1e-3)
    assert not np.allclose(of["accused"]["loss"], still["loss"], rtol=1e-3)
