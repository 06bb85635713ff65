"""Figures of remedies against loops that count, and the sentences that they become."""

import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from ilp_jax.analysis.remedies import compare, tables, words
from ilp_jax.analysis.remedies.load import Tried
from ilp_jax.stats.schema import CAUSES

REMEDIES = ("none", *CAUSES)


def row(arm, example_id, **more):
    return {
        "example_id": example_id,
        "role": "train",
        "cause": None,
        "remedy": None,
        "arm": arm,
        "is_sham": arm == "sham",
        "seed": 1000,
        "treated": True,
        "deleted": False,
        "group_id": example_id,
        "learned_before": False,
        "learned_after": False,
        "learned_before_paraphrase": False,
        "learned_after_paraphrase": False,
        "steps": 10,
        "tokens": 1000,
        "planted": None,
        "scored": True,
        **more,
    }


def tried(rows, workdir="w"):
    schema = {"remedy": pl.String, "cause": pl.String, "planted": pl.String}
    config = {"mitigate": {"detector": "exact_law", "method": "rules"}}
    rows = pl.DataFrame(rows, schema_overrides=schema)
    return Tried(workdir, config, workdir, rows, {("none", 1000): 1.5})


@st.composite
def experiments(draw):
    """Rows dealt any remedy, with the same rows under shams, and learned rows beside."""
    rows = []
    for example_id in range(draw(st.integers(1, 30))):
        cause, remedy = draw(st.sampled_from(CAUSES)), draw(st.sampled_from(REMEDIES))
        for arm in ("randomised", "sham", "none", "diagnosed"):
            dealt = remedy if arm in ("randomised", "sham") else "none"
            rows.append(
                row(
                    arm,
                    example_id,
                    cause=cause,
                    remedy=dealt,
                    learned_after=draw(st.booleans()),
                    learned_after_paraphrase=draw(st.booleans()),
                    group_id=example_id // 2,
                )
            )
    for example_id in range(100, 100 + draw(st.integers(0, 9))):
        for arm in ("randomised", "sham", "none", "diagnosed"):
            after, deleted = draw(st.booleans()), draw(st.booleans())
            rows.append(
                row(arm, example_id, learned_before=True, learned_after=after, deleted=deleted)
            )
    return rows


@settings(deadline=None, max_examples=25)
@given(experiments())
def test_figures_are_those_of_loops_that_count(rows):
    found = compare([tried(rows)], resamples=20)
    of = {(cell["cause"], cell["remedy"]): cell for cell in found["matrix"]}
    for cause, remedy in itertools.product(CAUSES, REMEDIES):
        own = [
            one
            for one in rows
            if one["arm"] == "randomised" and (one["cause"], one["remedy"]) == (cause, remedy)
        ]
        assert ((cause, remedy) in of) == bool(own)
        if not own:
            continue
        cell, ids = of[cause, remedy], {one["example_id"] for one in own}
        assert cell["n"] == len(own)
        assert cell["share"] == pytest.approx(np.mean([one["learned_after"] for one in own]))
        if remedy == "none":
            continue
        shams = {
            one["example_id"]: one["learned_after"]
            for one in rows
            if one["arm"] == "sham" and one["example_id"] in ids
        }
        pairs = [(one["learned_after"], shams[one["example_id"]]) for one in own]
        better, worse = pairs.count((True, False)), pairs.count((False, True))
        sham = cell["over_sham"]
        assert (sham["better"], sham["worse"]) == (better, worse)
        assert sham["value"] == pytest.approx((better - worse) / len(own))
        if better + worse:
            assert sham["p"] == pytest.approx(binomtest(better, better + worse).pvalue)
    for arm in found["arms"]:
        own = [one for one in rows if one["arm"] == arm["arm"]]
        unlearned = [one for one in own if not one["learned_before"]]
        learned = [one for one in own if one["learned_before"] and not one["deleted"]]
        assert arm["recovered"]["count"] == sum(one["learned_after"] for one in unlearned)
        assert arm["lost"]["n"] == len(learned)
        assert arm["lost"]["count"] == sum(not one["learned_after"] for one in learned)
        net = arm["recovered"]["count"] - arm["lost"]["count"]
        assert arm["net"]["value"] == net


def test_holm_never_lowers_and_keeps_the_order():
    rows = []
    for place, cause in enumerate(CAUSES):
        for i in range(12):
            for arm in ("randomised", "sham"):
                after = arm == "randomised" and i < 3 * place
                more = {"cause": cause, "remedy": cause, "learned_after": after}
                rows.append(row(arm, 100 * place + i, **more))
    tests = [cell["over_sham"] for cell in compare([tried(rows)], resamples=5)["matrix"]]
    plain, holm = ([one[key] for one in tests] for key in ("p", "p_holm"))
    assert all(a <= b for a, b in zip(plain, holm, strict=True))
    assert holm == sorted(holm, reverse=True)
    assert holm[-1] == pytest.approx(5 * plain[-1]) and holm[-2] == pytest.approx(4 * plain[-2])


