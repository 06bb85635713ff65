"""Adapters: exact norms, nothing else trained, merged into the same function."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from ilp_jax.fields import default_config
from ilp_jax.models.config import ModelConfig
from ilp_jax.models.decoder import Decoder
from ilp_jax.models.lora import TARGETS, Adapted, LoraConfig, merged, variables_of
from ilp_jax.norms import check
from ilp_jax.train.optim import make_optimizer
from ilp_jax.train.step import init_state, train_step

QWEN2 = ModelConfig(
    vocab_size=17,
    d_model=48,
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    head_dim=12,
    d_ff=80,
    qkv_bias=True,
    tie_embeddings=True,
)
OLMO2 = ModelConfig(
    vocab_size=17,
    d_model=48,
    n_layers=2,
    n_heads=4,
    n_kv_heads=4,
    head_dim=12,
    d_ff=80,
    qk_norm="full",
    norm_position="post",
    remat="full",
)
ROWS = check.random_rows(QWEN2, 4, 12)


@pytest.mark.parametrize("config", [QWEN2, OLMO2], ids=["qwen2", "olmo2"])
@pytest.mark.parametrize("targets", [TARGETS, ("q", "v"), ("down",)])
@pytest.mark.parametrize("n_microbatches", [1, 2])
def test_norms_of_adapters_equal_vmap_gradients(config, targets, n_microbatches):
    decoder = Decoder(config, lora=LoraConfig(3, targets))
    errors = check.relative_errors(decoder, ROWS, n_microbatches=n_microbatches)
    assert max(errors.values()) <= check.TOLERANCE["float32"], errors


@settings(max_examples=6)
@given(
    targets=st.sets(st.sampled_from(TARGETS), min_size=1).map(tuple),
    rank=st.integers(1, 4),
    scale=st.floats(0.5, 4),
)
def test_merged_weights_compute_the_same(targets, rank, scale):
    lora = LoraConfig(rank, targets, scale)
    adapted = Decoder(QWEN2, lora=lora)
    params = check.random_params(adapted, ROWS)
    assert isinstance(params, Adapted)
    arrays = ROWS.tokens_BxT, ROWS.positions_BxT, ROWS.branch_BxT
    expected = adapted.apply(variables_of(params), *arrays)
    found = Decoder(QWEN2).apply({"params": merged(params, lora)}, *arrays)
    real = ROWS.branch_BxT == 0
    np.testing.assert_allclose(found[real], expected[real], atol=2e-4, rtol=1e-4)


def test_new_adapters_change_nothing_and_training_changes_them_alone():
    decoder = Decoder(QWEN2, lora=LoraConfig(2, ("q", "up")))
    arrays = ROWS.tokens_BxT, ROWS.positions_BxT, ROWS.branch_BxT
    variables = decoder.init(jax.random.key(0), *arrays)
    base, adapters = variables["params"], variables["lora"]
    np.testing.assert_array_equal(
        decoder.apply(variables, *arrays), Decoder(QWEN2).apply({"params": base}, *arrays)
    )
    train: ConfigDict = default_config().train
    optimizer = make_optimizer(train)
    step = jax.jit(
        functools.partial(
            train_step,
            decoder=decoder,
            optimizer=optimizer,
            normalization="example",
            with_norms=True,
        )
    )
    rows = jax.tree.map(lambda x: x[None], ROWS)
    state, losses = init_state(adapters, optimizer), []
    for _ in range(60):
        state, stats = step(state, rows, np.float32(0.02), base)
        losses.append(float(np.mean(stats["loss_sum"])))
    assert losses[-1] < 0.8 * losses[0]
    assert jax.tree.structure(state.params) == jax.tree.structure(adapters)
    for group in ("embed", "norm", "head"):
        assert not np.any(stats[f"grad_norm_{group}"])


def test_impossible_adapters_are_refused():
    for wrong in ({"rank": 0}, {"rank": 2, "targets": ()}, {"rank": 2, "targets": ("lm_head",)}):
        with pytest.raises(ValueError):
            LoraConfig(**wrong)
