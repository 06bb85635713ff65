"""Everything that is told of remedies, of one run or of several together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from ilp_jax.analysis.remedies.arms import against_oracle, arms
from ilp_jax.analysis.remedies.curves import curves
from ilp_jax.analysis.remedies.drawn import drawn
from ilp_jax.analysis.remedies.load import Tried, pooled
from ilp_jax.analysis.remedies.matrix import diagonal, matrix
from ilp_jax.analysis.resample import RESAMPLES, SEED


def compare(runs: Sequence[Tried], resamples: int = RESAMPLES) -> dict[str, Any]:
    """The matrix of causes and remedies, and the arms side by side.

    Args:
      runs: the runs.
      resamples: bootstrap resamples behind each interval: of worlds, then of groups of rows that
        contradict each other, and of the seeds of runs that have several (`drawn.Drawn`).

    Returns:
      ``matrix`` and ``diagonal`` over scored rows (`matrix`), ``matrix_all`` over all (None where
      they are the same), ``arms`` (`arms.arms`), ``against_oracle`` (`arms.against_oracle`),
      ``curves`` (`curves.curves`), and what they rest on: ``runs``, ``worlds``, ``units``,
      ``seeds`` (trainings of the randomised arm), ``seeds_a_run`` (the most of any run),
      ``detector``, ``method``, ``set_aside`` (unlearned rows that no arm but ``diagnosed``
      touches: judged wrong, or without a cause), ``resamples``, ``seed``, ``planted``,
      ``documents`` (`load.Tried`).
    """
    rows, world_U = pooled(runs)
    again = drawn(rows, world_U, resamples, SEED)
    unlearned = rows.filter(~pl.col("learned_before"), pl.col("role") == "train")
    scored = matrix(unlearned.filter("scored"), again)
    everything = scored if rows["scored"].all() else matrix(unlearned, again)
    settings = [one.config["mitigate"] for one in runs]
    dealt = unlearned.filter(pl.col("arm") == "randomised")
    return {
        "matrix": scored,
        "matrix_all": None if everything is scored else everything,
        "diagonal": diagonal(scored),
        "arms": arms(runs, rows, again),
        "against_oracle": against_oracle(rows, again),
        "curves": curves(rows, again),
        "runs": len(runs),
        "worlds": int(world_U.max()) + 1,
        "units": len(world_U),
        "seeds": dealt.select("run", "seed").unique().height,
        "seeds_a_run": rows.group_by("run").agg(pl.col("seed").n_unique())["seed"].max(),
        "detector": sorted({one["detector"] for one in settings}),
        "method": sorted({one["method"] for one in settings}),
        "set_aside": int(dealt["remedy"].is_null().sum()),
        "unlearned": len(dealt),
        "resamples": resamples,
        "seed": SEED,
        "documents": {
            name: sum(one.documents[name] for one in runs) for name in ("of_rows", "with_answer")
        },
        "planted": bool(rows["planted"].is_not_null().any()),
    }
