"""The report's section on planted truth: only of evaluated runs, with the summary's numbers."""

import io
import re

import polars as pl
import pytest
from rich.console import Console

from ilp_jax import files
from ilp_jax.analysis import table
from ilp_jax.analysis.evaluate import evaluate_run
from ilp_jax.analysis.report import compare, report
from ilp_jax.analysis.report.render import short_number
from ilp_jax.stats import reader
from ilp_jax.stats.schema import PLANTED
from ilp_jax.stats.truth import write_truth

HEADING = "Diagnosis against planted truth"


@pytest.fixture
def evaluated(make_run):
    """A finished run with causes, planted in turn, and evaluated."""

    def make(name="run"):
        run = make_run(name, n=40, told=True)
        ids = reader.read_examples(run)["example_id"].to_list()
        # A calibrated method, so that there is a curve: its scores are those of the rules.
        rows = reader.read_diagnosis(run)
        model = rows.filter(pl.col("method") == "rules").with_columns(method=pl.lit("model"))
        reader.write_diagnosis(run, pl.concat([rows, model]))
        truth = [
            {"example_id": id_, "planted": PLANTED[i % len(PLANTED)], "group_id": i}
            | {"related_ids": [], "prerequisite_id": None, "detail": "<b>x</b>"}
            for i, id_ in enumerate(ids)
        ]
        write_truth(run, pl.DataFrame(truth, schema_overrides={"prerequisite_id": pl.Int64}))
        evaluate_run(run, 50)
        return run

    return make


def test_section_has_the_summarys_numbers(evaluated, limits):
    run = evaluated()
    html = report(run, limits).read_text()
    assert HEADING in html and 'href="#planted"' in html
    section = html[html.index('<section id="planted">') : html.index('<section id="trajectories">')]
    told = files.read_json(run / "summary.json")["agreement"]
    detector = next(name for name in ("sampled", "exact_law", "choice") if name in told)
    for one in told[detector].values():
        assert f">{short_number(one['macro_f1'])} <small>" in section
    table = section[section.index('<table class="matrix">') :]
    line = re.search(r'<th scope="row">fault</th>(.*?)</tr>', table)[1]
    counts = [int(cell) for cell in re.findall(r">(\d+)<", line)]
    expected = list(told[detector]["model"]["confusion"]["fault"].values())
    assert counts == [sum(expected), *expected]
    assert section.count('class="drawing"') == 3 and "<b>x</b>" not in html
    kept = files.read_json(run / "summary.json")
    assert "report" in kept and kept["agreement"] == told


def test_no_section_without_an_evaluation(make_run, evaluated, limits, tmp_path):
    plain = make_run("plain", told=True)
    html = report(plain, limits).read_text()
    assert HEADING not in html and "#planted" not in html
    both = compare([plain, evaluated()], tmp_path / "both.html", limits).read_text()
    assert both.count(HEADING) == 1 and "Not evaluated, or nothing was planted." in both


def test_the_runs_tables_end_with_it_too(make_run, evaluated):
    for run, there in ((make_run("plain", told=True), False), (evaluated(), True)):
        text = io.StringIO()
        Console(width=120, file=text).print(table.render(files.read_json(run / "summary.json")))
        assert (HEADING in text.getvalue()) == there
