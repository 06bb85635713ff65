"""Norms of rows that are all but learned, and of rows whose tokens cancel, against float64."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilp_jax.models.config import ModelConfig
from ilp_jax.models.decoder import Decoder
from ilp_jax.norms import check
from ilp_jax.norms.oracle import vmap_norms
from ilp_jax.train.step import probe_step

EPS = float(np.finfo(np.float32).eps)
CONFIG = ModelConfig(
    vocab_size=19, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, d_ff=48
)
READ, ONE, OTHER = 3, 5, 7  # tokens


def quickly(fun, *args):
    return check.compile_quickly(fun, *args)(*args)


def rows_of(targets):
    """Rows of one token over and over, so that all their slots are alike but for the targets."""
    rows = check.random_rows(CONFIG, n_rows=len(targets), length=len(targets[0]))
    ones = np.ones_like(rows.tokens_BxT)
    return rows._replace(
        tokens_BxT=READ * ones,
        branch_BxT=0 * ones,
        target_index_BxR=np.arange(len(targets[0]), dtype=np.int32) * ones,
        target_ids_BxR=np.array(targets, np.int32),
        target_mask_BxR=ones.astype(np.float32),
    )


def params_with(logits_V, tied, rows):
    """Random parameters but for the head, which gives these logits where ``READ`` was read."""
    config = dataclasses.replace(CONFIG, tie_embeddings=tied)
    params = check.random_params(Decoder(config), rows)
    # The identity for a head shows the hidden state.
    table_DxD = np.resize(params["embed"]["embedding"], (CONFIG.d_model, CONFIG.d_model))
    eye = {"embed": {"embedding": table_DxD}, "head": {"kernel": np.eye(CONFIG.d_model)}}
    shows = Decoder(dataclasses.replace(CONFIG, vocab_size=CONFIG.d_model))
    seen = quickly(shows.apply, {"params": params | eye}, *rows[:3])
    h_D = np.asarray(seen[0, 0], np.float64)
    noise_DxV = np.random.default_rng(0).normal(size=(CONFIG.d_model, CONFIG.vocab_size))
    across = noise_DxV - np.outer(h_D, h_D @ noise_DxV) / (h_D @ h_D)
    head_DxV = (across + np.outer(h_D, logits_V) / (h_D @ h_D)).astype(np.float32)
    if not tied:
        return config, dict(params, head={"kernel": head_DxV})
    table_VxD = head_DxV.T.copy()
    table_VxD[READ] = params["embed"]["embedding"][READ]
    return config, dict(params, embed={"embedding": table_VxD})


def norms(config, params, rows, method):
    step = functools.partial(probe_step, decoder=Decoder(config, method), with_norms=True)
    stats = quickly(step, params, jax.tree.map(lambda x: x[None], rows))
    return {name: np.asarray(value) for name, value in stats.items()}


def in_float64(monkeypatch, config, params, rows):
    """The oracle with every float32 of the program a float64."""
    config = dataclasses.replace(config)
    object.__setattr__(config, "compute_dtype", "float64")
    with monkeypatch.context() as patch, jax.enable_x64(True):
        patch.setattr(jnp, "float32", jnp.float64)
        wide = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
        found = quickly(functools.partial(vmap_norms, decoder=Decoder(config)), wide, rows)
        assert found["grad_norm"].dtype == np.float64
        return {name: np.asarray(value) for name, value in found.items()}


@pytest.mark.parametrize(
    ("lead", "tied"),
    [
        (17, False),
        *(
            pytest.param(lead, tied, marks=pytest.mark.slow)
            for lead, tied in ((14, False), (20, False), (14, True), (17, True), (20, True))
        ),
    ],
)
def test_norms_at_losses_of_a_millionth(lead, tied, monkeypatch):
    rows = rows_of([[ONE] * 8, [ONE] * 7 + [OTHER]])
    logits_V = np.zeros(CONFIG.vocab_size)
    logits_V[ONE] = lead
    config, params = params_with(logits_V, tied, rows)
    found = norms(config, params, rows, "auto")
    if not tied:  # else the logit of READ is what it is
        assert found["loss_sum"][0] / 8 == pytest.approx(18 * np.exp(-lead), rel=1e-3)
    for name, wanted in in_float64(monkeypatch, config, params, rows).items():
        np.testing.assert_allclose(found[name], wanted, rtol=3e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("share", [1e-2, 1e-3, 1e-4, 1e-5])
def test_norms_where_tokens_cancel(share, tied, monkeypatch):
    """Half the targets are one token and half another, and the model says so but for a share."""
    rows = rows_of([[ONE, OTHER] * 8, [ONE] * 16])
    logits_V = np.zeros(CONFIG.vocab_size)
    logits_V[[ONE, OTHER]] = 40 + share, 40 - share
    config, params = params_with(logits_V, tied, rows)
    exact = in_float64(monkeypatch, config, params, rows)
    assert exact["grad_norm"][0] / exact["grad_norm"][1] == pytest.approx(share, rel=0.2)
    # The activations themselves are right to some eps: so is what they leave to some eps / share.
    gram, direct = (norms(config, params, rows, method) for method in ("gram", "direct"))
    for name, wanted in exact.items():
        np.testing.assert_allclose(gram[name][0], wanted[0], rtol=50 * EPS / share, err_msg=name)
        np.testing.assert_allclose(gram[name][1], wanted[1], rtol=1e-5, err_msg=name)
        close = max(1e-5, EPS / share)
        np.testing.assert_allclose(gram[name][0], direct[name][0], rtol=close, err_msg=name)
