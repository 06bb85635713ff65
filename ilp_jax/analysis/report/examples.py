"""The rows that a report lists one by one: what each was, what was said, how it went."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from ilp_jax.analysis import signals
from ilp_jax.analysis.lengths import response_tokens
from ilp_jax.analysis.report import answers
from ilp_jax.analysis.report.answers import rounded
from ilp_jax.analysis.report.figures import diagnosed, fates, method_order
from ilp_jax.analysis.report.load import Run, own_stages
from ilp_jax.analysis.report.text import cut, visible
from ilp_jax.data.conversation import text_of
from ilp_jax.stats.schema import CAUSES

_MARKS = {True: "1", False: "0", None: "-"}


def examples(run: Run, limits: Mapping[str, Any]) -> dict[str, Any]:
    """Trained rows that are unlearned somewhere after the base model, as plain data.

    Those unlearned by default at the end come first, so that a cap leaves out others. What it
    leaves out is spread over stages and causes, see `chosen`.

    Args:
      run: the run.
      limits: the config's ``report`` group: ``max_rows``, ``max_text``, ``max_visits``,
        ``include_text``.

    Returns:
      ``points``, ``detectors``, ``methods``, ``signals`` (names), ``of`` (how many rows there
      are), ``left_out`` (`left_out`), ``others`` (texts of related rows that are not listed) and
      ``rows``, whose keys ``template/report.js`` explains. Ids are text: JavaScript's numbers
      end at 2**53.
    """
    worst = _worst(run)
    listed = chosen(worst, limits["max_rows"])
    ids = listed["example_id"].to_list()
    marks = dict(_marks(run, ids).iter_rows())
    texts = limits["include_text"]
    about = _about(run, ids)
    told = _told(run, ids)
    related = {other for one in told.values() for other in one["related"][:_RELATED]}
    said = answers.said(run, ids, ("base", run.end), limits["max_text"]) if texts else {}
    went = answers.visits(run, ids, limits["max_visits"])
    names, measured = _signals(run, ids)
    quoted = _quoted(run, ids, limits["max_text"]) if texts else {}
    others = _quoted(run, sorted(related.difference(ids)), limits["max_text"]) if texts else {}
    rows = []
    for key in ids:
        rows.append(
            {"i": str(key), **about[key], "u": marks[key]}
            | ({"x": quoted[key], "y": said.get(key, {})} if texts else {})
            | {"d": _diagnosis(told.get(key), texts)}
            | {"v": went.get(key), "g": measured.get(key)}
        )
    return {
        "points": run.points,
        "detectors": run.detectors,
        "causes": list(CAUSES),
        "methods": sorted(
            {method for one in told.values() for method in one["methods"]}, key=method_order
        ),
        "signals": names,
        "of": len(worst),
        "left_out": left_out(worst, listed),
        "others": {str(key): text for key, text in others.items()},
        "rows": rows,
    }


def _worst(run: Run) -> pl.DataFrame:
    """Rows that are unlearned somewhere after the base model, in the order of the list.

    ``example_id``, ``rank`` (0: unlearned by default at the end, 1: by another detector there, 2:
    at an earlier point), ``stage`` (the last) and ``cause`` (of the first method; null where none
    is told).
    """
    worst = (
        run.verdicts.lazy()
        .filter(pl.col("point") != "base", pl.col("unlearned"))
        .select(
            "example_id",
            pl.when(pl.col("point") == run.end)
            .then(pl.when(pl.col("detector") == "default").then(0).otherwise(1))
            .otherwise(2)
            .alias("rank"),
        )
        .group_by("example_id")
        .agg(pl.col("rank").min())
        .collect()
    )
    told = diagnosed(run, columns=("cause",))
    methods = sorted(told["method"].unique(), key=method_order)
    told = told.filter(pl.col("method") == (methods[0] if methods else ""))
    return (
        worst.join(own_stages(run), on="example_id")
        .join(told.select("example_id", "cause"), on="example_id", how="left")
        .sort("rank", "stage", "example_id")
    )


def chosen(rows: pl.DataFrame, most: int) -> pl.DataFrame:
    """As many of the rows as may be listed, of every stage and cause as equal a share as it has.

    Ranks come whole, one after the other. In the first that does not fit each stage has the same
    number of rows as another or all its rows, and so has each cause within a stage.

    Args:
      rows: of `_worst`.
      most: rows kept.

    Returns:
      Rows of the same table, in its order.
    """
    if len(rows) <= most:
        return rows
    within = rows.with_row_index("order").with_columns(
        turn=pl.int_range(pl.len()).over("rank", "stage", "cause")
    )
    within = within.sort("rank", "stage", "turn", "cause", maintain_order=True).with_columns(
        turn=pl.int_range(pl.len()).over("rank", "stage")
    )
    kept = within.sort("rank", "turn", "stage", maintain_order=True).head(most)
    return kept.sort("order").select(rows.columns)


def left_out(rows: pl.DataFrame, listed: pl.DataFrame) -> list[dict[str, Any]]:
    """How many rows of each stage and cause are listed, where not all are.

    Args:
      rows: of `_worst`.
      listed: of `chosen`.

    Returns:
      One dict a ``stage``, ``at_end`` (unlearned by default at the end of the run) and ``cause``
      (None: none is told): ``listed`` and ``of``. Empty where nothing is left out.
    """
    if len(listed) == len(rows):
        return []
    group = ("stage", "at_end", "cause")
    counted = (
        rows.with_columns(
            at_end=pl.col("rank") == 0,
            listed=pl.col("example_id").is_in(listed["example_id"].implode()),
        )
        .group_by(group)
        .agg(pl.col("listed").sum().cast(pl.Int64), of=pl.len().cast(pl.Int64))
    )
    return counted.sort("stage", pl.col("at_end").not_(), "cause", nulls_last=True).to_dicts()


def _marks(run: Run, ids: Sequence[int]) -> pl.DataFrame:
    """A row's verdicts as one text a detector: a mark a point (1: unlearned, - : none)."""
    wanted = pl.col("example_id").is_in(list(ids)) & pl.col("detector").is_in(run.detectors)
    known = run.verdicts.filter(wanted)
    wide = known.pivot(on="point", index=("example_id", "detector"), values="unlearned")
    points = [point for point in run.points if point in wide.columns]
    columns = [pl.col(point).replace_strict(_MARKS, return_dtype=pl.String) for point in points]
    marks = [columns[points.index(one)].fill_null("-") if one in points else pl.lit("-")
             for one in run.points]  # fmt: skip
    place = {name: i for i, name in enumerate(run.detectors)}
    return (
        wide.with_columns(
            marks=pl.concat_str(marks) if marks else pl.lit(""),
            place=pl.col("detector").replace_strict(place, return_dtype=pl.Int8),
        )
        .sort("example_id", "place")
        .group_by("example_id", maintain_order=True)
        .agg("marks")
    )


