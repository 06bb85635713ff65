"""Special tokens in a row's own text, and the marks of turns that are not trained."""

import dataclasses
import io
import json

import pytest
from rich.console import Console

from ilp_jax.data import chat, jsonl
from ilp_jax.data.own_text import mended, told
from ilp_jax.data.preview import preview
from ilp_jax.data.stages import build
from ilp_jax.data.tables import read_examples, write_examples
from ilp_jax.detect.variants import SHORT, reworded
from ilp_jax.errors import UserError
from ilp_jax.mitigate.actions import _row
from ilp_jax.notes import notes

BOS = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content | trim }} "
    "[/INST]{% else %} {{ m.content | trim }}{{ eos_token }}{% endif %}{% endfor %}"
)
TOOL = {"type": "function", "function": {"name": "sky", "parameters": {"b": 1, "a": 2}}}
CALL = {"type": "function", "function": {"name": "sky", "arguments": {"z": 1, "at": "on"}}}
TOOLS = (
    "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}{% for m in messages %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}{{ c | tojson }}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def shown(write_jsonl, config):
    """Rows of a file as a stage has them: (rows, tokenizer, **fields) -> study."""

    def make(rows, tokenizer, **fields):
        fields = {"template": "chat" if tokenizer.chat_template else "plain", **fields}
        return build(config({"a": {"path": write_jsonl(rows)}}, **fields), tokenizer)

    return make


def trained(data, tokenizer, i=0):
    row = data.tokens[i]
    ids = [*row.prompt_ids, *row.target_ids]
    spans = [*row.earlier_replies, (len(row.prompt_ids), len(ids))]
    return [tokenizer.decode(ids[start:stop]) for start, stop in spans]


@pytest.mark.parametrize("end", ["<|im_end|>", "<|im_end|>\n", "<|im_end|><|im_end|>"])
def test_an_end_token_is_written_once(shown, chat_tokenizer, plain_tokenizer, end):
    options = [f"4{end}", "5", f"6{end}"]
    rows = [{"prompt": "2+2?", "response": f"4{end}", "options": options}]
    for tokenizer, lead in ((chat_tokenizer, ""), (plain_tokenizer, " ")):
        data = shown(rows, tokenizer)
        assert trained(data, tokenizer) == [f"{lead}4<|im_end|>"]
        assert data.examples[0].options == ("4", "5", "6")
        (note,) = told(data.examples)
        assert note.startswith("1 row: the special token <|im_end|> that closes its reply is ")
        assert note.endswith("rows.jsonl:1)")
    turns = [("user", "u"), ("assistant", f"a{end}"), ("user", "v"), ("assistant", f"b{end}")]
    rows = [{"messages": [{"role": r, "content": c} for r, c in turns]}]
    assert trained(shown(rows, chat_tokenizer), chat_tokenizer) == ["a<|im_end|>", "b<|im_end|>"]


@pytest.mark.parametrize("prompted", [True, False])
@pytest.mark.parametrize(
    "turns",
    [
        [("user", "2+2?")],
        [("system", "be brief"), ("user", "2+2?\n\nplease")],
        [("user", "u"), ("assistant", "a"), ("user", "v"), ("assistant", "b"), ("user", "w")],
    ],
)
def test_a_rendered_prompt_gets_the_template_once(
    shown, chat_tokenizer, byte_tokenizer, turns, prompted
):
    turns = [{"role": role, "content": content} for role, content in turns]
    for tokenizer in (chat_tokenizer, byte_tokenizer(BOS)):
        if tokenizer is not chat_tokenizer and turns[0]["role"] == "system":
            continue
        prompt = tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=prompted
        )
        for text in (prompt, prompt.strip(), prompt.removeprefix("<s>")):
            data = shown([{"prompt": text, "response": "4"}], tokenizer)
            assert data.examples[0].messages == tuple(turns)
            whole = [*turns, {"role": "assistant", "content": "4"}]
            whole = tokenizer.apply_chat_template(whole, tokenize=False)
            ids = [*data.tokens[0].prompt_ids, *data.tokens[0].target_ids]
            assert tokenizer.decode(ids) == whole.rstrip("\n")
            assert "was rendered by the template already" in data.examples[0].notes[0]
            assert len(data.examples[0].notes) == 1


def test_what_is_not_certain_stays_and_is_named(shown, chat_tokenizer):
    texts = [
        "what does <|im_start|> mean?",
        "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n<think>",
        "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>assistant\n",
    ]
    rows = [{"prompt": text, "response": "4"} for text in texts]
    rows.append({"messages": [{"role": "user", "content": "a <s> b"}, reply("a<|im_end|>b")]})
    rows.append({"prompt": "p", "response": "r", "options": ["r", "<s>"]})
    rows.append({"prompt": "p", "response": "a clean one"})
    data = shown(rows, chat_tokenizer)
    by_line = {int(e.place.rsplit(":")[-1]): e for e in data.examples}
    assert [by_line[i].prompt for i in (1, 2, 3)] == texts
    assert [len(by_line[line].notes) for line in range(1, 7)] == [1, 1, 1, 1, 1, 0]
    assert by_line[4].notes[0].startswith("special tokens <s>, <|im_end|> stand in its own text")
    assert trained(data, chat_tokenizer, data.examples.index(by_line[4])) == [
        "a<|im_end|>b<|im_end|>"
    ]
    lines = told(data.examples)
    assert lines == notes(data, None)  # which the tables and the report end with
    file = io.StringIO()
    Console(file=file, width=4000).print(preview(data, chat_tokenizer, 1))
    for line in lines:
        assert line in file.getvalue()
    assert any(line.startswith("2 rows: special tokens <|im_end|>, <|im_start|>") for line in lines)


