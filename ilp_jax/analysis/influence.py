"""Who erased whom: which rows were lost, the strongest of their erasers, and the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from rich.console import Group
from rich.text import Text

from ilp_jax.analysis.retention import own_stages
from ilp_jax.analysis.titled import titled
from ilp_jax.analysis.unlearned import DEFAULT, by_default
from ilp_jax.data.order import keyed_order
from ilp_jax.errors import UserError

POINT = "final"
SHOWN = "preconditioned"
"""The method of the pairs that are shown: the updates were those of AdamW."""
_TEXT = 44  # characters of a row's text in the terminal


def lost(diagnosis: pl.DataFrame, plan: pl.DataFrame, detector: str) -> pl.DataFrame:
    """Rows that were learned at the end of the last stage that trains them, and then lost.

    Args:
      diagnosis: ``diagnosis.parquet``.
      plan: ``plan.parquet``.
      detector: whose verdicts count, or ``default``.

    Returns:
      ``example_id`` and ``stage`` (its last), sorted by both.

    Raises:
      UserError: the detector has no verdict at ``final`` or at the end of an earlier stage.
    """
    columns = ("example_id", "point", "detector", "unlearned")
    found = diagnosis.select(columns).unique()
    found = by_default(found) if detector == DEFAULT else found
    found = found.filter(pl.col("detector") == detector).drop_nulls("unlearned")
    own = own_stages(plan)
    last = plan["stage"].max()
    ends = [f"stage_{stage}" for stage in sorted(set(plan["stage"]) - {last})]
    asked = set(found["point"])
    absent = [point for point in (*ends, POINT) if point not in asked]
    if absent or not ends:
        raise UserError(
            "config.influence.detector" if absent else "config.sequence",
            f"diagnosis.parquet has no verdict of {detector!r} at {' and '.join(absent)}"
            if absent
            else "a run of one stage has no later stage that could erase anything",
            "name a detector that has, or a run with 'stage' and 'final' in detect.points"
            if absent
            else "",
        )
    at_end = found.filter(pl.col("point") == POINT, pl.col("unlearned")).select("example_id")
    learned = found.filter(~pl.col("unlearned")).join(own, on="example_id")
    learned = learned.filter(pl.col("point") == "stage_" + pl.col("stage").cast(pl.String))
    kept = learned.filter(pl.col("stage") < last).join(at_end, on="example_id")
    return kept.select("example_id", "stage").sort("stage", "example_id")


def choose(rows: pl.DataFrame, n: int, seed: int) -> pl.DataFrame:
    """A random part of the lost rows; a larger n only adds rows.

    Args:
      rows: see `lost`.
      n: how many, 0 for all.
      seed: of the choice.

    Returns:
      Rows of the same table, in its order.
    """
    ids = rows["example_id"].to_list()
    chosen = [ids[i] for i in keyed_order(ids, seed, "influence")][: n or None]
    return rows.filter(pl.col("example_id").is_in(chosen))


def strongest(
    score: Mapping[str, np.ndarray],
    step: Mapping[str, np.ndarray],
    lost_indices: np.ndarray,
    example_ids: np.ndarray,
    top: int,
) -> pl.DataFrame:
    """The rows of ``influence.parquet``.

    Args:
      score: by method, float64 [Z + 1, n_examples]; the last row is all lost rows together.
      step: by method, int64 of that shape, see ``train.influence.Totals``.
      lost_indices: int32 [Z], the lost rows.
      example_ids: int64 [n_examples].
      top: erasers kept of each lost row and method; scores above 0 alone are kept.

    Returns:
      The columns of ``INFLUENCE_SCHEMA``: by lost row (all together last), then method, then
      score, largest first.
    """
    ids: list[int | None] = [*example_ids[lost_indices].tolist(), None]
    out: dict[str, list[Any]] = {
        name: [] for name in ("example_id", "eraser_id", "step", "method", "score")
    }
    for z in sorted(range(len(ids)), key=lambda z: (ids[z] is None, ids[z] or 0)):
        for method in sorted(score):
            scores = score[method][z]
            # By id where two are equal, so that the order does not hang on the data's.
            order = np.lexsort((example_ids, -scores))[:top]
            for e in order[scores[order] > 0].tolist():
                out["example_id"].append(ids[z])
                out["eraser_id"].append(int(example_ids[e]))
                out["step"].append(int(step[method][z, e]))
                out["method"].append(method)
                out["score"].append(float(scores[e]))
    kinds = {
        "example_id": pl.Int64,
        "eraser_id": pl.Int64,
        "step": pl.Int64,
        "method": pl.String,
        "score": pl.Float64,
    }
    return pl.DataFrame(out, schema=kinds)


def pairs(
    rows: pl.DataFrame, examples: pl.DataFrame, n: int, method: str = SHOWN
) -> list[dict[str, Any]]:
    """The strongest pairs of a lost row and its eraser, with their texts.

    Args:
      rows: ``influence.parquet``.
      examples: ``examples.parquet``.
      n: how many.
      method: of the scores.

    Returns:
      One dict a pair, strongest first: ``example_id``, ``eraser_id``, ``score``, ``step``, and
      ``prompt``, ``response``, ``eraser_prompt``, ``eraser_response``.
    """
    texts = examples.select("example_id", "prompt", "response")
    return (
        rows.filter(pl.col("method") == method, pl.col("example_id").is_not_null())
        .sort("score", "example_id", "eraser_id", descending=[True, False, False])
        .head(n)
        .join(texts, on="example_id", how="left", maintain_order="left")
        .join(
            texts.rename(lambda name: "eraser_" + name.replace("example_", "")),
            on="eraser_id",
            how="left",
            maintain_order="left",
        )
        .to_dicts()
    )


def render(rows: pl.DataFrame, examples: pl.DataFrame, settings: Mapping[str, str]) -> Group:
    """The table that ``ilp influence`` ends with.

    Args:
      rows: ``influence.parquet``.
      examples: ``examples.parquet``.
      settings: its metadata.
    """
    told = [
        f"{settings['n_followed']} of {settings['n_lost']} rows that were learned at the end of "
        f"their last stage and unlearned at {POINT} (detector {settings['detector']}, seed "
        f"{settings['seed']}) were followed through the later stages, every "
        f"{settings['every_updates']} updates.",
        "To first order, and as if AdamW's momentum were spent at once: a hypothesis until the "
        "accused are left out.",
        f"The training that was followed ended {settings['largest_difference']} away from the "
        "run's own (largest difference of a parameter; 0: the same bits).",
    ]
    shown = pairs(rows, examples, 10)
    if not shown:
        return Group(*(Text(line) for line in told[:1]), Text("No later row raised their loss."))
    table = titled("Who erased whom: the strongest pairs (preconditioned)")
    for name in ("lost row", "erased by", "rise, nats", "update"):
        right = name in ("rise, nats", "update")
        table.add_column(name, justify="right" if right else "left")
    for pair in shown:
        table.add_row(
            _text(pair["prompt"], pair["response"]),
            _text(pair["eraser_prompt"], pair["eraser_response"]),
            f"{pair['score']:.3f}",
            str(pair["step"]),
        )
    return Group(table, *(Text(line) for line in told))


def _text(prompt: str, response: str) -> Text:
    """A row in one line, the prompt's end and the response; nothing in it is markup."""
    one = " ".join(f"{prompt} -> {response}".split())
    one = "".join(c if c.isprintable() else "?" for c in one)
    return Text(one if len(one) <= _TEXT else "..." + one[3 - _TEXT :])


def shares(rows: pl.DataFrame, ids: Sequence[int]) -> pl.DataFrame:
    """Each eraser's scores, added up over given lost rows.

    Args:
      rows: ``influence.parquet``.
      ids: the lost rows.

    Returns:
      ``eraser_id``, ``method`` and ``score``, largest first. An eraser counts only where it is
      among the strongest of a lost row.
    """
    own = rows.filter(pl.col("example_id").is_in(list(ids)))
    total = own.group_by("eraser_id", "method").agg(pl.col("score").sum())
    return total.sort("score", "eraser_id", descending=[True, False])
