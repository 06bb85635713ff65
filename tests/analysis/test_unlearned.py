"""Verdicts against their definitions, on answers that a brute-force loop can read."""

import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilp_jax.analysis.unlearned import by_default, unlearned

DETECT = {
    "exact_match_max_tokens": 3,
    "n_samples": 5,
    "temperature": 0.7,
    "pass_threshold": 0.2,
    "rouge_l_threshold": 0.5,
}


def answers_of(example_id, exact, logprob, choice, drawn=(), point="final"):
    common = {"example_id": example_id, "point": point, "run": 0, "prompt_variant": 0}
    law = {"mode": "sample", "correct": None, "temperature": 0.7}
    rows = [
        common | {"mode": "greedy", "correct": exact, "gold_logprob": -9.0},
        common | law | {"gold_logprob": logprob},
        # The law at another temperature is for the stability of verdicts alone.
        common | law | {"gold_logprob": -9.0 if logprob > -1 else -0.1, "temperature": 1.0},
    ]
    if choice is not None:
        rows.append(common | {"mode": "choice", "correct": choice, "gold_logprob": -9.0})
        # Other wordings and permuted runs are not this detector's.
        other = {"mode": "choice", "correct": not choice, "gold_logprob": -9.0}
        rows += [
            common | other | {"prompt_variant": 1},
            common | other | {"prompt_variant": 3, "seed": 0},
            common | other | {"prompt_variant": 3, "seed": 0, "run": 1},
        ]
    # A drawn answer has a seed and, here, a log-probability that no reader may use.
    rows += [
        common | {"mode": "sample", "seed": 0, "correct": c, "gold_logprob": -9.0} for c in drawn
    ]
    return rows


def frames(examples):
    schema = {
        "example_id": pl.Int64,
        "point": pl.String,
        "mode": pl.String,
        "run": pl.Int32,
        "prompt_variant": pl.Int32,
        "temperature": pl.Float64,
        "seed": pl.Int64,
        "prediction": pl.String,
        "correct": pl.Boolean,
        "gold_logprob": pl.Float64,
    }
    rows = [row for i, (_, *rest) in enumerate(examples) for row in answers_of(i, *rest)]
    lengths = [length for length, *_ in examples]
    return pl.DataFrame(rows, schema=schema), known(lengths)


def known(lengths, marks="{}", messages=None, response="the cat sat"):
    n = len(lengths)
    return pl.DataFrame(
        {
            "example_id": range(n),
            "n_target_tokens": [length + 1 for length in lengths],
            "response": [response] * n,
            "messages": [messages] * n,
            "marks": [marks] * n,
        },
        schema={
            "example_id": pl.Int64,
            "n_target_tokens": pl.Int32,
            "response": pl.String,
            "messages": pl.String,
            "marks": pl.String,
        },
    )


EXAMPLES = st.lists(
    st.tuples(
        st.integers(1, 6),
        st.booleans(),
        st.floats(-6, 0),
        st.sampled_from([None, True, False]),
        st.lists(st.booleans(), max_size=10),
    ),
    min_size=1,
    max_size=8,
)


@given(EXAMPLES)
def test_verdicts_follow_their_definitions(examples):
    found = unlearned(*frames(examples), DETECT)
    verdicts = {(i, d): u for i, _, d, u in found.iter_rows()}
    n_drawn = sum(1 for *_, drawn in examples if drawn)
    assert len(verdicts) == len(found) == 3 * len(examples) + n_drawn
    default = {i: u for i, _, _, u in by_default(found).iter_rows()}
    for i, (length, exact, logprob, choice, drawn) in enumerate(examples):
        expected = None if length > 3 else not exact
        assert verdicts[i, "exact_match"] is expected
        probability = 2.718281828459045**logprob
        assert verdicts[i, "exact_law"] is ((1 - probability) ** 5 >= 0.5)
        assert verdicts[i, "choice"] is (None if choice is None else not choice)
        assert ((i, "sampled") in verdicts) is bool(drawn)
        if drawn:
            # 1 of 5 is not below 0.2.
            assert verdicts[i, "sampled"] is (10 * sum(drawn) < 2 * len(drawn))
        fallback = None if choice is None else not choice
        assert default[i] is (expected if expected is not None else fallback)


@pytest.mark.parametrize("logprob", [0.0, 1e-7])
def test_a_certain_answer_is_learned_by_the_exact_law(logprob):
    found = unlearned(*frames([(1, True, logprob, None)]), DETECT)
    assert found.filter(pl.col("detector") == "exact_law")["unlearned"].to_list() == [False]


SUMMARY = '{"split": "train", "task": "summary"}'
TWO_REPLIES = '[{"content": "a", "role": "user"}, {"content": "b", "role": "assistant"}]'


def summary_answers(prediction, drawn):
    common = {"example_id": 0, "point": "final", "run": 0, "prompt_variant": 0}
    common |= {"gold_logprob": -9.0, "temperature": 0.7}
    rows = [common | {"mode": "greedy", "correct": True, "prediction": prediction}]
    rows += [common | {"mode": "sample"}]
    rows += [common | {"mode": "sample", "seed": 3, "correct": False}] * drawn
    return pl.DataFrame(rows, schema=frames([])[0].schema)


@pytest.mark.parametrize(
    ("prediction", "verdict"),
    # F1 is 2 common words / (words of the answer + 3).
    [("The cat sat.", False), ("a dog", True), ("cat", False), ("a cat ran up", True)],
)
def test_summaries_are_judged_by_rouge_l(prediction, verdict):
    answers = summary_answers(prediction, drawn=2)
    for length in (2, 40):
        examples = known([length], marks=SUMMARY)
        found = unlearned(answers, examples, DETECT)
        assert dict(found.select("detector", "unlearned").iter_rows())["rouge_l"] is verdict
        # Also where the response is short enough for exact match.
        assert by_default(found)["unlearned"].to_list() == [verdict]


@pytest.mark.parametrize(
    "fields",
    [{"response": "?!"}, {"messages": TWO_REPLIES}, {"drawn": 0}],
    ids=["no words", "two replies", "nothing generated"],
)
def test_where_rouge_l_does_not_apply_there_is_no_default_verdict(fields):
    answers = summary_answers("the cat sat", drawn=fields.pop("drawn", 1))
    found = unlearned(answers, known([2], marks=SUMMARY, **fields), DETECT)
    assert dict(found.select("detector", "unlearned").iter_rows())["rouge_l"] is None
    assert by_default(found)["unlearned"].to_list() == [None]


@pytest.mark.parametrize("marks", ["{}", '{"task": "answer"}', '{"note": "task: summary"}'])
def test_other_rows_have_no_rouge_l(marks):
    found = unlearned(summary_answers("x", drawn=1), known([2], marks=marks), DETECT)
    assert "rouge_l" not in found["detector"]
    assert by_default(found)["unlearned"].to_list() == [False]


@pytest.mark.parametrize(
    ("trained_turns", "truncated", "applies"),
    [("all", False, True), ("all", True, False), ("last", False, False), ("last", True, False)],
)
def test_exact_match_applies_by_what_is_trained(trained_turns, truncated, applies):
    inference, examples = frames([(4, True, 0.0, None)])
    turns = [{"role": r, "content": "x"} for r in ("user", "assistant", "user")]
    examples = examples.with_columns(messages=pl.lit(json.dumps(turns)), truncated=truncated)
    found = unlearned(inference, examples, DETECT, trained_turns)
    # 5 target tokens: two replies with an end token each leave 3, which is the limit.
    verdict = found.filter(pl.col("detector") == "exact_match")["unlearned"].to_list()
    assert verdict == [False if applies else None]
