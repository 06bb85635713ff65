"""Shares of causes against loops over rows; their table."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.console import Group as Together

from ilp_jax.analysis.cause_shares import TOLD, cause_shares
from ilp_jax.analysis.cause_table import render_causes
from ilp_jax.analysis.shares import interval
from ilp_jax.stats.schema import DIAGNOSIS_SCHEMA

STAGES = {0: [1], 1: [1, 2], 2: [2], 3: [1], 4: [2]}
SOURCES = ["a", "b", "a", "b", "a"]
EXAMPLES = pl.DataFrame({"example_id": range(5), "source": SOURCES})
PLAN = pl.DataFrame(
    [{"example_id": i, "stage": stage} for i, stages in STAGES.items() for stage in stages]
)
VERDICT = st.one_of(st.none(), st.just("learned"), st.sampled_from(TOLD))
ROWS = st.lists(st.tuples(VERDICT, VERDICT, st.booleans()), min_size=5, max_size=5)


def frames(rows):
    found = [
        {
            "example_id": i,
            "point": "final",
            "detector": detector,
            "method": "rules",
            "unlearned": None if verdict is None else verdict != "learned",
            "cause": verdict if verdict in TOLD else None,
        }
        for i, row in enumerate(rows)
        for detector, verdict in zip(("exact_match", "choice"), row, strict=False)
    ]
    empty = pl.from_arrow(DIAGNOSIS_SCHEMA.empty_table())
    diagnosis = pl.concat(
        [empty, pl.DataFrame(found, schema_overrides=empty.schema)], how="diagonal"
    )
    trained = pl.DataFrame(
        [{"example_id": i, "point": "final", "trained": row[2]} for i, row in enumerate(rows)]
    )
    return diagnosis, trained, EXAMPLES, PLAN


@given(ROWS)
def test_cells_count_unlearned_rows_that_were_trained(rows):
    cells = cause_shares(*frames(rows))
    by_key = {(c["detector"], c["stage"], c["source"]): c for c in cells}
    assert len(by_key) == len(cells)
    for detector in ("exact_match", "choice", "default"):
        for stage, source in ((None, None), (1, None), (2, None), (None, "a"), (None, "b")):
            known = []
            for i, (exact, choice, trained) in enumerate(rows):
                one = {"exact_match": exact, "choice": choice, "default": exact or choice}[detector]
                inside = stage in (None, *STAGES[i]) and source in (None, SOURCES[i])
                if trained and inside and one in TOLD:
                    known.append(one)
            cell = by_key.pop((detector, stage, source), None)
            if not known:
                assert cell is None
                continue
            assert cell["n"] == len(known) == sum(c["count"] for c in cell["causes"].values())
            assert set(cell["causes"]) == set(known)
            for cause in cell["causes"]:
                count = known.count(cause)
                assert cell["causes"][cause]["count"] == count
                assert cell["causes"][cause]["share"] == pytest.approx(count / len(known))
                assert cell["causes"][cause]["interval"] == list(interval(count, len(known)))
    assert not by_key


def printed(summary):
    console = Console(width=120, record=True, file=open("/dev/null", "w"))
    console.print(Together(*render_causes(summary)), highlight=False)
    return console.export_text()


def test_the_table_has_the_counts_and_what_decides_nothing():
    rows = [("data_conflict", None, True)] * 3 + [("unattributed", None, True)] * 2
    verdicts = {"data_conflict": "separates", "base_conflict": "does not separate"}
    verdicts |= {"missing_knowledge": "too few to tell", "left_side_forgetting": "never raised"}
    summary = {
        "causes": cause_shares(*frames(rows)),
        "separation": [
            {"point": "final", "detector": "exact_match", "cause": cause, "verdict": verdict}
            for cause, verdict in verdicts.items()
        ],
        "causes_note": "Set elsewhere.",
        "stages": [{"stage": 1, "name": "[bold]x[/bold]"}],
    }
    text = " ".join(printed(summary).split())
    assert "all stages 5 0 0 3 0 0 2" in text and "1 [bold]x[/bold] 3" in text
    assert "base conflict: not more frequent there, hence deciding nothing" in text
    assert "missing knowledge: too few rows to tell" in text and "Set elsewhere." in text


def test_a_cause_that_was_not_measured_has_no_count():
    rows = [("data_conflict", None, True)] * 3 + [("unattributed", None, True)] * 2
    verdicts = {"data_conflict": "separates", "left_side_forgetting": "not measured"}
    flags = [
        {"point": "final", "detector": "exact_match", "cause": cause, "verdict": verdict}
        for cause, verdict in verdicts.items()
    ]
    summary = {"causes": cause_shares(*frames(rows)), "separation": flags}
    text = " ".join(printed(summary).split())
    assert "all stages 5 0 0 3 - 0 2" in text
    assert "left side forgetting: not measured in this run" in text


def test_a_summary_without_causes_has_no_table():
    assert render_causes({"shares": []}) == []
