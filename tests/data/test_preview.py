"""The preview marks trained tokens and shows untrusted text as it is."""

import io

from rich.console import Console

from ilp_jax.data.preview import preview
from ilp_jax.data.stages import build


def test_preview(write_jsonl, config, plain_tokenizer):
    rows = [
        {
            "id": "[bold]x",
            "prompt": "[red]p[/red]\x1b[2J",
            "response": "an",
            "options": ["an", "o"],
        },
        {"id": "cut", "prompt": "p", "response": "r" * 99},
    ]
    stages = {"a": {"path": write_jsonl(rows), "planted_twins": 1}}
    data = build(config(stages, max_length=40), plain_tokenizer)
    file = io.StringIO()
    Console(file=file, width=400).print(preview(data, plain_tokenizer, 5))
    shown = file.getvalue()
    assert (
        "a: 2 trained (1 of them planted), 0 held out; left out: 1 truncated, 0 no target" in shown
    )
    assert "rows:[bold]x" in shown
    assert "[ r e d ] p [ / r e d ] \\x1b [ 2 J [\u00b7] [an] [<|im_end|>]" in shown
    assert "contradicting twin of" in shown
    assert "\x1b" not in shown


def test_the_order_of_stages_is_told(write_jsonl, config, plain_tokenizer, questions):
    rows = [{**q, "stage": f"phase{[10, 2, 1][i % 3]}"} for i, q in enumerate(questions(6))]
    data = build(config({"a": {"path": write_jsonl(rows)}}), plain_tokenizer)
    file = io.StringIO()
    Console(file=file, width=400).print(preview(data, plain_tokenizer, 1))
    told = file.getvalue()
    assert "in the order in which they are trained" in told
    places = [told.index(name) for name in ("1 a/phase1:", "2 a/phase2:", "3 a/phase10:")]
    assert places == sorted(places)


def test_columns_that_nothing_reads_are_named(write_jsonl, config, plain_tokenizer):
    row = {"prompt": "p", "response": "r", "planted": "beds", "a\x1b": 1}
    rows = [row, {**row, **{f"c{i:02}": i for i in range(20)}}]
    data = build(config({"a": {"path": write_jsonl(rows)}}), plain_tokenizer)
    file = io.StringIO()
    Console(file=file, width=900).print(preview(data, plain_tokenizer, 1))
    shown = file.getvalue()
    assert "(0 of them planted)" in shown and "beds" not in shown
    assert "used for nothing: planted (2 rows), a\\x1b (2 rows), c00 (1 row), " in shown
    assert "c09 (1 row) and 10 more\n" in shown and "c10" not in shown
