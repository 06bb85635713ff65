"""Where a model's answers end: read from all of its files, and kept in an exported folder."""

import json

import gguf
import numpy as np
import pytest
from tokenizers.pre_tokenizers import ByteLevel

from ilp_jax.cli import main
from ilp_jax.data.study import StudyData
from ilp_jax.data.tokens import TokenRow
from ilp_jax.errors import UserError
from ilp_jax.models import ends, weights
from ilp_jax.models.export import export
from ilp_jax.models.tokenizer import load_tokenizer

TEXT, START, END = 256, 257, 258  # <|endoftext|>, <|im_start|>, <|im_end|>


@pytest.mark.parametrize(
    ("config", "generation", "template", "expected"),
    [
        (None, None, None, (TEXT,)),
        (None, None, "chatml", (END, TEXT)),
        (7, None, "chatml", (END, TEXT, 7)),
        ([7, 9], {"eos_token_id": [9, 11, END]}, "chatml", (END, TEXT, 9, 11, 7)),
        ([7, 9], {"temperature": 0.6}, None, (TEXT, 7, 9)),
        (-1, {"eos_token_id": None}, None, (TEXT,)),
    ],
)
def test_ends_are_those_of_every_file(byte_model, tmp_path, config, generation, template, expected):
    fields = {} if config is None else {"eos_token_id": config}
    more = {} if template else {"template": None}
    byte_model(tmp_path / "m", **more, **fields)
    if generation is not None:
        (tmp_path / "m/generation_config.json").write_text(json.dumps(generation))
    tokenizer = load_tokenizer(str(tmp_path / "m"))
    assert ends.end_ids(tokenizer) == expected
    assert ends.end_ids(tokenizer, [42, expected[-1]])[:2] == (42, expected[-1])


def test_ends_that_are_trained_come_first(byte_model, tmp_path):
    tokenizer = load_tokenizer(str(byte_model(tmp_path / "m")))

    def row(*targets, replies=(), cut=False):
        prompt = np.array([1, 2, 40, 3], np.int32)
        return TokenRow(0, prompt, np.array(targets, np.int32), (), cut, replies)

    rows = (row(5, 41), row(6, 41), row(7, 50, cut=True), row(5, 60, replies=((1, 3),)))
    assert ends.of_study(StudyData((), rows, ()), tokenizer) == (41, 60, 40, END, TEXT)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "generation_config.json",
            '{"eos_token_id": "x"}',
            "eos_token_id is 'x', no token's number",
        ),
        ("generation_config.json", '{"eos_token_id": [1, true]}', "no token's number"),
        ("generation_config.json", "[]", "generation_config.json: is not a JSON object"),
        ("generation_config.json", "{", "cannot be read as JSON"),
    ],
)
def test_damaged_files_are_refused_by_name(byte_model, tmp_path, name, text, message):
    folder = byte_model(tmp_path / "m")
    (folder / name).write_text(text)
    with pytest.raises(UserError, match=message.replace("[", r"\[")) as caught:
        load_tokenizer(str(folder))
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture
def exported(byte_model, tmp_path):
    """A base whose own end is <|endoftext|>, exported; its template closes with <|im_end|>."""
    source = byte_model(tmp_path / "base", told={"model_max_length": 99})
    generation = {"eos_token_id": TEXT, "temperature": 0.6, "do_sample": True, "top_k": 20}
    (source / "generation_config.json").write_text(json.dumps(generation))
    model, tokenizer = weights.load(str(source)), load_tokenizer(str(source))
    export(model.config, model.params, tokenizer, tmp_path / "out", trained_ends=[11])
    return source, tmp_path / "out"


def test_an_exported_folder_stops_at_all_ends(exported):
    source, out = exported
    written = json.loads((out / "generation_config.json").read_text())
    before = json.loads((source / "generation_config.json").read_text())
    assert written == before | {"eos_token_id": [11, END, TEXT]}
    assert json.loads((out / "config.json").read_text())["eos_token_id"] == [11, END, TEXT]
    # Read back and written again, nothing is lost or added.
    one, other = (load_tokenizer(str(folder)) for folder in (source, out))
    assert ends.end_ids(other, [11]) == (11, END, TEXT)
    assert other.chat_template == one.chat_template and other.eos_token == one.eos_token
    assert other.model_max_length == one.model_max_length == 99
    text = "<|im_start|>user\nNaïve 123  x<|im_end|>"
    assert other(text).input_ids == one(text).input_ids


@pytest.mark.torch_parity
def test_transformers_stops_where_the_folder_says(exported):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    _, out = exported
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    assert model.generation_config.eos_token_id == [11, END, TEXT]
    assert model.generation_config.temperature == 0.6
    prompt = torch.tensor([[65, 66]])
    for end in (11, END, TEXT):
        bias = [[[end], 1e4]]
        answer = model.generate(prompt, do_sample=False, sequence_bias=bias, max_new_tokens=5)
        assert answer[0].tolist() == [65, 66, end]


def test_the_command_keeps_them(exported, byte_model, tmp_path, capsys):
    """`ilp run` in ChatML, then `ilp export`: the trained end, and those of the source."""
    source, _ = exported
    rows = [{"prompt": f"q{i}", "response": f"a{i}"} for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = f"model={source},data={tmp_path / 'rows.jsonl'},epochs=1,batch_size=4"
    words = ["--config", f"configs/own.py:{settings}", "--workdir", str(tmp_path / "run")]
    assert main(["probe", *words]) == 0 and main(["train", *words]) == 0
    assert main(["export", "--workdir", str(tmp_path / "run"), "--out", str(tmp_path / "ft")]) == 0
    assert "generation_config.json" in capsys.readouterr().out
    for name in ("generation_config.json", "config.json"):
        assert json.loads((tmp_path / "ft" / name).read_text())["eos_token_id"] == [END, TEXT]


def test_a_gguf_file_has_those_it_names_and_those_known_by_their_text(tmp_path):
    own = ["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>", "<|im_end|>", "own", "an"]
    tokens = [*own, *sorted(ByteLevel.alphabet())]
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    # <|im_end|> is no control token here.
    writer.add_token_types([3, 3, 3, 1, 3, 1, *[1] * 256])
    writer.add_token_merges(["a n"])
    writer.add_eos_token_id(2)
    writer.add_uint32("tokenizer.ggml.eot_token_id", 4)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert ends.end_ids(load_tokenizer(str(tmp_path / "m.gguf"))) == (2, 4, 0, 1)
