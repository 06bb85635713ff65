"""Several runs along the fields in which they differ, on hand-made configurations."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilp_jax.analysis.regimes import regimes
from ilp_jax.analysis.report.regimes_chart import regimes_chart


def config(epochs=2, rate=1e-3, rank=0, seed=0, **others):
    stages = {name: {"epochs": epochs, "learning_rate": rate} for name in ("a", "b")}
    return {"seed": seed, "stages": stages, "lora": {"rank": rank}, "cache_dir": "c", **others}


def evaluated(share, f1, detector="sampled"):
    cell = {"detector": detector, "planted": "control", "detail": None, "n": 80}
    of_detail = {**cell, "detail": "known", "share": 0.9, "interval": [0.8, 1.0]}
    told = {"macro_f1": f1, "n": 300, "intervals": {"macro_f1": [f1 - 0.1, f1 + 0.1]}}
    return {
        "planted_shares": [{**cell, "share": share, "interval": [0.0, 0.1]}, of_detail],
        "agreement": {detector: {"rules": told}},
    }


def of(configs, summaries=None):
    names = [str(i) for i in range(len(configs))]
    share = {"n": 10, "unlearned": 5, "share": 0.5, "interval": [0.2, 0.8]}
    return regimes(names, configs, summaries or [{}] * len(configs), [share] * len(configs))


def test_the_study_of_regimes():
    configs = [config(epochs=e) for e in (5, 1, 2, 3)]
    configs += [config(epochs=8, rank=2), config(rate=5e-4)]
    summaries = [evaluated(i / 10, 0.8) for i in range(6)]
    found = of(configs, summaries)
    assert found["fields"] == ["stages.*.epochs", "stages.*.learning_rate", "lora.rank"]
    assert found["detector"] == "sampled"
    assert [run["name"] for run in found["runs"]] == ["1", "5", "2", "3", "0", "4"]
    assert found["runs"][1]["values"] == [2, 5e-4, 0]
    assert found["measures"] == [
        {"kind": "share", "of": "control"},
        {"kind": "macro_f1", "of": "rules"},
    ]
    share, f1 = found["runs"][0]["cells"]
    assert share == {"value": 0.1, "interval": [0.0, 0.1], "n": 80}
    assert (f1["value"], f1["interval"], f1["n"]) == (0.8, pytest.approx([0.7, 0.9]), 300)
    assert found["along"] == [
        {"fields": ["stages.*.epochs"], "runs": ["1", "2", "3", "0"]},
        {"fields": ["stages.*.learning_rate"], "runs": ["5", "2"]},
    ]
    assert found["alone"] == ["4"]
    for width in (1000, 350):
        chart = regimes_chart(found, width).to_dict()
        assert [len(line["hconcat"]) for line in chart["vconcat"]] == [1, 1]


def test_nothing_differs_but_where_files_lie():
    assert of([config(), config(cache_dir="d")]) is None


def test_a_stage_of_its_own_is_not_all_stages():
    one, other = config(), config()
    other["stages"]["b"]["epochs"] = 3
    assert of([one, other])["fields"] == ["stages.b.epochs"]
    del other["stages"]["b"]
    found = of([one, other])
    assert found["fields"] == ["stages.b.epochs", "stages.b.learning_rate"]
    assert found["runs"][0]["values"] == [None, None]
    assert found["along"] == [{"fields": found["fields"], "runs": ["1", "0"]}]


def test_runs_that_were_not_evaluated():
    found = of([config(), config(seed=1)])
    assert found["detector"] == "default"
    assert found["measures"] == [{"kind": "share", "of": "all rows"}]
    assert found["runs"][0]["cells"] == [{"value": 0.5, "interval": [0.2, 0.8], "n": 10}]
    # One that was: the other has no figures of planted groups, and no share of another kind.
    found = of([config(), config(seed=1)], [{}, evaluated(0.0, 0.5, "choice")])
    assert found["detector"] == "choice"
    assert found["runs"][0]["cells"] == [None, None]
    assert regimes_chart(found, 1000) is not None


@pytest.mark.parametrize(
    "summary",
    [
        {"planted_shares": None, "agreement": None},
        {"planted_shares": [], "agreement": {"sampled": {}}},
        {"agreement": {"sampled": {"rules": {"macro_f1": None, "n": 0}}}},
        {"planted_shares": [{"detector": "sampled", "planted": "control", "share": None}]},
        {"planted_shares": [{"detector": "sampled", "planted": "fault", "point": "base"}]},
    ],
)
def test_summaries_with_less_in_them(summary):
    found = of([config(), config(seed=1)], [summary, {}])
    assert all(cell is None for run in found["runs"] for cell in run["cells"][1:])
    regimes_chart(found, 350)


def test_other_forms_of_an_interval():
    cell = {"detector": "sampled", "planted": "control", "n": 8, "share": 0.2}
    given = [{**cell, "low": 0.1, "high": 0.3}, cell]
    found = of([config(), config(seed=1)], [{"planted_shares": [one]} for one in given])
    assert [run["cells"][0]["interval"] for run in found["runs"]] == [[0.1, 0.3], None]
    assert regimes_chart(found, 1000) is not None


@given(
    st.lists(
        st.tuples(*[st.integers(0, 2)] * 3).map(lambda t: (t[0], t[1], t[0] * 3 + t[1], t[2])),
        min_size=2,
        max_size=9,
        unique=True,
    )
)
def test_all_else_equal_against_pairs(values):
    """Every pair of a set differs in its fields alone, and no such pair is left out."""
    fields = ("w", "x", "y", "z")
    found = of([dict(zip(fields, one, strict=True)) for one in values])
    pairs = {
        (tuple(one["fields"]), *sorted(pair))
        for one in found["along"]
        for pair in itertools.combinations(one["runs"], 2)
    }

    def alike(i, j):
        """Axes: fields of the same partition of the runs are one."""
        columns = dict(zip(fields, zip(*values, strict=True), strict=True))
        parts = {}
        for field, column in columns.items():
            if len(set(column)) > 1:
                same = frozenset(
                    (a, b)
                    for a, b in itertools.combinations(range(len(values)), 2)
                    if column[a] == column[b]
                )
                parts.setdefault(same, []).append(field)
        differing = [part for same, part in parts.items() if (i, j) not in same]
        return tuple(differing[0]) if len(differing) == 1 else None

    expected = {
        (alike(i, j), str(i), str(j))
        for i, j in itertools.combinations(range(len(values)), 2)
        if alike(i, j)
    }
    assert pairs == expected
    told = {name for one in found["along"] for name in one["runs"]}
    assert set(found["alone"]) == {str(i) for i in range(len(values))} - told
