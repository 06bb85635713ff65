"""Every field of every file of a model as every kind of value: a model that can be, or one line.

What is taken must lie within the limits and give finite angles; nothing may end in another error,
or in a loop without end.
"""

import itertools
import json
import os
import shutil

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers.pre_tokenizers import ByteLevel

from ilp_jax.errors import UserError
from ilp_jax.models import rope, weights
from ilp_jax.models.config import LIMITS, ROPE_LIMITS, ModelConfig, RopeScaling
from ilp_jax.models.tokenizer import load_tokenizer

NAN, INF = float("nan"), float("inf")
VALUES = [
    *(None, True, False, 0, 1, 3, -1, 2**31, 2**63, 10**30, 10**400),
    *(1.5, 0.0, 1e30, -1e30, NAN, INF, -INF, 1e-45),
    *("32", "", "x", "\0", "\ud800", "9" * 5000),
    *([], [1], ["a"], [None], [[[]]], {}, {"a": 1}, {"factor": None}, {"rope_type": []}),
]
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
CONFIG_KEYS = (
    *("architectures", "hidden_act", "quantization_config", "vocab_size", "hidden_size"),
    *("intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("head_dim", "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling"),
    *("rope_parameters", "partial_rotary_factor", "attention_bias", "mlp_bias", "layer_types"),
    *("tie_word_embeddings", "use_sliding_window", "sliding_window", "max_window_layers"),
)
TOKENIZER_KEYS = (
    *("tokenizer_class", "model_max_length", "chat_template", "added_tokens_decoder"),
    *("bos_token", "eos_token", "unk_token", "pad_token", "additional_special_tokens"),
    *("add_bos_token", "add_eos_token", "clean_up_tokenization_spaces", "extra_special_tokens"),
)


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("hostile") / "model")


@pytest.fixture
def edit(folder):
    """``edit(name, value)``: writes a JSON file of the model; all are as they were at the end."""
    before = {path: path.read_bytes() for path in folder.iterdir()}
    yield lambda name, value: (folder / name).write_text(json.dumps(value))
    for path in folder.iterdir():
        if path not in before:
            path.unlink()
    for path, content in before.items():
        path.write_bytes(content)


def taken(read):
    """What a reader gives, None where it refuses in one line."""
    try:
        return read()
    except UserError as error:
        line = str(error)
        assert line.isprintable() and len(line) < 6500, line
        return None


def can_be(config):
    for field, (low, high) in LIMITS.items():
        assert low <= getattr(config, field) <= high, (field, config)
    for field, kind in (("tie_embeddings", bool), ("rope_theta", float), ("d_model", int)):
        assert type(getattr(config, field)) is kind
    assert config.n_heads % config.n_kv_heads == 0 and config.head_dim % 2 == 0
    frequencies = rope.inverse_frequencies(config)
    assert np.isfinite(frequencies).all() and (frequencies >= 0).all(), config


@pytest.mark.parametrize("arch", ["Llama", "Qwen2", "Qwen3", "Olmo2"])
def test_config_json(folder, edit, arch):
    plain = json.loads((folder / "config.json").read_text())
    plain["architectures"] = [f"{arch}ForCausalLM"]
    n_taken = 0
    scaled = [
        {**plain, "rope_scaling": {**LLAMA3, key: value}}
        for key, value in itertools.product([*LLAMA3, "type", "rope_theta"], VALUES)
    ]
    fields = [{**plain, key: value} for key, value in itertools.product(CONFIG_KEYS, VALUES)]
    sliding = [
        {**plain, "use_sliding_window": True, key: value}
        for key, value in itertools.product(("sliding_window", "max_window_layers"), VALUES)
    ]
    for values in (*fields, *scaled, *sliding):
        edit("config.json", values)
        config = taken(lambda: weights.load_config(str(folder)))
        if config is not None:
            can_be(config)
            n_taken += 1
    assert n_taken > 100


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"num_hidden_layers": 1e30}, "num_hidden_layers is 1e+30, no whole number from 1 to"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True, no whole number"),
        ({"hidden_size": "32"}, "hidden_size is '32', no whole number"),
        ({"hidden_size": -32}, "hidden_size is -32"),
        ({"rms_norm_eps": NAN}, "rms_norm_eps is nan, no number from"),
        ({"rope_theta": -1}, "rope_theta is -1, no number from"),
        ({"rope_scaling": 5}, "rope_scaling is 5, no JSON object"),
        ({"rope_scaling": {**LLAMA3, "factor": 0}}, "rope_scaling.factor is 0, no number"),
        ({"rope_scaling": {**LLAMA3, "low_freq_factor": 4.0}}, "is not below high_freq_factor"),
        ({"attention_bias": "no"}, "attention_bias is 'no', neither true nor false"),
        ({"architectures": "Llama"}, "architectures is 'Llama', no list of texts"),
        ({"head_dim": 7}, "head_dim=7 is odd"),
        ({"head_dim": None, "hidden_size": 33}, "does not divide hidden_size=33"),
        ({"num_key_value_heads": 3}, "n_kv_heads=3 does not divide"),
        ({"layer_types": [1]}, "layer_types is [1], no list of texts"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "check-norms"])