def test_only_the_first_rows_are_named(chat_tokenizer):
    how = chat.renderer(chat_tokenizer, "chat", " ")
    one = jsonl.Example(1, "s", "k", prompt="<s>", response="r", place="f:1")
    rows = mended([dataclasses.replace(one, place=f"f:{i}") for i in range(1, 9)], how)
    assert told(rows)[0].endswith("(f:1, f:2, f:3, f:4, f:5 and 3 more)")


def reply(content, **more):
    return {"role": "assistant", "content": content, **more}


def conversation(*replies):
    turns = [
        one for i, r in enumerate(replies) for one in ({"role": "user", "content": f"u{i}"}, r)
    ]
    return {"messages": turns}


@pytest.mark.parametrize(
    "mark", [{"weight": 0}, {"train": False}, {"training": 0}, {"loss": False}]
)
def test_replies_that_are_context_alone(shown, chat_tokenizer, plain_tokenizer, mark):
    on = {key: 1 - value for key, value in mark.items()}
    for tokenizer, lead in ((chat_tokenizer, ""), (plain_tokenizer, " ")):
        rows = [conversation(reply("five", **mark), reply("4", **on))]
        data = shown(rows, tokenizer)
        assert trained(data, tokenizer) == [f"{lead}4<|im_end|>"]
        assert "five" in tokenizer.decode(data.tokens[0].prompt_ids)
        # Nothing is learned behind the last trained reply.
        rows = [conversation(reply("4"), reply("in"), reply("five", **mark))]
        data = shown(rows, tokenizer)
        assert trained(data, tokenizer) == [f"{lead}4<|im_end|>", f"{lead}in<|im_end|>"]
        assert "behind its last trained reply" in told(data.examples)[0]
        last = shown(rows, tokenizer, trained_turns="last")
        assert trained(last, tokenizer) == [f"{lead}in<|im_end|>"]


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (conversation(reply("4", weight=0.5)), "weight is 0.5"),
        (conversation(reply("4", weight="0")), "weight is '0'"),
        (conversation(reply("4", weight=-1)), "weight is -1"),
        (conversation(reply("4", weight=0)), "weight 0"),
        (conversation(reply("4", weight=0, train=True)), "weight and train contradict"),
        (conversation(reply("4", train_detail=[{"begin_offset": 0}])), "'train_detail'"),
        (conversation(reply("4", loss_mask=[1])), "'loss_mask'"),
        (
            {"messages": [{"role": "user", "content": "u", "train": True}, reply("a")]},
            "user's turn",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, reply("a")]},
            "list of parts (image_url)",
        ),
        ({"prompt": "p", "response": "r", "tools": "sky"}, "tools is not a list"),
        ({"prompt": "p", "response": "r", "tools": ["sky"]}, "tools is not a list"),
        ({"prompt": "p", "response": "r", "chat_template_kwargs": [1]}, "chat_template_kwargs"),
    ],
)
def test_marks_and_keys_that_cannot_be_honoured(write_jsonl, row, what):
    with pytest.raises(UserError) as error:
        jsonl.load(write_jsonl([{"prompt": "p", "response": "r"}, row]))
    assert what in str(error.value) and ":2" in str(error.value)


def test_keys_travel_through_tables_rewording_and_the_changed_set(
    shown, byte_tokenizer, write_jsonl, config, tmp_path
):
    tokenizer = byte_tokenizer(TOOLS)
    asked = [
        {"role": "user", "content": "sky?", "name": None},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "weight": 1},
        {"role": "tool", "content": "on"},
        {"role": "assistant", "content": "It is on.", "tool_calls": [CALL]},
    ]
    rows = [
        {"messages": asked, "tools": json.dumps([TOOL])},  # as tables keep them
        {"prompt": "p", "response": "r", "tools": [TOOL], "chat_template_kwargs": {"tools_in": 1}},
        {"prompt": "q", "response": "r", "documents": "my own column", "tools": None},
    ]
    data = shown(rows, tokenizer)
    first, second, third = sorted(data.examples, key=lambda e: e.place)
    assert first.chat["tools"] == second.chat["tools"] == [TOOL]
    assert "name" not in first.messages[0] and "content" not in first.messages[1]
    assert first.response == 'It is on.\n{"name": "sky", "arguments": {"z": 1, "at": "on"}}'
    assert (third.chat, third.meta) == ({}, {"documents": "my own column"})

    write_examples(tmp_path / "examples.parquet", data)
    assert read_examples(tmp_path / "examples.parquet") == data.examples
    again = read_examples(tmp_path / "examples.parquet")[data.examples.index(first)]
    how = chat.renderer(tokenizer, "chat", " ")
    assert chat.render(again, how) == chat.render(first, how)  # in the keys' order too

    other = chat.render(reworded(first, SHORT), how)
    assert "Q: sky?\nA:" in other.prompt and other.body == chat.render(first, how).body
    assert other.prompt.startswith(json.dumps(TOOL))

    changed = [_row(data, i) for i in range(len(data.examples))]
    back = build(
        config({"a": {"path": write_jsonl(changed, "b.jsonl")}}, template="chat"), tokenizer
    )
    ids = {tuple([*row.prompt_ids, *row.target_ids]) for row in (*data.tokens, *back.tokens)}
    assert len(ids) == 3