def test_worlds_are_resampled_before_rows():
    """Worlds that differ widen the interval; rows of one world alone would not show it."""
    worlds = []
    for world, share in enumerate((0.1, 0.9)):
        rows = []
        for i in range(100):
            more = {"cause": CAUSES[0], "remedy": CAUSES[0], "learned_after": i < 100 * share}
            rows.append(row("randomised", i, **more))
        worlds.append(tried(rows, f"w{world}"))
    together = compare(worlds)["matrix"][0]["interval"]
    alone = compare(worlds[:1])["matrix"][0]["interval"]
    assert together[1] - together[0] > 0.7 > 0.2 > alone[1] - alone[0]


def test_seeds_are_resampled_with_rows():
    """Trainings that differ widen the interval; one seed's rows alone would not show it."""
    rows = []
    for seed, share in ((1000, 0.1), (2000, 0.9)):
        for i in range(100):
            more = {"cause": CAUSES[0], "remedy": CAUSES[0], "learned_after": i < 100 * share}
            rows.append(row("randomised", i, seed=seed, **more))
            rows.append(row("diagnosed", i, seed=seed, **more))
    together, one = compare([tried(rows)]), compare([tried(rows[:200])])
    wide, narrow = (found["matrix"][0]["interval"] for found in (together, one))
    assert wide[1] - wide[0] > 0.7 > 0.2 > narrow[1] - narrow[0]
    net = together["arms"][1]["net"]
    assert net["value"] == 50 and net["interval"][1] - net["interval"][0] > 70
    assert "crossed with the seeds" in " ".join(words.notes(together))
    assert "one seed a run" in " ".join(words.notes(one))


def test_rows_are_paired_with_their_sham_of_the_same_seed():
    rows = []
    for seed in (1000, 2000):
        for i in range(8):
            back = (i < 4) == (seed == 1000)
            more = {"cause": CAUSES[2], "remedy": CAUSES[2], "seed": seed}
            rows.append(row("randomised", i, learned_after=back, **more))
            rows.append(row("sham", i, learned_after=back and i % 4 > 0, **more))
    sham = compare([tried(rows)], resamples=5)["matrix"][0]["over_sham"]
    assert (sham["n"], sham["better"], sham["worse"]) == (16, 2, 0)


@pytest.mark.parametrize(
    ("own", "sham", "none"), [(0, 0, 0), (10, 10, 10), (10, 0, 0), (0, 10, 0), (1, 0, 0)]
)
def test_rows_that_all_fall_alike_leave_room_for_others(own, sham, none):
    """A resample of rows that are all the same is that again, whatever ten more would do."""
    rows = []
    for i in range(10):
        more = {"cause": CAUSES[1], "remedy": CAUSES[1]}
        rows.append(row("randomised", i, learned_after=i < own, **more))
        rows.append(row("sham", i, learned_after=i < sham, **more))
        more = {"cause": CAUSES[1], "remedy": "none"}
        rows.append(row("randomised", 100 + i, learned_after=i < none, **more))
    cell = compare([tried(rows)], resamples=50)["matrix"][1]
    # Agresti & Min (2005): 1/2 more in each cell; Agresti & Caffo (2000): 1 more in each.
    better, worse = max(own - sham, 0) + 0.5, max(sham - own, 0) + 0.5
    centre, n = (better - worse) / 12, 12
    half = 1.959964 * np.sqrt((better + worse - (better - worse) ** 2 / n) / n**2)
    low, high = cell["over_sham"]["interval"]
    assert low <= max(centre - half, -1) + 1e-6 and high >= min(centre + half, 1) - 1e-6
    assert low <= cell["over_sham"]["value"] <= high and high - low > 0.1
    p, q = (own + 1) / 12, (none + 1) / 12
    half = 1.959964 * np.sqrt((p * (1 - p) + q * (1 - q)) / 12)
    low, high = cell["over_none"]["interval"]
    assert low <= max(p - q - half, -1) + 1e-6 and high >= min(p - q + half, 1) - 1e-6
    assert low <= cell["over_none"]["value"] <= high


def test_an_effect_that_is_none_is_called_so():
    rows = []
    for i in range(40):
        for arm in ("randomised", "sham"):
            more = {"cause": CAUSES[3], "remedy": CAUSES[3], "learned_after": i % 4 == 0}
            rows.append(row(arm, i, **more))
    found = compare([tried(rows)], resamples=50)
    assert "can't be told from none" in " ".join(words.sentences(found))
    assert tables.render(found)


def test_the_headline_gives_the_difference_with_its_interval():
    rows = []
    for i in range(50):
        for arm, share in (("none", 10), ("diagnosed", 40)):
            more = {"cause": CAUSES[0], "remedy": arm, "learned_after": i < share}
            rows.append(row(arm, i, **more))
    told = words.headline(compare([tried(rows)]))
    assert (
        "40 of 50 (80%) unlearned rows with a diagnosed cause" in told
        and "20% without" in told
        and "+60 points (95%" in told
    )


