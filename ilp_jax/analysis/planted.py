"""A diagnosed run beside what was planted in it: the one place that opens the truth."""

from __future__ import annotations

import dataclasses
from typing import Any

import polars as pl
from etils import epath

from ilp_jax import files
from ilp_jax.analysis.belief import belief_labels
from ilp_jax.errors import UserError
from ilp_jax.run_record import FILE as RECORD
from ilp_jax.stats import reader
from ilp_jax.stats.schema import CAUSES, UNATTRIBUTED
from ilp_jax.stats.truth import read_truth

POINT = "final"
LABELS = ("planted", "belief")
"""Columns that hold the true cause: as planted, and as the base model believes."""


@dataclasses.dataclass(frozen=True)
class Planted:
    """One run of a planted study; runs of one world share its facts.

    Attributes:
      name: what it is called, its family and world where they are known.
      workdir: its folder.
      world: its world's seed; None where the config does not say.
      family: its model's family; None where the config does not say.
      verdicts: trained rows at `POINT` by detector: ``example_id``, ``detector``,
        ``unlearned`` (not null), ``planted``, ``belief``, ``group_id``, ``detail``.
      told: the unlearned ones by method: these columns, ``method``, ``cause`` (one of the
        five or ``unattributed``) and ``score_{cause}``.
      methods: ``detector``, ``method`` of every pair that tells causes, whether or not a row
        is unlearned there.
      belief: counts of `belief_labels`; None where the base model was not asked, and
        ``belief`` is ``planted``.
    """

    name: str
    workdir: epath.Path
    world: int | None
    family: str | None
    verdicts: pl.DataFrame
    told: pl.DataFrame
    methods: pl.DataFrame
    belief: dict[str, int] | None


def load_planted(workdir: epath.PathLike) -> Planted:
    """Reads a diagnosed run of a planted study.

    Args:
      workdir: the run's folder.

    Raises:
      UserError: the folder is not a run's, nothing was planted there, its diagnosis is
        missing, does not reach the end or is of other rows, or a file is damaged.
    """
    workdir = reader.check_run(workdir)
    truth = read_truth(workdir)
    if not (workdir / "diagnosis.parquet").exists():
        raise UserError(
            workdir,
            "evaluate needs the phase diagnose, which is not finished there",
            "run `ilp diagnose` first, or `ilp run` for all",
        )
    labels, belief = _labels(workdir, truth)
    rows = reader.read_diagnosis(workdir).filter(pl.col("point") == POINT)
    rows = rows.drop_nulls("unlearned").join(labels, on="example_id")
    if rows.is_empty():
        raise UserError(
            workdir / "diagnosis.parquet",
            f"tells nothing of the planted rows at the point {POINT}",
            "run `ilp detect` and `ilp diagnose` again",
        )
    rows = rows.sort("detector", "method", "example_id")
    columns = ["example_id", "detector", "unlearned", *LABELS, "group_id", "detail"]
    causes = rows.filter(pl.col("method") != "none")
    told = causes.filter("unlearned").with_columns(pl.col("cause").fill_null(UNATTRIBUTED))
    scores = [f"score_{cause}" for cause in CAUSES]
    return Planted(
        workdir=workdir,
        # Every method gives the same verdict on a row.
        verdicts=rows.unique(("example_id", "detector"), keep="first", maintain_order=True).select(
            columns
        ),
        told=told.select(*columns, "method", "cause", *scores),
        methods=causes.select("detector", "method").unique(),
        belief=belief,
        **_place(workdir),
    )


def _labels(workdir: epath.Path, truth: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int] | None]:
    truth = truth.select("example_id", "planted", "group_id", "detail")
    if not (workdir / reader.INFERENCE / "base.parquet").exists():
        return truth.with_columns(belief="planted"), None
    base = reader.read_inference(workdir, ["base"])
    labels, counts = belief_labels(truth, reader.read_examples(workdir), base)
    return truth.join(labels, on="example_id"), counts


def _place(workdir: epath.Path) -> dict[str, Any]:
    """The run's world, family and name, as far as its config tells."""
    record = files.read_json(workdir / RECORD) if (workdir / RECORD).exists() else {}
    world = (record.get("config") or {}).get("world") or {}
    if not world.get("family"):
        return {"world": None, "family": None, "name": workdir.name}
    seed, family = world.get("seed"), world["family"]
    return {"world": seed, "family": family, "name": f"{family} {seed}"}