def test_commands_say_file_and_field(folder, edit, tiny, refused, command, fields, words):
    plain = json.loads((folder / "config.json").read_text())
    edit("config.json", {**plain, **fields})
    own = f"configs/own.py:model={folder},data={tiny / 'rows.jsonl'}"
    line = refused(command, "--config", own)
    assert line.startswith(f"ilp: error: {folder / 'config.json'}: ") and words in line


def test_a_tokenizer_is_not_blamed_for_its_models_config(folder, edit, tiny, refused):
    plain = json.loads((folder / "config.json").read_text())
    edit("config.json", {**plain, "num_hidden_layers": 1e30, "model_type": "qwen2"})
    named = json.loads((folder / "tokenizer_config.json").read_text())
    edit("tokenizer_config.json", {**named, "tokenizer_class": "Qwen2Tokenizer"})
    own = f"configs/own.py:model={folder},data={tiny / 'rows.jsonl'}"
    assert "config.json: num_hidden_layers is 1e+30" in refused("data", "preview", "--config", own)


def test_whole_numbers_may_be_written_as_json_writes_any_number(folder, edit):
    plain = json.loads((folder / "config.json").read_text())
    before = weights.load_config(str(folder))
    edit("config.json", {**plain, "hidden_size": float(plain["hidden_size"])})
    assert weights.load_config(str(folder)) == before


def test_tokenizer_config(folder, edit):
    plain = json.loads((folder / "tokenizer_config.json").read_text())
    odd = [{"content": 3}, {"__type": "AddedToken"}, {"0": 3}, {"-1": {"content": "x"}}]
    odd += [{"99999999999999": {"content": "x"}}, {"0": {"content": None}}]
    odd += [[{"name": "default", "template": 3}], [{"name": "a"}], [{"template": "x"}]]
    for key, value in itertools.product(TOKENIZER_KEYS, [*VALUES, *odd]):
        edit("tokenizer_config.json", {**plain, key: value})
        found = taken(lambda: load_tokenizer(str(folder)))
        if found is None:
            continue
        assert isinstance(found.model_max_length, int | float) and found.model_max_length >= 1
        assert isinstance(found.chat_template, str | dict | None), (key, value)
        assert isinstance(found("what is")["input_ids"], list)
    edit("tokenizer_config.json", plain)
    for key, value in itertools.product(("eos_token", "pad_token"), VALUES):
        edit("special_tokens_map.json", {key: value})
        taken(lambda: load_tokenizer(str(folder)))


