"""Templates are rendered as transformers renders them, and within limits."""

import json
import threading

import jinja2
import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from ilp_jax.data import rendering
from ilp_jax.errors import UserError

TURNS = [
    {"role": "system", "content": "Be kind \N{SNOWMAN} \U0001f44d \ud83d", "name": None},
    {"role": "user", "content": 'say "a" & <b>\n'},
    {"role": "assistant", "content": None, "thinking": "well", "tool_calls": [{"f": {"x": [1.5]}}]},
]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
ALIKE = [
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{{ eos_token }}",
    "{{ messages | tojson(indent=2) }}{{ tools | tojson }}",
    "{% for m in messages %}{% if 'name' in m %}!{% endif %}{{ m.reasoning_content }}{% endfor %}",
    "{% if add_generation_prompt %}go{% endif %}{{ day }}{{ nothing is defined }}",
    "{% for m in messages %}{% generation %}{{ m.role }}{% endgeneration %}{% break %}{% endfor %}",
    "{% macro f(x) %}[{{ x }}]{% endmacro %}{{ f(bos_token) }}{{ namespace(a=1).a }}",
    "  {%- for m in messages -%}\n  {{ m.role }}\n  {%- endfor %}\n",
]
# What each takes too much of; without limits each would take minutes, or the machine's memory.
TOO_MUCH = {
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}": "CPU time",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}": (
        "CPU time"
    ),
    "{% for a in range(99999) %}{{ 'x' * 1000 }}{% endfor %}": "characters",
    "{% set n = namespace(s=[1]) %}{% for a in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}": (
        "(memory|CPU time)"
    ),
    "{{ 'x' * 10**10 }}": "memory",
    "{{ 'x' | center(10**10) }}": "memory",
    "{{ '%10000000000d' | format(1) }}": "memory",
    "{{ ('x' * 100000) | replace('x', 'y' * 100000) }}": "memory",
}
FAILING = {
    "{{ nope() }}": "'nope' is undefined",
    "{{ messages[9].x.y }}": "has no element 9",
    "{{ raise_exception('roles must alternate') }}": "roles must alternate",
    "{{ 1 / 0 }}": "division by zero",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "recursion",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}": "recursion",
    "{{ range(10**9) | list }}": "Range too big",
    "{{ ''.__class__.__mro__ }}": "unsafe",
    "{% include '/etc/passwd' %}": "no loader",
}


@pytest.fixture(scope="module")
def tokenizer():
    inner = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1}, unk_token="<s>"))
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize("template", ALIKE)
@pytest.mark.parametrize("header", [False, True])
def test_as_transformers_renders(tokenizer, template, header):
    more = {"add_generation_prompt": header, "tools": TOOLS, "day": 3}
    wanted = tokenizer.apply_chat_template(TURNS, chat_template=template, tokenize=False, **more)
    assert rendering.apply(tokenizer, TURNS, template, "it", **more) == wanted


@pytest.fixture(scope="module")
def hasty():
    """The renderer with less time, in a process of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendering, "SECONDS", 0.5)
        patch.setattr(rendering, "_RENDERER", rendering._Renderer())
        yield
        rendering._RENDERER.close()


@pytest.mark.parametrize("template", TOO_MUCH)
def test_limits(tokenizer, hasty, template):
    with pytest.raises(UserError, match=f"^it: takes more than .* {TOO_MUCH[template]}"):
        rendering.apply(tokenizer, TURNS, template, "it")
    assert rendering.apply(tokenizer, TURNS, "{{ 1 + 1 }}", "it") == "2"


@pytest.mark.parametrize("template", FAILING)
def test_failures(tokenizer, template):
    with pytest.raises(jinja2.TemplateError, match=FAILING[template]):
        rendering.apply(tokenizer, TURNS, template, "it")


def test_no_template(tokenizer):
    with pytest.raises(UserError, match=r"it: is no template \(line 2: Expected"):
        rendering.apply(tokenizer, TURNS, "\n{% if %}", "it")


def test_threads_get_their_own_answers(tokenizer):
    found = {}

    def ask(number):
        template = f"{{{{ {number} * 3 }}}}"
        found[number] = [rendering.apply(tokenizer, TURNS, template, "it") for _ in range(20)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [str(number * 3)] * 20 for number in range(4)}


def test_an_interrupted_question_leaves_no_answer_behind(tokenizer, monkeypatch):
    def interrupted(text):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rendering.json, "loads", interrupted)
        with pytest.raises(KeyboardInterrupt):
            rendering.apply(tokenizer, TURNS, "first", "it")
    assert rendering.apply(tokenizer, TURNS, "second", "it") == "second"


@pytest.mark.parametrize(
    "template, words",
    [
        ("{{ 'x' * 10**10 }}", "takes more than 1024 MiB of memory for one conversation"),
        ("{% if %}", "is no template (line 1: "),
        ("{{ raise_exception('no\n\x1b[31mway') }}", "refuses the turns (no \\x1b[31mway)"),
        ("{{ nope() }}", "refuses the turns ('nope' is undefined)"),
    ],
)
def test_the_command_says_one_line(tiny, tiny_model, tmp_path, refused, template, words):
    folder = tiny_model(tmp_path / "model")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
    own = f"configs/own.py:model={folder},data={tiny / 'rows.jsonl'}"
    line = refused("data", "preview", "--config", own)
    assert f"chat template of {folder}" in line and words in line
