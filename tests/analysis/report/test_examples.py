"""The rows that are listed: which, in what order, with what of them."""

import json

import numpy as np
import polars as pl
import pytest

from ilp_jax import parquet
from ilp_jax.analysis.report.examples import chosen, examples, left_out
from ilp_jax.analysis.report.load import load
from ilp_jax.stats.schema import CAUSES

IDS = 2**60


def listed(folder, limits, **changes):
    found = examples(load(folder), {**limits, **changes})
    assert json.loads(json.dumps(found)) == found
    return found


def test_rows_unlearned_after_the_base(make_run, limits):
    found = listed(make_run(n=6), limits)
    assert found["points"] == ["base", "stage_1", "stage_2", "final"]
    assert found["detectors"] == ["default", "exact_match", "exact_law", "choice"]
    # Rows of stage 2 are unlearned at stage 1's end, whatever comes of them.
    assert found["of"] == len(found["rows"]) == 4 + 6
    by_id = {row["i"]: row for row in found["rows"]}
    assert set(by_id) == {str(IDS + i) for i in (1, 2, 4, 5, *range(6, 12))}
    lost = by_id[str(IDS + 1)]
    assert lost["f"] == "lost" and lost["s"] == [1] and lost["o"] == "first"
    assert lost["u"][0] == "1011" and lost["u"][3] == "0000"
    assert lost["n"] == 2 and lost["c"] == 0
    ends = [row["u"][0].endswith("1") for row in found["rows"]]
    assert ends == sorted(ends, reverse=True)


@pytest.mark.parametrize("most", [1, 3, 8, 10])
def test_a_cap_keeps_what_is_unlearned_at_the_end(make_run, limits, most):
    found = listed(make_run(), limits, max_rows=most)
    assert (len(found["rows"]), found["of"]) == (most, 10)
    assert sum(row["u"][0].endswith("1") for row in found["rows"]) == min(most, 8)


@pytest.mark.parametrize("most", [1, 4, 7, 60, 150, 299, 300])
def test_a_cap_is_spread_over_stages_and_causes(most):
    """By construction: stages of 200, 80 and 20 rows, causes of 3 to 1 in each; then others."""
    sizes = {1: 200, 2: 80, 3: 20}
    rows = pl.DataFrame(
        [
            {"example_id": 1000 * stage + i, "rank": 0, "stage": stage}
            | {"cause": "unattributed" if i % 4 else "data_conflict"}
            for stage, n in sizes.items()
            for i in range(n)
        ]
        + [{"example_id": i, "rank": 1, "stage": 1, "cause": None} for i in range(50)],
        schema={**dict.fromkeys(("example_id", "rank", "stage"), pl.Int64), "cause": pl.String},
    )
    kept = chosen(rows, most)
    assert len(kept) == most and kept["example_id"].is_unique().all()
    place = {one: at for at, one in enumerate(rows["example_id"])}
    places = [place[one] for one in kept["example_id"]]
    assert places == sorted(places)
    assert kept["rank"].sum() == 0  # nothing of the second rank while the first is not whole

    def even(counts, whole):
        """As equal as can be: whoever has fewer than another has all its rows."""
        most_kept = max(counts.values())
        return all(n >= most_kept - 1 or n == whole[key] for key, n in counts.items())

    assert even({stage: kept.filter(stage=stage).height for stage in sizes}, sizes)
    for stage in sizes:
        of = [rows.filter(stage=stage, rank=0), kept.filter(stage=stage)]
        whole, counts = ({c: t.filter(cause=c).height for c in set(rows["cause"]) - {None}}
                         for t in of)  # fmt: skip
        assert even(counts, whole)
    told = left_out(rows, kept)
    assert sum(one["of"] for one in told) == 350
    assert sum(one["listed"] for one in told) == most
    assert chosen(rows, 350).equals(rows) and left_out(rows, rows) == []


