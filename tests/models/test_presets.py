"""Presets against the published files, as transformers reads and counts them; no weights."""

import math

import jax
import jax.numpy as jnp
import pytest

from ilp_jax.errors import UserError
from ilp_jax.models import hf, names
from ilp_jax.models.decoder import Decoder
from ilp_jax.models.presets import PRESETS, preset

LLAMA3 = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
# Vocabulary, width, layers, heads, key-value heads, hidden width, theta, epsilon, tied, positions;
# then the file's other fields, and the number of parameters that its model card states.
PUBLISHED = {
    "llama3_1_8b": (
        "Llama",
        (128256, 4096, 32, 32, 8, 14336, 500000.0, 1e-5, False, 131072),
        {"rope_scaling": {"factor": 8.0, **LLAMA3}, "mlp_bias": False, "attention_bias": False},
        8_030_261_248,
    ),
    "llama3_2_1b": (
        "Llama",
        (128256, 2048, 16, 32, 8, 8192, 500000.0, 1e-5, True, 131072),
        {"rope_scaling": {"factor": 32.0, **LLAMA3}, "head_dim": 64},
        1_235_814_400,
    ),
    "qwen2_5_0_5b": (
        "Qwen2",
        (151936, 896, 24, 14, 2, 4864, 1000000.0, 1e-6, True, 32768),
        {"use_sliding_window": False, "sliding_window": 32768, "max_window_layers": 24},
        494_032_768,
    ),
    "qwen2_5_7b": (
        "Qwen2",
        (152064, 3584, 28, 28, 4, 18944, 1000000.0, 1e-6, False, 131072),
        {"use_sliding_window": False, "sliding_window": 131072, "max_window_layers": 28},
        7_615_616_512,
    ),
    "qwen3_0_6b": (
        "Qwen3",
        (151936, 1024, 28, 16, 8, 3072, 1000000, 1e-6, True, 40960),
        {"head_dim": 128, "use_sliding_window": False, "sliding_window": None},
        596_049_920,
    ),
    "qwen3_8b": (
        "Qwen3",
        (151936, 4096, 36, 32, 8, 12288, 1000000, 1e-6, False, 40960),
        {"head_dim": 128, "use_sliding_window": False, "sliding_window": None},
        8_190_735_360,
    ),
    "olmo2_1b": (
        "Olmo2",
        (100352, 2048, 16, 16, 16, 8192, 500000, 1e-6, False, 4096),
        {"attention_bias": False},
        1_484_916_736,
    ),
    "olmo2_7b": (
        "Olmo2",
        (100352, 4096, 32, 32, 32, 11008, 500000, 1e-6, False, 4096),
        {"attention_bias": False},
        7_298_617_344,
    ),
}
FIELDS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "rope_theta",
    "rms_norm_eps",
    "tie_word_embeddings",
    "max_position_embeddings",
)


def test_every_preset_is_checked():
    assert set(PRESETS) == set(PUBLISHED)
    assert len({one.repository for one in PRESETS.values()}) == len(PRESETS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_by_shape_alone(name):
    config, row = preset(name), jax.ShapeDtypeStruct((1, 8), jnp.int32)
    tree = jax.eval_shape(Decoder(config).init, jax.random.key(0), row, row, row)["params"]
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree)) == PUBLISHED[name][-1]
    for leaf in names.leaves(config):
        found = tree
        for key in leaf.path:
            found = found[key]
        layers = (config.n_layers,) if leaf.stacked else ()
        assert found.shape == layers + leaf.shape
    assert len(names.leaves(config)) == len(jax.tree.leaves(tree))


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_file_reads_as_the_preset(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    family, values, rest, _ = PUBLISHED[name]
    written = dict(zip(FIELDS, values, strict=True)) | rest
    made = getattr(transformers, f"{family}Config")(
        **written, architectures=[f"{family}ForCausalLM"]
    )
    made.save_pretrained(tmp_path)
    # As transformers 5 saves it, and as the authors' own file has it.
    ours = {"architectures": [f"{family}ForCausalLM"], **written}
    for config_json in (hf.read_config(tmp_path), ours):
        assert hf.model_config(config_json, tmp_path) == preset(name)


@pytest.mark.torch_parity
@pytest.mark.parametrize("name", PUBLISHED)
def test_transformers_counts_the_same_tensors(name):
    torch, transformers = (pytest.importorskip(m) for m in ("torch", "transformers"))
    family, values, rest, total = PUBLISHED[name]
    made = getattr(transformers, f"{family}Config")(**dict(zip(FIELDS, values, strict=True)) | rest)
    with torch.device("meta"):
        model = getattr(transformers, f"{family}ForCausalLM")(made)
    theirs = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    assert sum(map(math.prod, theirs.values())) == total
    assert theirs == names.tensor_shapes(preset(name))


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(UserError, match="did you mean qwen3_8b?"):
        preset("qwen3-8b")
    with pytest.raises(UserError, match="the presets are llama3_1_8b, "):
        preset("zzz")
