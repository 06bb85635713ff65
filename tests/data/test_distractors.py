"""Wrong answers out of similar questions: against brute force, and what must always hold."""

import dataclasses
import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ilp_jax.data import distractors
from ilp_jax.data.distractors import Answered, Neighbours, answer_type, answered, clashes, key
from ilp_jax.data.examples import Example, example_id
from ilp_jax.data.preview import preview
from ilp_jax.data.stages import build
from ilp_jax.data.twins import twin
from ilp_jax.detect.normalise import normalise


@pytest.mark.parametrize(
    ("text", "n_tokens", "kind"),
    [
        ("Yes.", 1, ("yes_no", 0)),
        ("false", 1, ("yes_no", 0)),
        ("1066", 2, ("date", 1)),
        ("14 July 1789", 6, ("date", 2)),
        ("2024-07-26", 7, ("date", 3)),
        ("26.7.24", 13, ("date", 4)),
        ("42", 1, ("number", 0)),
        ("about 3.5 km", 3, ("number", 1)),
        ("twenty-one days", 3, ("number", 1)),
        ("on the 14th of July, 1789", 8, ("date", 3)),
        ("he may have got 5 of them then", 8, ("text", 3)),
        ("seven of all the nine lives", 6, ("text", 2)),
        ("The 1700 Cascadia Earthquake", 6, ("name", 2)),
        ("Paris", 1, ("name", 0)),
        ("Ludwig van Beethoven", 4, ("name", 2)),
        ("NASA", 2, ("capitals", 1)),
        ("a kind of blue", 4, ("text", 2)),
        ("May", 1, ("name", 0)),
        ("?", 1, ("text", 0)),
    ],
)
def test_types(text, n_tokens, kind):
    assert answer_type(text, n_tokens) == kind


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        ("the Cat", "cat!", True),
        ("New York", "York", True),
        ("New York", "new york city", True),
        ("Yorks", "York", False),
        ("10", "1", False),
        ("?", "!", False),
        ("the", "the", True),
        ("the", "cat", False),
    ],
)
def test_answers_that_may_be_right(one, other, clash):
    assert clashes(key(one), [key(other)]) is clash
    assert clashes(key(other), [key(one)]) is clash


PROMPTS = ("who is it ?", "Who is it", "who is that man ?", "what is red ?", "what is a red cat ?")
ANSWERS = ("Ann", "ann!", "Ann Lee", "Bob", "Eve", "red", "a red", "blue", "7", "8 cats", "1066")
questions = st.lists(
    st.tuples(
        st.sampled_from(PROMPTS),
        st.sampled_from(ANSWERS),
        st.integers(1, 3),
        st.lists(st.sampled_from(ANSWERS), max_size=1),
    ),
    min_size=1,
    max_size=12,
).map(lambda rows: [Answered(i, p, a, n, tuple(more)) for i, (p, a, n, more) in enumerate(rows)])


def cosine(one, other, prompts):
    """TF-IDF by the definition: (1 + ln count) (ln((1 + n) / (1 + df)) + 1), then the cosine."""
    bags = [Counter(w for w in distractors._words(prompt)) for prompt in prompts]

    def vector(prompt):
        bag = Counter(distractors._words(prompt))
        df = {w: sum(w in other for other in bags) for w in bag}
        idf = {w: math.log((1 + len(prompts)) / (1 + df[w])) + 1 for w in bag}
        return {w: (1 + math.log(n)) * idf[w] for w, n in bag.items()}

    a, b = vector(one), vector(other)
    dot = sum(a[w] * b.get(w, 0) for w in a)
    return dot / math.sqrt(sum(x * x for x in a.values()) * sum(x * x for x in b.values()))


