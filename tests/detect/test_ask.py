import types

import jax
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from ilp_jax.data.examples import Example
from ilp_jax.data.study import StudyData
from ilp_jax.data.tokens import TokenRow
from ilp_jax.detect.ask import example_records
from ilp_jax.detect.score import score_step
from ilp_jax.models.config import ModelConfig
from ilp_jax.models.decoder import Decoder
from ilp_jax.norms.check import random_params, random_rows

MODEL = ModelConfig(
    vocab_size=23, d_model=16, n_layers=1, n_heads=2, n_kv_heads=2, head_dim=8, d_ff=16
)


def test_scores_against_scipy():
    decoder, rows = Decoder(MODEL), random_rows(MODEL, n_rows=4, length=10)
    params = random_params(decoder, rows)
    scores = jax.jit(score_step, static_argnames="decoder")(params, rows, 0.7, decoder=decoder)
    logits = decoder.apply({"params": params}, rows.tokens_BxT, rows.positions_BxT, rows.branch_BxT)
    logits = np.asarray(logits, np.float64)
    for b, r in zip(*np.nonzero(rows.target_mask_BxR), strict=True):
        one, target = logits[b, rows.target_index_BxR[b, r]], rows.target_ids_BxR[b, r]
        wanted = {
            "logprob": log_softmax(one)[target],
            "logprob_tempered": log_softmax(one / 0.7)[target],
            "argmax": one.argmax(),
            "argmax_logprob": log_softmax(one).max(),
            "correct": one.argmax() == target,
        }
        for name, value in wanted.items():
            assert scores[name][b, r] == pytest.approx(value, abs=1e-5), name


@pytest.fixture
def question():
    example = Example(
        7, "s", "k", prompt="p", response="b c", options=("a", "b c", "d e f"), answer_index=1
    )
    tokens = TokenRow(
        7,
        np.array([1], np.int32),
        np.array([3, 4, 0], np.int32),
        tuple(np.array(ids, np.int32) for ids in ([2], [3, 4], [5, 6, 7])),
    )
    return StudyData((example,), (tokens,), ())


WORDS = types.SimpleNamespace(
    decode=lambda ids: " ".join("_" if i == 0 else "?abcdefg"[i - 1] for i in ids)
)
# Response and its end, the three options in order, and an empty slot that must not count.
BRANCH = np.array([1, 1, 1, 2, 3, 3, 4, 4, 4, -1])


def scores(correct=(True, True, True), argmax=(3, 4, 0)):
    logprob = np.array([-1.0, -2.0, -0.5, -1.6, -1.0, -2.0, -0.5, -3.0, -1.5, 99.0], np.float32)
    right = np.array([*correct, *[False] * 7])
    return {
        "logprob": logprob,
        "logprob_tempered": logprob * 2,
        "argmax": np.array([*argmax, *[1] * 7], np.int32),
        "argmax_logprob": logprob / 2,
        "correct": right,
    }


def test_records_of_a_question(question):
    greedy, law, choice = example_records(question, WORDS, 0, BRANCH, scores(), 0.7)
    assert [r["mode"] for r in (greedy, law, choice)] == ["greedy", "sample", "choice"]
    assert greedy["correct"] and greedy["prediction"] == "b c"
    assert greedy["gold_logprob"] == -3.5
    assert greedy["confidence"] == pytest.approx(np.exp(-1.75))
    assert law["gold_logprob"] == -7.0 and law["temperature"] == 0.7 and "correct" not in law
    # The end token does not count; means are per token.
    assert choice["option_logprob_sum"] == pytest.approx([-1.6, -3.0, -5.0], abs=1e-6)
    means = [-1.6, -1.5, -5 / 3]
    assert choice["option_logprob_mean"] == pytest.approx(means, abs=1e-6)
    assert choice["prediction"] == "b c" and choice["correct"]
    assert choice["confidence"] == pytest.approx(softmax(means)[1], rel=1e-5)
    assert choice["gold_logprob"] == -3.0


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_one_wrong_token_is_a_wrong_answer(question, wrong):
    """The end token counts as well: an answer that goes on is another answer."""
    correct, argmax = [True] * 3, [3, 4, 0]
    correct[wrong], argmax[wrong] = False, 6
    greedy, *_ = example_records(question, WORDS, 0, BRANCH, scores(correct, argmax), 0.7)
    assert not greedy["correct"]
    assert greedy["prediction"] == {0: "e c", 1: "b e", 2: "b c"}[wrong]


def test_a_prediction_stops_before_the_first_end_of_several(question):
    """What the model would say behind an end is never said."""
    correct, argmax = (False, False, False), (6, 7, 6)
    for ends, text in (((0,), "e f"), ((0, 7), "e"), ((7, 6), "")):
        found = scores(correct, argmax)
        greedy, *_ = example_records(question, WORDS, 0, BRANCH, found, 0.7, ends)
        assert greedy["prediction"] == text


def test_a_truncated_response_is_never_right(question):
    cut = TokenRow(7, np.array([1], np.int32), np.array([3, 4], np.int32), (), truncated=True)
    data = StudyData(question.examples, (cut,), ())
    greedy, *_ = example_records(data, WORDS, 0, BRANCH, scores(), 0.7)
    assert not greedy["correct"]


def test_a_wrong_conversation_has_a_line_for_each_reply(question):
    """Two replies: b and its end within the prompt, then c d and its end."""
    row = TokenRow(
        7,
        np.array([1, 3, 0, 1], np.int32),
        np.array([4, 5, 0], np.int32),
        earlier_replies=((1, 3),),
    )
    example = Example(7, "s", "k", prompt="p", response="c d")
    branch = np.array([1, 1, 1, 1, 1, -1])
    values = {
        "logprob": np.zeros(6, np.float32),
        "logprob_tempered": np.zeros(6, np.float32),
        "argmax": np.array([6, 0, 4, 2, 0, 1], np.int32),
        "argmax_logprob": np.zeros(6, np.float32),
        "correct": np.array([False, True, True, False, True, True]),
    }
    records = example_records(StudyData((example,), (row,), ()), WORDS, 0, branch, values, 0.7)
    assert records[0]["prediction"] == "e\nc a"


def test_no_options_no_choice():
    example = Example(7, "s", "k", prompt="p", response="b c")
    row = TokenRow(7, np.array([1], np.int32), np.array([3, 4, 0], np.int32))
    records = example_records(StudyData((example,), (row,), ()), WORDS, 0, BRANCH, scores(), 0.7)
    assert [record["mode"] for record in records] == ["greedy", "sample"]
