"""Every reply of a conversation is trained, or the last one alone."""

import io

import numpy as np
import polars as pl
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from ilp_jax.analysis.lengths import response_tokens
from ilp_jax.data import batches
from ilp_jax.data.conversation import plain_prompt
from ilp_jax.data.examples import Example
from ilp_jax.data.preview import preview
from ilp_jax.data.stages import build
from ilp_jax.data.study import assemble
from ilp_jax.data.tables import write_examples
from ilp_jax.data.tokens import tokenise
from ilp_jax.errors import UserError
from ilp_jax.parquet import read_arrow

# ChatML that tells transformers which text is the assistant's.
MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '<|im_end|>' }}"
    "{% endgeneration %}{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Reasoning is written in the last turn alone.
FORGETFUL = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and not loop.last %}{{ m['content'].split('|')[-1] }}"
    "{% else %}{{ m['content'] }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def conversation(*contents, system=False, options=(), key=1):
    """User and assistant in turn; the last text is the response."""
    roles = ["system"] * system + ["user", "assistant"] * len(contents)
    turns = tuple({"role": r, "content": c} for r, c in zip(roles, contents, strict=False))
    return Example(
        key,
        "s",
        str(key),
        prompt=plain_prompt(turns[:-1]),
        messages=turns[:-1],
        response=contents[-1],
        options=options,
        answer_index=options.index(contents[-1]) if options else None,
    )


def trained(row):
    """Brute force: places of the trained tokens in prompt + target."""
    places = [i for start, stop in row.earlier_replies for i in range(start, stop)]
    return places + list(range(len(row.prompt_ids), row.n_tokens))


words = st.text(st.sampled_from("an on the,\n"), min_size=1, max_size=12).filter(str.strip)


@settings(max_examples=40, deadline=None)
@given(st.lists(words, min_size=4, max_size=9), st.booleans())
def test_chat_trains_what_transformers_marks_as_the_assistants(byte_tokenizer, texts, system):
    texts = texts if len(texts) % 2 == system else texts[:-1]
    tokenizer = byte_tokenizer(MARKED)
    example = conversation(*texts, system=system)
    row = tokenise(example, tokenizer, "chat", " ", 10_000)
    turns = [*example.messages, {"role": "assistant", "content": example.response}]
    whole = tokenizer.apply_chat_template(
        turns, return_dict=True, return_assistant_tokens_mask=True
    )
    ids = [*row.prompt_ids, *row.target_ids]
    assert ids == whole["input_ids"][:-1]  # without the last newline
    assert trained(row) == np.flatnonzero(whole["assistant_masks"]).tolist()
    assert row.n_targets == sum(whole["assistant_masks"])


def test_plain_closes_every_reply(plain_tokenizer):
    example = conversation("u", "a", "v", " b", "w", "c")
    row = tokenise(example, plain_tokenizer, "plain", " ", 999)
    shown = plain_tokenizer.decode([*row.prompt_ids, *row.target_ids])
    end = "<|im_end|>"
    assert shown == (
        f"User: u\nAssistant: a{end}\nUser: v\nAssistant: b{end}\nUser: w\nAssistant: c{end}"
    )
    ids = row.prompt_ids
    replies = [plain_tokenizer.decode(ids[start:stop]) for start, stop in row.earlier_replies]
    assert replies == [f" a{end}", f" b{end}"]


def test_plain_with_a_tokenizer_that_adds_spaces(space_tokenizer):
    example = conversation("sky", "blue", "sea", "blue")
    row = tokenise(example, space_tokenizer, "plain", " ", 999)
    pieces = space_tokenizer.convert_ids_to_tokens([*row.prompt_ids, *row.target_ids])
    assert [pieces[i] for i in trained(row)] == ["\u2581blue", "</s>"] * 2
    assert pieces[pieces.index("</s>") + 1] == "\n"  # no space is added behind a reply


