"""Texts that real rows get: their own passages, what a folder has on them, general ones."""

import numpy as np
import pytest

from ilp_jax.data.examples import Example
from ilp_jax.errors import UserError
from ilp_jax.mitigate.passages import PassageLibrary

RNG = np.random.default_rng(0)
LONG = " ".join(f"Sentence {i} says that lead is heavier than iron." for i in range(20))


def example(key, knowledge=()):
    prompt = f"Background: none\nQuestion: what melts at {key} degrees?\nAnswer:"
    return Example(hash(key) % 2**40, "made", key, prompt, "mercury", knowledge=tuple(knowledge))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.txt").write_text("Mercury melts at 39 degrees below zero. Gold does not.")
    (tmp_path / "b.md").write_text("Bread is made of flour, water and salt.")
    (tmp_path / "c.pdf").write_text("not text")
    return tmp_path


def test_texts_that_are_no_utf8_are_named_all(folder):
    for name in ("d.txt", "e.md"):
        (folder / name).write_bytes("caf\u00e9".encode("latin-1"))
    with pytest.raises(UserError, match="are not UTF-8: d.txt, e.md -- save them"):
        PassageLibrary([], str(folder))


def test_a_row_has_its_own_passages_in_parts_of_whole_sentences(folder):
    library = PassageLibrary([], str(folder), words=20)
    facts = library.facts(example("39", [LONG]))
    texts = [library.tell(fact, RNG) for fact in facts]
    assert " ".join(texts) == LONG and all(text.endswith(".") for text in texts)
    assert max(len(text.split()) for text in texts) <= 20
    assert not any(fact.question for fact in facts)


def test_a_row_without_passages_gets_the_most_similar_of_the_folder(folder):
    library = PassageLibrary([], str(folder))
    told = [library.tell(fact, RNG) for fact in library.facts(example("39"))]
    assert told == ["Mercury melts at 39 degrees below zero. Gold does not."]
    assert set(library.general(50, RNG)) == {*told, "Bread is made of flour, water and salt."}


def test_passages_bear_out_the_only_answer_that_they_name(folder):
    library, asked = PassageLibrary([], str(folder)), example("39", ["Mercury melts first."])
    assert library.says(asked, ["mercury", "gold"]) == "mercury"
    assert library.says(asked, ["mercury", "melts"]) == library.says(asked, ["gold"]) == ""
    assert library.says(example("39"), ["mercury", "gold"]) == ""  # has no passage


def test_an_answer_is_told_in_another_layout_than_the_prompt(folder):
    library, asked = PassageLibrary([], str(folder)), example("39")
    told = {library.restate(asked, RNG) for _ in range(50)}
    assert len(told) > 1
    for text in told:
        assert "what melts at 39 degrees?" in text and "mercury" in text
        assert "Question:" not in text and asked.prompt not in text


def test_general_text_has_none_of_the_study(folder):
    from ilp_jax.data import packaged

    known = packaged.load("sciq")
    own = [one for one in known if one.knowledge][:50]
    library = PassageLibrary(own, words=10_000)
    texts = {" ".join(text.split()) for one in own for text in one.knowledge}
    assert not texts & set(library.general(500, RNG))


def test_a_folder_without_text_is_refused(tmp_path):
    with pytest.raises(UserError, match="is no folder"):
        PassageLibrary([], str(tmp_path / "absent"))
    with pytest.raises(UserError, match="has no text"):
        PassageLibrary([], str(tmp_path))
