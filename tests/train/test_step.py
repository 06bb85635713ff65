"""One update against optax.adamw on the plain gradient of the same loss."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ilp_jax.config import default_config
from ilp_jax.models.config import ModelConfig
from ilp_jax.models.decoder import Decoder
from ilp_jax.norms.check import random_params, random_rows
from ilp_jax.norms.oracle import vmap_norms
from ilp_jax.train.optim import make_optimizer
from ilp_jax.train.step import in_microbatches, init_state
from ilp_jax.workspace import make_programs

MODEL = ModelConfig(
    vocab_size=31, d_model=16, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=8, d_ff=24
)


@pytest.fixture(scope="module")
def rows():
    return random_rows(MODEL, n_rows=6, length=12)


@pytest.fixture(scope="module")
def decoder():
    return Decoder(MODEL)


@pytest.fixture(scope="module")
def params(decoder, rows):
    return random_params(decoder, rows)


def plain_loss(decoder, params, rows, normalization):
    """The batch loss as the config's comment has it, without taps or weights."""
    logits = decoder.apply({"params": params}, rows.tokens_BxT, rows.positions_BxT, rows.branch_BxT)
    logprob = jax.nn.log_softmax(logits)
    total, counts, means = 0.0, 0, []
    for b in range(len(rows.tokens_BxT)):
        n = int(rows.target_mask_BxR[b].sum())
        slots, ids = rows.target_index_BxR[b, :n], rows.target_ids_BxR[b, :n]
        loss = -jnp.sum(logprob[b, slots, ids])
        total, counts = total + loss, counts + n
        means += [loss / n] if n else []
    return total / counts if normalization == "token" else sum(means) / len(means)


def copy(tree):
    return jax.tree.map(jnp.array, tree)


@pytest.mark.parametrize("normalization", ["token", "example"])
def test_an_update_is_adamw_on_the_plain_gradient(decoder, params, rows, normalization):
    train = default_config().train
    with train.unlocked():
        train.update(weight_decay=0.1, clip_norm=0.5)
    optimizer = make_optimizer(train)
    programs = make_programs(decoder, optimizer, normalization)
    mask = jax.tree_util.tree_map_with_path(
        lambda path, _: path[-1].key in ("kernel", "embedding"), params
    )
    reference = optax.chain(
        optax.clip_by_global_norm(0.5), optax.adamw(0.01, weight_decay=0.1, mask=mask)
    )
    wanted, wanted_state = params, reference.init(params)
    gradient = jax.jit(jax.grad(lambda p: plain_loss(decoder, p, rows, normalization)))
    state = init_state(copy(params), optimizer)
    rate = np.float32(0.01)
    for _ in range(2):
        updates, wanted_state = reference.update(gradient(wanted), wanted_state, wanted)
        wanted = optax.apply_updates(wanted, updates)
        before = state
        state, stats = programs.train[True](state, in_microbatches(rows, 1), rate)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params))
    assert int(state.step) == 2
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(wanted), strict=True):
        # Adam divides by the gradient's own size: where that is rounding, so is the update.
        assert np.allclose(a, b, rtol=1e-4, atol=1e-5)
    assert np.all(np.asarray(stats["grad_norm"])[:-1] > 0) and stats["grad_norm"][-1] == 0


def test_microbatches_and_norms_change_nothing(decoder, params, rows):
    optimizer = make_optimizer(default_config().train)
    programs = make_programs(decoder, optimizer, "token")
    rate, out = np.float32(1e-3), {}
    for parts, norms in ((1, True), (1, False), (3, True)):
        cut = in_microbatches(rows, parts)
        out[parts, norms] = programs.train[norms](init_state(copy(params), optimizer), cut, rate)
    first_state, first_stats = out[1, True]
    reference = vmap_norms(params, rows, decoder=decoder)
    for (_, norms), (state, stats) in out.items():
        assert ("grad_norm" in stats) == norms
        for name, values in stats.items():
            assert np.allclose(values, first_stats[name], rtol=1e-5, atol=1e-6), name
            if name in reference:
                assert np.allclose(values, reference[name], rtol=1e-5, atol=1e-5), name
        # Moments are the gradient itself up to a factor, so they compare gradients.
        for a, b in zip(
            jax.tree.leaves(state.opt_state), jax.tree.leaves(first_state.opt_state), strict=True
        ):
            assert np.allclose(a, b, rtol=1e-4, atol=1e-7)


def test_a_probe_is_a_step_without_its_update(decoder, params, rows):
    optimizer = make_optimizer(default_config().train)
    programs = make_programs(decoder, optimizer, "example")
    cut = in_microbatches(rows, 1)
    _, stats = programs.train[True](init_state(copy(params), optimizer), cut, np.float32(0))
    for norms in (False, True):
        probed = programs.probe[norms](params, cut)
        assert set(probed) == {n for n in stats if norms or not n.startswith("grad_norm")}
        for name, values in probed.items():
            assert np.allclose(values, stats[name], rtol=1e-5, atol=1e-6), name


def test_remat_changes_nothing(decoder, params, rows):
    optimizer = make_optimizer(default_config().train)
    cut, results = in_microbatches(rows, 2), []
    for remat in ("none", "full"):
        model = Decoder(dataclasses.replace(MODEL, remat=remat))
        programs = make_programs(model, optimizer, "token")
        state = init_state(copy(params), optimizer)
        results.append(programs.train[True](state, cut, np.float32(1e-3)))
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        assert np.allclose(a, b, rtol=1e-5, atol=1e-6)
