"""``check-norms``: the shrunk model keeps its variant, and an error is an error."""

import dataclasses

import pytest

from ilp_jax.errors import RunFailure
from ilp_jax.models.config import ModelConfig, RopeScaling
from ilp_jax.norms import check

LLAMA_3_2 = ModelConfig(
    vocab_size=128_256,
    d_model=2048,
    n_layers=16,
    n_heads=32,
    n_kv_heads=8,
    head_dim=64,
    d_ff=8192,
    rope_theta=500_000.0,
    rope_scaling=RopeScaling("llama3", factor=32.0),
    tie_embeddings=True,
)
QWEN3 = dataclasses.replace(LLAMA_3_2, head_dim=128, qk_norm="head", n_kv_heads=32)


@pytest.mark.parametrize("config", [LLAMA_3_2, QWEN3])
def test_shrinking_keeps_the_variant(config):
    small = check.shrink(config)
    sizes = ("vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads", "head_dim", "d_ff")
    same = dict.fromkeys(sizes, 1) | {"head_dim": 2}
    assert dataclasses.replace(small, **same) == dataclasses.replace(config, **same)
    assert (small.n_kv_heads < small.n_heads) == (config.n_kv_heads < config.n_heads)
    wide = config.head_dim * config.n_heads == config.d_model
    assert (small.head_dim * small.n_heads == small.d_model) == wide


def test_rows_have_repeats_padding_and_an_empty_row():
    rows = check.random_rows(dataclasses.replace(LLAMA_3_2, vocab_size=17), 8, 24)
    assert all(len(set(row)) < 24 for row in rows.tokens_BxT.tolist())
    assert rows.target_mask_BxR[-1].sum() == 0
    assert (rows.branch_BxT == -1).any()
    for row in range(7):
        for slot in range(int(rows.target_mask_BxR[row].sum())):
            at = rows.target_index_BxR[row, slot]
            assert rows.target_ids_BxR[row, slot] == rows.tokens_BxT[row, at + 1]
            assert rows.branch_BxT[row, at + 1] == 0


def test_an_error_above_the_tolerance_fails():
    assert "1.00e-06" in check.report({"grad_norm": 1e-6}, "float32")
    with pytest.raises(RunFailure, match="off by 1.00e-03"):
        check.report({"grad_norm": 1e-3}, "float32")
    with pytest.raises(RunFailure):
        check.report({"grad_norm": float("nan")}, "bfloat16")
