"""Rates, intervals and verdicts against loops over rows and published examples."""

import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from ilp_jax.analysis.separation import compare, separate, wilson

THRESHOLDS = {"require_separation": True, "separation_min_rows": 20}


def one_bin(flagged, n, flagged_learned, n_learned):
    return {
        "n_unlearned": n,
        "flagged_unlearned": flagged,
        "n_learned": n_learned,
        "flagged_learned": flagged_learned,
    }


@pytest.mark.parametrize(
    ("counts", "interval"),
    [
        # Newcombe (1998), Statistics in Medicine 17, table II, method 10.
        ((56, 70, 48, 80), (0.0524, 0.3339)),
        ((9, 10, 3, 10), (0.1705, 0.8090)),
        ((6, 7, 2, 7), (0.0582, 0.8062)),
        ((5, 56, 0, 29), (-0.0381, 0.1926)),
        ((0, 10, 0, 20), (-0.1611, 0.2775)),
        ((10, 10, 0, 20), (0.6791, 1.0)),
    ],
)
def test_the_difference_has_newcombes_interval(counts, interval):
    found = compare([one_bin(*counts)], 20)
    assert (found["low"], found["high"]) == pytest.approx(interval, abs=6e-5)
    assert found["n_effective"] == pytest.approx(counts[3])


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_whole_numbers_have_wilsons_interval(counts):
    count, n = counts
    known = binomtest(count, n).proportion_ci(0.95, method="wilson")
    assert wilson(count / n, n) == pytest.approx((known.low, known.high), abs=1e-12)


@pytest.mark.parametrize(
    ("bins", "verdict"),
    [
        ([one_bin(5, 20, 0, 20)], "separates"),
        ([one_bin(8, 8, 8, 120)], "separates"),  # a large difference shows in few rows
        ([one_bin(4, 20, 2, 20)], "does not separate"),
        ([one_bin(0, 20, 9, 20)], "does not separate"),
        ([one_bin(2, 19, 20, 200)], "too few to tell"),
        ([one_bin(40, 200, 2, 19)], "too few to tell"),
        ([one_bin(0, 50, 0, 50)], "never raised"),
        ([one_bin(9, 50, 0, 0)], "too few to tell"),
        # Lengths of which no row was learned say nothing.
        ([one_bin(50, 50, 0, 0), one_bin(0, 20, 0, 20)], "too few to tell"),
        ([one_bin(50, 50, 0, 0), one_bin(1, 20, 1, 20)], "does not separate"),
        ([], "not measured"),
    ],
)
def test_verdicts(bins, verdict):
    assert compare(bins, 20)["verdict"] == verdict


def test_length_alone_does_not_separate():
    # Long rows are flagged and unlearned; within a length the flag is no more frequent.
    bins = [one_bin(2, 20, 8, 80), one_bin(72, 80, 18, 20)]
    found = compare(bins, 20)
    assert found["rate_unlearned"] == 0.74 and found["flagged_learned"] / 100 == 0.26
    assert found["rate_learned"] == pytest.approx(0.74)
    assert found["verdict"] == "does not separate"


ROW = st.tuples(
    st.sampled_from(["exact_match", "choice"]),
    st.integers(1, 20),  # response tokens
    st.sampled_from([True, False, None]),  # unlearned
    st.sampled_from([True, False, None]),  # mark
    st.booleans(),  # trained by then
)


