"""Which rows a stage takes; twins; plan."""

import dataclasses
from collections import Counter

import polars as pl
import pytest

from ilp_jax.data import distractors, jsonl
from ilp_jax.data.examples import MARKS, Example
from ilp_jax.data.order import epoch_order
from ilp_jax.data.stages import build
from ilp_jax.data.study import visit_order
from ilp_jax.data.tables import EXAMPLES_SCHEMA, PLAN_SCHEMA, write_plan
from ilp_jax.errors import UserError
from ilp_jax.stats.schema import TRUTH_SCHEMA


@pytest.fixture
def path(write_jsonl, questions):
    """A file of 40 questions."""
    return write_jsonl(questions(40))


@pytest.fixture
def make(path, config, plain_tokenizer):
    """Builds a study of stages that read the same file unless they say otherwise."""

    def make(stages, sequence=None, **fields):
        stages = {name: {"path": path, **stage} for name, stage in stages.items()}
        return build(config(stages, sequence, **fields), plain_tokenizer)

    return make


def keys(data, indices):
    return [data.examples[i].source_key for i in indices]


def test_all_rows(make):
    data = make({"a": {}})
    assert len(data.stages[0].rows) == len(data.examples) == data.usable["a"] == 40
    assert [row.example_id for row in data.tokens] == data.example_ids.tolist()
    assert {e.role for e in data.examples} == {"train"}
    assert len(data.stages[0].held_out) == 0


def test_a_stage_of_summaries_marks_its_rows(make):
    data = make({"a": {"task": "summary", "n_rows": 6, "held_out_rows": 2, "planted_twins": 1}})
    assert len(data.examples) == 9 and {e.marks["task"] for e in data.examples} == {"summary"}
    assert sum("planted" in e.marks for e in data.examples) == 1
    usual = make({"a": {"task": "answer"}})
    assert usual.examples == make({"a": {}}).examples
    assert not any("task" in e.marks for e in usual.examples)


def test_no_column_of_a_file_is_taken_for_a_mark_or_a_field(make, write_jsonl, questions):
    """Every name that this package gives a row, as a user's own column."""
    fields = {field.name for field in dataclasses.fields(Example)}
    fields |= {*EXAMPLES_SCHEMA.names, *PLAN_SCHEMA.names, *TRUTH_SCHEMA.names, *MARKS}
    fields |= {"kind", "group", "visits", "twins", "made_by", "split"}
    own = dict.fromkeys(sorted(fields - set(jsonl.KNOWN)), "summary")
    own |= {"aliases": ["an 1", "an 2"], "role": "held_out", "copies": 7, "source_key": 0}
    asked = {"n_distractors": 3, "max_prompt_tokens": 90, "held_out_rows": 5, "planted_twins": 2}
    rows = questions(40)
    for row in rows[:30]:
        del row["options"]
    plain = make({"a": {"path": write_jsonl(rows), **asked}})
    data = make({"a": {"path": write_jsonl([{**own, **row} for row in rows]), **asked}})
    assert [dataclasses.replace(e, meta={}) for e in data.examples] == list(plain.examples)
    assert data.dropped == plain.dropped and distractors.counts(data) == distractors.counts(plain)
    for one in data.examples:
        assert set(one.meta) == (set() if one.parent_id else set(own))


def test_choice_is_stateless_and_ignores_order_and_other_rows(
    make, write_jsonl, questions, config, plain_tokenizer
):
    stages = {"a": {"n_rows": 9, "held_out_rows": 5}}
    data = make(stages)
    train, held = keys(data, data.stages[0].rows), keys(data, data.stages[0].held_out)
    assert len(train) == 9 and len(held) == 5 and not set(train) & set(held)
    assert {data.examples[i].role for i in data.stages[0].held_out} == {"held_out"}
    again = make(stages)
    assert again.example_ids.tolist() == data.example_ids.tolist()
    # Reversed lines, one of the rows that were not chosen removed: the same choice.
    unused = next(str(i) for i in range(40) if str(i) not in train + held)
    rows = [q for q in reversed(questions(40)) if str(q["id"]) != unused]
    other = build(config({"a": {**stages["a"], "path": write_jsonl(rows)}}), plain_tokenizer)
    assert keys(other, other.stages[0].rows) == train
    assert keys(make(stages, seed=1), range(9)) != train


def test_more_rows_extend_the_choice(make):
    few, many = (make({"a": {"n_rows": n}}) for n in (5, 12))
    assert keys(many, many.stages[0].rows)[:5] == keys(few, few.stages[0].rows)


