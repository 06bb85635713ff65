"""A world's rows: counts, what each group rests on, and that nothing tells of the groups."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ilp_jax.world import facts as words
from ilp_jax.world.corpus import corpus, packed
from ilp_jax.world.facts import Sizes, make_facts
from ilp_jax.world.groups import CONTROL, EXPOSURES, FAULT, FILLER, Mix, make_rows

CAUSES = (
    "missing_knowledge",
    "base_conflict",
    "data_conflict",
    "left_side_forgetting",
    "insufficient_training",
)
SMALL = Mix(group=12, fill=10, overwriters=6)
VISITED = st.integers(-3, 2**33)


def world(seed, mix=SMALL):
    facts = make_facts(seed, Sizes())
    return facts, *make_rows(seed, facts, mix)


def by_key(rows):
    return {row.key: row for row in rows}


@pytest.fixture(scope="module")
def whole():
    return world(7, Mix())


def test_every_group_is_there(whole):
    _, rows, _ = whole
    count = Counter(row.planted for row in rows if row.visits)
    assert {name: count[name] for name in (*CAUSES, CONTROL, FAULT)} == dict.fromkeys(
        (*CAUSES, CONTROL, FAULT), 84
    )
    kinds = Counter(row.detail for row in rows if row.planted == "missing_knowledge" and row.visits)
    assert kinds == {"withheld": 28, "unseen": 28, "second_hop": 28}
    classes = Counter(row.detail for row in rows if row.planted == "base_conflict" and row.visits)
    assert classes == {f"exposure_{weight}": 28 for weight in EXPOSURES}
    later = [row for row in rows if row.planted == "left_side_forgetting" and row.visits]
    assert {row.visits[0][0] for row in later} == {1}
    assert all(len(row.visits) == 1 for row in later)


@settings(max_examples=3)
@given(seed=VISITED)
def test_rows_are_a_function_of_the_seed(seed):
    _, rows, taught = world(seed)
    _, again, taught_again = world(seed)
    assert rows == again and taught == taught_again
    others = {row.prompt for row in world(seed + 1)[1]}
    assert {row.prompt for row in rows} != others


@settings(max_examples=3)
@given(seed=VISITED)
def test_a_group_is_what_it_says(seed):
    facts, rows, taught = world(seed)
    known = by_key(rows)
    assert len(known) == len(rows)
    said = {}
    for row in rows:
        said.setdefault(row.prompt, set()).add(row.response)
        assert row.response in row.options and len(set(row.options)) == len(row.options) == 4
    for row in (row for row in rows if row.visits):
        others = [known[key] for key in row.related]
        if row.planted == "data_conflict":
            assert 2 <= len(others) <= 5
            assert len({other.response for other in others} | {row.response}) == 2
            assert all(other.visits == row.visits for other in others)
        elif row.detail == "sprinkled":
            (parent,) = others
            assert parent.prompt == row.prompt and parent.response != row.response
            assert row.visits == ((parent.visits[0][0], 1),)
        if row.planted == FAULT:
            assert row.response in row.targets and len(row.targets) == facts.sizes.n_values
        else:
            assert not row.targets
        if row.prerequisite:
            asked = known[row.prerequisite]
            assert not asked.visits and asked.response == row.response


@settings(max_examples=3)
@given(seed=VISITED)
def test_paraphrases_are_never_trained(seed):
    _, rows, _ = world(seed)
    known = by_key(rows)
    trained = {row.prompt for row in rows if row.visits}
    paraphrases = [row for row in rows if row.paraphrase_of]
    assert Counter(row.paraphrase_of for row in paraphrases).most_common(1)[0][1] <= 2
    for row in paraphrases:
        parent = known[row.paraphrase_of]
        assert not row.visits and row.prompt != parent.prompt
        assert (row.response, row.planted) == (parent.response, parent.planted)
    of_planted = {row.paraphrase_of for row in paraphrases}
    assert of_planted == {row.key for row in rows if row.planted != FILLER and row.visits}
    # A contradiction may ask in the words of a paraphrase; nothing else does.
    both = [row for row in paraphrases if row.prompt in trained]
    assert all(known[row.paraphrase_of].planted == "data_conflict" for row in both)


def test_the_order_tells_nothing(whole):
    _, rows, _ = whole
    trained = [row for row in rows if row.visits]
    place = np.arange(len(trained)) / len(trained)
    for name in (*CAUSES, CONTROL, FAULT):
        own = place[[row.planted == name for row in trained]]
        # The mean of 84 uniform places is within 4 standard errors of a half.
        assert abs(own.mean() - 0.5) < 4 * np.sqrt(1 / 12 / len(own))
    assert all(len(row.key) == 12 for row in rows)


def test_the_base_is_not_told_what_is_withheld(whole):
    facts, rows, taught = whole
    vocabulary = words.vocabulary(facts.sizes)
    documents = corpus(7, facts, taught, 4000, 32)
    texts = {
        " ".join(vocabulary[i] for i in tokens[branch == number])
        for tokens, branch in zip(documents.tokens_NxT, documents.branch_NxT, strict=True)
        for number in set(branch.tolist()) - {-1}
    }
    unseen = {words.entity(e) for e in facts.unseen}
    withheld = {
        (words.entity(e), words.value(r, int(facts.value_ExR[e, r])))
        for (e, r), weight in taught.weight.items()
        if weight == 0
    }
    for text in texts:
        parts = text.split()
        assert not unseen & set(parts)
        assert not any((one, value) in withheld for one in parts[:9] for value in parts)
    for relation, value in taught.unknown_property:
        told = [t for t in texts if words.value(relation, value) in t and "region_" in t]
        assert not told


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=20))
def test_packed_documents_stay_apart(documents):
    rows = packed(documents, 8)
    found = []
    for tokens, places, branch, targets in zip(*rows, strict=True):
        for number in range(1, branch.max() + 1):
            own = branch == number
            found.append(tokens[own].tolist())
            assert places[own].tolist() == list(range(own.sum()))
            assert targets[own].tolist() == [*tokens[own][1:], 0]
        assert not tokens[branch == -1].any() and not targets[branch == -1].any()
    assert found == documents


def test_a_world_too_small_says_so():
    with pytest.raises(ValueError, match="are asked for"):
        make_rows(0, make_facts(0, Sizes(n_told=40)), Mix())
