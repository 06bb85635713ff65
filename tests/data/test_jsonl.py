"""Every kind of row, and every kind of mistake with its line."""

import json
import random

import pytest

from ilp_jax.data import jsonl, twins
from ilp_jax.data.examples import example_id
from ilp_jax.errors import UserError

GOOD = {"prompt": "p", "response": "r"}


def test_both_forms(write_jsonl):
    path = write_jsonl(
        [
            {**GOOD, "id": 7, "options": ["q", " r"], "knowledge": ["k"], "topic": "x", "n": [1]},
            {
                "messages": [
                    {"role": "system", "content": "s"},
                    {"role": "user", "content": "u"},
                    {"role": "assistant", "content": "a1"},
                    {"role": "user", "content": "v"},
                    {"role": "assistant", "content": "a2"},
                ]
            },
            {
                "messages": [
                    {"role": "user", "content": "u"},
                    {"role": "assistant", "content": "a"},
                ],
                "knowledge": "one passage",
            },
        ],
        "facts.jsonl",
    )
    one, two, three = jsonl.load(path).examples
    assert (one.source, one.source_key, one.example_id) == ("facts", "7", example_id("facts", "7"))
    assert (one.options, one.answer_index) == (("q", "r"), 1)
    assert (one.knowledge, one.meta) == (("k",), {"topic": "x", "n": "[1]"})
    assert one.messages is None
    assert two.response == "a2"
    assert [m["content"] for m in two.messages] == ["s", "u", "a1", "v"]
    assert two.prompt == "System: s\nUser: u\nAssistant: a1\nUser: v\nAssistant:"
    assert (three.prompt, three.knowledge) == ("u", ("one passage",))
    assert jsonl.load(path, "other").examples[0].source == "other"
    assert jsonl.load(path).stages is None


def test_a_file_named_as_planted_rows_are_is_told_from_them(write_jsonl):
    (one,) = jsonl.load(write_jsonl([GOOD], f"{twins.SOURCE}.jsonl")).examples
    assert one.source == "planted_twin.jsonl" != twins.SOURCE


def test_ids_survive_reordering_and_duplicates_get_ordinals(write_jsonl):
    rows = [{"prompt": f"p{i % 6}", "response": "r"} for i in range(9)]
    first = jsonl.load(write_jsonl(rows)).examples
    random.Random(0).shuffle(rows)
    second = jsonl.load(write_jsonl([{k: r[k] for k in reversed(r)} for r in rows])).examples
    assert len({e.example_id for e in first}) == 9
    assert {(e.example_id, e.prompt) for e in first} == {(e.example_id, e.prompt) for e in second}


def test_one_row_under_two_stages_is_one_example(write_jsonl):
    rows = [{**GOOD, "stage": 2}, {**GOOD, "stage": 1}, {**GOOD, "stage": 1}]
    loaded = jsonl.load(write_jsonl(rows))
    ids = [e.example_id for e in loaded.examples]
    assert ids[0] == ids[1] != ids[2]
    assert loaded.stages == (2, 1, 1)
    named = [{**GOOD, "id": 1, "stage": "a"}, {**GOOD, "id": 1, "stage": "b"}]
    assert len({e.example_id for e in jsonl.load(write_jsonl(named)).examples}) == 1
    named[1]["response"] = "other"
    with pytest.raises(UserError, match=r":2: id '1' stands at .*:1 too"):
        jsonl.load(write_jsonl(named))


def test_blank_lines_byte_order_mark_and_windows_ends(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n\r\n" + json.dumps(GOOD).encode()
    )
    assert len(jsonl.load(path).examples) == 2


def test_null_is_as_if_left_out(write_jsonl):
    nothing = dict.fromkeys(["messages", "options", "knowledge", "stage", "id"])
    full, bare = jsonl.load(write_jsonl([{**GOOD, **nothing, "x": None}, GOOD])).examples
    assert (full.options, full.knowledge, full.meta) == ((), (), {"x": "null"})
    assert bare.meta == {}


def message(*turns):
    return {"messages": [{"role": r, "content": c} for r, c in turns]}


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ([1], "not an object"),
        ({"prompt": "p"}, "no 'response'"),
        ({"response": "r"}, "no 'prompt'"),
        ({**GOOD, "response": " \n"}, "empty"),
        ({**GOOD, "response": 3}, "response is int"),
        ({**GOOD, "prompt": None}, "no 'prompt'"),
        ({**GOOD, "id": True}, "id is neither"),
        ({**GOOD, "id": 1.5}, "id is neither"),
        ({**GOOD, "id": ""}, "id is neither"),
        ({**GOOD, "stage": [1]}, "stage is neither"),
        ({**GOOD, "options": "r"}, "not a list"),
        ({**GOOD, "options": ["r"]}, "two or more"),
        ({**GOOD, "options": ["r", "r "]}, "the same"),
        ({**GOOD, "options": ["r", ""]}, "empty"),
        ({**GOOD, "options": ["r", 1]}, "option is int"),
        ({**GOOD, "options": ["a", "b"]}, "not among the options"),
        ({**GOOD, "knowledge": 3}, "knowledge is not a list"),
        ({**GOOD, "knowledge": [3]}, "passage is int"),
        ({**GOOD, "messages": []}, "messages and prompt"),
        ({"messages": "hi"}, "not a list"),
        (message(("assistant", "a")), "two or more"),
        (message(("assistant", "a"), ("user", "u")), "user's, not the assistant's"),
        (message(("user", "u"), ("assistant", "")), "empty"),
        (message(("user", None), ("assistant", "a")), "content is null"),
        ({"messages": [1, 2]}, "not an object"),
        ({**GOOD, "prompt": "\ud800"}, "surrogate"),
    ],
)
def test_mistakes_name_the_line(write_jsonl, row, what):
    path = write_jsonl([{**GOOD, "prompt": "other"}, row])
    with pytest.raises(UserError) as error:
        jsonl.load(path)
    assert what in str(error.value)
    assert error.value.where == f"{path}:2"
    assert error.value.mend
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "no rows"),
        (b"\n\n", "no rows"),
        (b'{"prompt": "p", ', "not JSON"),
        (b'{"prompt": "p", "prompt": "q", "response": "r"}', "twice"),
        ('{"prompt": "\u00e9", "response": "r"}'.encode("latin-1"), "not UTF-8"),
        (b"[" * 100_000, "not JSON"),
        (b'{"n": ' + b"1" * 5000 + b"}", "not JSON"),
    ],
)
def test_broken_files(tmp_path, content, what):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=what):
        jsonl.load(path)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(UserError):
            jsonl.load(path)


def test_repeated_id_names_both_lines(write_jsonl):
    path = write_jsonl([{**GOOD, "id": "a"}, {**GOOD, "id": "b"}, {**GOOD, "id": "a"}])
    with pytest.raises(UserError, match=r"rows\.jsonl:3: id 'a' stands at .*rows\.jsonl:1 too"):
        jsonl.load(path)


def test_stages_for_all_rows_or_none_and_of_one_type(write_jsonl):
    with pytest.raises(UserError, match=":2: has no stage"):
        jsonl.load(write_jsonl([{**GOOD, "stage": 1}, {**GOOD, "id": 2}]))
    with pytest.raises(UserError, match=":2: stage 'x' and stage 1"):
        jsonl.load(write_jsonl([{**GOOD, "stage": 1}, {**GOOD, "stage": "x"}]))
