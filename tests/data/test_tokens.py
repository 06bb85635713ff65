"""Token rows: spans, BOS, truncation, boundaries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ilp_jax.data.examples import Example
from ilp_jax.data.tokens import tokenise, tokenise_all
from ilp_jax.errors import UserError


def example(prompt, response, options=()):
    index = options.index(response) if options else None
    return Example(
        1, "s", "k", prompt=prompt, response=response, options=options, answer_index=index
    )


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


@given(prompt=texts, response=texts.filter(str.strip))
def test_tokens_decode_to_the_text(plain_tokenizer, prompt, response):
    row = tokenise(example(prompt, response), plain_tokenizer, "plain", " ", 10_000)
    ids = [*row.prompt_ids, *row.target_ids]
    gap = "" if prompt[-1].isspace() or response[0].isspace() else " "
    assert plain_tokenizer.decode(ids) == prompt + gap + response + "<|im_end|>"
    assert plain_tokenizer.decode(row.prompt_ids) == prompt
    assert not row.truncated


def test_options_are_the_response_without_the_end_token(plain_tokenizer):
    row = tokenise(example("p:", "an on", ("the", "an on")), plain_tokenizer, "plain", " ", 99)
    assert row.option_ids[1].tolist() == row.target_ids[:-1].tolist()
    assert plain_tokenizer.decode(row.option_ids[0]) == " the"
    assert row.target_ids[-1] == plain_tokenizer.eos_token_id
    assert row.target_ids.dtype == row.prompt_ids.dtype == row.option_ids[0].dtype == "int32"


def test_bos_only_where_the_tokenizer_adds_it(byte_tokenizer, chatml):
    one = example("p:", "r")
    with_bos = byte_tokenizer(chatml, bos=True)
    assert tokenise(one, with_bos, "plain", " ", 99).prompt_ids[0] == with_bos.bos_token_id
    assert with_bos.bos_token_id not in tokenise(one, with_bos, "plain", " ", 99).target_ids
    assert with_bos.bos_token_id not in tokenise(one, byte_tokenizer(), "plain", " ", 99).prompt_ids
    # A chat template writes its own BOS, or none.
    assert with_bos.bos_token_id not in tokenise(one, with_bos, "chat", " ", 99).prompt_ids


def test_chat_equals_the_tokenizers_own_rendering(chat_tokenizer):
    row = tokenise(example("2+2?", "4"), chat_tokenizer, "chat", " ", 99)
    turns = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]
    whole = chat_tokenizer.apply_chat_template(turns, return_dict=True)["input_ids"]
    newline = chat_tokenizer("\n")["input_ids"]
    assert [*row.prompt_ids, *row.target_ids, *newline] == whole
    assert row.target_ids.tolist() == [*chat_tokenizer("4")["input_ids"], row.target_ids[-1]]


@given(st.integers(1, 14))
def test_truncation_cuts_the_targets_tail_and_says_so(plain_tokenizer, max_length):
    whole = tokenise(example("abcd", "efghi"), plain_tokenizer, "plain", " ", 99)
    row = tokenise(example("abcd", "efghi"), plain_tokenizer, "plain", " ", max_length)
    assert row.prompt_ids.tolist() == whole.prompt_ids.tolist()
    room = max(max_length - len(whole.prompt_ids), 0)
    assert row.target_ids.tolist() == whole.target_ids.tolist()[:room]
    assert row.truncated == (whole.n_tokens > max_length)


def test_space_before_every_text_is_not_doubled(space_tokenizer):
    row = tokenise(example("sky:", "blue", ("red", "blue")), space_tokenizer, "plain", " ", 99)
    pieces = space_tokenizer.convert_ids_to_tokens(row.target_ids)
    assert pieces == ["\u2581blue", "</s>"]
    assert space_tokenizer.decode([*row.prompt_ids, *row.target_ids[:-1]]) == "sky: blue"
    assert space_tokenizer.convert_ids_to_tokens(row.option_ids[0]) == ["\u2581", *"red"]


def test_empty_prompt_needs_a_bos(plain_tokenizer, byte_tokenizer):
    with pytest.raises(UserError, match="no token"):
        tokenise(example("", "r"), plain_tokenizer, "plain", " ", 99)
    row = tokenise(example("", "r"), byte_tokenizer(bos=True), "plain", " ", 99)
    assert len(row.prompt_ids) == 1


def test_boundary_that_changes_the_text_is_an_error():
    # WordPiece: "un" + "able" apart is two words, together one.
    backend = Tokenizer(
        models.WordPiece(
            {"[UNK]": 0, "un": 1, "able": 2, "##able": 3, "[SEP]": 4, "a": 5}, unk_token="[UNK]"
        )
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="[SEP]", unk_token="[UNK]"
    )
    tokenise(example("un", "able"), tokenizer, "plain", " ", 99)
    with pytest.raises(UserError, match="decode to another text"):
        tokenise(example("un", "able"), tokenizer, "plain", "", 99)


def test_many_are_as_one_by_one(plain_tokenizer, questions):
    rows = [example(q["prompt"], q["response"], tuple(q["options"])) for q in questions(20)]
    together = tokenise_all(rows, plain_tokenizer, "plain", " ", 30)
    for one, row in zip(rows, together, strict=True):
        alone = tokenise(one, plain_tokenizer, "plain", " ", 30)
        assert alone.prompt_ids.tolist() == row.prompt_ids.tolist()
        assert alone.target_ids.tolist() == row.target_ids.tolist()
        assert [o.tolist() for o in alone.option_ids] == [o.tolist() for o in row.option_ids]
    assert tokenise_all([], plain_tokenizer, "plain", " ", 30) == ()