@pytest.mark.parametrize("template", ["plain", "chat"])
def test_last_alone_and_single_turns(chat_tokenizer, template):
    example = conversation("u", "an", "v", "on", options=("on", "the"))
    every = tokenise(example, chat_tokenizer, template, " ", 999)
    last = tokenise(example, chat_tokenizer, template, " ", 999, "last")
    assert (len(every.earlier_replies), last.earlier_replies) == (1, ())
    of_every, of_last = ((row.target_ids, *row.option_ids) for row in (every, last))
    for a, b in zip(of_every, of_last, strict=True):
        assert a.tolist() == b.tolist()
    if template == "plain":
        assert chat_tokenizer.decode(last.prompt_ids) == example.prompt
    else:
        assert last.prompt_ids.tolist() == every.prompt_ids.tolist()
    for one in (conversation("u", "a"), conversation("s", "u", "a", system=True)):
        rows = [tokenise(one, chat_tokenizer, template, " ", 99, t) for t in ("all", "last")]
        assert rows[0].prompt_ids.tolist() == rows[1].prompt_ids.tolist()
        assert rows[0].earlier_replies == ()


@pytest.mark.parametrize("template", ["plain", "chat"])
def test_replies_that_are_not_trained(chat_tokenizer, template):
    """An empty one, and one that nothing stands before."""
    for first in (("", "a", "v", "b"), ("u", " ", "v", "b")):
        example = conversation(*first)
        messages = example.messages if first[0] else example.messages[1:]
        example = Example(
            1, "s", "k", prompt=plain_prompt(messages), messages=messages, response="b"
        )
        assert tokenise(example, chat_tokenizer, template, " ", 99).earlier_replies == ()


def test_template_that_forgets_part_of_a_reply(byte_tokenizer):
    tokenizer = byte_tokenizer(FORGETFUL)
    example = conversation("u", "so|an", "v", "so|on")
    with pytest.raises(UserError, match="config.trained_turns='last'"):
        tokenise(example, tokenizer, "chat", " ", 99)
    row = tokenise(example, tokenizer, "chat", " ", 99, "last")
    assert tokenizer.decode(row.target_ids) == "so|on<|im_end|>"
    # Where it writes the reply whole, it is trained.
    row = tokenise(conversation("u", "an", "v", "so|on"), tokenizer, "chat", " ", 99)
    assert [tokenizer.decode(row.prompt_ids[a:b]) for a, b in row.earlier_replies] == [
        "an<|im_end|>"
    ]
    with pytest.raises(UserError, match="config.trained_turns"):
        tokenise(example, tokenizer, "chat", " ", 99, "first")


def test_truncation_cuts_the_last_reply_only(chat_tokenizer):
    example = conversation("u", "an", "v", "onononon")
    whole = tokenise(example, chat_tokenizer, "chat", " ", 999)
    cut = tokenise(example, chat_tokenizer, "chat", " ", whole.n_tokens - 2)
    assert cut.truncated and cut.earlier_replies == whole.earlier_replies
    assert len(cut.target_ids) == len(whole.target_ids) - 2
    assert len(tokenise(example, chat_tokenizer, "chat", " ", 12).target_ids) == 0


@pytest.fixture(scope="module")
def data(chat_tokenizer, config):
    """Conversations of one to four replies, some with options."""
    rows = []
    for n in range(1, 13):
        texts = [f"{'an ' * (i % 3)}{n}.{i}" for i in range(2 * (1 + n % 4))]
        options = ("the on", texts[-1], "other") if n % 2 else ()
        example = conversation(*texts, key=n, options=options)
        rows.append((example, tokenise(example, chat_tokenizer, "chat", " ", 999)))
    return assemble([("a", config({"a": {}}).stages.a, rows, [])])


def check_targets(rows, b, row, slots):
    ids = [*row.prompt_ids, *row.target_ids]
    assert rows.target_ids_BxR[b, slots].tolist() == [ids[i] for i in trained(row)]
    # In both layouts prompt and response lie side by side at the row's start.
    assert rows.tokens_BxT[b, : len(ids)].tolist() == ids
    assert rows.target_index_BxR[b, slots].tolist() == [i - 1 for i in trained(row)]


def test_training_rows(data):
    for rows, meta in batches.probe_batches(data, range(12), 5):
        for b in range(meta.n_real):
            row = data.tokens[meta.example_index_B[b]]
            check_targets(rows, b, row, np.flatnonzero(rows.target_mask_BxR[b]))
            assert (rows.branch_BxT[b] == 0).sum() == row.n_tokens
            assert rows.target_mask_BxR[b].sum() == row.n_targets
        assert rows.target_ids_BxR.shape[1] <= rows.tokens_BxT.shape[1]


