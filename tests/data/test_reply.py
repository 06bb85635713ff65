"""Where replies begin and end in what many kinds of template write, and what templates are given.

The whole text is compared with transformers' own rendering, of the same turns and all keys.
"""

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from ilp_jax.data import chat
from ilp_jax.data.conversation import plain_prompt, text_of
from ilp_jax.data.examples import Example
from ilp_jax.data.own_text import mended
from ilp_jax.data.stages import build, tokens_of
from ilp_jax.data.tokens import tokenise
from ilp_jax.errors import UserError

TOOL = {"type": "function", "function": {"name": "sky", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "sky", "arguments": {"at": "on"}}}
# As Qwen2.5 writes tools and calls; the header's line ends only before a content.
TOOLS = (
    "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}{% endfor %}<|im_end|>\n"
    "{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}"
    "{% if m.content %}{{ '\n' + m.content }}{% endif %}{% for c in m.tool_calls or [] %}"
    "{{ '\n<call>' + (c.function | tojson) + '</call>' }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As LLaMA 3.1: a call has another end, and leaves the content out.
OTHER_END = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.tool_calls %}"
    "{{ m.tool_calls[0].function | tojson }}<s>{% else %}{{ m.content }}<|im_end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BARE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}"
    "<|im_end|>{% endif %}\n{% endfor %}"
)
VICUNA = (
    "{% for m in messages %}{% if m.role == 'user' %}USER: {{ m.content }}"
    "{% else %} ASSISTANT: {{ m.content }}<|im_end|>{% endif %}{% endfor %}"
)
OPENING = BARE + "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
# As DeepSeek-R1: the generation prompt opens the reasoning, which the template takes off.
TAKEN_OFF = (
    "{% for m in messages %}{% if m.role == 'user' %}<s>{{ m.content }}{% else %}<|im_start|>"
    "{{ m.content.split('</think>')[-1] }}<|im_end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|><think>\n{% endif %}"
)
# As Phi-3: what closes a whole conversation is no end of a reply.
CLOSED = BARE + ("{% if add_generation_prompt %}<|im_start|>assistant\n{% else %}<s>{% endif %}")
# As Qwen3: reasoning stands in the last reply alone, and may be switched off.
SWITCH = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}"
    "<think>\n{{ m.reasoning_content or '' }}\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)
# A result of a tool stands within the turn that called it.
INSIDE = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ m.content }}<|im_end|>\n{% else %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}{{ 'call' if m.tool_calls }}"
    "{% if loop.last or loop.nextitem.role != 'tool' %}<|im_end|>\n{% endif %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def user(content):
    return {"role": "user", "content": content}


def reply(content=None, **more):
    return {"role": "assistant", **({} if content is None else {"content": content}), **more}


def row(*turns, **given):
    last = turns[-1]
    given |= {"reply": last} if last.keys() - {"role", "content"} else {}
    before = tuple(turns[:-1])
    prompt = plain_prompt(before)
    return Example(1, "s", "k", prompt=prompt, messages=before, response=text_of(last), chat=given)


def trained(byte_tokenizer, template, example, **arguments):
    """The trained texts; all text is checked against transformers' rendering."""
    tokenizer = byte_tokenizer(template)
    how = chat.renderer(tokenizer, "chat", " ", arguments=arguments)
    example = mended([example], how)[0]
    one = chat.render(example, how)
    given = {k: v for k, v in example.chat.items() if k in ("tools", "documents")}
    arguments |= example.chat.get("chat_template_kwargs", {})
    whole = tokenizer.apply_chat_template(
        [*example.messages, example.chat.get("reply", reply(example.response))],
        tokenize=False,
        **given,
        **arguments,
    )
    end = tokenizer.convert_ids_to_tokens(one.end_id)
    assert whole.startswith(one.prompt + one.body + end)
    ids = tokenise(example, tokenizer, "chat", " ", 9999, arguments=how.arguments)
    assert tokenizer.decode([*ids.prompt_ids, *ids.target_ids]) == one.prompt + one.body + end
    return [one.prompt[r.start : r.end] for r in one.earlier] + [one.body + end]


TWO = (user("u"), reply("an on"), user("v"), reply("the in"))


