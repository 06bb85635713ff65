"""The tables of a finished run that a report reads."""

from __future__ import annotations

import dataclasses
from typing import Any

import polars as pl
from etils import epath

from ilp_jax import outputs, run_record
from ilp_jax.analysis import summary_file
from ilp_jax.analysis.no_verdict import last_point
from ilp_jax.analysis.shares import point_order
from ilp_jax.analysis.unlearned import DEFAULT, by_default
from ilp_jax.errors import UserError
from ilp_jax.stats import reader

_ORDER = (DEFAULT, "exact_match", "exact_law", "sampled", "choice", "rouge_l")
DECIDING = ("rouge_l", "exact_match", "choice")
"""The detectors that the default is made of, the first that applies to a row decides."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run: its record and figures, its rows, and the verdicts on them.

    Statistics, answers, signals and causes grow with visits and questions, so a report reads of
    them what it shows.

    Attributes:
      workdir: its folder.
      record: ``run.json``.
      summary: ``summary.json``.
      examples: ``examples.parquet``.
      plan: ``plan.parquet``: the trained rows and their stages.
      verdicts: one row an example, point and detector, those of the detector ``default``
        among them.
    """

    workdir: epath.Path
    record: dict[str, Any]
    summary: dict[str, Any]
    examples: pl.DataFrame
    plan: pl.DataFrame
    verdicts: pl.DataFrame

    @property
    def points(self) -> list[str]:
        """Points with verdicts, as the run met them."""
        return sorted(self.verdicts["point"].unique(), key=point_order)

    @property
    def detectors(self) -> list[str]:
        """Detectors that apply to at least one row, the default first."""
        said = self.verdicts.lazy().filter(pl.col("unlearned").is_not_null())
        found = said.select(pl.col("detector").unique()).collect().to_series().to_list()
        return sorted(found, key=(*_ORDER, *sorted(found)).index)

    @property
    def end(self) -> str:
        """The point that the verdict is about: ``final``, or the last that was asked."""
        return last_point(self.points)

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration, as plain values."""
        return self.record["config"]


def load(workdir: epath.PathLike) -> Run:
    """Reads a finished run.

    Args:
      workdir: the run's folder.

    Returns:
      The run.

    Raises:
      UserError: the folder is no run's, its diagnosis is missing, or a file is damaged.
    """
    workdir = reader.check_run(workdir)
    if not (workdir / "diagnosis.parquet").exists() or not (workdir / summary_file.FILE).exists():
        raise UserError(
            workdir,
            "report needs the phase diagnose, which is not finished there",
            "run `ilp diagnose` first, or `ilp run` for all",
        )
    record = run_record.read(workdir)
    for phase in record["made"]:
        if phase != "report" and (fault := outputs.fault(workdir, phase)):
            raise fault
    columns = ("example_id", "point", "detector", "unlearned")
    found = reader.read_diagnosis(workdir, pl.col("method") == "none", ("method", *columns))
    found = found.select(columns)
    figures = summary_file.read(workdir)
    if not isinstance(figures.get("shares"), list):
        raise UserError(workdir / summary_file.FILE, "has no shares", "run `ilp diagnose` again")
    return Run(
        workdir=workdir,
        record=record,
        summary=figures,
        examples=reader.read_examples(workdir),
        plan=reader.read_plan(workdir),
        verdicts=pl.concat([by_default(found), found]),
    )


def deciding(run: Run, point: str) -> pl.DataFrame:
    """Which detector decided by default at a point, a row an example.

    Args:
      run: the run.
      point: the point.

    Returns:
      ``example_id``, ``point``, ``detector``, ``unlearned``.
    """
    rank = {name: place for place, name in enumerate(DECIDING)}
    return (
        run.verdicts.lazy()
        .filter(
            pl.col("point") == point,
            pl.col("detector").is_in(DECIDING),
            pl.col("unlearned").is_not_null(),
        )
        .with_columns(rank=pl.col("detector").replace_strict(rank, return_dtype=pl.Int8))
        .sort("example_id", "rank")
        .unique("example_id", keep="first", maintain_order=True)
        .select("example_id", "point", "detector", "unlearned")
        .collect()
    )


def own_stages(run: Run) -> pl.DataFrame:
    """The last stage that trains each row: ``example_id``, ``stage``, sorted."""
    last = run.plan.group_by("example_id").agg(pl.col("stage").max())
    return last.sort("example_id")


def rows_of_verdict(run: Run, point: str, detector: str = DEFAULT) -> pl.DataFrame:
    """Verdicts of one detector at one point: ``example_id``, ``unlearned``, none of them null."""
    chosen = run.verdicts.lazy().filter(pl.col("point") == point, pl.col("detector") == detector)
    rows = chosen.select("example_id", "unlearned").drop_nulls().collect()
    return rows.sort("example_id")
