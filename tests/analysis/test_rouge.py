"""ROUGE-L against the package rouge-score, and the subsequence against all subsequences."""

import itertools
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from ilp_jax.analysis.rouge import longest_common_subsequence, rouge_l, words

SHORT = st.lists(st.sampled_from("abc"), max_size=7)
SENTENCE = st.lists(st.sampled_from(["The", "cat", "sat", "on", "mat.", "1st", "dog's", "-"]))


def longest_by_trying_all(one, other):
    def subsequences(items):
        return {
            tuple(part) for n in range(len(items) + 1) for part in itertools.combinations(items, n)
        }

    return max(map(len, subsequences(one) & subsequences(other)))


@given(SHORT, SHORT)
def test_the_subsequence_is_the_longest_of_all(one, other):
    assert longest_common_subsequence(one, other) == longest_by_trying_all(one, other)


@given(
    SENTENCE.map(" ".join) | st.text(string.printable, max_size=40),
    SENTENCE.map(" ".join) | st.text(string.printable, max_size=40),
)
def test_equals_the_package(answer, response):
    wanted = RougeScorer(["rougeL"], use_stemmer=False).score(response, answer)["rougeL"].fmeasure
    got = rouge_l(answer, response)
    if not words(response):
        assert got is None and wanted == 0
    else:
        assert got == pytest.approx(wanted, abs=1e-12)


def test_known_values():
    # Lin (2004), section 3: "police kill the gunman" has P = R = 3/4 against the reference.
    assert rouge_l("police kill the gunman", "Police killed the gunman.") == pytest.approx(0.75)
    assert rouge_l("the gunman kill police", "Police killed the gunman.") == pytest.approx(0.5)
    assert rouge_l("", "a") == 0 and rouge_l("a", "...") is None
    assert words("Größe: 3_4 ÉTÉ") == ["größe", "3", "4", "été"]


def test_long_texts_cost_little():
    many = [str(i) for i in range(4000)]
    assert longest_common_subsequence(many, many[::2]) == 2000
