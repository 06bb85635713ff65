"""The parts of a report's page, run by run: drawn charts, tables and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
from markupsafe import Markup

from ilp_jax.analysis import no_verdict, table
from ilp_jax.analysis.report import charts, words
from ilp_jax.analysis.report.figures import method_order
from ilp_jax.analysis.report.load import Run
from ilp_jax.analysis.report.planted import planted
from ilp_jax.analysis.report.svg import svg
from ilp_jax.analysis.report.text import visible
from ilp_jax.stats.schema import CAUSES, UNATTRIBUTED

_WIDE, _NARROW = 1000, 350  # pixels; the page shows the one that fits
_OF_WHOLE = ("exact_match", "exact_law", "sampled", "choice", "rouge_l")


def page(run: Run, figures: Mapping[str, Any], name: str, key: str) -> dict[str, Any]:
    """What the template shows of one run.

    Args:
      run: the run.
      figures: ``figures.figures`` of it.
      name: what it is called.
      key: letters and digits that no other run of the page has.

    Returns:
      Texts (escaped by the template), numbers, and charts as pairs of wide and narrow SVG.
    """
    summary = run.summary
    stages = {one["stage"]: visible(one["name"]) for one in summary.get("stages", [])}
    ends = list(figures["stage_ends"].values())
    cells = [cell for cell in summary["shares"] if cell["detector"] in _OF_WHOLE]
    whole = [
        cell | {"label": cell["point"]}
        for cell in cells
        if cell["stage"] is None and cell["source"] is None
    ]
    return {
        "key": key,
        "name": name,
        "path": visible(run.workdir),
        "headline": words.headline(
            figures["verdict"], no_verdict.sentence(summary.get(no_verdict.FIGURES))
        ),
        "when": no_verdict.when(figures["verdict"]["point"]),
        "fates_sentence": words.fates_sentence(figures["fates"]),
        "figures": figures,
        "facts": facts(run),
        "stages": stage_rows(run, figures),
        "notes": [visible(note) for note in table.notes(summary)],
        "definitions": words.definitions(run.config),
        "points": words.point_words(run.config, run.points),
        "shares": whole,
        "shares_chart": drawn(f"{key}s", charts.shares_chart, whole),
        "detectors": [name for name in _OF_WHOLE if any(c["detector"] == name for c in whole)],
        "matrices": matrices(run),
        "learned_and_lost": summary.get("learned_and_lost", []),
        "forgetting": forgetting(run),
        "stage_names": stages,
        "loss_chart": drawn(
            f"{key}l", charts.trajectories_chart, figures["trajectories"], "loss", stages, ends
        ),
        "norm_chart": drawn(
            f"{key}g", charts.trajectories_chart, figures["trajectories"], "grad_norm", stages, ends
        ),
        "panels": {one["of_stage"] for one in figures["trajectories"]},
        "drawn_panels": charts.MOST_PANELS,
        "causes": cause_tables(figures["causes"], key),
        "no_causes": no_causes(run, figures),
        "causes_note": visible(summary.get("causes_note", "")) if figures["causes"] else "",
        "separation": separation(run, figures),
        "planted": planted(summary, lambda name, *of: drawn(f"{key}{name}", *of)),
        "unlearned": run.workdir / "diagnosis.parquet",
    }


def drawn(name: str, make: Any, *arguments: Any) -> dict[str, Markup] | None:
    """A chart for wide and for narrow pages, None where there is nothing to draw."""
    pair = {}
    for kind, width in (("wide", _WIDE), ("narrow", _NARROW)):
        chart: alt.TopLevelMixin | None = make(*arguments, width)
        if chart is None:
            return None
        # svg() leaves nothing but drawing in it.
        pair[kind] = Markup(svg(chart, f"{name}{kind[0]}"))
    return pair


def facts(run: Run) -> list[tuple[str, str]]:
    """What the run was: names and values, in the order of display."""
    config, train = run.config, run.config["train"]
    lora = config["lora"]
    trained = (
        f"adapters of rank {lora['rank']} on {', '.join(lora['targets'])}"
        if lora["rank"]
        else "all parameters"
    )
    versions = {"ilp_jax": None, "jax": None} | (run.record.get("versions") or {})
    code = (f"{name} {versions[name] or 'unknown'}" for name in ("ilp_jax", "jax"))
    rows, stages = run.plan["example_id"].n_unique(), run.plan["stage"].n_unique()
    parts = f"{stages} stage{'s' if stages > 1 else ''}"
    here = [
        ("rows", f"{rows} trained in {parts}"),
        ("trained", trained),
        ("loss normalised by", f"{train['loss_normalization']}; it changes what stays unlearned"),
        ("batch", f"{train['batch_size']} examples, {train['optimizer']}"),
    ]
    elsewhere = [
        ("trained", "elsewhere; how is not known: learning rate, epochs, order, batch, optimiser"),
        ("rows", f"{rows} given as trained, in {parts}"),
    ]
    pairs = [
        ("model", run.summary.get("weights") or config["model"]["path"]),
        *(elsewhere if config["model"].get("tuned") else here),
        ("seed", config["seed"]),
        ("device", run.record.get("device") or "unknown"),
        ("code", ", ".join(code)),
        ("commit", _short(run.record.get("git_commit") or "unknown")),
        ("config", f"{run.record.get('config_hash')} (run.json has every field)"),
    ]
    return [(name, visible(value)) for name, value in pairs]


def _short(commit: str) -> str:
    """The first digits of a commit's hash, and that files were changed if they were."""
    head, _, changed = commit.partition("-")
    return f"{head[:12]}, with uncommitted changes" if changed else head[:12]


