"""Patterns against a loop over places, on templates and on prose."""

import random
import statistics
from collections import Counter

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from ilp_jax.analysis.rarity import LONGEST, patterns

PROMPTS = st.lists(st.lists(st.sampled_from("abcd"), max_size=7).map(" ".join), max_size=12)


def frame(prompts):
    schema = {"example_id": pl.Int64, "prompt": pl.String}
    return pl.DataFrame(list(enumerate(prompts)), schema=schema, orient="row")


def places(words):
    if len(words) < 2 or len(words) > LONGEST:
        return {(None, *words)}
    return {(tuple(words[:i]), tuple(words[i + 1 :])) for i in range(len(words))}


@given(PROMPTS, st.data())
def test_patterns_are_those_of_a_loop_over_places(prompts, data):
    n = len(prompts)
    trained = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    ids = pl.Series([i for i in range(n) if trained[i]], dtype=pl.Int64)
    found = patterns(frame(prompts), ids)
    counted = Counter(key for i in ids for key in places(prompts[i].split()))
    expected = [max(counted[key] for key in places(prompt.split())) for prompt in prompts]
    assert found["pattern_count"].to_list() == expected
    if len(ids):
        ranks = (rankdata([-expected[i] for i in ids]) - 0.5) / len(ids)
        assert found["pattern_rarity"].gather(ids).to_list() == pytest.approx(list(ranks))
        usual = statistics.median(expected[i] for i in ids)
        relative = [count / usual for count in expected]
        assert found["pattern_relative"].to_list() == pytest.approx(relative)
    assert found["pattern_rarity"].null_count() == n - len(ids)


def test_a_rare_operation_is_rare_and_a_rare_name_is_not():
    # As in the planted world: names are rarer than the operation, and all are rare words.
    rng = random.Random(0)
    names = [f"ent{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(400)]
    facts = [f"what is the {rng.choice(['size', 'hue'])} of {name} ?" for name in names * 2]
    rare = [
        f"what is the opcode{op} of {rng.choice(names)} ?" for op in "abcdefgh" for _ in "12345"
    ]
    found = patterns(frame(facts + rare), pl.Series(range(len(facts + rare))))
    of_facts, of_rare = found["pattern_count"][: len(facts)], found["pattern_count"][len(facts) :]
    assert of_facts.min() > 300 and of_rare.max() <= 10
    assert found["pattern_rarity"][len(facts) :].min() > found["pattern_rarity"][: len(facts)].max()


def test_prose_without_templates_is_all_alike():
    rng = random.Random(0)
    letters = "abcdefghijklmnop"
    prose = [" ".join("".join(rng.choices(letters, k=4)) for _ in range(12)) for _ in range(50)]
    found = patterns(frame(prose), pl.Series(range(50)))
    assert set(found["pattern_count"]) == {1} and set(found["pattern_rarity"]) == {0.5}


def test_long_texts_cost_one_pattern_each():
    text = " ".join(["word"] * (LONGEST + 1))
    found = patterns(frame([text, text, text + " more"]), pl.Series([0, 1, 2]))
    assert found["pattern_count"].to_list() == [2, 2, 1]