def test_nothing_is_trained_here_and_held_out_there(make):
    data = make(
        {
            "a": {"n_rows": 15, "held_out_rows": 8},
            "b": {"n_rows": 15, "held_out_rows": 8},
            "c": {"held_out_rows": 2},
        },
        sequence=("a", "b", "a", "c"),
    )
    trained = {i for stage in data.stages for i in stage.rows.tolist()}
    held = {i for stage in data.stages for i in stage.held_out.tolist()}
    assert not trained & held
    assert {i for i, e in enumerate(data.examples) if e.role == "held_out"} == held
    assert data.stages[0].rows.tolist() == data.stages[2].rows.tolist()
    assert [s.index for s in data.stages] == [1, 2, 3, 4]
    assert len(set(data.example_ids.tolist())) == len(data.examples)


@pytest.mark.parametrize("n_rows", [0, 6])
def test_no_prompt_is_trained_and_held_out(make, write_jsonl, n_rows):
    # Ten rows stand three times, twice with another response.
    rows = [{"prompt": f"p{i % 10}", "response": f"r{i // 20}"} for i in range(30)]
    path = write_jsonl(rows, "repeated.jsonl")
    data = make({"a": {"path": path, "n_rows": n_rows, "held_out_rows": 2}})
    prompts = [
        {data.examples[i].prompt for i in part}
        for part in (data.stages[0].rows, data.stages[0].held_out)
    ]
    assert not prompts[0] & prompts[1]
    if not n_rows:
        left = 30 - len(data.stages[0].rows) - 2
        assert data.dropped["a"] == {"prompt_held_out": left} and left > 0
        assert data.usable["a"] == 30 - left


def test_n_options_keeps_the_answer_and_some_distractors(make):
    full, data = make({"a": {}}), make({"a": {"n_options": 3}})
    whole = {e.example_id: e for e in full.examples}
    dropped = Counter()
    for example, row in zip(data.examples, data.tokens, strict=True):
        assert len(example.options) == len(row.option_ids) == 3
        assert example.options[example.answer_index] == example.response
        original = whole[example.example_id].options
        places = [original.index(option) for option in example.options]
        assert places == sorted(places)
        dropped.update(set(range(5)) - set(places))
    assert len(dropped) == 5 - (0 not in dropped)  # every distractor is left out somewhere
    assert make({"a": {"n_options": 3}}).examples == data.examples
    with pytest.raises(UserError, match="40 too_few_options"):
        make({"a": {"n_options": 6}})


def test_limits(make):
    free = make({"a": {}})
    response = {
        e.example_id: max(len(r.target_ids) - 1, *map(len, r.option_ids))
        for e, r in zip(free.examples, free.tokens, strict=True)
    }
    prompt = {r.example_id: len(r.prompt_ids) for r in free.tokens}
    at, pat = sorted(response.values())[20], sorted(prompt.values())[20]
    data = make({"a": {"max_response_tokens": at, "max_prompt_tokens": pat}})
    assert set(data.example_ids) == {i for i in response if response[i] <= at and prompt[i] <= pat}
    assert sum(data.dropped["a"].values()) + data.usable["a"] == 40
    assert data.dropped["a"]["long_prompt"] == sum(n > pat for n in prompt.values())


def test_truncated_and_targetless_rows_are_counted_and_kept_out(make, write_jsonl):
    rows = [
        {"id": "fits", "prompt": "p" * 10, "response": "r"},
        {"id": "cut", "prompt": "p" * 10, "response": "r" * 30},
        {"id": "none", "prompt": "p" * 40, "response": "r"},
    ]
    stages = {"a": {"path": write_jsonl(rows, "long.jsonl")}}
    data = make(stages, max_length=20)
    assert keys(data, data.stages[0].rows) == ["fits"]
    assert data.dropped["a"] == {"truncated": 1, "no_target": 1}
    kept = make(stages, max_length=20, drop_truncated=False)
    assert sorted(keys(kept, kept.stages[0].rows)) == ["cut", "fits"]
    assert sorted(row.truncated for row in kept.tokens) == [False, True]
    assert kept.dropped["a"] == {"no_target": 1}


def test_twins(make):
    data = make({"a": {"n_rows": 20, "planted_twins": 6, "n_options": 4, "held_out_rows": 3}})
    by_id = {e.example_id: e for e in data.examples}
    twins = [e for e in data.examples if e.source == "planted_twin"]
    assert len(twins) == 6 and len(data.stages[0].rows) == 26
    trained = {data.examples[i].example_id for i in data.stages[0].rows}
    for one in twins:
        parent = by_id[one.parent_id]
        assert {one.example_id, parent.example_id} <= trained
        assert (one.prompt, one.options, one.role) == (parent.prompt, parent.options, "train")
        assert one.response != parent.response and one.response in parent.options
        assert one.options[one.answer_index] == one.response
        assert one.source_key == f"{parent.source}:{parent.source_key}"
        assert one.marks["planted"] == f"contradicting twin of {parent.example_id}"
    assert len({e.parent_id for e in twins}) == 6
    more = make({"a": {"n_rows": 20, "planted_twins": 8, "n_options": 4, "held_out_rows": 3}})
    assert [e for e in more.examples if e in twins] == twins


