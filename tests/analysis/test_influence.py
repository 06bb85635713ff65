"""Which rows count as lost, which erasers are kept, and how the table shows them."""

import io

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from ilp_jax.analysis import influence
from ilp_jax.errors import UserError


def diagnosis(verdicts):
    """Rows of two methods from (id, point, detector, unlearned)."""
    rows = [(*one, method) for one in verdicts for method in ("none", "rules")]
    names = ("example_id", "point", "detector", "unlearned", "method")
    return pl.DataFrame(rows, schema=names, orient="row")


PLAN = pl.DataFrame(
    {"example_id": [1, 2, 3, 4, 5, 1], "stage": [1, 1, 1, 2, 3, 2]},
    schema={"example_id": pl.Int64, "stage": pl.Int32},
)
"""Row 1 is trained in stages 1 and 2, rows 2 and 3 in stage 1, row 4 in 2, row 5 in 3."""


def verdicts(detector, unlearned):
    return [
        (one, point, detector, lost)
        for point, row in unlearned.items()
        for one, lost in zip((1, 2, 3, 4, 5), row, strict=True)
    ]


LAW = verdicts(
    "exact_law",
    {
        "stage_1": (True, False, False, True, True),
        "stage_2": (False, True, False, False, True),
        "final": (True, True, False, True, True),
    },
)


def test_lost():
    found = influence.lost(diagnosis(LAW), PLAN, "exact_law")
    # Row 1 counts in stage 2, its last; 3 is kept; 5 is of the last stage.
    assert found.rows() == [(2, 1), (1, 2), (4, 2)]
    match = [(*row[:2], "exact_match", row[3]) for row in LAW]
    assert influence.lost(diagnosis(match), PLAN, "default").rows() == found.rows()
    # Where the default detector has nothing to say, the row is not lost.
    without = [row for row in match if row[:2] != (2, "final")]
    assert influence.lost(diagnosis(without), PLAN, "default").rows() == [(1, 2), (4, 2)]


@pytest.mark.parametrize(
    ("detector", "plan", "words"),
    [
        ("sampled", PLAN, "'sampled' at stage_1 and stage_2 and final"),
        ("default", PLAN, "no verdict of 'default'"),
        ("exact_law", PLAN.filter(pl.col("stage") == 1), "no later stage"),
    ],
)
def test_nothing_to_go_on(detector, plan, words):
    with pytest.raises(UserError, match=words):
        influence.lost(diagnosis(LAW), plan, detector)


def test_a_larger_part_only_adds():
    rows = pl.DataFrame({"example_id": list(range(50)), "stage": [1] * 50})
    few = influence.choose(rows, 5, 0)
    many = influence.choose(rows, 20, 0)
    assert len(few) == 5 and set(few["example_id"]) < set(many["example_id"])
    assert many["example_id"].is_sorted() and influence.choose(rows, 0, 0).equals(rows)
    assert set(influence.choose(rows, 20, 1)["example_id"]) != set(many["example_id"])


def test_strongest():
    ids = np.array([30, 10, 20, 40])
    score = np.array([[0.5, 0.0, 0.5, 2.0], [-1.0, 0.0, 3.0, -2.0], [-0.5, 0.0, 3.5, 0.0]])
    step = np.arange(12).reshape(3, 4)
    rows = influence.strongest({"raw": score}, {"raw": step}, np.array([1, 0]), ids, 2)
    assert rows.rows() == [
        (10, 40, 3, "raw", 2.0),
        (10, 20, 2, "raw", 0.5),  # of two alike the smaller id
        (30, 20, 6, "raw", 3.0),  # falls are not kept
        (None, 20, 10, "raw", 3.5),
    ]
    shares = influence.shares(rows, [10, 30])
    assert shares.rows() == [(20, "raw", 3.5), (40, "raw", 2.0)]
    nothing = influence.strongest({"raw": -(score**2)}, {"raw": step}, np.array([1, 0]), ids, 2)
    assert nothing.is_empty() and nothing.schema == rows.schema


SETTINGS = {
    "n_followed": "1",
    "n_lost": "3",
    "detector": "default",
    "seed": "0",
    "every_updates": "1",
    "largest_difference": "0",
}


def shown(rows, examples):
    console = Console(file=io.StringIO(), width=120)
    console.print(influence.render(rows, examples, SETTINGS))
    return console.file.getvalue()


def test_table():
    examples = pl.DataFrame(
        {
            "example_id": [1, 2, 3],
            "prompt": ["who [bold red]is[/] it\x1b[31m", "x" * 100, "why"],
            "response": ["me", "the end", "so"],
        }
    )
    rows = pl.DataFrame(
        [
            (1, 2, 7, "preconditioned", 0.25),
            (1, 3, 8, "preconditioned", 0.5),
            (1, 3, 8, "raw", 9.0),
            (None, 3, 8, "preconditioned", 9.0),
        ],
        schema=("example_id", "eraser_id", "step", "method", "score"),
        orient="row",
    )
    pairs = influence.pairs(rows, examples, 1)
    assert [(one["eraser_prompt"], one["score"]) for one in pairs] == [("why", 0.5)]
    text = shown(rows, examples)
    # Texts are neither markup nor terminal codes.
    assert "who [bold red]is[/] it?[31m -> me" in text and "\x1b" not in text
    assert text.index("0.500") < text.index("0.250") and "9.000" not in text
    assert "...xxx" in text and "-> the end" in text and "1 of 3 rows" in text
    assert "No later row raised their loss" in shown(rows.clear(), examples)
