"""What a report shows of a run, as plain data: all of it goes to ``summary.json`` as well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from ilp_jax.analysis.report.load import Run, deciding, own_stages, rows_of_verdict
from ilp_jax.analysis.report.trajectories import stage_ends, trajectories
from ilp_jax.analysis.shares import share
from ilp_jax.stats import reader
from ilp_jax.stats.schema import CAUSES, KEY, UNATTRIBUTED

TWINS = "planted_twin"
FATES = ("learned", "lost", "never", "unlearned", "unknown")
MOST_ROWS = 100_000
"""Rows that quartiles over time are of at most: of more, as many drawn at random tell the same."""


def figures(run: Run) -> dict[str, Any]:
    """Every figure that the report computes itself.

    Args:
      run: the run.

    Returns:
      ``verdict``, ``averages``, ``fates`` (counts), ``causes``, ``stage_ends`` (steps),
      ``trajectories`` and ``trajectories_of``, the number of rows that these are of where they
      are not of all (`MOST_ROWS`, drawn at random).
    """
    of_rows = fates(run)
    counts = {name: int((of_rows["fate"] == name).sum()) for name in FATES}
    drawn = len(of_rows) > MOST_ROWS
    shown = of_rows.sample(MOST_ROWS, seed=run.config["seed"]) if drawn else of_rows
    return {
        "verdict": verdict(run),
        "averages": averages(run),
        "fates": {name: count for name, count in counts.items() if count},
        "causes": causes(run),
        "stage_ends": stage_ends(run),
        "trajectories": trajectories(run, shown),
        "trajectories_of": MOST_ROWS if drawn else None,
    }


def fates(run: Run) -> pl.DataFrame:
    """What became of each trained row, by the default detector.

    ``learned`` at the end of the run; ``lost``: learned at the end of its own last stage and
    unlearned at the end of the run; ``never``: unlearned at both; ``unlearned`` at the end of
    the run, where its stage's end was not asked; ``unknown``: no verdict at the end of the run.

    Args:
      run: the run.

    Returns:
      ``example_id``, ``fate``, sorted.
    """
    stage_ends = own_stages(run).with_columns(point=pl.format("stage_{}", "stage"))
    default = run.verdicts.filter(pl.col("detector") == "default")
    own = stage_ends.join(default, on=("example_id", "point")).select(
        "example_id", pl.col("unlearned").alias("at_stage_end")
    )
    fate = (
        pl.when(~pl.col("unlearned"))
        .then(pl.lit("learned"))
        .when(~pl.col("at_stage_end"))
        .then(pl.lit("lost"))
        .when(pl.col("at_stage_end"))
        .then(pl.lit("never"))
        .otherwise(pl.lit("unlearned"))
    )
    known = rows_of_verdict(run, run.end).join(own, on="example_id", how="left")
    known = known.select("example_id", fate.alias("fate"))
    rows = run.plan.select("example_id").unique().join(known, on="example_id", how="left")
    return rows.with_columns(pl.col("fate").fill_null("unknown")).sort("example_id")


def verdict(run: Run) -> dict[str, Any]:
    """How many trained rows are unlearned at the end.

    Args:
      run: the run.

    Returns:
      ``point``; ``default``: n, unlearned, share, interval (95%, Wilson), None where no row has
      a verdict; ``unknown``: trained rows without one; the same as ``default`` a detector
      in ``by_detector``, and of the rows that were not planted in ``without_planted`` (None
      where none was); ``decided_by``: rows by the detector that decided.
    """
    planted = run.examples.filter(pl.col("source") == TWINS)["example_id"].implode()
    rows = rows_of_verdict(run, run.end)
    own = rows.filter(~pl.col("example_id").is_in(planted))
    by = deciding(run, run.end)["detector"].value_counts(sort=True)
    return {
        "point": run.end,
        "default": share(rows),
        "unknown": run.plan["example_id"].n_unique() - len(rows),
        "without_planted": share(own) if len(own) < len(rows) else None,
        "by_detector": {
            name: share(rows_of_verdict(run, run.end, name))
            for name in run.detectors
            if name != "default" and len(rows_of_verdict(run, run.end, name))
        },
        "decided_by": {name: int(n) for name, n in sorted(by.iter_rows())},
    }


def averages(run: Run) -> dict[str, Any]:
    """What the averages say at the end of the run.

    Args:
      run: the run.

    Returns:
      ``train_loss``: a stage, the mean over visits of its last epoch (nats a token);
      ``probe_loss`` and ``token_accuracy``: means over trained rows at the last moment at
      which all of them were probed (None without), with ``n`` and ``step``;
      ``choice_accuracy``: as in ``shares.share``, of the rows that choice calls right.
    """
    columns = ("loss_sum", "n_tokens", "n_correct")
    per_token = (pl.col("loss_sum") / pl.col("n_tokens")).cast(pl.Float64)
    trained = run.plan.select("example_id").unique()
    stats = reader.scan_stats(run.workdir).join(trained.lazy(), on="example_id", how="semi")
    visits = stats.filter(pl.col("kind") == "train")
    ends = visits.group_by("stage").agg(pl.col("epoch").max()).collect()
    probes = stats.filter(pl.col("kind") == "probe")
    counts = probes.group_by("step").agg(pl.len()).collect()
    whole = counts.filter(pl.col("len") == len(trained))

    def read(rows: pl.LazyFrame) -> pl.DataFrame:
        # Sorted by key, so that equal runs have equal sums.
        rows = rows.select(list(dict.fromkeys([*KEY, *columns])))
        return rows.collect(engine="streaming").sort(KEY)

    last = read(visits.join(ends.lazy(), on=("stage", "epoch"), how="semi"))
    losses = last.group_by("stage", maintain_order=True).agg(
        pl.col("epoch").first(), per_token.mean().alias("loss"), pl.len().alias("n")
    )
    found: dict[str, Any] = {"train_loss": losses.sort("stage").to_dicts()}
    found |= {"probe_loss": None, "token_accuracy": None, "choice_accuracy": None}
    if len(whole) and whole["step"].max() > 0:
        at_end = read(probes.filter(pl.col("step") == whole["step"].max()))
        known = (pl.col("n_correct") / pl.col("n_tokens")).mean()
        loss, accuracy = at_end.select(per_token.mean().alias("loss"), known.alias("known")).row(0)
        place = {"n": len(at_end), "step": int(whole["step"].max())}
        found["probe_loss"] = {"mean": loss, **place}
        found["token_accuracy"] = {"mean": accuracy, **place}
    choice = rows_of_verdict(run, run.end, "choice")
    if len(choice):
        right = share(choice.with_columns(~pl.col("unlearned")))
        found["choice_accuracy"] = {"right": right.pop("unlearned"), **right}
    return found


def causes(run: Run) -> list[dict[str, Any]]:
    """Causes of the rows unlearned by default at the end, by method, stage and source.

    Args:
      run: the run.

    Returns:
      One dict a method, stage (None for all; a row of several counts in each), source (None
      for all) and cause:
      ``n`` (unlearned rows), ``unlearned`` (those of this cause, a count), ``share``,
      ``interval``. A cause is left out of a method where none of its rows has a flag of it: it
      was not measured. Empty where no method other than ``none`` was run.
    """
    sources = run.examples.select("example_id", "source")
    flags = [f"flag_{cause}" for cause in CAUSES]
    told = diagnosed(run, columns=("cause", *flags)).join(sources, on="example_id")
    trained = run.plan.select("example_id", "stage").unique()
    cells = []
    for (method,), rows in told.sort("method").group_by("method", maintain_order=True):
        groups = [(None, None, rows)]
        groups += [(None, name, part) for (name,), part in rows.group_by("source")]
        staged = rows.join(trained, on="example_id")
        groups += [(stage, None, part) for (stage,), part in staged.group_by("stage")]
        groups += [(*key, part) for key, part in staged.group_by("stage", "source")]
        groups.sort(key=lambda group: (group[0] or 0, group[1] or ""))
        known = {cause for cause in CAUSES if rows[f"flag_{cause}"].count()} or set(CAUSES)
        known |= {UNATTRIBUTED, *rows["cause"].unique()}
        for stage, source, part in groups:
            for cause in (one for one in (*CAUSES, UNATTRIBUTED) if one in known):
                hits = share(part.select((pl.col("cause") == cause).alias("unlearned")))
                place = {"method": method, "stage": stage, "source": source, "cause": cause}
                cells.append(place | {"count": hits.pop("unlearned"), **hits})
    return cells


def method_order(method: str) -> tuple[bool, str]:
    """Sorts methods: this project's rules first, the others by name."""
    return method != "rules", method


def diagnosed(
    run: Run, kept: pl.Expr | None = None, columns: Sequence[str] | None = None
) -> pl.DataFrame:
    """Rows of the diagnosis with a cause: unlearned at the end, by the deciding detector.

    Args:
      run: the run.
      kept: true of the rows wanted; all by default.
      columns: only these, and those that name a row.
    """
    keys = ("example_id", "point", "detector")
    decided = deciding(run, run.end).filter("unlearned").select(keys)
    wanted = (pl.col("point") == run.end) & (pl.col("method") != "none")
    wanted &= pl.col("cause").is_not_null()
    wanted = wanted if kept is None else wanted & kept
    names = None if columns is None else list(dict.fromkeys((*keys, "method", *columns)))
    rows = reader.read_diagnosis(run.workdir, wanted, names)
    return rows.join(decided, on=keys).sort("method", "example_id")