RAW = {
    "nothing": b"",
    "null": b"null",
    "list": b"[]",
    "number": b"3",
    "object": b"{}",
    "deep lists": b"[" * 200_000,
    "deep objects": b'{"a":' * 200_000,
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": "{}".encode("utf-16"),
    "Latin-1": b'{"a": "\xe9"}',
    "zeros": bytes(100),
    "a long number": b'{"hidden_size": ' + b"9" * 5000 + b"}",
    "a name twice": b'{"hidden_size": 1, "hidden_size": 2}',
}
ODD_PLACES = {
    "folder": lambda path: path.mkdir(),
    "pipe": os.mkfifo,  # reading it would never end
    "link to nothing": lambda path: path.symlink_to("nothing"),
    "link to itself": lambda path: path.symlink_to(path),
    "link to all zeros": lambda path: path.symlink_to("/dev/zero"),
}
FILES = (
    *("config.json", "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json"),
    *("model.safetensors", "model.safetensors.index.json", "generation_config.json"),
    *("chat_template.jinja", "added_tokens.json"),
)


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_none(folder, tmp_path, name):
    whole = (folder / name).read_bytes() if (folder / name).exists() else b"{}"
    makers = {kind: lambda path, raw=raw: path.write_bytes(raw) for kind, raw in RAW.items()}
    makers["half"] = lambda path: path.write_bytes(whole[: len(whole) // 2])
    for number, make in enumerate((makers | ODD_PLACES).values()):
        place = tmp_path / str(number)
        shutil.copytree(folder, place)
        (place / name).unlink(missing_ok=True)
        if name.endswith("index.json"):
            (place / "model.safetensors").unlink()
        make(place / name)
        for read in (weights.load_config, load_tokenizer, weights.identify, weights.load):
            taken(lambda read=read, place=place: read(str(place)))


@pytest.mark.parametrize(
    "index",
    [
        {"weight_map": {"a": "../model.safetensors"}},
        {"weight_map": {"a": "/etc/passwd"}},
        {"weight_map": {"a": ".."}},
        {"weight_map": {"a": "config.json"}},
        {"weight_map": {"a": 3}},
        {"weight_map": {"a": "a\0b"}},
        {"weight_map": []},
        {"weight_map": {}},
        {},
    ],
)
def test_an_index_names_files_of_its_folder(folder, tmp_path, index):
    place = tmp_path / "in" / "model"
    shutil.copytree(folder, place)
    shutil.move(place / "model.safetensors", tmp_path / "in")
    (place / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError):
        weights.identify(str(place))


@pytest.mark.parametrize("shape", [(), (3,), (2, 2), (0, 0)])
@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.bool_])
def test_a_tied_head_of_another_shape_or_kind(tiny_model, tmp_path, shape, dtype):
    place = tiny_model(tmp_path / "model", tie_word_embeddings=True)
    tensors = load_file(place / "model.safetensors")
    save_file({**tensors, "lm_head.weight": np.ones(shape, dtype)}, place / "model.safetensors")
    with pytest.raises(UserError):
        weights.load(str(place))


def test_limits_hold_for_configs_made_here():
    sizes = dict(vocab_size=8, d_model=4, n_layers=1, n_heads=2, n_kv_heads=1, head_dim=2, d_ff=4)
    ModelConfig(**sizes)
    for field, (low, high) in LIMITS.items():
        for value in (low - 1, high * 2, NAN):
            with pytest.raises(ValueError, match=field):
                ModelConfig(**{**sizes, field: value})
    for field, (low, high) in ROPE_LIMITS.items():
        for value in (-low, high * 2, NAN):
            with pytest.raises(ValueError, match=field):
                RopeScaling(**{"kind": "llama3", field: value})
    for factors in ((0.0,), (NAN,), (-1.0,), (INF,)):
        with pytest.raises(ValueError, match="rotary factor"):
            RopeScaling(kind="factors", factors=factors)


