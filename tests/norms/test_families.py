"""Tapped norms against vmap(grad) in every family as its config.json reads, padded on any side."""

import jax
import numpy as np
import pytest

from ilp_jax.models import hf
from ilp_jax.models.decoder import Decoder
from ilp_jax.norms import check
from ilp_jax.train.step import in_microbatches, probe_step

SHAPE = {
    "vocab_size": 17,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
    "rope_theta": 100.0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 3.0,
    "original_max_position_embeddings": 12,
}
BIASES = {"attention_bias": True}
# head_dim 10 is neither d_model / n_heads (6) nor a power of two.
FAMILIES = {
    "llama": ("Llama", {"mlp_bias": True, **BIASES}),
    "llama3": ("Llama", {"rope_scaling": LLAMA3, "head_dim": 10}),
    "qwen2": ("Qwen2", {"head_dim": 10}),
    "qwen3": ("Qwen3", {"head_dim": 10, **BIASES}),
    "olmo2": ("Olmo2", {"head_dim": 10, **BIASES}),
}


def model(family, tied):
    arch, changes = FAMILIES[family]
    config_json = SHAPE | changes | {"tie_word_embeddings": tied}
    config_json["architectures"] = [f"{arch}ForCausalLM"]
    return hf.model_config(config_json, "config.json")


def shifted(rows, by_B):
    """The same rows with padding in front: row b begins ``by_B[b]`` slots later."""
    at = np.arange(rows.tokens_BxT.shape[1])[None]
    before = at < by_B[:, None]

    def move(array, padding):
        moved = np.take_along_axis(array, np.maximum(at - by_B[:, None], 0), axis=1)
        return np.where(before, padding, moved).astype(array.dtype)

    return rows._replace(
        tokens_BxT=move(rows.tokens_BxT, 0),
        positions_BxT=move(rows.positions_BxT, 0),
        branch_BxT=move(rows.branch_BxT, -1),
        target_index_BxR=rows.target_index_BxR + by_B[:, None].astype(np.int32),
    )


@pytest.fixture(scope="module")
def rows_by_side():
    """The same eight rows with padding behind, and in front, on both sides and behind."""
    config = model("llama", False)
    rows = check.random_rows(config, n_rows=8, length=24)
    room = (rows.branch_BxT == -1).sum(axis=1)
    room[-1] = 0  # Holds no row.
    assert np.count_nonzero(room) >= 5
    by_B = np.where(np.arange(8) % 3 == 0, room, np.where(np.arange(8) % 3 == 1, room // 2, 0))
    left = shifted(rows, by_B)
    assert (left.branch_BxT[:, 0] == -1).sum() >= 3
    return rows, left


# Tied and untied in turn here; both of every family in the slow run.
QUICK = {(family, i % 2 == 0) for i, family in enumerate(FAMILIES)}


@pytest.mark.parametrize(
    ("family", "tied"),
    [
        pytest.param(family, tied, marks=[] if (family, tied) in QUICK else pytest.mark.slow)
        for family in FAMILIES
        for tied in (False, True)
    ],
)
def test_norms_with_padding_on_any_side(rows_by_side, family, tied):
    _, rows = rows_by_side
    errors = check.relative_errors(Decoder(model(family, tied)), rows)
    assert max(errors.values()) <= check.TOLERANCE["float32"], errors


@pytest.mark.slow
def test_the_side_of_the_padding_changes_nothing(rows_by_side):
    decoder = Decoder(model("llama3", True))
    params = check.random_params(decoder, rows_by_side[0])
    probe = jax.jit(lambda p, r: probe_step(p, r, decoder=decoder, with_norms=True))
    behind, around = (probe(params, in_microbatches(rows, 1)) for rows in rows_by_side)
    for name, values in behind.items():
        np.testing.assert_allclose(around[name], values, rtol=1e-5, atol=1e-5, err_msg=name)
