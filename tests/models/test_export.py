"""Exported folders: transformers and our own loader read the same model back."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from ilp_jax.errors import UserError
from ilp_jax.models import names, weights
from ilp_jax.models.config import ModelConfig, RopeScaling
from ilp_jax.models.decoder import Decoder
from ilp_jax.models.export import export, hf_config

LLAMA = ModelConfig(
    vocab_size=61, d_model=32, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=8, d_ff=48
)
LLAMA3 = RopeScaling("llama3", 4.0, 1.0, 3.0, 24)
VARIANTS = {
    "llama": LLAMA,
    "llama tied, llama3 rope": dataclasses.replace(
        LLAMA, tie_embeddings=True, rope_scaling=LLAMA3, rope_theta=100.0
    ),
    "llama with biases, own head_dim": dataclasses.replace(
        LLAMA, qkv_bias=True, o_bias=True, mlp_bias=True, head_dim=12
    ),
    "qwen2": dataclasses.replace(LLAMA, qkv_bias=True, rope_theta=1e6),
    "qwen2 with its own head_dim": dataclasses.replace(LLAMA, qkv_bias=True, head_dim=12),
    "llama, factors of a GGUF file": dataclasses.replace(
        LLAMA, rope_scaling=RopeScaling("factors", factors=(1.0, 1.5, 7.25, 3.0)), max_position=16
    ),
    "qwen3": dataclasses.replace(LLAMA, qk_norm="head", head_dim=16),
    "olmo2": dataclasses.replace(LLAMA, qk_norm="full", norm_position="post"),
}
TOKENS = np.random.default_rng(0).integers(0, 61, (2, 30)).astype(np.int32)


@pytest.fixture
def tokenizer():
    words = {f"w{i}": i for i in range(61)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, "w0")), eos_token="w2", pad_token="w2"
    )


def random_params(config):
    rng = np.random.default_rng(1)
    return names.build_params(
        config, lambda name, _: rng.normal(0, 0.3, names.tensor_shapes(config)[name])
    )


def logits_of(config, params):
    positions = np.broadcast_to(np.arange(30, dtype=np.int32), TOKENS.shape)
    decoder = Decoder(config)
    return jax.jit(decoder.apply)({"params": params}, TOKENS, positions, np.zeros_like(TOKENS))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("shard_bytes", [10**9, 20_000])
def test_our_loader_reads_the_same_arrays(variant, shard_bytes, tokenizer, tmp_path):
    config = VARIANTS[variant]
    params = random_params(config)
    written = export(config, params, tokenizer, tmp_path / "out", shard_bytes)
    assert (len(written) > 1) == (shard_bytes < 10**9)
    loaded = weights.load(str(tmp_path / "out"))
    assert loaded.config == config
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params)


@pytest.mark.torch_parity
@pytest.mark.parametrize("variant", VARIANTS)
def test_transformers_gives_the_same_logits(variant, tokenizer, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = VARIANTS[variant]
    params = random_params(config)
    export(config, params, tokenizer, tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", attn_implementation="eager"
    )
    with torch.no_grad():
        expected = model(input_ids=torch.tensor(TOKENS, dtype=torch.long)).logits.numpy()
    np.testing.assert_allclose(logits_of(config, params), expected, atol=1e-4, rtol=0)


def test_what_no_family_has_is_refused(tokenizer, tmp_path):
    for odd in (
        dataclasses.replace(LLAMA, qk_norm="full"),
        dataclasses.replace(LLAMA, qkv_bias=True, mlp_bias=True),
    ):
        with pytest.raises(UserError, match="no Hugging Face family"):
            export(odd, None, tokenizer, tmp_path / "odd")


def test_a_folder_in_use_is_left_alone(tokenizer, tmp_path):
    (tmp_path / "precious.txt").write_text("keep me")
    with pytest.raises(UserError, match="not empty"):
        export(LLAMA, random_params(LLAMA), tokenizer, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["precious.txt"]


def test_config_json_is_json(tokenizer):
    assert json.loads(json.dumps(hf_config(LLAMA, tokenizer)))["eos_token_id"] == 2