def test_fillers_count_in_a_matrix_of_their_own():
    rows = []
    for i in range(20):
        more = {"cause": CAUSES[1], "remedy": CAUSES[1], "learned_after": i < 10}
        planted = "filler" if i < 10 else CAUSES[1]
        rows.append(row("randomised", i, planted=planted, scored=i >= 10, **more))
    found = compare([tried(rows)], resamples=20)
    assert found["matrix"][0]["share"] == 0 and found["matrix_all"][0]["share"] == 0.5
    assert found["arms"][0]["recovered"]["n"] == 10


def test_an_arm_of_one_world_alone_is_counted_by_its_own_trainings():
    """Where its world is not drawn, nothing is known of it; it does not count as none."""
    rows = [row("none", i, cause=CAUSES[0], learned_after=i < 15) for i in range(20)]
    more = [row("epochs", i, cause=CAUSES[0], learned_after=i < 15) for i in range(20)]
    found = compare([tried(rows + more, "one"), tried(rows, "other")])
    net = {one["arm"]: one["net"] for one in found["arms"]}
    assert net["epochs"]["value"] == net["none"]["value"] == 15
    low, high = net["epochs"]["interval"]
    assert 10 <= low < 15 < high <= 20


def test_what_is_left_out_is_told_beside_what_counts():
    """An arm may be ahead among rows that count, and behind among all that are trained."""
    rows = []
    for i in range(40):
        filler = i >= 20
        for arm in ("diagnosed", "epochs"):
            after = (arm == "diagnosed") != filler
            more = {"cause": CAUSES[0], "planted": "filler" if filler else CAUSES[0]}
            rows.append(row(arm, i, scored=not filler, learned_after=after, **more))
    found = {one["arm"]: one for one in compare([tried(rows)])["arms"]}
    assert found["epochs"]["diagnosed_over"]["value"] == 20
    assert found["epochs"]["diagnosed_over_all"]["value"] == 0
    assert found["diagnosed"]["net_all"]["value"] == found["epochs"]["net_all"]["value"] == 20
    told = " ".join(words.sentences(compare([tried(rows)])))
    assert "in the same runs: +20 (95% interval " in told and ") of rows that count, +0 (" in told
    assert "can't be told from none) of all trained rows" in told


def test_curves_are_the_same_count_at_every_budget():
    rows = []
    for i in range(20):
        for arm, back in (("none", 2), ("none_x2", 4), ("diagnosed", 8), ("diagnosed_x0.5", 5)):
            for seed in (1000, 2000):
                more = {"cause": CAUSES[0], "learned_after": i < back + (seed > 1000)}
                rows.append(row(arm, i, seed=seed, steps=30 if arm == "none_x2" else 10, **more))
    for arm in ("none_x2", "diagnosed"):
        for i in range(100, 110):
            more = {"learned_before": True, "learned_after": i > 102}
            rows += [row(arm, i, seed=seed, **more) for seed in (1000, 2000)]
    found = compare([tried(rows)], resamples=30)
    assert [(one["arm"], one["budget"]) for one in found["curves"]] == [
        ("none", 1.0),
        ("none", 2.0),
        ("diagnosed", 0.5),
        ("diagnosed", 1.0),
    ]
    of = {(one["arm"], one["budget"]): one for one in found["curves"]}
    assert of["none", 2.0]["recovered"]["value"] == 4.5 and of["none", 2.0]["lost"]["value"] == 3
    assert of["none", 2.0]["net"]["value"] == of["none", 2.0]["net_all"]["value"] == 1.5
    own = next(one for one in found["arms"] if one["arm"] == "diagnosed")
    assert of["diagnosed", 1.0]["net"] == own["net"]
    low, high = of["diagnosed", 0.5]["recovered"]["interval"]
    assert low < 5.5 < high
    assert {one["arm"] for one in found["arms"]} == {"none", "diagnosed"}
    assert tables.render(found)
    once = [one for one in rows if "_x" not in one["arm"]]
    assert compare([tried(once)], resamples=5)["curves"] == []


def test_the_oracle_is_compared_in_the_trainings_that_have_both():
    rows = []
    for i in range(20):
        for arm, seed, back in (
            ("diagnosed", 1000, 8),
            ("diagnosed", 2000, 20),
            ("oracle", 1000, 10),
        ):
            more = {"cause": CAUSES[0], "planted": CAUSES[0], "learned_after": i < back}
            rows.append(row(arm, i, seed=seed, **more))
    found = compare([tried(rows)], resamples=30)
    both = found["against_oracle"]
    assert (both["diagnosed"], both["oracle"], both["trainings"]) == (8, 10, 1)
    assert both["value"] == 0.8 and both["interval"][0] <= 0.8 <= both["interval"][1]
    assert "8 rows came back, by planted ones 10 in the same 1" in " ".join(words.sentences(found))
    alone = [one for one in rows if one["arm"] == "diagnosed"]
    assert compare([tried(alone)], resamples=5)["against_oracle"] is None