@pytest.mark.parametrize(
    ("template", "texts"),
    [
        (BARE, ["an on<|im_end|>", "the in<|im_end|>"]),
        (MARKED, ["an on<|im_end|>", "the in<|im_end|>"]),
        (VICUNA, [" an on<|im_end|>", " the in<|im_end|>"]),
        (OPENING, ["an on<|im_end|>", "the in<|im_end|>"]),
        (TAKEN_OFF, ["an on<|im_end|>", "the in<|im_end|>"]),
        (CLOSED, ["an on<|im_end|>", "the in<|im_end|>"]),
        (SWITCH, ["an on<|im_end|>", "<think>\n\n</think>\n\nthe in<|im_end|>"]),
    ],
)
def test_headers_are_context(byte_tokenizer, template, texts):
    assert trained(byte_tokenizer, template, row(*TWO)) == texts


def test_without_a_generation_prompt_what_transformers_marks_is_trained(byte_tokenizer):
    tokenizer = byte_tokenizer(MARKED)
    turns = [user("<"), reply("<|an"), user("on"), reply("im_start")]
    (text,), (spans,) = render_jinja_template(
        conversations=[turns], chat_template=MARKED, return_assistant_tokens_mask=True
    )
    found = trained(byte_tokenizer, MARKED, row(*turns))
    assert found == [text[start:stop] for start, stop in spans]
    assert tokenizer.chat_template == MARKED


def test_a_reply_that_the_generation_prompt_opens(byte_tokenizer):
    thought = "<think>\ntwo twos\n</think>\n\n4"
    assert trained(byte_tokenizer, OPENING, row(user("u"), reply(thought))) == [
        "two twos\n</think>\n\n4<|im_end|>"
    ]
    # What only begins like the opening is all the reply's.
    for text in ("<this>", "<think", "<think>4"):
        found = trained(byte_tokenizer, OPENING, row(user("u"), reply(text)))
        assert found == [f"{text}<|im_end|>"]
    with pytest.raises(UserError, match="does not render the response whole"):
        trained(byte_tokenizer, TAKEN_OFF, row(user("u"), reply(thought)))


def test_template_arguments_of_config_and_row(byte_tokenizer):
    whole, off = "<think>\n\n</think>\n\n4<|im_end|>", "4<|im_end|>"
    for arguments, own, text in (
        ({}, {}, whole),
        ({"enable_thinking": False}, {}, off),
        ({}, {"enable_thinking": False}, off),
        ({"enable_thinking": False}, {"enable_thinking": True}, whole),
    ):
        example = row(user("2+2?"), reply("4"), chat_template_kwargs=own)
        assert trained(byte_tokenizer, SWITCH, example, **arguments) == [text]
    example = row(user("2+2?"), reply("4", reasoning_content="twos"))
    assert trained(byte_tokenizer, SWITCH, example) == ["<think>\ntwos\n</think>\n\n4<|im_end|>"]


def test_the_configs_arguments_reach_every_rendering(byte_tokenizer, config, write_jsonl):
    tokenizer, path = byte_tokenizer(SWITCH), write_jsonl([{"prompt": "2+2?", "response": "4"}])
    for text, end in (
        ("", "</think>\n\n4<|im_end|>"),
        ('{"enable_thinking": false}', "4<|im_end|>"),
    ):
        fields = config({"a": {"path": path}}, template="chat", chat_template_kwargs=text)
        data = build(fields, tokenizer)
        again = tokens_of(fields, tokenizer, data.examples)  # as detection and mitigation do
        for row in (*data.tokens, *again):
            found = tokenizer.decode(row.target_ids)
            assert found == end if text else found.endswith(end) and found != "4<|im_end|>"


