"""Loaded models against torch: random tiny folders of every family saved by transformers."""

import json

import jax
import numpy as np
import pytest

from ilp_jax.models import weights
from ilp_jax.models.decoder import Decoder

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.torch_parity

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
# Short original lengths, so that the few tokens of the test cross every branch of the scaling.
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 3.0,
    "original_max_position_embeddings": 24,
}
LINEAR = {"rope_type": "linear", "rope_theta": 1000.0, "factor": 2.5}
# In each family: tied and untied, fewer key heads than heads, biases where it can have them, and
# heads of a width (12, 14, 20) that is neither d_model / n_heads nor a power of two.
BIASES = {"attention_bias": True}
TIED = {"tie_word_embeddings": True}
CASES = {
    "llama": ("Llama", {"num_key_value_heads": 4}, {}),
    "llama-gqa-tied": ("Llama", TIED, {}),
    "llama-biases-tied": ("Llama", TIED | BIASES | {"mlp_bias": True, "head_dim": 12}, {}),
    "llama-linear": ("Llama", {"rope_parameters": LINEAR}, {}),
    "llama-sharded": ("Llama", {}, {"max_shard_size": "20KB"}),
    "llama-bf16": ("Llama", {}, {"dtype": torch.bfloat16}),
    "llama3": ("Llama", {"rope_parameters": LLAMA3}, {}),
    "llama3-biases-tied": (
        "Llama",
        TIED | BIASES | {"rope_parameters": LLAMA3, "mlp_bias": True, "head_dim": 14},
        {},
    ),
    "qwen2": ("Qwen2", {}, {}),
    "qwen2-tied": ("Qwen2", TIED | {"head_dim": 12}, {}),
    "qwen3": ("Qwen3", {"head_dim": 16}, {}),
    "qwen3-biases-tied": ("Qwen3", TIED | BIASES | {"head_dim": 20}, {}),
    "olmo2": ("Olmo2", {}, {}),
    "olmo2-biases-tied": ("Olmo2", TIED | BIASES | {"head_dim": 12}, {}),
}


def save_random(family, changes, folder, dtype=None, **save):
    """A checkpoint in which every parameter matters: biases and norm scales are random too."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SHAPE | changes)
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.2)
    (model.to(dtype) if dtype else model).save_pretrained(folder, **save)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    for name, (family, changes, save) in CASES.items():
        save_random(family, changes, root / name, **save)
    return root


def padded_rows():
    """Four rows of 20: full, padded right, padded left, padded on both sides."""
    rng = np.random.default_rng(0)
    real = np.ones((4, 20), bool)
    real[1, 13:] = real[2, :6] = real[3, :3] = real[3, 15:] = False
    tokens = np.where(real, rng.integers(3, SHAPE["vocab_size"], real.shape), 0)
    positions = np.maximum(np.cumsum(real, axis=1) - 1, 0)
    return tokens.astype(np.int32), positions.astype(np.int32), real


def our_logits(model, tokens, positions, real):
    branch = np.where(real, 0, -1).astype(np.int32)
    apply = jax.jit(Decoder(model.config).apply)
    return np.asarray(apply({"params": model.params}, tokens, positions, branch))


def torch_logits(model, tokens, positions, real):
    with torch.no_grad():
        return model(
            input_ids=torch.tensor(tokens, dtype=torch.long),
            attention_mask=torch.tensor(real, dtype=torch.long),
            position_ids=torch.tensor(positions, dtype=torch.long),
        ).logits.numpy()


@pytest.mark.parametrize("name", CASES)
def test_logits_of_a_saved_folder(folders, name, record_property):
    folder = folders / name
    if "max_shard_size" in CASES[name][2]:
        assert len(list(folder.glob("*.safetensors"))) > 2
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True
    ).eval()
    ours = weights.load(str(folder))
    assert jax.tree.all(jax.tree.map(lambda a: a.dtype == np.float32, ours.params))
    batch = padded_rows()
    expected, found = torch_logits(theirs, *batch), our_logits(ours, *batch)
    real = batch[-1]
    difference = np.abs(found - expected)[real].max()
    record_property("max_abs_logits_difference", float(difference))
    # With -s, a table of all cases.
    largest = np.abs(expected)[real].max()
    print(f"\n| {name:<20} | off by {difference:.1e} | logits up to {largest:.1f} |", end=" ")
    assert np.abs(expected)[real].max() > 1
    assert difference < 1e-4


def test_configs_of_transformers_4_mean_the_same(folders, tmp_path):
    for name in ("llama3", "llama-linear"):
        folder = tmp_path / name
        folder.mkdir()
        config = json.loads((folders / name / "config.json").read_text())
        rope = config.pop("rope_parameters")
        config |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
        (folder / "config.json").write_text(json.dumps(config))
        assert weights.load_config(str(folder)) == weights.load_config(str(folders / name))
