"""Questions left out of a variant, counted from the answers."""

import polars as pl
import pytest

from ilp_jax.analysis.not_asked import not_asked, notes

RUNS = {"choice_runs": 2, "choice_prompt": "listed", "choice_run_points": ("stage", "final")}
SCHEMA = {
    "example_id": pl.Int64,
    "point": pl.String,
    "mode": pl.String,
    "prompt_variant": pl.Int32,
    "run": pl.Int32,
}


def answers(asked):
    """``asked``: (point, variant) -> example ids; example 9 has no options."""
    rows = [
        (i, point, "choice", variant, run)
        for (point, variant), ids in asked.items()
        for i in ids
        for run in range(2 if variant == 3 else 1)
    ]
    return pl.DataFrame(
        [*rows, (9, "base", "greedy", 0, 0), (9, "final", "greedy", 0, 0)], SCHEMA, orient="row"
    )


@pytest.mark.parametrize(
    ("more", "detect", "wanted"),
    [
        ({("base", 1): [0, 1, 2], ("base", 2): [0, 1, 2]}, {}, {}),
        ({("base", 1): [0, 2], ("base", 2): [0, 1, 2]}, {}, {1: 1}),
        ({("base", 1): [0, 1, 2]}, {}, {2: 3}),
        ({("base", 1): [0, 1, 2]}, {"base_prompt_variants": (0, 1)}, {}),
        # The same row at two points counts once; points that call for no runs do not count.
        (
            {("stage_1", 0): [0, 1], ("stage_1", 3): [0], ("final", 3): [0, 2]},
            {"base_prompt_variants": (0,), **RUNS},
            {3: 1},
        ),
        ({}, {"base_prompt_variants": (0,), **RUNS}, {3: 3}),
        ({}, {"base_prompt_variants": (0,), **RUNS, "choice_run_points": ("epoch_2",)}, {}),
    ],
)
def test_counts(more, detect, wanted):
    as_trained = {("base", 0): [0, 1, 2], ("final", 0): [0, 1, 2]}
    detect = {"base_prompt_variants": (0, 1, 2), "choice_runs": 0, **detect}
    inference = answers(as_trained | more)
    assert not_asked(inference, detect) == wanted
    lines = notes([not_asked(inference, detect)])
    assert len(lines) == len(wanted)
    for line, (variant, n) in zip(lines, wanted.items(), strict=True):
        assert line.startswith(f"Not asked in prompt variant {variant}: {n} rows with options")


def test_runs_without_answers_or_fields_have_no_notes():
    assert not_asked(answers({}), {}) == {}
    assert not_asked(answers({}).clear(), {"base_prompt_variants": (0, 1), **RUNS}) == {}