def test_packed_rows_count_every_reply_as_the_response(data, attends):
    for rows, meta, slot_branch in batches.option_batches(data, range(12), 5):
        for b in range(meta.n_real):
            row = data.tokens[meta.example_index_B[b]]
            slots = np.flatnonzero(slot_branch[b] == 1)
            check_targets(rows, b, row, slots)
            assert rows.target_ids_BxR[b, slots[-len(row.target_ids) :]].tolist() == (
                row.target_ids.tolist()
            )
            sees = attends(rows, b)
            for slot in slots:
                # A reply's token is predicted from all that stands before it, and no more.
                at = rows.target_index_BxR[b, slot]
                assert np.flatnonzero(sees[at]).tolist() == list(range(at + 1))
            for k, option in enumerate(row.option_ids):
                slots = np.flatnonzero(slot_branch[b] == 2 + k)
                assert rows.target_ids_BxR[b, slots].tolist() == option.tolist()
                assert rows.target_index_BxR[b, slots[0]] == len(row.prompt_ids) - 1
            assert (rows.branch_BxT[b] != -1).sum() == row.n_packed_tokens


def test_counts_and_preview(data, chat_tokenizer, tmp_path):
    write_examples(tmp_path / "examples.parquet", data)
    table = read_arrow(tmp_path / "examples.parquet")
    assert table["n_target_tokens"].to_pylist() == [len(trained(row)) for row in data.tokens]
    both = pc.add(table["n_prompt_tokens"], table["n_target_tokens"]).to_pylist()
    assert both == [row.n_tokens for row in data.tokens]
    file = io.StringIO()
    Console(file=file, width=4000).print(preview(data, chat_tokenizer, 12))
    assert file.getvalue().count("[<|im_end|>]") == sum(1 + n % 4 for n in range(1, 13))


@pytest.mark.parametrize("template", ["chat", "plain"])
@pytest.mark.parametrize("trained_turns", ["all", "last"])
def test_response_lengths_leave_out_every_end_token(
    template, trained_turns, chat_tokenizer, config, tmp_path
):
    rows, lengths = [], []
    end = chat_tokenizer.eos_token_id
    for n, cut in ((1, 0), (2, 0), (4, 0), (3, 2)):
        example = conversation(
            *(f"on {i}" for i in range(2 * n - 1)), "in the an", key=10 * n + cut
        )
        whole = tokenise(example, chat_tokenizer, template, " ", 999, trained_turns)
        limit = whole.n_tokens - cut
        row = tokenise(example, chat_tokenizer, template, " ", limit, trained_turns)
        ids = np.concatenate([row.prompt_ids, row.target_ids])[trained(row)]
        assert row.truncated == bool(cut)
        assert (ids == end).sum() == (n if trained_turns == "all" else 1) - bool(cut)
        lengths.append(int((ids != end).sum()))
        rows.append((example, row))
    plain = Example(1, "s", "1", prompt="u", response="an")
    rows.append((plain, tokenise(plain, chat_tokenizer, template, " ", 999, trained_turns)))
    lengths.append(len(rows[-1][1].target_ids) - 1)
    write_examples(tmp_path / "e.parquet", assemble([("a", config({"a": {}}).stages.a, rows, [])]))
    table = pl.from_arrow(read_arrow(tmp_path / "e.parquet"))
    found = response_tokens(table, trained_turns)
    assert found["example_id"].to_list() == [example.example_id for example, _ in rows]
    assert found["response_tokens"].to_list() == lengths


def test_stage_limit_holds_for_every_reply(write_jsonl, config, chat_tokenizer):
    rows = [
        {"id": i, "messages": [*example.messages, {"role": "assistant", "content": "b"}]}
        for i, example in enumerate([conversation("u", "o" * 9, "v", "b"), conversation("u", "b")])
    ]
    stages = {"a": {"path": write_jsonl(rows), "max_response_tokens": 5}}
    data = build(config(stages, template="chat"), chat_tokenizer)
    assert data.dropped["a"] == {"long_response": 1}
    data = build(config(stages, template="chat", trained_turns="last"), chat_tokenizer)
    assert len(data.examples) == 2 and not any(row.earlier_replies for row in data.tokens)
