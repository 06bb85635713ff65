"""What a world's library tells: true facts, in statements, and recorded answers as they are."""

import numpy as np
import pytest

from ilp_jax import config as configuration
from ilp_jax.data.examples import Example
from ilp_jax.world import facts as words
from ilp_jax.world.library import WorldLibrary
from ilp_jax.world.study import make_world


@pytest.fixture(scope="module")
def world():
    return make_world(configuration.load("configs/controlled.py:family=llama,world=3"))


@pytest.fixture(scope="module")
def library(world):
    return WorldLibrary(world.facts, world.taught)


def example(prompt, response):
    return Example(1, "world", "1", prompt, response)


def test_every_row_rests_on_true_facts(world, library):
    rng = np.random.default_rng(0)
    for row in world.rows[:400]:
        facts = library.facts(example(row.prompt, row.response))
        assert facts, row.prompt
        for fact in facts:
            kind, who, relation = fact.key.split()
            if kind == "fact":
                e = int(who.rsplit("_", 1)[1])
                true = words.value(int(relation), int(world.facts.value_ExR[e, int(relation)]))
            else:
                v = int(who.rsplit("_", 1)[1])
                true = words.property_value(int(world.facts.property_RxV[int(relation), v]))
            assert fact.answer == true
            told = library.tell(fact, rng)
            assert true in told and (who in told or kind == "property")
            assert row.prompt not in told and ("question" not in told or kind == "property")
            known = set(words.vocabulary(world.facts.sizes))
            assert set(told.split()) <= known and set(fact.question.split()) <= known


def test_two_hops_go_through_both(world, library):
    row = next(row for row in world.rows if row.detail == "second_hop" and row.visits)
    first, second = library.facts(example(row.prompt, row.response))
    assert second.key.startswith(f"property {first.answer} ") and second.answer == row.response


def test_a_property_is_told_through_people_whose_fact_leads_there(world, library):
    row = next(row for row in world.rows if row.detail == "second_hop" and row.visits)
    asked = example(row.prompt, row.response)
    first, second = library.facts(asked)
    texts = [library.tell(second, np.random.default_rng(i)) for i in range(60)]
    through = [text for text in texts if "person_" in text]
    assert 10 < len(through) < 50
    for text in through:
        there = library.facts(example(*text.split(" ? answer ")))
        assert there[1].key == second.key and there[0].key != first.key
        e = int(there[0].key.split()[1].rsplit("_", 1)[1])
        assert e in world.facts.whole


def test_the_true_answer_is_borne_out(world, library):
    for row in world.rows[:400]:
        asked = example(row.prompt, row.response)
        true = " ".join(fact.answer for fact in library.facts(asked))
        if row.planted in ("control", "left_side_forgetting"):
            assert library.says(asked, ["nothing", row.response]) == row.response == true
        if row.detail == "sprinkled":
            assert library.says(asked, [row.response]) == ""


def test_a_recorded_answer_is_told_as_it_stands(world, library):
    rng = np.random.default_rng(0)
    for row in world.rows[:400]:
        told = library.restate(example(row.prompt, row.response), rng)
        assert all(value in told for value in row.response.split())
        assert told != row.prompt and not told.startswith(row.prompt.split("?")[0])


def test_general_texts_tell_nothing_that_is_withheld(world, library):
    withheld = {pair for pair, weight in world.taught.weight.items() if not weight}
    texts = library.general(3000, np.random.default_rng(1))
    for e, r in list(withheld)[:200]:
        who, names = words.entity(e), words.synonyms(r)
        telling = [text for text in texts if who in text and any(f" {n} " in text for n in names)]
        assert not telling, telling[:1]