def _about(run: Run, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Stages, source, fate and length of each row."""
    stages = run.plan.group_by("example_id").agg(pl.col("stage").unique().sort())
    examples = run.examples.filter(pl.col("example_id").is_in(list(ids)))
    turns = run.config.get("trained_turns", "all")
    rows = (
        examples.join(stages, on="example_id")
        .join(response_tokens(examples, turns), on="example_id")
        .join(fates(run), on="example_id", how="left")
    )
    return {
        row["example_id"]: {
            "s": row["stage"],
            "o": visible(row["source"]),
            "f": row["fate"],
            "n": row["response_tokens"],
            # Each reply has an end token, but for one whose tail was cut.
            "k": row["n_target_tokens"] - row["response_tokens"] + row["truncated"],
            "c": int(row["truncated"]),
        }
        for row in rows.iter_rows(named=True)
    }


def _told(run: Run, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """What each method of diagnosis says of each row, and the rows that it names."""
    told: dict[int, dict[str, Any]] = {}
    rows = diagnosed(run, pl.col("example_id").is_in(list(ids)))
    for row in rows.iter_rows(named=True):
        one = told.setdefault(row["example_id"], {"methods": {}, "related": []})
        one["methods"][row["method"]] = row
        one["related"] += [key for key in row["related_ids"] or () if key not in one["related"]]
    return told


def _diagnosis(told: dict[str, Any] | None, texts: bool) -> Any:
    if told is None:
        return None
    methods = {}
    for name in sorted(told["methods"], key=method_order):
        row = told["methods"][name]
        methods[name] = {
            "c": row["cause"],
            "r": row["runner_up"],
            "s": [rounded(row[f"score_{cause}"]) for cause in CAUSES],
            "f": [row[f"flag_{cause}"] for cause in CAUSES],
        }
        if texts:  # evidence quotes rows
            methods[name]["e"] = visible(row["evidence"] or "")
    related = [str(key) for key in told["related"][:_RELATED]]
    return {"m": methods, "r": related, "n": len(told["related"])}


_RELATED = 20  # related rows quoted: a template's rows may name thousands


def _quoted(run: Run, ids: Sequence[int], limit: int) -> dict[int, dict[str, Any]]:
    """Prompt, response and options of rows, cut."""
    rows = run.examples.filter(pl.col("example_id").is_in(list(ids)))
    return {
        row["example_id"]: {
            "p": cut(_prompt(row), limit),
            "a": cut(row["response"], limit),
            "o": [cut(option, limit) for option in row["options"]],
        }
        for row in rows.iter_rows(named=True)
    }


def _prompt(row: Mapping[str, Any]) -> str:
    """The prompt; of a conversation its turns, as they are stored."""
    if row["messages"] is None:
        return row["prompt"]
    turns = json.loads(row["messages"])
    return "\n".join(f"[{turn['role']}] {text_of(turn)}" for turn in turns)


def _signals(run: Run, ids: Sequence[int]) -> tuple[list[str], dict[int, list[Any]]]:
    """Names of the signals at the end of the run, and their values by row."""
    if not (run.workdir / signals.FILE).exists():
        return [], {}
    wanted = pl.col("example_id").is_in(list(ids)) & (pl.col("point") == run.end)
    rows = signals.read_signals(run.workdir, wanted)
    names = [
        name
        for name, kind in rows.schema.items()
        if name not in ("example_id", "point") and not kind.is_nested()
    ]
    values = rows.select("example_id", *names).iter_rows()
    return names, {key: [rounded(value) for value in rest] for key, *rest in values}