def test_arguments_that_the_template_does_not_read(byte_tokenizer, plain_tokenizer):
    tokenizer = byte_tokenizer(SWITCH)
    with pytest.raises(UserError, match="did you mean enable_thinking") as error:
        chat.renderer(tokenizer, "chat", " ", arguments={"enable_thinkng": False})
    assert error.value.where == "config.chat_template_kwargs"
    with pytest.raises(UserError, match="plain template does not read"):
        chat.renderer(plain_tokenizer, "plain", " ", arguments={"enable_thinking": False})
    for name in ("tools", "messages", "conversations", "add_generation_prompt"):
        example = row(user("u"), reply("a"), chat_template_kwargs={name: 1})
        with pytest.raises(UserError, match=f"^s:k: '{name}' is no argument"):
            mended([example], chat.renderer(tokenizer, "chat", " "))
    example = row(user("u"), reply("a"), chat_template_kwargs={"think": 1})
    (example,) = mended([example], chat.renderer(byte_tokenizer(BARE), "chat", " "))
    assert example.notes == ("'think' of its chat_template_kwargs is read by no chat template",)


CALLED = '<call>{"name": "sky", "arguments": {"at": "on"}}</call><|im_end|>'


def test_tools_and_calls(byte_tokenizer):
    asked = (user("sky?"), reply(tool_calls=[CALL]), {"role": "tool", "content": "in"})
    for text in ("a the", None):
        example = row(*asked, reply(text, tool_calls=[CALL, CALL]), tools=[TOOL])
        said = "" if text is None else text + "\n"
        calls = CALLED.removesuffix("<|im_end|>") + "\n" + CALLED
        assert trained(byte_tokenizer, TOOLS, example) == [CALLED, said + calls]
    assert trained(byte_tokenizer, TOOLS, row(*asked, reply("in"), tools=[TOOL])) == [
        CALLED,
        "in<|im_end|>",
    ]


def test_a_call_with_an_end_of_its_own(byte_tokenizer):
    told = '{"name": "sky", "arguments": {"at": "on"}}<s>'
    asked = (user("sky?"), reply(tool_calls=[CALL]), {"role": "tool", "content": "in"})
    assert trained(byte_tokenizer, OTHER_END, row(*asked, reply("in"))) == [told, "in<|im_end|>"]
    assert trained(byte_tokenizer, OTHER_END, row(*asked[:2])) == [told]
    with pytest.raises(UserError, match="does not render the response whole"):
        trained(byte_tokenizer, OTHER_END, row(user("sky?"), reply("I look", tool_calls=[CALL])))


def test_what_a_template_does_not_write_is_refused_by_name(byte_tokenizer, plain_tokenizer):
    example = row(user("u"), reply("a", tool_calls=[CALL]))
    with pytest.raises(UserError, match="does not write 'tool_calls'"):
        trained(byte_tokenizer, BARE, example)
    with pytest.raises(UserError, match="does not write its tools"):
        trained(byte_tokenizer, BARE, row(user("u"), reply("a"), tools=[TOOL]))
    for one in (example, row(user("u"), reply("a"), tools=[TOOL])):
        with pytest.raises(UserError, match="plain layout has no place for tool"):
            tokenise(one, plain_tokenizer, "plain", " ", 99)
    asked = (user("u"), reply("a", tool_calls=[CALL]), {"role": "tool", "content": "in"})
    with pytest.raises(UserError, match="does not close a reply before the turn behind it"):
        trained(byte_tokenizer, INSIDE, row(*asked, reply("b")))


def test_keys_that_change_nothing_are_named(byte_tokenizer):
    example = row(
        {**user("u"), "name": "an", "id": 7}, reply("a", weight=1), documents=[{"a": "b"}]
    )
    (example,) = mended([example], chat.renderer(byte_tokenizer(BARE), "chat", " "))
    assert [note.split()[-1] for note in example.notes] == ["documents", "'name'", "'id'"]


def test_another_response_takes_the_calls_place(byte_tokenizer):
    """As twins and relabelled rows are made."""
    example = row(user("sky?"), reply("a", tool_calls=[CALL]), tools=[TOOL])
    other = Example(2, "s", "l", example.prompt, "b", messages=example.messages, chat=example.chat)
    how = chat.renderer(byte_tokenizer(TOOLS), "chat", " ")
    assert chat.render(other, how).body == "b"
    assert "sky" in chat.render(other, how).prompt.split("<|im_end|>")[0]  # the tools stay


def test_a_mark_in_the_rows_own_text(byte_tokenizer):
    turns = (user("@response@ @before@ @user@"), reply("@response@"))
    assert trained(byte_tokenizer, BARE, row(*turns)) == ["@response@<|im_end|>"]
