"""Other trained rows ask the same and answer otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ilp_jax.analysis.causes.scale import known, number, ramp, verdicts

NEEDS = ("near_duplicates", "twin_disagreement")
GROUPED_BY = (*NEEDS, "near_ids")
NAMED = 8
"""Ids written out in the text; ``related_ids`` has all."""
LARGEST_GROUP = 256
"""A larger group is not repeated on each of its rows, which name their own rivals alone."""


def judge(
    signals: pl.DataFrame, thresholds: Mapping[str, Any], groups: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Scores how far trained rows of the same question contradict a row.

    score = ramp(s; t, 1), where s = d n / (n + 1) is the share of contradicting rows among the
    n + 1 rows of the question, the row itself counted (n = near_duplicates,
    d = twin_disagreement): one against one gives 1/2, two against one 2/3. t is conflict_share
    where the model answers as one of the contradicting rows does, or it is not known what it
    answers; else it is conflict_majority. 0 where nobody else asks the question.

    Of rows that contradict each other some must fail, and which ones changes with the epoch:
    so ``related_ids`` names the whole group, the row itself among it, alike on all its rows.
    A group is what is connected by contradictions.

    Args:
      signals: ``near_duplicates``, ``twin_disagreement``, ``near_ids`` (those that disagree
        first), ``rival_predicted``.
      thresholds: ``conflict_share``, ``conflict_majority``.
      groups: `groups_of` all rows at the point, where ``signals`` are a part of them.

    Returns:
      See the package; ``related_ids`` is null where no row contradicts.
    """
    n = pl.col("near_duplicates")
    rows = _against(known(signals))
    groups = _groups(rows) if groups is None else groups
    rows = rows.join(groups, on="example_id", how="left", maintain_order="left")
    share = pl.col("_n_against") / (n + 1)
    ids = pl.col("_group").list
    shown = ids.head(NAMED).cast(pl.List(pl.String)).list.join(", ")
    group = pl.format(
        "; the group of {} rows: {}{}",
        ids.len(),
        shown,
        pl.when(ids.len() > NAMED).then(pl.lit(", ...")).otherwise(pl.lit("")),
    )
    won, majority = pl.col("rival_predicted").fill_null(True), thresholds["conflict_majority"]
    least = pl.when(won).then(thresholds["conflict_share"]).otherwise(majority)
    score = (
        pl.when(won)
        .then(ramp(share, thresholds["conflict_share"]))
        .otherwise(ramp(share, majority))
    )
    evidence = pl.format(
        "{} of {} other trained rows with the same question answer otherwise, {} of them with "
        "itself counted (flagged from {}, as the model's answer {} theirs){}",
        pl.col("_n_against"),
        n,
        number(share),
        least,
        pl.when(pl.col("rival_predicted"))
        .then(pl.lit("is"))
        .when(~pl.col("rival_predicted"))
        .then(pl.lit("is not"))
        .otherwise(pl.lit("may be")),
        group.fill_null(""),
    )
    nobody = pl.lit("no other trained row asks the same")
    return verdicts(
        rows,
        score,
        pl.when(n == 0).then(nobody).otherwise(evidence),
        NEEDS,
        pl.col("_group"),
    )


def groups_of(signals: pl.DataFrame) -> pl.DataFrame:
    """The groups of rows that contradict each other.

    Args:
      signals: ``example_id`` and `GROUPED_BY`, of all rows at a point.

    Returns:
      ``example_id`` and ``_group``, the ids that `judge` names.
    """
    return _groups(_against(known(signals)))


def _against(rows: pl.DataFrame) -> pl.DataFrame:
    n = pl.col("near_duplicates")
    n_against = (pl.col("twin_disagreement") * n).round().cast(pl.Int64)
    return rows.with_columns(
        pl.when(n == 0).then(0).otherwise(n_against).alias("_n_against"),
    ).with_columns(pl.col("near_ids").list.head(pl.col("_n_against")).alias("_against"))


def _groups(rows: pl.DataFrame) -> pl.DataFrame:
    """``example_id`` and ``_group``: the sorted ids connected with it by contradictions."""
    own = rows.filter(pl.col("_against").list.len() > 0).unique("example_id", maintain_order=True)
    edges = own.select("example_id", pl.col("_against").alias("other")).explode("other")
    ids = np.unique(edges.to_numpy())
    ends = np.searchsorted(ids, edges.to_numpy())
    graph = coo_array((np.ones(len(ends), bool), ends.T), (len(ids), len(ids)))
    _, label = connected_components(graph, directed=False)
    members = pl.DataFrame({"example_id": ids, "_label": label})
    groups = members.group_by("_label").agg(pl.col("example_id").sort().alias("_group"))
    small = pl.col("_group").list.len() <= LARGEST_GROUP
    rivals = pl.concat_list("_against", "example_id").list.sort()
    return (
        members.join(groups, on="_label")
        .join(own.select("example_id", rivals.alias("_rivals")), on="example_id", how="left")
        .select("example_id", pl.when(small).then("_group").otherwise("_rivals").alias("_group"))
    )
