"""Leaving the accused out against leaving matched rows out: who, and what came of it.

Controls are rows of the later stages that are not accused. Each accused row gets one: of the
same source and with as many visits in each later stage, then with the same relation, gradient
norm (in tenths) and target tokens, as near as the rows that are left allow.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from ilp_jax.analysis.rarity import commonest_patterns

NONE, ACCUSED, CONTROL = "none", "accused", "control"
"""Arms: nothing left out, the accused, and ``control_0``, ``control_1``, ... ."""
MATCHED = ("source", "visits", "relation", "norm", "tokens")
_WEIGHT = {"source": 1e6, "visits": 1e4, "relation": 100.0, "norm": 4.0, "tokens": 4.0}


def later_rows(
    examples: pl.DataFrame,
    plan: pl.DataFrame,
    stats: pl.DataFrame,
    after: int,
    relation: Mapping[int, str] | None = None,
) -> pl.DataFrame:
    """What rows of the stages after one are matched by.

    Args:
      examples: ``examples.parquet``.
      plan: ``plan.parquet``.
      stats: training rows of the statistics, with ``grad_norm``.
      after: the stage.
      relation: example id -> what the row asks about; None: the pattern of its prompt that
        most trained rows share (`rarity`).

    Returns:
      One row an example that a later stage trains, sorted: ``example_id``, ``source``,
      ``visits`` (text: how many in each later stage), ``relation``, ``norm`` (mean gradient
      norm at these visits, in tenths of the rows from 0 to 9; 0 where norms were not taken) and
      ``tokens`` (target tokens).
    """
    own = stats.filter(pl.col("kind") == "train", pl.col("stage") > after)
    counts = own.group_by("example_id", "stage").len().sort("example_id", "stage")
    visits = counts.group_by("example_id", maintain_order=True).agg(
        pl.format("{}:{}", "stage", "len").str.join(" ").alias("visits")
    )
    norms = own.group_by("example_id").agg(pl.col("grad_norm").mean().fill_null(0.0).alias("mean"))
    rows = (
        plan.filter(pl.col("stage") > after)
        .select("example_id")
        .unique()
        .join(visits, on="example_id")
        .join(norms, on="example_id")
        .join(
            examples.select("example_id", "source", pl.col("n_target_tokens").alias("tokens")),
            on="example_id",
        )
        .sort("example_id")
    )
    if relation is None:
        kinds = commonest_patterns(examples, plan["example_id"].unique())
        rows = rows.join(kinds.rename({"pattern": "relation"}), on="example_id", how="left")
    else:
        kinds = [relation[one] for one in rows["example_id"]]
        rows = rows.with_columns(pl.Series("relation", kinds, pl.String))
    tenth = ((pl.col("mean").rank("ordinal") - 1) * 10 // pl.len()).cast(pl.Int64)
    return rows.with_columns(tenth.alias("norm")).select("example_id", *MATCHED)


def matched(
    rows: pl.DataFrame, accused: Collection[int], excluded: Collection[int], seed: int
) -> list[int]:
    """One control for every accused row, none twice.

    Accused rows choose one after the other in an order of the seed; where several controls are
    equally near the seed decides, too.

    Args:
      rows: see `later_rows`.
      accused: ids, all among the rows.
      excluded: ids that may not be controls, besides the accused.
      seed: of the draw.

    Returns:
      Ids, in the order of the sorted accused; fewer where no row is left.
    """
    rng = np.random.default_rng(seed)
    free = rows.filter(~pl.col("example_id").is_in([*accused, *excluded]))
    wanted = rows.filter(pl.col("example_id").is_in(list(accused))).sort("example_id")
    taken = np.zeros(len(free))
    found: dict[int, int] = {}
    columns = {name: free[name].to_numpy() for name in MATCHED}
    for i in rng.permutation(len(wanted))[: len(free)].tolist():
        one = wanted.row(i, named=True)
        cost = rng.random(len(free)) + taken
        for name, weight in _WEIGHT.items():
            if name in ("norm", "tokens"):
                cost = cost + weight * np.abs(columns[name] - one[name])
            else:
                cost = cost + weight * (columns[name] != one[name])
        best = int(np.argmin(cost))
        taken[best] = np.inf
        found[i] = int(free["example_id"][best])
    return [found[i] for i in sorted(found)]


def match_quality(
    rows: pl.DataFrame, accused: Sequence[int], controls: Sequence[int]
) -> dict[str, float]:
    """How alike accused rows and their controls are, as groups.

    Args:
      rows: see `later_rows`.
      accused: ids.
      controls: ids.

    Returns:
      For each of ``MATCHED`` the part of the two groups that is shared: 1 minus half the sum
      of the differences of shares, 1 where both have the same distribution.
    """
    shares = [
        {
            name: dict(
                rows.filter(pl.col("example_id").is_in(list(ids)))[name]
                .value_counts(normalize=True)
                .iter_rows()
            )
            for name in MATCHED
        }
        for ids in (accused, controls)
    ]
    return {
        name: 1
        - sum(
            abs(shares[0][name].get(value, 0) - shares[1][name].get(value, 0))
            for value in shares[0][name] | shares[1][name]
        )
        / 2
        for name in MATCHED
    }


def compare(rows: pl.DataFrame, seed: int, n_draws: int = 2000) -> dict[str, Any]:
    """What leaving the accused out spares, beside leaving controls out.

    Forgetting is the rise of a lost row's mean loss from its stage's end to the end, and the
    share of the lost rows that are not exact matches at the end. An arm's fall is the forgetting
    of ``none`` minus its own. Intervals are percentiles of a bootstrap over the lost rows and,
    within it, over the draws of controls.

    Args:
      rows: of ``train.leave_out.leave_out``, arms ``none``, ``accused`` and ``control_K``.
      seed: of the bootstrap.
      n_draws: its resamples.

    Returns:
      ``n`` (lost rows), ``controls`` (draws), and for ``loss`` (nats a token) and ``lost`` (share)
      a dict: mean of each arm (``none``, ``accused``, ``control``, ``each_control``), ``fall``
      of ``accused`` and ``control``, ``difference`` between the two falls and its ``interval``.
    """
    rows = rows.with_columns(
        (pl.col("loss") - pl.col("loss_before")).alias("rise"),
        (~pl.col("correct")).cast(pl.Float64).alias("lost"),
    )
    arms = rows["arm"].unique(maintain_order=True).to_list()
    draws = [name for name in arms if name.startswith(CONTROL)]
    out: dict[str, Any] = {"n": rows["example_id"].n_unique(), "controls": len(draws)}
    rng = np.random.default_rng(seed)
    for name, column in (("loss", "rise"), ("lost", "lost")):
        wide = rows.pivot(on="arm", index="example_id", values=column).sort("example_id")
        none_Z, accused_Z = wide[NONE].to_numpy(), wide[ACCUSED].to_numpy()
        controls_ZxC = wide.select(draws).to_numpy()
        spared_ZxC = controls_ZxC - accused_Z[:, None]
        n, c = spared_ZxC.shape
        means = [
            spared_ZxC[np.ix_(rng.integers(n, size=n), rng.integers(c, size=c))].mean()
            for _ in range(n_draws)
        ]
        out[name] = {
            "none": float(none_Z.mean()),
            "accused": float(accused_Z.mean()),
            "control": float(controls_ZxC.mean()),
            "each_control": controls_ZxC.mean(axis=0).tolist(),
            "fall": {
                "accused": float((none_Z - accused_Z).mean()),
                "control": float((none_Z[:, None] - controls_ZxC).mean()),
            },
            "difference": float(spared_ZxC.mean()),
            "interval": np.quantile(means, (0.025, 0.975)).tolist(),
        }
    return out