@settings(max_examples=50, deadline=None)
@given(questions, st.integers(1, 4), st.sampled_from([0.5, 0.9, 1.0]), st.integers(0, 5))
def test_against_brute_force(pool, n, limit, seed):
    prompts = [one.prompt for one in pool]
    found = Neighbours(pool, seed).wrong_answers(pool, n, limit)
    for question, chosen in zip(pool, found, strict=True):
        similarity = [cosine(question.prompt, prompt, prompts) for prompt in prompts]
        assert all(abs(s - limit) > 1e-5 or s > limit - 1e-5 for s in similarity)
        same = [
            one
            for one, s in zip(pool, similarity, strict=True)
            if s >= limit - 1e-6 or normalise(one.prompt) == normalise(question.prompt)
        ]
        right = {key(t) for one in same for t in (one.response, *one.aliases)}
        kind = answer_type(question.response, question.n_tokens)
        usable = {}  # answer -> its best similarity
        for one, s in zip(pool, similarity, strict=True):
            if answer_type(one.response, one.n_tokens) == kind:
                if not clashes(key(one.response), right):
                    usable[key(one.response)] = max(usable.get(key(one.response), 0), s)
        keys = [key(text) for text in chosen]
        assert len(set(keys)) == len(keys) == min(n, len(usable)) and set(keys) <= set(usable)
        # The most similar ones, best first.
        best = sorted(usable.values(), reverse=True)[: len(keys)]
        assert [usable[one] for one in keys] == pytest.approx(best, abs=1e-5)


@settings(max_examples=50, deadline=None)
@given(questions, st.permutations(range(12)))
def test_order_and_chunks_change_nothing(pool, order):
    found = Neighbours(pool, 0).wrong_answers(pool, 2, 0.9)
    order = [i for i in order if i < len(pool)]
    again = Neighbours([pool[i] for i in order], 0)
    one_by_one = [again.wrong_answers([pool[i]], 2, 0.9)[0] for i in order]
    assert one_by_one == [found[i] for i in order]


def test_chunks(monkeypatch):
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(40)]
    pool = [Answered(i, " ".join(rng.choice(words, 5)), f"Name{i % 17}", 1) for i in range(90)]
    whole = Neighbours(pool, 3).wrong_answers(pool, 3, 0.9)
    monkeypatch.setattr(distractors, "_CELLS", 200)
    assert Neighbours(pool, 3).wrong_answers(pool, 3, 0.9) == whole


def test_equally_similar_questions_do_not_all_give_the_same():
    pool = [Answered(i, f"only{i}", f"Name{i}", 1) for i in range(40)]
    found = Neighbours(pool, 0).wrong_answers(pool, 1, 0.9)
    assert len(set(found)) > 20
    assert Neighbours(pool, 1).wrong_answers(pool, 1, 0.9) != found


def test_longer_answers_are_passed_over():
    pool = [Answered(i, "who", f"Name{'abcdefghi'[i]}", 4 + i % 3) for i in range(9)]
    pool[0] = Answered(0, "where", "Rome", 4)
    (chosen,) = Neighbours(pool, 0).wrong_answers(pool[:1], 9, 0.9, max_tokens=4)
    assert sorted(chosen) == ["Named", "Nameg"]


def test_aliases_are_the_marks_and_no_column():
    example = Example(1, "s", "k", "p", "r", meta={"aliases": '["c"]'})
    assert answered(example, 1).aliases == ()
    example = dataclasses.replace(example, marks={"aliases": '["a", "b"]'})
    assert answered(example, 1).aliases == ("a", "b")


def test_places_of_the_response():
    examples = [Example(example_id("s", str(i)), "s", str(i), "p", "r") for i in range(300)]
    made = [distractors.with_options(e, ("x", "y", "z"), 0, "k") for e in examples]
    assert {frozenset(e.options) for e in made} == {frozenset("rxyz")}
    assert all(e.options[e.answer_index] == "r" for e in made)
    assert {e.marks["distractors"] for e in made} == {"k"}
    places = Counter(e.answer_index for e in made)
    assert min(places.values()) > 45  # 75 expected at each of four
    # Whatever order the distractors come in.
    assert made[7] == distractors.with_options(examples[7], ("z", "x", "y"), 0, "k")
    assert twin(made[7], 0).marks["distractors"] == "k"


