"""The phase ``report``, and the report of several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from ilp_jax import files
from ilp_jax.analysis import summary_file
from ilp_jax.analysis.remedies import KEY
from ilp_jax.analysis.report import charts
from ilp_jax.analysis.report.compare import comparison, run_names
from ilp_jax.analysis.report.erasers import erasers
from ilp_jax.analysis.report.examples import examples
from ilp_jax.analysis.report.figures import figures
from ilp_jax.analysis.report.load import Run, load
from ilp_jax.analysis.report.page import drawn, page
from ilp_jax.analysis.report.regimes_chart import KINDS, regimes_chart
from ilp_jax.analysis.report.remedies import remedies
from ilp_jax.analysis.report.render import render
from ilp_jax.errors import UserError

REPORT = "report.html"


def report(workdir: epath.PathLike, limits: Mapping[str, Any]) -> epath.Path:
    """Writes ``report.html`` of a run, and its figures into ``summary.json`` under ``report``.

    Args:
      workdir: the run's folder.
      limits: the config's group ``report``.

    Returns:
      The report's path.

    Raises:
      UserError: the diagnosis is missing, or a file is damaged.
      RunFailure: the disk is full.
    """
    run = load(workdir)
    found, of_arms = figures(run), remedies([run])
    path = run.workdir / REPORT
    files.write_text(path, _html([run], [found], limits, None, of_arms))
    more = {"report": found} | ({KEY: of_arms["figures"]} if of_arms else {})
    summary_file.write(run.workdir, run.summary | more)
    return path


def compare(
    workdirs: Sequence[epath.PathLike], out: epath.PathLike, limits: Mapping[str, Any]
) -> epath.Path:
    """Writes one report of one run or several, and with several their figures beside it.

    Args:
      workdirs: the runs' folders; nothing is written there.
      out: the HTML file. The comparison's figures go beside it, with the suffix ``.json``.
      limits: the config's group ``report``; the runs share ``max_rows``.

    Returns:
      The report's path.

    Raises:
      UserError: the same folder is given twice, a diagnosis is missing, a file is damaged, or
        out is a folder.
      RunFailure: the disk is full.
    """
    out = files.as_path(out)
    if out.is_dir():
        raise UserError(out, "is a folder", "give --out FILE.html")
    twice = [one for one in workdirs if list(map(str, workdirs)).count(str(one)) > 1]
    if twice:
        raise UserError(twice[0], "is given twice", "give each --workdir once")
    runs = [load(workdir) for workdir in workdirs]
    found = [figures(run) for run in runs]
    beside = comparison(runs, run_names(runs)) if len(runs) > 1 else None
    of_arms = remedies(runs)
    files.write_text(out, _html(runs, found, limits, beside, of_arms))
    if beside is not None:
        more = {KEY: of_arms["figures"]} if of_arms else {}
        files.write_json(out.with_suffix(".json"), beside | more)
    return out


def _html(
    runs: Sequence[Run],
    found: Sequence[Mapping[str, Any]],
    limits: Mapping[str, Any],
    beside: Mapping[str, Any] | None,
    of_arms: Mapping[str, Any] | None,
) -> str:
    names = run_names(runs)
    each = {**limits, "max_rows": max(1, limits["max_rows"] // len(runs))}
    listed = [{"name": name, **examples(run, each)} for name, run in zip(names, runs, strict=True)]
    left_out = [one.pop("left_out") for one in listed]
    pages = [
        page(run, one, name, f"r{i}") | {"erasers": erasers(run, limits)}
        for i, (run, one, name) in enumerate(zip(runs, found, names, strict=True))
    ]
    parts = {
        "title": names[0] if len(runs) == 1 else f"{len(runs)} runs",
        "runs": pages,
        "comparison": beside and _drawn(beside),
        "remedies": of_arms,
        "limits": limits,
        "listed": sum(len(one["rows"]) for one in listed),
        "of": sum(one["of"] for one in listed),
        "left_out": [
            {"name": name, "left_out": told, "stage_names": one["stage_names"]}
            for name, told, one in zip(names, left_out, pages, strict=True)
            if told
        ],
    }
    data = {
        "runs": listed,
        "detectors": charts.DETECTORS,
        "fates": charts.FATES,
        "texts": limits["include_text"],
        "most": limits["max_text"],
    }
    return render(parts, data)


def _drawn(beside: Mapping[str, Any]) -> dict[str, Any]:
    """The comparison with its charts."""
    found = beside["regimes"]
    chart = found and drawn("regimes", regimes_chart, found)
    return {**beside, "chart": _compared(beside), "regimes_chart": chart, "kinds": KINDS}


def _compared(beside: Mapping[str, Any]) -> Any:
    cells = [
        {"label": run["name"], "detector": detector, **share}
        for run in beside["runs"]
        for detector, share in run["verdict"]["by_detector"].items()
    ]
    return drawn("compared", charts.shares_chart, cells)
