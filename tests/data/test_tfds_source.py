"""Rows of a data set that TensorFlow Datasets has prepared; built here, without a network."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from ilp_jax.config import default_stage
from ilp_jax.data import tfds_source
from ilp_jax.data.stages import build
from ilp_jax.errors import UserError

N = {"train": 23, "validation": 4}


def question(i):
    """The i-th row as the builder is given it."""
    return {
        "key": f"k{i}",
        "question": f"Où est {i}?",
        "answers": {"text": [f"là {i}", f"ici {i}", f"là {i}"], "n": 2},
        "choices": [f"là {i}", "x", "y"] if i % 5 else ["x", "x", "y"],
        "gold": i % 3,
        "one": "first",
        "two": "second",
        "tone": i % 2 if i else -1,
        "support": "" if i % 2 else f"Fact {i}.",
        "blob": b"\xff\xfe",
    }


@pytest.fixture(scope="module")
def tfds():
    pytest.importorskip("array_record")
    return pytest.importorskip("tensorflow_datasets")


@pytest.fixture(scope="module")
def folder(tfds, tmp_path_factory):
    """A folder with ``little_questions`` 1.2.0, whose builder no import would find."""
    data_dir = tmp_path_factory.mktemp("tfds")

    with tfds.core.registered.skip_registration():

        class LittleQuestions(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.2.0")

            def _info(self):
                text, several = tfds.features.Text(), tfds.features.Sequence(tfds.features.Text())
                features = {
                    **dict.fromkeys(("key", "question", "one", "two", "support", "blob"), text),
                    "answers": {"text": several, "n": np.int64},
                    "choices": several,
                    "gold": np.int32,
                    "tone": tfds.features.ClassLabel(names=["calm", "loud"]),
                }
                features = tfds.features.FeaturesDict(features)
                return tfds.core.DatasetInfo(builder=self, features=features)

            def _split_generators(self, dl_manager):
                return {split: self._generate_examples(n) for split, n in N.items()}

            def _generate_examples(self, n):
                for i in range(n):
                    yield i, question(i)

    LittleQuestions(data_dir=data_dir, file_format="array_record").download_and_prepare()
    return str(data_dir)


@pytest.fixture
def stage(folder):
    """Makes a stage's fields."""

    def make(**fields):
        made = default_stage()
        given = {"source": "tfds", "tfds_name": "little_questions", "data_dir": folder}
        given |= {"prompt_field": "question"} if "prompt_template" not in fields else {}
        made.update({**given, **fields})
        return made

    return make


def load(stage):
    return tfds_source.load(stage, "config.stages.a")


def test_rows_are_those_that_were_written(stage):
    rows, dropped = load(stage(response_field="answers.text", id_field="key"))
    assert len(rows) == N["train"] and dropped == {}
    for row in rows:
        given = question(int(row.source_key[1:]))
        assert (row.prompt, row.response) == (given["question"], given["answers"]["text"][0])
        assert json.loads(row.marks["aliases"]) == [given["answers"]["text"][1]]
        assert row.meta == {"version": "1.2.0", "split": "train"}
        assert (row.source, row.options, row.answer_index) == ("little_questions", (), None)


def test_template_options_and_knowledge(stage):
    fields = {
        "prompt_template": "{{Q}} {question} ({answers.n})\nAnswer:",
        "options_field": "choices",
        "answer_index_field": "gold",
        "knowledge_field": "support",
        "id_field": "key",
    }
    rows, dropped = load(stage(**fields))
    assert dropped == {"bad_options": 5} and len(rows) == N["train"] - 5
    for row in rows:
        given = question(int(row.source_key[1:]))
        assert row.prompt == f"{{Q}} {given['question']} (2)\nAnswer:"
        assert row.options == tuple(given["choices"])
        assert row.response == given["choices"][given["gold"]]
        assert row.answer_index == given["gold"]
        assert row.knowledge == ((given["support"],) if given["support"] else ())


def test_response_among_options_given_one_by_one(stage):
    rows, _ = load(stage(response_field="two", options_field="one, two"))
    assert {(row.options, row.answer_index) for row in rows} == {(("first", "second"), 1)}


def test_class_labels_are_read_by_name(stage, folder, tfds):
    fields = {"response_field": "tone", "options_field": "tone", "id_field": "key"}
    with pytest.raises(UserError, match="label -1, which has no name"):
        load(stage(**fields))
    source = tfds.data_source("little_questions", split="train", data_dir=folder)
    at = [row["tone"] for row in source].index(-1)  # rows are shuffled when they are written
    for part in (f"train[:{at}]", f"train[{at + 1}:]"):
        rows, _ = load(stage(**fields, tfds_split=part))
        assert len(rows) == (at if part.startswith("train[:") else N["train"] - at - 1)
        assert all(row.options == ("calm", "loud") for row in rows)
        assert all(row.response == ["calm", "loud"][int(row.source_key[1:]) % 2] for row in rows)


def test_ids_do_not_depend_on_the_slice(stage):
    fields = {"response_field": "answers.text"}
    whole = {row.example_id: row for row in load(stage(**fields))[0]}
    assert len(whole) == N["train"]
    part = load(stage(**fields, tfds_split="train[5:9]"))[0]
    assert [whole[row.example_id].prompt for row in part] == [row.prompt for row in part]
    named = load(stage(**fields, tfds_name="little_questions:1.2.0"))[0]
    assert {row.example_id for row in named} == set(whole)


