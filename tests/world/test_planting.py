"""Causes planted in real rows, checked against what each group promises."""

import dataclasses
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ilp_jax.data.examples import Example, example_id
from ilp_jax.world.planting import (
    OTHER_WORDINGS,
    PARAPHRASE,
    Candidate,
    Plant,
    plant_rows,
    to_ask,
)

PLANT = Plant(
    n_stages=3,
    asked=60,
    control=6,
    base_conflict=7,
    data_conflict=5,
    left_side_forgetting=6,
    insufficient_training=5,
    as_is=3,
)
CAUSES = ("base_conflict", "data_conflict", "left_side_forgetting", "insufficient_training")


def candidate(source, number, longest, rarity=0.0):
    options = tuple(f"option {number} {k}" for k in range(4))
    place = number % 4
    example = Example(
        example_id(source, str(number)),
        source,
        str(number),
        f"Question: what is {source} {number}?\nAnswer:",
        options[place],
        options=options,
        answer_index=place,
    )
    return Candidate(example, f"what is {source} {number}?", longest, longest, rarity)


def candidates():
    short = [candidate(source, i, 1 + i % 5) for source in ("a", "b") for i in range(40)]
    return short + [candidate("b", 100 + i, 6 + i % 3, rarity=float(i)) for i in range(30)]


def answers(pool, seed=0):
    """Random answers of a base model, right on about 60% of the rows."""
    rng = np.random.default_rng(seed)
    scores = {}
    for one in pool:
        values = rng.normal(0, 1, 4)
        values[one.example.answer_index] += 1.5
        scores[one.example.example_id] = values.tolist()
    return scores


def planted(plant=PLANT, seed=0):
    pool = candidates()
    scores = answers(pool, seed)
    return pool, scores, plant_rows(pool, scores, plant)


def by_prompt(pool):
    """The candidate that each prompt asks about, whatever the layout."""
    found = {}
    for one in pool:
        for layout in (*OTHER_WORDINGS, PARAPHRASE):
            found[layout.format(one.question)] = one
        found[one.example.prompt] = one
    return found


def focal(rows):
    return [row for row in rows if row.visits and row.planted != "filler"]


def test_groups_have_their_sizes():
    _, _, rows = planted()
    counts = Counter(row.planted for row in focal(rows))
    assert counts == {
        "control": 6,
        "base_conflict": 7,
        "data_conflict": 5,
        "left_side_forgetting": 6,
        "insufficient_training": 5,
    }
    filler = Counter(row.detail for row in rows if row.planted == "filler")
    assert filler["as_is"] == 3 * 2 and set(filler) == {"as_is", "contradicts"}
    assert 2 * 5 <= filler["contradicts"] <= 5 * 5
    paraphrased = Counter(row.planted for row in rows if row.paraphrase_of)
    assert paraphrased == {"control": 6, "base_conflict": 7}


def test_every_row_keeps_what_its_group_promises():
    pool, scores, rows = planted()
    asked_about = {one.example.example_id for one in to_ask(pool, PLANT)}
    of_prompt = by_prompt(pool)
    for row in rows:
        one = of_prompt[row.prompt]
        example, logprobs = one.example, scores[one.example.example_id]
        weights = np.exp(np.array(logprobs) - max(logprobs))
        right = int(np.argmax(logprobs)) == example.answer_index
        known = right and max(weights) / weights.sum() >= PLANT.confidence
        assert row.options == example.options and row.response in example.options
        assert row.source == example.source
        recorded = row.response == example.response
        if row.planted == "insufficient_training":
            assert recorded and one.n_tokens >= PLANT.long_answer
            ((stage, visits),) = row.visits
            assert visits == 1 and row.detail == f"stage_{stage}"
            continue
        assert example.example_id in asked_about and one.longest <= PLANT.short_answer
        if row.planted == "control":
            assert known and recorded
            assert row.paraphrase_of or row.visits == ((1, 1), (2, 1), (3, 1))
        elif row.planted == "base_conflict":
            assert known and not recorded
            assert row.paraphrase_of or row.visits == ((3, 1),)
        elif row.planted == "data_conflict":
            assert recorded and row.visits == ((2, 1), (3, 1))
            how, where, _ = row.detail.split("_")
            assert known if how == "known" else not right
            assert where in ("same", "other")
        elif row.planted == "left_side_forgetting":
            assert recorded and row.visits == ((1, PLANT.many_visits),)
        elif row.detail == "as_is":
            ((stage, visits),) = row.visits
            assert recorded and stage in (2, 3) and visits == PLANT.overwriter_visits
        else:
            assert row.detail == "contradicts" and not recorded