def stage_rows(run: Run, figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The stages in order, with the mean training loss of their last epochs."""
    losses = {one["stage"]: one["loss"] for one in figures["averages"]["train_loss"]}
    rows = []
    for one in run.summary.get("stages", []):
        # A file's own stages are named ENTRY/VALUE.
        entry = one["name"] if one["name"] in run.config["stages"] else one["name"].split("/")[0]
        stage = run.config["stages"].get(entry, {})
        rows.append(
            {
                "stage": one["stage"],
                "name": visible(one["name"]),
                "source": visible(stage.get("source", "")),
                "rows": one["rows"],
                "epochs": one.get("epochs"),
                "learning_rate": one.get("learning_rate"),
                "converged": table.converged(run.summary, one["stage"]),
                "loss": losses.get(one["stage"]),
            }
        )
    return rows


def no_causes(run: Run, figures: Mapping[str, Any]) -> str:
    """Why no cause is told; empty where some are."""
    if figures["causes"]:
        return ""
    found = figures["verdict"]["default"]
    if found is None:
        return "Which rows are unlearned is not known by default, so no cause is told."
    if not found["unlearned"]:
        return f"No row with a verdict is unlearned {no_verdict.when(run.end)}: no cause to tell."
    return "No method of diagnosis was run: diagnosis.parquet tells no cause."


def matrices(run: Run) -> list[dict[str, Any]]:
    """Shares unlearned as a matrix of stages (and their sources) by points, a detector each."""
    found = []
    shown = [name for name in ("exact_match", "choice", "rouge_l") if name in run.detectors]
    for detector in shown or run.detectors:
        of = {
            (cell["stage"], cell["source"], cell["point"]): cell
            for cell in run.summary["shares"]
            if cell["detector"] == detector
        }
        points = [point for point in run.points if any(key[2] == point for key in of)]
        lines = sorted({key[:2] for key in of}, key=lambda k: (k[0] or 1e9, k[1] or ""))
        lines = [line for line in lines if line[0] is not None or line[1] is None]
        rows = [
            {
                "stage": stage,
                "source": None if source is None else visible(source),
                "cells": [of.get((stage, source, point)) for point in points],
            }
            for stage, source in lines
        ]
        for row in rows:
            row["n"] = max(cell["n"] for cell in row["cells"] if cell)
        found.append({"detector": detector, "points": points, "rows": rows})
    return found


def forgetting(run: Run) -> dict[str, Any]:
    """Of the summary's ``forgetting``: transfer, segments at the end, forgetting events."""
    told = run.summary.get("forgetting") or {}
    return {
        "transfer": [
            one
            for one in told.get("transfer", [])
            if one["backward"] is not None or one["forward"] is not None
        ],
        "segments": [one for one in told.get("segments", []) if one["point"] == run.end],
        "events": told.get("forgetting_events", []),
    }


def cause_tables(cells: Sequence[Mapping[str, Any]], key: str) -> list[dict[str, Any]]:
    """A method each: its chart over all rows, and counts by stage and source."""
    tables = []
    methods = sorted({cell["method"] for cell in cells}, key=method_order)
    for place, method in enumerate(methods):
        of = [cell for cell in cells if cell["method"] == method]
        lines: dict[tuple, dict[str, Any]] = {}
        for cell in of:
            line = lines.setdefault((cell["stage"], cell["source"]), {"n": cell["n"]})
            line[cell["cause"]] = cell
        whole = [cell for cell in of if cell["stage"] is None and cell["source"] is None]
        tables.append(
            {
                "method": method,
                "chart": drawn(f"{key}c{place}", charts.causes_chart, whole),
                "causes": [*CAUSES, UNATTRIBUTED],
                "lines": [
                    {"stage": stage, "source": source and visible(source), **line}
                    for (stage, source), line in lines.items()
                ],
            }
        )
    return tables


def separation(run: Run, figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of the summary's separation table at the end, of the detectors that decided."""
    decided = figures["verdict"]["decided_by"]
    return [
        row
        for row in run.summary.get("separation", [])
        if row["point"] == run.end and row["detector"] in decided
    ]