BYTES = sorted(ByteLevel.alphabet())
GGUF = {
    "general.architecture": "llama",
    "split.count": 1,
    "llama.context_length": 128,
    "llama.embedding_length": 8,
    "llama.block_count": 1,
    "llama.feed_forward_length": 8,
    "llama.attention.head_count": 2,
    "llama.attention.head_count_kv": 1,
    "llama.attention.key_length": 4,
    "llama.attention.value_length": 4,
    "llama.attention.sliding_window": 0,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 10000.0,
    "llama.rope.dimension_count": 4,
    "llama.rope.scaling.type": "none",
    "llama.rope.scaling.factor": 1.0,
    "llama.rope.scale_linear": 1.0,
    "llama.expert_count": 0,
    "general.file_type": 0,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": [*BYTES, "ab", "<end>"],
    "tokenizer.ggml.merges": ["a b"],
    "tokenizer.ggml.token_type": [*[1] * 257, 3],
    "tokenizer.ggml.eos_token_id": 257,
    "tokenizer.ggml.bos_token_id": 257,
    "tokenizer.ggml.padding_token_id": 257,
    "tokenizer.ggml.add_bos_token": False,
    "tokenizer.chat_template": "{{ messages }}",
}
GGUF_VALUES = [
    *(0, 1, 3, -1, 2**31, 2**63 - 1, True, False, 1.5, 0.0, NAN, INF, 1e30, -1e30),
    *("x", "", "32", [1], [1, 2], [0.5], ["a"], ["a", "b", "c"], [True], [NAN, NAN, NAN]),
]


def write_gguf(path, fields, tensors=()):
    writer = gguf.GGUFWriter(path, "llama")
    writer.kv_data[0].clear()
    for key, value in fields.items():
        add = {bool: "add_bool", float: "add_float32", str: "add_string", list: "add_array"}
        getattr(writer, add.get(type(value), "add_int64"))(key, value)
    writer.add_tensor("token_embd.weight", np.ones((4, 8), np.float32))
    for name, array in tensors:
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)


@pytest.mark.parametrize("key", GGUF)
def test_gguf_fields(tmp_path, key):
    for value in ["left out", *GGUF_VALUES]:
        fields = {**GGUF, key: value}
        if value == "left out":
            del fields[key]
        path = write_gguf(tmp_path / "m.gguf", fields)
        config = taken(lambda path=path: weights.load_config(path))
        if config is not None:
            can_be(config)
        found = taken(lambda path=path: load_tokenizer(path))
        if found is not None:
            assert isinstance(found.chat_template, str | None) and found.model_max_length >= 1
        for read in (weights.identify, weights.load):
            taken(lambda path=path, read=read: read(path))


def test_a_whole_gguf_file_is_taken(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", GGUF)
    can_be(weights.load_config(path))
    assert load_tokenizer(path).eos_token == "<end>"


@pytest.mark.parametrize(
    "factors", [np.zeros(2), np.full(2, NAN), -np.ones(2), np.ones(3), np.ones((2, 2))]
)
def test_gguf_factors(tmp_path, factors):
    tensors = [("rope_freqs.weight", factors.astype(np.float32))]
    path = write_gguf(tmp_path / "m.gguf", GGUF, tensors)
    with pytest.raises(UserError):
        weights.load_config(path)


def test_gguf_tensors_do_not_overlap(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", GGUF, [("second", np.ones(8, np.float32))])
    data = (tmp_path / "m.gguf").read_bytes()
    at = data.index(b"second") + len("second") + 4 + 8 + 4  # its offset: behind shape and type
    assert int.from_bytes(data[at : at + 8], "little") == 4 * 8 * 4
    (tmp_path / "m.gguf").write_bytes(data[:at] + (32).to_bytes(8, "little") + data[at + 8 :])
    with pytest.raises(UserError, match="tensor second begins within another"):
        weights.load_config(path)


def test_damaged_gguf_files(tmp_path):
    """Bytes changed all over the head, and files that end early."""
    path = write_gguf(tmp_path / "m.gguf", GGUF)
    data = (tmp_path / "m.gguf").read_bytes()
    for at in range(4, len(data) - 128, 7):
        for value in (data[at] ^ (1 << at % 8), 0xFF):
            (tmp_path / "m.gguf").write_bytes(data[:at] + bytes([value]) + data[at + 1 :])
            for read in (weights.load_config, load_tokenizer):
                taken(lambda read=read: read(path))
    for length in range(0, len(data), 31):
        (tmp_path / "m.gguf").write_bytes(data[:length])
        assert taken(lambda: weights.load_config(path)) is None, length
