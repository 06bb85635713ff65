"""A user's file of what rows rest on."""

import json

import numpy as np
import pytest

from ilp_jax.errors import UserError
from ilp_jax.mitigate.prerequisites import Prerequisites

RNG = np.random.default_rng(0)


@pytest.fixture
def read(tmp_path, context):
    def make(*rows):
        path = tmp_path / "asked.jsonl"
        path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in rows))
        return Prerequisites(str(path), context.examples, context.library)

    return make


def test_rows_of_the_file_rest_on_what_it_says_and_others_on_the_library(read, context):
    row = {"example_id": 1000, "question": "Who leads?", "answer": "Ada"}
    library = read(row, row | {"question": "Where?", "text": "They met in Turin."}, "")
    facts = library.facts(context.examples[0])
    assert [(fact.question, fact.answer) for fact in facts] == [
        ("Who leads?", "Ada"),
        ("Where?", "Ada"),
    ]
    told = {library.tell(facts[0], RNG) for _ in range(30)}
    assert len(told) > 1 and all("Who leads?" in text and "Ada" in text for text in told)
    assert {library.tell(facts[1], RNG) for _ in range(9)} == {"They met in Turin."}
    other = library.facts(context.examples[1])
    assert other == context.library.facts(context.examples[1])
    assert library.tell(other[0], RNG) == "fact 1001 a"
    assert library.general(3, RNG) and library.restate(context.examples[2], RNG) == "answer r2"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{", "is no prerequisite"),
        ('["a"]', "is no prerequisite"),
        ({"question": "Who?", "answer": "Ada"}, "is no prerequisite"),
        ({"example_id": 1000, "question": "Who?"}, "no question or no answer"),
        ({"example_id": 1000, "question": "Who?", "answer": 3}, "is no text"),
        ({"example_id": 1000, "question": " ", "answer": "Ada"}, "no question or no answer"),
        ({"example_id": 5, "question": "Who?", "answer": "Ada"}, "does not have"),
    ],
)
def test_a_line_that_is_none_is_named(read, row, says):
    good = {"example_id": 1000, "question": "Who?", "answer": "Ada"}
    with pytest.raises(UserError, match="asked.jsonl:2.*" + says):
        read(good, row)


def test_a_missing_file_is_named(context, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        Prerequisites(str(tmp_path / "absent"), context.examples, context.library)
