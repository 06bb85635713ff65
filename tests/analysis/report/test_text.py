"""Texts of a data set: cut, and with nothing in them that hides."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilp_jax.analysis.report.text import cut, visible

any_text = st.text(st.characters(codec="utf-8"))


@given(any_text)
def test_nothing_hides(text):
    shown = visible(text)
    assert visible(shown) == shown
    for character in shown:
        hides = unicodedata.category(character) in ("Cc", "Zl", "Zp")
        turns = unicodedata.bidirectional(character) in {
            *("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
        }
        assert character in "\t\n" or not (hides or turns)


@pytest.mark.parametrize(
    "text", ["plain\n\ttext", "سلام می‌خواهم", "שלום", "👩‍👩‍👧", "क्‍ष", "é", "<b>&amp;"]
)
def test_writing_stays_as_it_is(text):
    assert visible(text) == text


def test_marks_name_the_character():
    assert visible("a\u202eb\x00\r") == "a⟨U+202E⟩b⟨U+0000⟩⟨U+000D⟩"
    assert visible(7) == "7"


@given(any_text, st.integers(1, 20))
def test_cut(text, limit):
    kept = cut(text, limit)
    if len(text) <= limit:
        assert kept == visible(text)
    else:
        assert kept == {"t": visible(text[:limit]), "n": len(text)}
    assert cut(None, limit) is None
