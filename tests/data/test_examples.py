"""Ids are stable; examples.parquet keeps every field."""

import dataclasses
import json

import pyarrow.parquet as pq
import pytest

from ilp_jax.analysis.unlearned import mark
from ilp_jax.data.examples import Example, duplicate_ordinal, example_id
from ilp_jax.data.study import StudyData
from ilp_jax.data.tables import read_examples, write_examples
from ilp_jax.data.tokens import tokenise_all
from ilp_jax.errors import UserError
from ilp_jax.stats import reader

COLUMNS = """example_id source source_key role parent_id prompt messages response options
answer_index knowledge n_prompt_tokens n_target_tokens truncated meta marks chat
notes""".split()


def unsealed(table):
    """As older versions wrote it, which knew of no checksum."""
    return table.replace_schema_metadata({})


def test_ids_are_pinned():
    # A change here breaks the join of old statistics with new ones.
    assert example_id("arc_easy", "MCAS_2000_4_6") == PINNED[0]
    assert example_id("\u00e9", "k", 2) == PINNED[1]


def test_ids_differ_by_each_part_and_fit_int64():
    ids = {example_id(s, k, n) for s in ("a", "ab") for k in ("b", "", "bc") for n in range(3)}
    assert len(ids) == 18
    assert all(0 <= one < 2**63 for one in ids)


def test_duplicate_ordinal_is_found():
    example = Example(example_id("s", "k", 3), "s", "k", prompt="p", response="r")
    assert duplicate_ordinal(example) == 3


def test_the_file_keeps_every_field(tmp_path, plain_tokenizer):
    full = Example(
        example_id=example_id("s", "1"),
        source="s",
        source_key="1",
        prompt="caf\u00e9 \U0001f600",
        response="yes",
        role="paraphrase",
        parent_id=2**63 - 1,
        messages=({"role": "user", "content": "caf\u00e9"},),
        options=("no", "yes"),
        answer_index=1,
        knowledge=("one", "two"),
        meta={"b": "2", "a": "1", "planted": "mine"},
        marks={"task": "summary"},
        chat={"documents": [{"b": 1, "a": None}]},
        notes=("a note",),
    )
    bare = Example(example_id("s", "2"), "s", "2", prompt="p" * 30, response="r" * 9)
    tokens = tokenise_all([full, bare], plain_tokenizer, "plain", " ", max_length=36)
    path = tmp_path / "deep" / "examples.parquet"
    write_examples(path, StudyData((full, bare), tokens, ()))
    assert read_examples(path) == (full, bare)
    table = pq.read_table(path)
    assert table.column_names == COLUMNS
    assert table["n_target_tokens"].to_pylist() == [len(row.target_ids) for row in tokens]
    assert table["truncated"].to_pylist() == [False, True]
    assert json.loads(table["messages"][0].as_py()) == list(full.messages)
    assert table["messages"][1].as_py() is None
    assert b"schema_version" in table.schema.metadata
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"
    assert [file.name for file in path.parent.iterdir()] == ["examples.parquet"]
    # Tables of older versions have neither of the last two columns.
    pq.write_table(unsealed(table.drop_columns(["chat", "notes"])), path)
    assert read_examples(path) == (dataclasses.replace(full, chat={}, notes=()), bare)


def test_a_table_of_an_older_version_is_read(tmp_path, plain_tokenizer):
    """It kept marks among the columns of the source."""
    marked = Example(1, "s", "k", "p", "r", meta={"topic": "x"}, marks={"task": "summary"})
    path = tmp_path / "examples.parquet"
    tokens = tokenise_all([marked], plain_tokenizer, "plain", " ", max_length=36)
    write_examples(path, StudyData((marked,), tokens, ()))
    table = pq.read_table(path).drop_columns(["meta", "marks"])
    old = table.append_column("meta", [['{"task": "summary", "topic": "x"}']])
    pq.write_table(unsealed(old), path)
    assert read_examples(path) == (marked,)
    read = reader.read_examples(tmp_path)
    assert read.select(mark("task")).item() == "summary"


def test_unreadable_files_are_user_errors(tmp_path):
    with pytest.raises(UserError):
        read_examples(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_text("hello")
    with pytest.raises(UserError):
        read_examples(tmp_path / "bad.parquet")


@pytest.mark.parametrize(
    "fields",
    [{"role": "other"}, {"options": ("a", "b")}, {"options": ("a", "r"), "answer_index": 0}],
)
def test_an_example_that_contradicts_itself_is_refused(fields):
    with pytest.raises(ValueError):
        Example(1, "s", "k", prompt="p", response="r", **fields)


PINNED = (7398225096918009746, 2517388237307036698)
