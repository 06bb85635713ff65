"""Each remedy and its sham: what they act on, what they change, and that they leave the rest."""

import dataclasses

import numpy as np
import pytest

from ilp_jax.mitigate import base_conflict
from ilp_jax.mitigate.arms import REMEDIES
from ilp_jax.mitigate.evidence import judged_wrong
from ilp_jax.stats.schema import CAUSES


def apply(kind, cause, rows, context):
    return getattr(REMEDIES[cause], kind)(context.base, rows, context, np.random.default_rng(0))


@pytest.mark.parametrize("cause", CAUSES)
def test_a_remedy_does_nothing_for_no_rows(cause, context):
    for kind in ("treat", "sham"):
        plan, treated = apply(kind, cause, [], context)
        assert not treated and not plan.documents
        assert (plan.visits_SxN == context.base.visits_SxN).all()


@pytest.mark.parametrize("cause", CAUSES)
def test_a_sham_changes_as_much_as_its_remedy_but_nothing_of_its_rows(cause, context):
    rows = list(range(CAUSES.index(cause) * 16, CAUSES.index(cause) * 16 + 16))
    (real, treated), (fake, claimed) = (
        apply(kind, cause, rows, context) for kind in ("treat", "sham")
    )
    assert treated == claimed == set(rows)
    assert len(real.documents) == len(fake.documents)
    changed_SxN = fake.visits_SxN - context.base.visits_SxN
    assert not changed_SxN[:, rows].any()
    real_SxN = real.visits_SxN - context.base.visits_SxN
    if cause == "data_conflict":
        assert (changed_SxN.min(axis=0) < 0).sum() == (real_SxN.min(axis=0) < 0).sum() == 16
    else:
        assert changed_SxN.sum(axis=1).tolist() == real_SxN.sum(axis=1).tolist()


def test_only_blind_prerequisites_are_told(context):
    plan, _ = apply("treat", "missing_knowledge", [0, 1], context)
    told = {(one.row, one.text) for one in plan.documents}
    # The base model knows fact a of row 1; fact b has no question, so it counts as blind.
    assert told == {(0, "fact 1000 a"), (0, "fact 1000 b"), (1, "fact 1001 b")}
    assert sum(one.row == 1 for one in plan.documents) == context.settings["documents_a_row"]


def test_a_known_prerequisite_needs_no_telling(context):
    known = dataclasses.replace(context, facts={1: context.facts[1][:1]})
    plan, treated = apply("treat", "missing_knowledge", [1], known)
    assert not treated and not plan.documents


def test_answers_are_told_where_the_base_model_believes_otherwise(context):
    plan, treated = apply("treat", "base_conflict", [0, 16], context)
    assert treated == {16} and {one.text for one in plan.documents} == {"answer r16"}
    sham, _ = apply("sham", "base_conflict", [16], context)
    assert {one.row for one in sham.documents} == {16}
    assert "answer r16" not in {one.text for one in sham.documents}


def test_contested_rows_alone_weigh_more(context):
    plan, treated = base_conflict.weighted(context.base, context)
    added_SxN = plan.visits_SxN - context.base.visits_SxN
    assert treated == set(range(16, 32))
    assert set(np.flatnonzero(added_SxN.any(axis=0))) == treated
    assert ((added_SxN > 0) <= (context.base.visits_SxN > 0)).all()


def test_rivals_are_deleted_and_the_row_is_kept(context):
    plan, treated = apply("treat", "data_conflict", [0, 32], context)
    assert treated == {32}  # row 0 contradicts nothing
    assert not plan.visits_SxN[:, 132].any() and plan.visits_SxN[:, 32].any()


def test_of_two_rows_that_contradict_each_other_one_stays(context):
    plan, treated = apply("treat", "data_conflict", [32, 132], context)
    kept = plan.visits_SxN[:, [32, 132]].any(axis=0)
    assert kept.sum() == len(treated) == 1


def test_the_judge_needs_evidence(evidence):
    def judged(row=32, **changes):
        return judged_wrong(row, dataclasses.replace(evidence, **changes))

    def believes(text):
        answers = np.full(len(evidence.ids_N), "", object)
        answers[32] = text
        return answers

    assert not judged() and not judged(0)
    assert judged(base_answer_N=believes("r132"))  # the rival's
    assert not judged(base_answer_N=believes("r32"))  # its own
    assert not judged(base_answer_N=believes("r99"))  # nobody's
    assert judged(told={32: "r132"}) and judged(told={32: "r132"}, base_answer_N=believes("r32"))
    assert not judged(told={32: "r32"}, base_answer_N=believes("r132"))
    assert not judged(told={32: "r132"}, wrong={32: False})
    assert judged(wrong={32: True}) and judged(wrong={132: False})
    assert not judged(base_answer_N=believes("r132"), wrong={32: False})
    assert not judged(base_answer_N=believes("r132"), wrong={132: True})


def test_only_rows_that_are_being_erased_are_replayed(context):
    plan, treated = apply("treat", "left_side_forgetting", [0, 49], context)
    added_SxN = plan.visits_SxN - context.base.visits_SxN
    assert treated == {49} and added_SxN[:, 49].tolist() == [0, 0, 4]  # 2 epochs, 8 visits
    assert added_SxN.sum() == 4
    fell = dataclasses.replace(
        context, evidence=dataclasses.replace(context.evidence, drop_N=np.full(200, 0.5))
    )
    visited = np.flatnonzero(context.base.visits_SxN[2] == 0)[0]
    assert apply("treat", "left_side_forgetting", [visited], fell)[1] == {visited}
    never = dataclasses.replace(
        context, evidence=dataclasses.replace(context.evidence, kept_N=np.zeros(200))
    )
    assert apply("treat", "left_side_forgetting", [49], never)[1] == {49}  # its diagnosis
    last = dataclasses.replace(
        context, evidence=dataclasses.replace(context.evidence, drop_N=np.ones(200))
    )
    assert not apply("treat", "left_side_forgetting", [2], last)[1]  # no later stage


def test_only_rows_that_were_trained_too_little_get_more_visits(context):
    plan, treated = apply("treat", "insufficient_training", [0, 64], context)
    added_SxN = plan.visits_SxN - context.base.visits_SxN
    assert treated == {64} and added_SxN[:, 64].tolist() == [2, 0, 2]
    assert added_SxN.sum() == 4
