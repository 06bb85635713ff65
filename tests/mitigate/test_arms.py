"""Who is dealt which remedy, and that every arm costs the same."""

import collections
import dataclasses

import numpy as np
import pytest

from ilp_jax.fields.mitigate import ARMS
from ilp_jax.mitigate.arms import make_arm
from ilp_jax.mitigate.evidence import linked
from ilp_jax.stats.schema import CAUSES


def arm(name, context, number=0):
    planted = np.where(context.evidence.unlearned_N, context.evidence.cause_N, "")
    return make_arm(name, number, context, 7, planted)


@pytest.mark.parametrize("name", [name for name in ARMS if name != "progressive"])
def test_every_arm_makes_as_many_updates(name, context):
    found, base = arm(name, context), context.base
    wanted = round(base.total_visits * 1.25) + base.total_visits
    visits = found.plan.total_visits + len(found.plan.pages)
    assert abs(visits - wanted) <= 0.02 * wanted
    assert bool(found.plan.pages) == (name not in ("epochs", "oversample_all"))


def test_progressive_epochs_start_from_the_run_as_it_was(context):
    found = arm("progressive", context)
    assert (found.plan.visits_SxN == context.base.visits_SxN).all() and not found.plan.pages


@pytest.mark.parametrize("budget", [0.5, 2.0])
def test_a_budget_scales_what_every_arm_adds(budget, context):
    base = context.base.total_visits
    for name in ("none", "diagnosed", "epochs", "oversample_all"):
        found = make_arm(name, 0, context, 7, budget=budget)
        assert found.label == f"{name}_x{budget:g}"
        added = found.plan.total_visits + len(found.plan.pages) - base
        assert added == pytest.approx(1.25 * base * budget, rel=0.05)
    few, many = (make_arm("missing_knowledge", 0, context, 7, budget=b) for b in (1.0, budget))
    told = [len(one.plan.documents) for one in (few, many)]
    assert many.assigned == few.assigned and told[1] == budget * told[0]
    assert few.label == "missing_knowledge"


def test_arms_are_pure_functions(context):
    for name in ("randomised", "sham", "shuffle"):
        one, same = arm(name, context), arm(name, context)
        assert one.assigned == same.assigned and one.treated == same.treated
        assert (one.plan.visits_SxN == same.plan.visits_SxN).all()
        assert one.plan.pages == same.plan.pages
        assert one.seed == same.seed != arm(name, context, 1).seed


def test_remedies_are_dealt_by_cause(context):
    dealt = arm("randomised", context).assigned
    assert sorted(dealt) == list(range(80))  # none without a cause
    for place, cause in enumerate(CAUSES):
        own = collections.Counter(dealt[row] for row in range(place * 16, place * 16 + 16))
        assert own == {**dict.fromkeys(CAUSES, 2), cause: 4, "none": 4}
    assert arm("sham", context).assigned == dealt
    assert arm("randomised", context, 1).assigned != dealt


def test_rows_that_contradict_each_other_are_dealt_together(context):
    rivals = {row: (row + 1,) for row in range(0, 16, 2)}
    rivals |= {row + 1: (row,) for row in range(0, 16, 2)}
    evidence = dataclasses.replace(context.evidence, rivals=rivals)
    dealt = arm("randomised", dataclasses.replace(context, evidence=evidence)).assigned
    assert all(dealt[row] == dealt[row + 1] for row in range(0, 16, 2))
    assert len({dealt[row] for row in range(0, 16, 2)}) > 2


def test_groups_reach_through_rows_that_are_not_dealt():
    assert linked([1, 5, 7], {1: (2,), 2: (1, 5), 5: (2,)}) == [[1, 5], [7]]


def test_rows_judged_wrong_are_set_aside(context):
    evidence = dataclasses.replace(context.evidence, wrong={0: True, 32: True, 150: True})
    context = dataclasses.replace(context, evidence=evidence)
    for name in ("none", "randomised", "sham", "random", "missing_knowledge"):
        assert not {0, 32} & set(arm(name, context).assigned)
    found = arm("diagnosed", context)
    assert found.assigned[0] == found.assigned[32] == "data_conflict"
    assert not found.plan.visits_SxN[:, 32].any() and found.plan.visits_SxN[:, 132].any()


def test_each_row_gets_the_remedy_of_its_cause(context):
    for name in ("diagnosed", "oracle"):
        found = arm(name, context)
        assert found.assigned == {row: context.evidence.cause_N[row] for row in range(80)}
        assert found.treated == set(range(80))
    assert set(arm("data_conflict", context).assigned.values()) == {"data_conflict"}
    assert set(arm("none", context).assigned.values()) == {"none"}


def test_pages_keep_their_share_and_their_length(with_settings):
    found = arm("diagnosed", with_settings(documents_a_row=40, pages=2.0))
    pages = found.plan.pages
    own = [page for page in pages if page[0].row >= 0]
    assert len(own) == round(0.2 * len(pages))
    assert all(sum(len(one.text.split()) + 1 for one in page) <= 20 for page in pages)
    # Thinned alike: no row has two documents more than another.
    count = collections.Counter(one.row for page in own for one in page)
    assert set(count) == set(range(32)) and max(count.values()) - min(count.values()) <= 1


def test_a_shuffle_moves_visits_and_loses_none(context):
    base = context.base
    found = arm("shuffle", context).plan
    filled = (found.visits_SxN * found.epochs_S[:, None]).sum(axis=0)
    began = (base.visits_SxN * base.epochs_S[:, None]).sum(axis=0)
    assert (filled >= began).all()
    unlearned = context.evidence.unlearned
    assert (filled[unlearned] == began[unlearned]).all()  # only learned rows fill
    assert (found.visits_SxN[0] != base.visits_SxN[0]).any()


def test_masked_documents_do_not_tell_the_answer(context):
    class Telling(type(context.library)):
        def tell(self, fact, rng):
            row = int(fact.key.split()[0]) - 1000
            return f"it is R{row} , not r{row}0 ."

    context = dataclasses.replace(context, library=Telling())
    told = {
        one.row: one.text
        for page in arm("masked", context).plan.pages
        for one in page
        if one.row >= 0
    }
    assert told[0] == "it is ___ , not r00 ." and len(told) > 30


def test_rows_that_contradict_each_other_get_the_answer_of_most(context):
    rivals = {32: (132, 133), 132: (32,), 133: (32,), 34: (134,), 134: (34,)}
    responses = list(context.evidence.responses)
    responses[132] = responses[133] = "b"
    answers = context.evidence.base_answer_N.copy()
    answers[34] = responses[134]
    evidence = dataclasses.replace(
        context.evidence, rivals=rivals, responses=tuple(responses), base_answer_N=answers
    )
    examples = list(context.examples)
    for row in (132, 133):
        examples[row] = dataclasses.replace(examples[row], response="B")
    context = dataclasses.replace(context, evidence=evidence, examples=tuple(examples))
    found = arm("relabel", context)
    assert found.plan.relabelled == {32: "B", 34: "r134"} and found.treated == {32, 34}
    assert arm("buckets", context).plan.apart == ((32, 132, 133), (34, 134))
