"""The report's section on who erased whom: only where lost rows were followed, texts escaped."""

import polars as pl
import pytest

from ilp_jax.analysis.report import report
from ilp_jax.stats import reader
from ilp_jax.stats.influence import write_influence

HEADING = "Who erased whom"
SETTINGS = {"n_followed": "2", "n_lost": "5", "detector": "default"}


@pytest.fixture
def followed(make_run):
    run = make_run(told=True, texts=[("<b>secret</b>\u202e", "secret")] * 12)
    ids = reader.read_examples(run)["example_id"].to_list()
    rows = [
        (ids[0], ids[-1], 7, "preconditioned", 0.125),
        (ids[1], ids[-2], 8, "preconditioned", 0.25),
        (ids[1], ids[-2], 8, "raw", 77.0),
        (None, ids[-2], 8, "preconditioned", 88.0),
    ]
    names = ("example_id", "eraser_id", "step", "method", "score")
    write_influence(run, pl.DataFrame(rows, schema=names, orient="row"), SETTINGS)
    return run


def section(html):
    return html[html.index('<section id="erasers">') : html.index('<section id="rows">')]


def test_pairs(followed, limits):
    html = report(followed, limits).read_text()
    assert 'href="#erasers"' in html
    part = section(html)
    assert part.index(">0.25<") < part.index(">0.125<") and "77" not in part and "88" not in part
    assert "&lt;b&gt;secret&lt;/b&gt;" in part and "\u202e" not in html
    assert "2 followed of 5 rows" in part


def test_texts_can_be_left_out(followed, limits):
    part = section(report(followed, {**limits, "include_text": False}).read_text())
    ids = reader.read_examples(followed)["example_id"].to_list()
    assert "secret" not in part and f"<td>{ids[1]}</td><td>{ids[-2]}</td>" in part


def test_a_run_that_was_not_followed(make_run, limits):
    html = report(make_run(told=True), limits).read_text()
    assert HEADING not in html and "#erasers" not in html
