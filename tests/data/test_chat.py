"""Which text is trained, under plain and chat templates."""

import pytest

from ilp_jax.data.chat import render, renderer
from ilp_jax.data.examples import Example
from ilp_jax.errors import UserError

LLAMA2 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] | "
    "trim }} [/INST]{% else %} {{ m['content'] | trim }} {{ eos_token }}{% endif %}{% endfor %}"
)
THINK = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}<think>"
    "\n{% if '</think>' in m['content'] %}{{ m['content'].split('</think>')[0][7:].strip() }}"
    "{% endif %}\n</think>\n\n{{ m['content'].split('</think>')[-1].strip() }}{% else %}"
    "{{ m['content'] }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def example(prompt="2+2?", response="4", options=(), messages=None):
    index = options.index(response) if options else None
    return Example(
        1,
        "s",
        "k",
        prompt=prompt,
        response=response,
        options=options,
        answer_index=index,
        messages=messages,
    )


@pytest.mark.parametrize(
    ("prompt", "response", "body"),
    [
        ("p:", "r", " r"),
        ("p:\n", "r", "r"),
        ("p:", "\nr", "\nr"),
        ("p ", " r", " r"),
        ("", "r", "r"),
    ],
)
def test_plain_separator(plain_tokenizer, prompt, response, body):
    one = render(example(prompt, response), renderer(plain_tokenizer, "plain", " "))
    assert (one.prompt, one.body, one.end_id) == (prompt, body, plain_tokenizer.eos_token_id)


def test_plain_options_are_written_as_the_response(plain_tokenizer):
    one = render(example("p:", "r", ("q", "r")), renderer(plain_tokenizer, "plain", "\n"))
    assert one.options == ("\nq", "\nr")
    assert one.body == one.options[1]


def test_auto(plain_tokenizer, chat_tokenizer):
    assert renderer(plain_tokenizer, "auto", " ").kind == "plain"
    assert renderer(chat_tokenizer, "auto", " ").kind == "chat"
    assert renderer(chat_tokenizer, "plain", " ").kind == "plain"


def test_chatml(chat_tokenizer):
    one = render(example(options=("4", " 5"), response=" 5"), renderer(chat_tokenizer, "chat", " "))
    assert one.prompt == "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n"
    assert (one.body, one.options) == (" 5", ("4", " 5"))
    assert chat_tokenizer.convert_ids_to_tokens(one.end_id) == "<|im_end|>"


def test_earlier_assistant_turns_are_context(chat_tokenizer):
    turns = [("system", "s"), ("user", "u"), ("assistant", "a"), ("user", "v")]
    turns = tuple({"role": r, "content": c} for r, c in turns)
    one = render(example(messages=turns), renderer(chat_tokenizer, "chat", " "))
    assert one.prompt.count("<|im_start|>assistant\n") == 2
    assert one.body == "4"


def test_template_that_strips_and_pads(byte_tokenizer):
    tokenizer = byte_tokenizer(LLAMA2)
    how = renderer(tokenizer, "chat", " ")
    one = render(example(response=" 5 ", options=("4", " 5 ")), how)
    assert one.prompt == "<s>[INST] 2+2? [/INST]"
    assert (one.body, one.options) == (" 5 ", (" 4 ", " 5 "))
    assert one.end_id == tokenizer.eos_token_id


def test_template_that_writes_an_empty_reasoning_part(byte_tokenizer):
    how = renderer(byte_tokenizer(THINK), "chat", " ")
    lead = "<think>\n</think>\n\n"
    # "think" stands in what the template writes too: the response's place must not be guessed.
    for response in ("4", "think", "im_end"):
        one = render(example(response=response, options=("x", response)), how)
        assert (one.body, one.options[0]) == (lead + response, lead + "x")
    reasoned = render(example(response="<think>two twos</think>4"), how)
    assert reasoned.body == "<think>\ntwo twos</think>\n\n4"


def test_response_that_holds_a_special_token_is_trained_to_its_end(chat_tokenizer):
    one = render(example(response="a<|im_end|>b"), renderer(chat_tokenizer, "chat", " "))
    assert one.body == "a<|im_end|>b"


def test_todays_date_does_not_change_tokens(byte_tokenizer, chatml):
    dated = "{{ strftime_now('%Y-%m-%d') }} {{ strftime_now( '%B' ) }} {{ date_string }}" + chatml
    one = render(example(), renderer(byte_tokenizer(dated), "chat", " "))
    assert one.prompt.startswith("2024-07-26 July 26 Jul 2024<|im_start|>user")


@pytest.mark.parametrize(
    ("template", "what"),
    [
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", "special token"),
        (
            "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"
            "{% if add_generation_prompt %}Reply:{% endif %}",
            "renders the prompt differently",
        ),
        (
            "{% for m in messages %}{{ m['content'] | upper }}<|im_end|>{% endfor %}",
            "special token|whole",
        ),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
    ],
)
def test_templates_that_cannot_be_used(byte_tokenizer, template, what):
    with pytest.raises(UserError, match=what) as error:
        render(example(response="abc"), renderer(byte_tokenizer(template), "chat", " "))
    assert "chat template" in str(error.value)


def test_wrong_settings(plain_tokenizer):
    with pytest.raises(UserError, match="unknown"):
        renderer(plain_tokenizer, "llama", " ")
    with pytest.raises(UserError, match="no chat template"):
        renderer(plain_tokenizer, "chat", " ")
