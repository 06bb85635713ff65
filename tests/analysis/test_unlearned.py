"""Verdicts against their definitions, on answers that a brute-force loop can read."""

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
}


def answers_of(example_id, exact, logprob, choice, drawn=(), point="final"):
    common = {"example_id": example_id, "point": point}
    rows = [
        common | {"mode": "greedy", "correct": exact, "gold_logprob": -9.0},
        common | {"mode": "sample", "correct": None, "gold_logprob": logprob},
    ]
    if choice is not None:
        rows.append(common | {"mode": "choice", "correct": choice, "gold_logprob": -9.0})
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
        "seed": pl.Int64,
        "correct": pl.Boolean,
        "gold_logprob": pl.Float64,
    }
    rows = [row for i, (_, *rest) in enumerate(examples) for row in answers_of(i, *rest)]
    lengths = [length for length, *_ in examples]
    known = pl.DataFrame(
        {"example_id": range(len(examples)), "n_target_tokens": [n + 1 for n in lengths]},
        schema={"example_id": pl.Int64, "n_target_tokens": pl.Int32},
    )
    return pl.DataFrame(rows, schema=schema), known


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
