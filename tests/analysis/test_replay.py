"""Which rows are replayed, and after how many updates they count as back."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from ilp_jax.analysis.replay import came_back, choose, figures, render, verdicts
from ilp_jax.errors import UserError


def frame(ids, unlearned):
    return pl.DataFrame(
        {"example_id": ids, "unlearned": unlearned},
        schema={"example_id": pl.Int64, "unlearned": pl.Boolean},
    )


rows = st.dictionaries(
    st.integers(0, 10**6), st.tuples(st.booleans(), st.integers(2, 9)), max_size=30
)


@given(rows, st.integers(0, 12), st.integers(0, 12), st.integers(0, 3))
def test_choice_of_rows(some, max_examples, controls, seed):
    found = frame(list(some), [unlearned for unlearned, _ in some.values()])
    lengths = {one: n for one, (_, n) in some.items()}
    settings = {"max_examples": max_examples, "controls": controls}
    lost, known = choose(found, lengths, settings, seed)
    everyone = {one for one, (unlearned, _) in some.items() if unlearned}
    others = set(some) - everyone
    assert len(lost) == len(set(lost)) == min(max_examples or len(everyone), len(everyone))
    assert set(lost) <= everyone and set(known) <= others
    assert len(known) == len(set(known)) == (min(controls, len(others)) if lost else 0)
    # Brute force: nobody who was still free was nearer.
    free = set(others)
    for place, one in enumerate(known):
        wanted = lengths[lost[place % len(lost)]]
        assert abs(lengths[one] - wanted) == min(abs(lengths[o] - wanted) for o in free)
        free.remove(one)
    # More rows are more rows: the first stay the first, and their order is that of nobody else.
    more, _ = choose(found, lengths, {"max_examples": 0, "controls": 0}, seed)
    assert more[: len(lost)] == lost
    shuffled = found.sample(fraction=1.0, shuffle=True, seed=1)
    assert choose(shuffled, lengths, settings, seed) == (lost, known)


def measured(**correct):
    """Rows of replay.parquet: by example, whether it is right after 0, 1, 2 and 4 updates."""
    return pl.DataFrame(
        [
            {"example_id": int(one[1:]), "k": k, "loss": 2.0 / (1 + k), "p_gold": 0.1 * k}
            | {"correct": right}
            for one, rights in correct.items()
            for k, right in zip((0, 1, 2, 4), rights, strict=True)
        ],
        ("example_id", "k", "loss", "p_gold", "correct"),
        orient="row",
    )


RIGHT, WRONG = True, False
SOME = measured(
    e1=[WRONG, WRONG, RIGHT, RIGHT],
    e2=[WRONG, WRONG, WRONG, WRONG],
    e3=[RIGHT, RIGHT, RIGHT, RIGHT],
    e4=[WRONG, RIGHT, WRONG, WRONG],  # back and lost again: it did come back
)


def test_the_first_k_counts_and_never_is_censored():
    assert dict(came_back(SOME).iter_rows()) == {1: 2, 2: None, 3: 0, 4: 1}


def test_figures():
    found = frame([1, 2, 3, 4, 5], [True, True, False, True, True])
    cells = figures(SOME, found)
    shown = [(c["unlearned"], c["k"], c["n"], c["back"]) for c in cells]
    assert shown == [
        *((True, k, 3, back) for k, back in ((0, 0), (1, 1), (2, 2), (4, 2))),
        *((False, k, 1, 1) for k in (0, 1, 2, 4)),
    ]
    # Wilson 1927, written out.
    z, n, p = norm.ppf(0.975), 3, 2 / 3
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    assert cells[3]["interval"] == pytest.approx([middle - half, middle + half])
    assert cells[3]["loss"] == pytest.approx(0.4) and cells[3]["p_gold"] == pytest.approx(0.4)
    assert figures(SOME.clear(), found) == []
    settings = {"detector": "default", "optimizer": "adamw", "learning_rate": "1"}
    assert render(cells, settings, 0) and render([], settings, 0)


def diagnosis(*rows):
    columns = ("example_id", "point", "detector", "method", "unlearned")
    return pl.DataFrame(rows, columns, orient="row")


def test_verdicts_by_detector():
    found = diagnosis(
        (1, "final", "exact_match", "none", True),
        (1, "final", "exact_match", "rules", True),  # another method, the same verdict
        (1, "final", "choice", "none", False),
        (2, "final", "exact_match", "none", None),  # too long for an exact match
        (2, "final", "choice", "none", True),
        (3, "final", "exact_match", "none", False),
        (3, "base", "exact_match", "none", True),
    )

    def by(detector):
        return dict(verdicts(found, detector).iter_rows())

    assert by("exact_match") == {1: True, 3: False}
    assert by("choice") == {1: False, 2: True}
    assert by("default") == {1: True, 2: True, 3: False}
    with pytest.raises(UserError, match="no verdict of 'sampled'.*choice, exact_match"):
        by("sampled")
    with pytest.raises(UserError, match="'final'"):
        verdicts(found.filter(pl.col("point") == "base"), "exact_match")