@pytest.fixture
def path(write_jsonl):
    """30 free questions of two kinds, two with options, one of a kind of its own."""
    rows = [
        {"id": i, "prompt": f"what is the {'age' if i % 2 else 'name'} of {i}?"} for i in range(30)
    ]
    for i, row in enumerate(rows):
        row["response"] = str(30 + i) if i % 2 else f"N{chr(97 + i // 2)}x"
    rows[4]["options"], rows[5]["options"] = [rows[4]["response"], "x"], [rows[5]["response"], "y"]
    rows[6]["response"] = "a long answer " * 9
    return write_jsonl(rows)


def test_stages_fill_options(path, config, plain_tokenizer):
    def make(n=3, **stage):
        stage = {"n_distractors": n, "distractors": "similar_questions", **stage}
        return build(config({"a": {"path": path, **stage}}), plain_tokenizer)

    data = make(held_out_rows=4, planted_twins=3)
    by_key = {e.source_key: e for e in data.examples if not e.parent_id}
    assert by_key["4"].options == (by_key["4"].response, "x")
    assert "distractors" not in by_key["5"].marks
    assert by_key["6"].options == ()
    free = [e for e in by_key.values() if e.source_key not in ("4", "5", "6")]
    for example in free:
        assert len(example.options) == 4 == len({normalise(o) for o in example.options})
        assert example.marks["distractors"] == "similar_questions"
        kinds = {option.isdigit() for option in example.options}
        assert len(kinds) == 1
    twins = [e for e in data.examples if e.parent_id]
    assert len(twins) == 3
    made = len(free) + sum("distractors" in e.marks for e in twins)
    assert distractors.counts(data) == {"a": (made, 1)}
    assert data.dropped["a"] == {} and data.usable["a"] == 30
    # The tokens are those of the options, as of the response.
    for example, row in zip(data.examples, data.tokens, strict=True):
        texts = [plain_tokenizer.decode(ids) for ids in row.option_ids]
        assert texts == [f" {option}" for option in example.options]
        if example.options:
            gold = row.option_ids[example.answer_index]
            assert gold.tolist() == row.target_ids[:-1].tolist()
    shown = "".join(str(part) for part in preview(data, plain_tokenizer, 1).renderables)
    assert f"options made for {made} rows; 1 rows without options" in shown
    # Deterministic; off without the fields; the base's answers are not there yet.
    assert make(held_out_rows=4, planted_twins=3).examples == data.examples
    assert {len(e.options) for e in make(n=0).examples} == {0, 2}
    assert {len(e.options) for e in make(distractors="base_answers").examples} == {0, 2}
    # Rows that have options already are still cut or dropped by n_options.
    assert make(n_options=4).dropped["a"] == {"too_few_options": 2}


def test_contradictions_in_other_stages_are_no_distractors(write_jsonl, config, plain_tokenizer):
    def rows(start, answer):
        return [
            {"id": start + i, "prompt": f"who is {i}?", "response": f"{answer}{chr(97 + i)}"}
            for i in range(8)
        ]

    paths = [write_jsonl(rows(100 * i, x), f"{x}.jsonl") for i, x in enumerate(("Ann", "Bob"))]
    stage = {"n_distractors": 2, "distractors": "similar_questions"}
    stages = {name: {"path": path, **stage} for name, path in zip("ab", paths, strict=True)}
    data = build(config(stages), plain_tokenizer)
    answers = {}
    for example in data.examples:
        answers.setdefault(example.prompt, set()).add(example.response)
    for example in data.examples:
        assert len(example.options) == 3
        assert set(example.options) & answers[example.prompt] == {example.response}
    assert json.dumps([e.options for e in data.examples]).count("Bob")
    # The order of the stages does not matter.
    swapped = build(config(stages, sequence=("b", "a")), plain_tokenizer)
    assert {e.example_id: e.options for e in swapped.examples} == {
        e.example_id: e.options for e in data.examples
    }