def test_response_tokens_are_those_that_are_trained(make_run, limits):
    """A row's count is of its replies' own tokens: no end tokens, and no more than were kept."""
    folder = make_run()
    path = folder / "examples.parquet"
    table = parquet.read(path).sort("example_id")
    turns = [{"role": role, "content": "x"} for role in ("user", "assistant", "user")]
    changed = {  # by row: messages, n_target_tokens, truncated
        1: (json.dumps(turns), 9, False),
        2: (json.dumps(turns), 9, True),
        4: (None, 7, True),
        5: (None, 7, False),
    }
    values = [changed.get(i, (None, 3, False)) for i in range(len(table))]
    names = ("messages", "n_target_tokens", "truncated")
    parts = [[one[k] for one in values] for k in range(3)]
    series = [
        pl.Series(name, part, table.schema[name]) for name, part in zip(names, parts, strict=True)
    ]
    parquet.write(path, table.with_columns(series))
    shown = {int(row["i"]) - IDS: row for row in listed(folder, limits)["rows"]}
    wanted = {1: (7, 2, 0), 2: (8, 2, 1), 4: (7, 1, 1), 5: (6, 1, 0)}
    assert {i: tuple(shown[i][key] for key in "nkc") for i in wanted} == wanted
    record = json.loads((folder / "run.json").read_text())
    record["config"]["trained_turns"] = "last"
    (folder / "run.json").write_text(json.dumps(record))
    shown = {int(row["i"]) - IDS: row for row in listed(folder, limits)["rows"]}
    assert (shown[1]["n"], shown[1]["k"]) == (8, 1)


def test_answers_and_texts(make_run, limits):
    folder = make_run(texts=[("q", "r"), ("question", "x" * 50)], answer="no" * 40)
    row = next(r for r in listed(folder, limits, max_text=30)["rows"] if r["i"] == str(IDS + 1))
    assert row["x"]["p"] == "question" and row["x"]["a"] == {"t": "x" * 30, "n": 50}
    assert row["x"]["o"] == [{"t": "x" * 30, "n": 50}, "another"]
    base, end = row["y"]["base"], row["y"]["final"]
    assert base["g"] == {"t": "no" * 15, "n": 80}
    assert base["p"] == pytest.approx(np.exp(-6), rel=1e-3) and base["q"] == 0.5
    assert end["c"] == {"t": "x" * 30, "n": 50} and end["o"] == [-0.5, -1.0]


def test_trajectories(make_run, limits):
    folder = make_run()
    row = next(r for r in listed(folder, limits)["rows"] if r["i"] == str(IDS + 1))
    steps, losses, probabilities, trained = row["v"]
    assert steps == [0, 2, 5, 6, 12] and trained == [0, 1, 1, 0, 0]
    assert len(losses) == len(probabilities) == 5 and min(losses) > 0
    thinned = next(
        r for r in listed(folder, limits, max_visits=3)["rows"] if r["i"] == str(IDS + 1)
    )
    assert thinned["v"][0] == [0, 5, 12]


def test_diagnosis(make_run, limits):
    found = listed(make_run(told=True, answer="because"), limits)
    assert found["methods"] == ["rules"] and found["causes"] == list(CAUSES)
    for row in found["rows"]:
        if not row["u"][0].endswith("1"):
            assert row["d"] is None
            continue
        told = row["d"]["m"]["rules"]
        assert told["e"] == "because" and told["r"] == CAUSES[0]
        assert told["s"] == [float(cause == told["c"]) for cause in CAUSES]
        assert row["d"]["r"] == [str(int(row["i"]) ^ 1)] and row["d"]["n"] == 1
    # Rows that are named but not listed have their texts once, beside the list.
    ids = {row["i"] for row in found["rows"]}
    named = {other for row in found["rows"] if row["d"] for other in row["d"]["r"]}
    assert set(found["others"]) == named - ids and len(named - ids) == 2
    assert all(text["p"].startswith("question") for text in found["others"].values())


def test_texts_can_be_left_out(make_run, limits):
    folder = make_run(told=True, texts=[("secret", "secret")] * 12, answer="secret")
    found = listed(folder, limits, include_text=False)
    assert "secret" not in json.dumps(found) and len(found["rows"]) == 10
    assert all(row["v"] and row["d"] is None or row["d"]["m"] for row in found["rows"])