def test_twins_of_rows_that_are_the_same_differ(make, write_jsonl):
    row = {"prompt": "p", "response": "a", "options": ["a", "b"]}
    data = make({"a": {"path": write_jsonl([row, row], "same.jsonl"), "planted_twins": 2}})
    assert len({e.example_id for e in data.examples}) == 4


def test_too_many_twins(make, write_jsonl):
    path = write_jsonl([{"prompt": "p", "response": "r"}], "bare.jsonl")
    with pytest.raises(UserError, match="asks for 1, and 0 of the 1"):
        make({"a": {"path": path, "planted_twins": 1}})


@pytest.mark.parametrize(
    "order",
    [
        ["phase1", "phase2", "phase10"],
        ["a", "b2c9", "b2c10", "b10", "B11"],
        ["2024-1", "2024-2", "2024-10"],
        ["9 late", "10 early", "early"],
        [-1, 2, 10],
        ["01", "1", "2", "10"],
    ],
)
def test_numbers_within_the_names_of_stages_count_as_numbers(make, write_jsonl, questions, order):
    shuffled = [order[(2 * i + 1) % len(order)] for i in range(len(order))]
    shuffled = [*shuffled, *order]
    rows = [{**q, "stage": s} for q, s in zip(questions(len(shuffled)), shuffled, strict=True)]
    data = make({"a": {"path": write_jsonl(rows, "named.jsonl")}})
    assert [stage.name for stage in data.stages] == [f"a/{one}" for one in order]


def test_stages_inside_a_file(make, write_jsonl, questions):
    rows = [{**q, "stage": f"{[2, 10, 1][i % 3]}"} for i, q in enumerate(questions(30))]
    data = make({"a": {"path": write_jsonl(rows, "staged.jsonl"), "n_rows": 7}})
    assert [s.name for s in data.stages] == ["a/1", "a/2", "a/10"]
    assert [len(s.rows) for s in data.stages] == [7, 7, 7]
    assert {int(k) % 3 for k in keys(data, data.stages[0].rows)} == {2}


def test_errors_name_what_is_missing(make, config, plain_tokenizer):
    with pytest.raises(UserError, match="50 to train and 0 held out, and has 40 usable rows of 40"):
        make({"a": {"n_rows": 50}})
    with pytest.raises(UserError, match="held out"):
        make({"a": {"n_rows": 38, "held_out_rows": 5}})
    with pytest.raises(UserError, match="no stage 'b'.*has: a"):
        make({"a": {}}, sequence=("a", "b"))
    with pytest.raises(UserError, match="'webdata' is unknown.*tfds"):
        make({"a": {"source": "webdata"}})
    with pytest.raises(UserError, match="path: is empty"):
        build(config({"a": {}}), plain_tokenizer)
    with pytest.raises(UserError, match="names no stage"):
        build(config({}), plain_tokenizer)


def test_two_files_with_one_name_and_clashing_ids(make, path, tmp_path, write_jsonl):
    (tmp_path / "deep").mkdir()
    rows = [{"id": 0, "prompt": "other", "response": "r"}]
    other = write_jsonl(rows, "deep/rows.jsonl")
    with pytest.raises(UserError, match="two different rows"):
        make({"a": {}, "b": {"path": other}})


def test_visits_count_over_the_whole_run(make):
    data = make(
        {"a": {"n_rows": 10, "epochs": 2, "copies": 3}, "b": {"epochs": 3, "n_rows": 30}},
        sequence=("a", "b", "a"),
    )
    seen = Counter()
    for stage in data.stages:
        for epoch in range(1, stage.epochs + 1):
            index, visit = visit_order(data, stage, 5, epoch)
            assert len(index) == stage.n_visits
            for i, v in zip(index.tolist(), visit.tolist(), strict=True):
                seen[i] += 1
                assert v == seen[i]
    # Asked out of order, the answer is the same.
    assert visit_order(data, data.stages[0], 5, 1)[1].min() == 1


def test_plan(make, tmp_path):
    data = make({"a": {"n_rows": 10, "copies": 3}, "b": {"n_rows": 1}})
    write_plan(tmp_path / "plan.parquet", data, 4)
    plan = pl.read_parquet(tmp_path / "plan.parquet")
    assert dict(plan.schema) == {
        "example_id": pl.Int64,
        "stage": pl.Int32,
        "position": pl.Float64,
        "copies": pl.Int32,
    }
    stage = data.stages[0]
    order = epoch_order(4, 1, 1, 10, 3)[0].tolist()
    firsts = list(dict.fromkeys(order))  # rows by first visit
    expected = [data.example_ids[stage.rows[row]] for row in firsts]
    first = plan.filter(pl.col("stage") == 1).sort("position")
    assert first["example_id"].to_list() == expected
    assert first["position"].to_list() == pytest.approx([i / 9 for i in range(10)])
    assert set(first["copies"]) == {3}
    assert plan.filter(pl.col("stage") == 2)["position"].to_list() == [0.0]
