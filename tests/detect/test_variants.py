"""Wordings and lists of options: no text is lost, and chance is keyed."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from ilp_jax.data.examples import Example
from ilp_jax.detect import variants
from ilp_jax.detect.variants import ANSWER_IS, LETTERED, LISTED, SHORT


def example(prompt="Question: who?\nAnswer:", options=("a", "b b", "c\n c"), answer=1, **more):
    return Example(
        7, "s", "k", prompt, options[answer], options=options, answer_index=answer, **more
    )


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Question: who?\nAnswer:", ("", "Question: ", "who?")),
        ("Passage: Q: x\nQuestion: who?\nAnswer:", ("Passage: Q: x\n", "Question: ", "who?")),
        ("Q: one?\nA: 1\n\nq : two?\nA:\n", ("Q: one?\nA: 1\n\n", "q : ", "two?")),
        ("who? Answer:", ("", "", "who?")),
        ("who?\nThe correct answer is:", ("", "", "who?")),
        ("vitamin A:", ("", "", "vitamin A:")),
        ("Answer:", ("", "", "Answer:")),
        ("\nAnswer:", ("", "", "\nAnswer:")),
        ("Question:", ("", "", "Question:")),
        ("", ("", "", "")),
        ("name a Q: value", ("", "", "name a Q: value")),
    ],
)
def test_parts_of_a_prompt(text, parts):
    assert variants.split(text) == parts


def test_wordings():
    assert variants.reworded(example(), ANSWER_IS).prompt == "who?\nThe correct answer is:"
    assert variants.reworded(example(), SHORT).prompt == "Answer this question.\nQ: who?\nA:"
    one = example("Story.\nQuestion: who?\nAnswer:")
    assert variants.reworded(one, ANSWER_IS).prompt == "Story.\nwho?\nThe correct answer is:"
    for variant in (0, LISTED, 9):
        with pytest.raises(ValueError):
            variants.reworded(one, variant)


def test_lists():
    one = variants.listed(example(), (2, 0, 1), LISTED)
    assert one.prompt == "Question: who?\nOptions:\n- c c\n- a\n- b b\nAnswer:"
    assert (one.options, one.response) == (example().options, "b b")
    two = variants.listed(example(), (2, 0, 1), LETTERED)
    assert two.prompt == "Question: who?\nA. c c\nB. a\nC. b b\nAnswer:"
    assert (two.options, two.response) == (("B", "C", "A"), "C")
    many = example(options=tuple(f"o{i}" for i in range(27)))
    assert variants.listed(many, range(27), LETTERED) is None
    assert variants.listed(many, range(27), LISTED).prompt.count("\n- ") == 27


@given(st.text("Qa:? \nAnswer", max_size=20), st.sampled_from([ANSWER_IS, SHORT]))
def test_the_last_turn_alone_changes(text, variant):
    turns = (
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": text},
    )
    one = variants.reworded(example("?", messages=turns), variant)
    assert one.messages[:2] == turns[:2] and one.messages[2]["role"] == "user"
    assert one.messages[2]["content"] == variants.reworded(example(text), variant).prompt
    assert one.prompt.startswith("User: hello\nAssistant: hi\nUser: ")
    # The question itself is all there, white space at its ends aside.
    before, _, question = variants.split(text)
    assert before + question in one.messages[2]["content"].replace("Answer this question.\nQ: ", "")


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**63 - 1), st.integers(0, 9), st.integers(1, 9))
def test_orders_are_permutations(seed, example_id, run, n):
    order = variants.order_of(seed, example_id, run, n)
    assert sorted(order) == list(range(n))
    assert order == variants.order_of(seed, example_id, run, n)


def test_orders_are_equally_likely():
    orders = Counter(variants.order_of(0, i, run, 3) for i in range(400) for run in range(3))
    assert len(orders) == 6
    for count in orders.values():
        assert binomtest(count, 1200, 1 / 6).pvalue > 1e-4


def test_draws_follow_their_probabilities():
    probabilities = np.array([0.1, 0.0, 0.6, 0.3])
    drawn = Counter(variants.drawn(0, i, r, probabilities) for i in range(400) for r in range(5))
    assert 1 not in drawn
    for place, p in enumerate(probabilities):
        assert binomtest(drawn[place], 2000, p).pvalue > 1e-4 if p else not drawn[place]
    assert variants.drawn(0, 1, 2, probabilities) == variants.drawn(0, 1, 2, probabilities)
    # A sum that rounding leaves below one still gives an option.
    assert variants.drawn(0, 1, 2, np.array([0.0, 0.0])) == 1