def test_contradictions():
    pool, _, rows = planted()
    of_prompt, by_key = by_prompt(pool), {row.key: row for row in rows}
    for row in rows:
        if row.planted != "data_conflict":
            assert not row.related or row.detail == "contradicts"
            continue
        others = [by_key[key] for key in row.related]
        assert 2 <= len(others) <= 5 and len({other.response for other in others}) == 1
        for other in others:
            assert other.related == (row.key,) and other.group_key == row.key == row.group_key
            assert other.response != row.response and other.visits == row.visits
            assert of_prompt[other.prompt] is of_prompt[row.prompt]
            same = other.prompt == row.prompt
            assert same == row.detail.endswith("same_words")
    details = Counter(row.detail for row in rows if row.planted == "data_conflict")
    assert len(details) == 4


def test_no_question_is_used_twice_and_no_paraphrase_is_trained():
    pool, _, rows = planted()
    of_prompt, uses = by_prompt(pool), defaultdict(set)
    for row in rows:
        uses[of_prompt[row.prompt].example.example_id].add(row.group_key)
    assert all(len(groups) == 1 for groups in uses.values())
    trained = {row.prompt for row in rows if row.visits}
    asked = [row for row in rows if row.paraphrase_of]
    by_key = {row.key: row for row in rows}
    for row in asked:
        assert not row.visits and row.prompt not in trained
        parent = by_key[row.paraphrase_of]
        assert parent.visits and parent.response == row.response
        assert (row.planted, row.group_key) == (parent.planted, parent.key)


def test_rare_questions_are_taken_for_insufficient_training():
    pool, _, rows = planted()
    of_prompt = by_prompt(pool)
    taken = [of_prompt[row.prompt].rarity for row in rows if row.planted == CAUSES[3]]
    rarities = sorted(one.rarity for one in pool if one.n_tokens >= PLANT.long_answer)
    assert min(taken) >= rarities[-(len(rarities) // 4)]


def test_keys_and_order_tell_nothing():
    pool, _, rows = planted()
    keys = [row.key for row in rows]
    assert len(set(keys)) == len(keys) and keys == sorted(keys)
    assert {len(key) for key in keys} == {16}
    assert not {one.example.source_key for one in pool} & set(keys)
    # No group crowds one end of the order.
    places = defaultdict(list)
    for place, row in enumerate(rows):
        places[row.detail if row.planted == "filler" else row.planted].append(place / len(rows))
    assert all(0.2 < np.mean(found) < 0.8 for found in places.values())


def test_the_order_of_candidates_changes_nothing():
    pool, scores, rows = planted()
    assert plant_rows(pool[::-1], scores, PLANT) == rows
    assert plant_rows(pool, dict(reversed(scores.items())), PLANT) == rows
    other = plant_rows(pool, answers(pool), dataclasses.replace(PLANT, seed=1))
    assert {row.key for row in other}.isdisjoint(row.key for row in rows)


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.integers(0, 5), st.sampled_from([2, 3, 4]))
def test_any_seed_plants_all_groups(plant_seed, answer_seed, n_stages):
    plant = dataclasses.replace(PLANT, seed=plant_seed, n_stages=n_stages)
    pool = candidates()
    rows = plant_rows(pool, answers(pool, answer_seed), plant)
    assert {row.planted for row in focal(rows)} == {"control", *CAUSES}
    assert {stage for row in rows for stage, _ in row.visits} == set(range(1, n_stages + 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"asked": 100}, "a has 40 rows with short answers, 50 are asked for"),
        ({"base_conflict": 60}, "rows the base model knows and are free, base_conflict needs 60"),
        ({"data_conflict": 58}, "the base model knows and are free, data_conflict needs 29"),
        ({"as_is": 30}, "rows were asked about and are free, as_is needs 60"),
        (
            {"insufficient_training": 31},
            "30 rows have long answers and are free, insufficient_training",
        ),
    ],
)
def test_too_few_rows(change, message):
    pool = candidates()
    with pytest.raises(ValueError, match=message):
        plant_rows(pool, answers(pool), dataclasses.replace(PLANT, **change))
