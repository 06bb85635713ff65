"""Near pairs against loops over all pairs."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ilp_jax.analysis.near import near_texts, near_vectors
from ilp_jax.analysis.words import names, normalised, sentences, telling, words
from ilp_jax.detect.normalise import normalise

# Few words, so that many pairs are similar; some are common and some rare.
WORD = st.sampled_from("what is red of in big ent rare odd not Bob 7 20 + é 中文 . .".split())
TEXTS = st.lists(st.lists(WORD, max_size=14).map(" ".join), max_size=18, unique=True)


def applied(expression, texts):
    frame = pl.DataFrame({"t": texts}, schema={"t": pl.String})
    return frame.select(expression(pl.col("t")))["t"].to_list()


def pairs_by_loop(texts, threshold):
    bags = [set(bag) for bag in applied(words, texts)]
    guards = list(zip(applied(telling, texts), applied(names, texts), strict=True))
    # Sentences as their words in order.
    parts = [{tuple(w) for w in applied(words, one) if w} for one in applied(sentences, texts)]
    n = len(texts)
    df = {word: sum(word in bag for bag in bags) for bag in bags for word in bag}
    idf = {word: math.log((1 + n) / (1 + count)) + 1 for word, count in df.items()}

    def cosine(a, b, weight):
        norms = [math.sqrt(sum(weight[word] ** 2 for word in bag)) for bag in (a, b)]
        return sum(weight[word] ** 2 for word in a & b) / math.prod(norms) if all(norms) else 0

    found = {}
    for i in range(n):
        for j in range(i + 1, n):
            if not (bags[i] and bags[j] and guards[i] == guards[j]):
                continue
            compared = [(bags[i], bags[j])]
            if parts[i] != parts[j]:
                compared.append(
                    [set().union(*x) for x in (parts[i] - parts[j], parts[j] - parts[i])]
                )
            s = min(cosine(a, b, w) for a, b in compared for w in (idf, dict.fromkeys(df, 1)))
            if s >= threshold:
                found[i, j] = s
    return found


@settings(max_examples=50)
@given(TEXTS, st.sampled_from([0.3, 0.55, 0.7, 0.85, 0.95]))
def test_near_texts_are_those_that_comparing_all_pairs_finds(texts, threshold):
    found = near_texts(pl.Series(texts, dtype=pl.String), threshold)
    expected = pairs_by_loop(texts, threshold)
    assert {(i, j) for i, j, _ in found.iter_rows()} == set(expected)
    for i, j, similarity in found.iter_rows():
        assert similarity == pytest.approx(expected[i, j], abs=1e-9)


def test_parts_of_the_join_add_up(monkeypatch):
    rng = np.random.default_rng(0)
    texts = pl.Series([" ".join(rng.choice(list("abcdefgh"), 6)) for _ in range(120)]).unique()
    whole = near_texts(texts, 0.8)
    monkeypatch.setattr("ilp_jax.analysis.near._PAIRS_AT_ONCE", 200)
    assert near_texts(texts, 0.8).equals(whole)
    assert len(whole) > 50


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("which of these is true of the red fox", "which of these is not true of the red fox"),
        ("what is 12 + 30 in all of it", "what is 30 + 12 in all of it"),
        ("what is 12 - 30 in all of it", "what is 12 + 30 in all of it"),
        ("give him 2.5 mg of it now please", "give him 25 mg of it now please"),
        ("they can't be red and big and old", "they can be red and big and old"),
        ("translate x ∨ y into words of it", "translate x ∧ y into words of it"),
        ("Question: What is the size of Spain here?", "Question: What is the size of France here?"),
        ("who was the first of them to go there", "who was the last of them to go there"),
    ],
)
def test_what_turns_a_question_parts_it(one, other):
    assert near_texts(pl.Series([one, other]), 0.3).is_empty()


def test_capitals_that_open_a_sentence_are_no_names():
    one, other = "Question: What is the size of Spain?", "Question: Tell me the size of Spain?"
    assert len(near_texts(pl.Series([one, other]), 0.3)) == 1


def test_of_questions_about_one_passage_only_the_questions_count():
    passage = " ".join(f"word{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(90)) + "."
    asked = ["who was it that went there", "how big is the red one of them"]
    texts = pl.Series([f"{passage} {question}?" for question in asked])
    assert near_texts(texts, 0.2).is_empty()
    # The same question about nearly the same passage is a pair.
    texts = pl.Series([f"{p} {asked[0]}?" for p in (passage, passage.replace("wordaa", "wordzz"))])
    assert len(near_texts(texts, 0.9)) == 1


def test_scripts_without_spaces_are_compared_by_character():
    texts = pl.Series(
        ["日本の首都はどこですか", "日本の首都はどこですか。", "中国の首都はどこですか"]
    )
    found = {(i, j): s for i, j, s in near_texts(texts, 0.5).iter_rows()}
    assert found[0, 1] == pytest.approx(1)
    assert found[0, 2] < 0.95


@given(st.text(st.characters(codec="ascii")))
def test_normalised_is_the_detectors_normalise(text):
    (found,) = pl.DataFrame({"t": [text]}).select(normalised(pl.col("t")))["t"]
    # \x1c-\x1f are white space to Python alone.
    if not set(text) & set("\x1c\x1d\x1e\x1f"):
        assert found == normalise(text)


@given(st.integers(2, 12), st.integers(0, 99))
def test_near_vectors_are_those_that_a_loop_finds(n, seed):
    rng = np.random.default_rng(seed)
    # A large common part, which must not make all rows alike.
    vectors = (10 + rng.normal(size=(n, 3))).astype(np.float32)
    found = {(i, j): s for i, j, s in near_vectors(vectors, 0.6).iter_rows()}
    assert near_vectors(vectors[:1], 0.6).is_empty() and near_vectors(vectors[:0], 0.6).is_empty()
    exact = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    cosine = {
        (i, j): exact[i] @ exact[j] / np.linalg.norm(exact[i]) / np.linalg.norm(exact[j])
        for i in range(n)
        for j in range(i + 1, n)
    }
    assert set(found) >= {pair for pair, c in cosine.items() if c > 0.6001}
    assert set(found) <= {pair for pair, c in cosine.items() if c > 0.5999}
    for pair, similarity in found.items():
        assert similarity == pytest.approx(cosine[pair], abs=1e-4)


def test_rows_have_a_bounded_number_of_neighbours(monkeypatch):
    monkeypatch.setattr("ilp_jax.analysis.near._ROWS_AT_ONCE", 16)
    rng = np.random.default_rng(0)
    near = rng.normal(size=4) + 1e-3 * rng.normal(size=(40, 4))
    vectors = np.concatenate([near, -near]).astype(np.float32)
    found = near_vectors(vectors, 0.9, most=3)
    assert 40 * 3 / 2 <= len(found) <= 80 * 3