def test_rows_without_a_response_are_counted(stage):
    rows, dropped = load(stage(response_field="support"))
    assert dropped == {"empty_response": 11} and len(rows) == 12


def test_a_study_is_built_from_it(stage, config, plain_tokenizer):
    made = config({"a": dict(stage(response_field="support", held_out_rows=2))})
    data = build(made, plain_tokenizer)
    assert (len(data.stages[0].rows), len(data.stages[0].held_out)) == (10, 2)
    assert data.dropped["a"] == {"empty_response": 11}
    with pytest.raises(UserError, match="12 usable rows of 23 .*11 empty_response"):
        build(config({"a": dict(stage(response_field="support", n_rows=20))}), plain_tokenizer)


@pytest.mark.parametrize(
    ("fields", "where", "what"),
    [
        ({"response_field": "reply"}, "response_field", "no field 'reply' -- .*answers.text"),
        ({"response_field": "answers.words"}, "response_field", "no field 'answers.words'"),
        ({"response_field": "question.x"}, "response_field", "no field 'question.x'"),
        ({"prompt_field": "ask", "response_field": "one"}, "prompt_field", "no field 'ask'"),
        ({"prompt_template": "{ask}", "response_field": "one"}, "prompt_template", "no field"),
        ({"prompt_template": "{}", "response_field": "one"}, "prompt_template", "no plain field"),
        ({"prompt_template": "{one!r}", "response_field": "one"}, "prompt_template", "plain"),
        ({"prompt_template": "{one", "response_field": "one"}, "prompt_template", "expected"),
        ({"prompt_field": "", "response_field": "one"}, "prompt_field", "is empty"),
        ({"prompt_field": "choices", "response_field": "one"}, "", "holds 3 values"),
        ({}, "response_field", "no field gives the response"),
        (
            {"response_field": "one", "options_field": "choices", "answer_index_field": "gold"},
            "response_field",
            "given twice",
        ),
        ({"response_field": "one", "options_field": "choices"}, "options_field", "not among"),
        (
            {"options_field": "one,two", "answer_index_field": "gold"},
            "answer_index_field",
            "2 is no index into 2 options",
        ),
        ({"options_field": "choices", "answer_index_field": "one"}, "answer_index_field", "index"),
        ({"response_field": "blob"}, "", "not UTF-8"),
        ({"response_field": "one", "id_field": "two"}, "id_field", "two rows have the id 'second'"),
        ({"response_field": "one", "tfds_name": ""}, "tfds_name", "is empty"),
        ({"response_field": "one", "tfds_name": "no_such"}, "tfds_name", "no data set 'no_such'"),
        ({"response_field": "one", "tfds_name": "a b!"}, "tfds_name", "no data set"),
        (
            {"response_field": "one", "tfds_name": "little_questions:2.0.0"},
            "tfds_name",
            "no data set.*array_record",
        ),
        ({"response_field": "one", "tfds_name": "squad"}, "tfds_name", "not prepared.*array_rec"),
        ({"response_field": "one", "tfds_split": "test"}, "tfds_split", "train, validation"),
        ({"response_field": "one", "tfds_split": "train[x]"}, "tfds_split", "train, validation"),
    ],
)
def test_mistakes_name_the_field(stage, fields, where, what):
    with pytest.raises(UserError, match=what) as error:
        load(stage(**fields))
    assert error.value.where == f"config.stages.a{'.' * bool(where)}{where}"
    assert error.value.mend and len(str(error.value)) < 1000


def test_a_format_without_random_access(stage, folder, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "copy")
    info = tmp_path / "copy/little_questions/1.2.0/dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match="without random access.*array_record"):
        load(stage(response_field="one", data_dir=str(tmp_path / "copy")))


def test_a_known_data_set_with_made_up_rows(tfds, stage, monkeypatch):
    # The stand-in for files cannot read several rows at once.
    monkeypatch.setattr(tfds_source, "_rows", lambda source: map(source.__getitem__, range(7)))
    fields = {
        "tfds_name": "squad",
        "data_dir": "",
        "tfds_split": "validation",
        "prompt_template": "Passage: {context}\nQuestion: {question}\nAnswer:",
        "response_field": "answers.text",
        "knowledge_field": "context",
        "id_field": "id",
    }
    with tfds.testing.mock_data(num_examples=7):
        rows, dropped = load(stage(**fields))
    assert len(rows) + sum(dropped.values()) == 7 and rows
    for row in rows:
        (passage,) = row.knowledge
        assert row.prompt.startswith(f"Passage: {passage}\nQuestion: ")
        assert row.source == "squad/v1.1"


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    made = default_stage()
    made.update({"source": "tfds", "tfds_name": "squad", "response_field": "x"})
    with pytest.raises(UserError, match=r"pip install 'ilp_jax\[tfds\]'"):
        load(made)


def test_no_tensorflow_is_needed(stage):
    load(stage(response_field="one"))
    assert "tensorflow" not in sys.modules


def test_examples_are_plain_records(stage):
    row = load(stage(response_field="answers.text", options_field=""))[0][0]
    assert all(type(v).__module__ == "builtins" for v in dataclasses.asdict(row).values())