@given(st.lists(ROW, max_size=40), st.booleans())
def test_cells_against_a_loop_over_rows(rows, require):
    ids = list(range(len(rows)))
    key = {"example_id": ids, "point": ["final"] * len(rows)}
    found = pl.DataFrame(
        key | {"detector": [r[0] for r in rows], "unlearned": [r[2] for r in rows]},
        schema_overrides={"unlearned": pl.Boolean, "example_id": pl.Int64, "detector": pl.String},
    ).with_columns(pl.col("point").cast(pl.String))
    marked = found.select("example_id", "point").with_columns(
        pl.Series("mark_a", [r[3] for r in rows], pl.Boolean),
        pl.Series("flag_a", [r[3] for r in rows], pl.Boolean),
    )
    trained = found.select("example_id", "point").with_columns(
        pl.Series("trained", [r[4] for r in rows], pl.Boolean)
    )
    lengths = found.select("example_id").with_columns(
        pl.Series("response_tokens", [r[1] for r in rows], pl.Int64)
    )
    thresholds = {"require_separation": require, "separation_min_rows": 5}
    cells = separate(found, marked, trained, lengths, ["a"], thresholds).to_dicts()
    asked = {r[0] for r in rows if r[2] is not None and r[4]}
    assert {c["detector"] for c in cells} == asked and len(cells) == len(asked)
    for cell in cells:
        known = [r for r in rows if r[0] == cell["detector"] and r[4] and None not in r[2:4]]

        def width(row):
            return next((i for i, top in enumerate((1, 3, 6, 12)) if row[1] <= top), 4)

        lost = [r for r in known if r[2]]
        kept = [r for r in known if not r[2]]
        matched = [r for r in lost if any(width(k) == width(r) for k in kept)]
        assert cell["n_unlearned"] == len(matched)
        assert cell["n_unmatched"] == len(lost) - len(matched)
        if matched:
            assert cell["rate_unlearned"] == sum(r[3] for r in matched) / len(matched)
            of_width = {width(r): [k for k in kept if width(k) == width(r)] for r in matched}
            # Each unlearned row brings the learned rows of its length, at equal weight.
            weight = {
                id(k): sum(width(r) == w for r in matched) / len(those)
                for w, those in of_width.items()
                for k in those
            }
            used = [k for those in of_width.values() for k in those]
            rate = sum(weight[id(k)] * k[3] for k in used) / sum(weight[id(k)] for k in used)
            kish = sum(weight.values()) ** 2 / sum(w * w for w in weight.values())
            assert len({id(k) for k in used}) == len(used) == cell["n_learned"]
            assert cell["rate_learned"] == pytest.approx(rate, abs=1e-12)
            assert cell["n_effective"] == pytest.approx(kish, rel=1e-9)
            difference = cell["rate_unlearned"] - cell["rate_learned"]
            down = math.hypot(
                cell["rate_unlearned"] - cell["low_unlearned"],
                cell["high_learned"] - cell["rate_learned"],
            )
            assert cell["low"] == pytest.approx(difference - down, abs=1e-12)
        assert cell["decides"] is (not require or cell["verdict"] != "does not separate")


def cells_of(rows, min_rows=20):
    """Of rows (unlearned, flags by cause, how many such rows), all of one length."""
    rows = [(lost, flags) for lost, flags, n in rows for _ in range(n)]
    causes = list(rows[0][1])
    ids = pl.DataFrame({"example_id": range(len(rows)), "point": ["final"] * len(rows)})
    found = ids.with_columns(
        pl.lit("choice").alias("detector"), pl.Series("unlearned", [lost for lost, _ in rows])
    )
    marked = ids.with_columns(
        pl.Series(f"{kind}_{cause}", [flags[cause] for _, flags in rows])
        for kind in ("mark", "flag")
        for cause in causes
    )
    trained = ids.with_columns(pl.lit(True).alias("trained"))
    lengths = ids.select("example_id", pl.lit(2).alias("response_tokens"))
    thresholds = THRESHOLDS | {"separation_min_rows": min_rows}
    return {
        cell["cause"]: cell
        for cell in separate(found, marked, trained, lengths, causes, thresholds).to_dicts()
    }


def test_a_common_cause_does_not_hide_a_rare_one():
    def flags(common, rare, idle=False):
        return {"common": common, "rare": rare, "idle": idle}

    rows = [
        (True, flags(True, False), 50),
        (True, flags(False, True), 8),
        (True, flags(False, False), 2),
        (False, flags(False, True), 8),
        (False, flags(False, False), 52),
    ]
    # Over all rows the rare flag is as frequent on both sides.
    alone = cells_of([(lost, {"rare": f["rare"]}, n) for lost, f, n in rows])
    assert alone["rare"]["verdict"] == "does not separate" and alone["rare"]["without"] == []
    found = cells_of(rows)
    assert found["common"]["verdict"] == "separates" and found["common"]["without"] == []
    assert found["rare"]["verdict"] == "separates" and found["rare"]["without"] == ["common"]
    assert (found["rare"]["flagged_unlearned"], found["rare"]["n_unlearned"]) == (8, 10)
    assert found["idle"]["verdict"] == "never raised"


def test_too_few_rows_left_do_not_lift_a_verdict():
    def flags(common, other):
        return {"common": common, "other": other}

    rows = [
        (True, flags(True, False), 50),
        (True, flags(False, True), 2),
        (True, flags(False, False), 4),
        (False, flags(False, True), 20),
        (False, flags(False, False), 40),
    ]
    found = cells_of(rows)
    assert found["common"]["verdict"] == "separates"
    assert found["other"]["verdict"] == "does not separate" and found["other"]["decides"] is False


def test_where_nothing_separates_each_verdict_is_its_own():
    rows = [(lost, {"a": flag, "b": not flag}, 40) for lost in (True, False) for flag in (1, 0)]
    found = cells_of([(lost, {c: bool(f) for c, f in flags.items()}, n) for lost, flags, n in rows])
    assert {cell["verdict"] for cell in found.values()} == {"does not separate"}
    assert {tuple(cell["without"]) for cell in found.values()} == {()}
