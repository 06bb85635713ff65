"""All that is asked of the model at a moment in training, at which several points may meet."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from ilp_jax.detect.ask import ask
from ilp_jax.detect.choices import ask_choices, questions_at
from ilp_jax.detect.drawn import draw_candidates
from ilp_jax.detect.screen import is_sampled

if TYPE_CHECKING:
    from ilp_jax.workspace import Workspace


def ask_points(
    ws: Workspace,
    params: Any,
    points: Mapping[str, Sequence[int]],
    *,
    stage: int,
    epoch: int,
    step: int,
) -> dict[str, pl.DataFrame]:
    """The answers for every point reached at a moment; what all points ask is asked once.

    Args:
      ws: the run's workspace.
      params: parameters on the device.
      points: by the point's name, indices into ``ws.data.examples``.
      stage: stage in which is asked, 0 for the base model.
      epoch: its epoch, 0 for the base model.
      step: updates done.

    Returns:
      By point, rows for ``put_inference``, by example; see ``ask``, ``drawn`` and ``choices``.
    """
    settings, place = ws.config.detect, {"stage": stage, "epoch": epoch, "step": step}

    def indices_of(wanted: Collection[str]) -> list[int]:
        return sorted({int(i) for point in wanted for i in points[point]})

    def of(wanted: Collection[str], table: pa.Table) -> dict[str, pl.DataFrame]:
        rows, ids = pl.from_arrow(table), ws.data.example_ids
        return {
            point: rows.filter(pl.col("example_id").is_in(ids[list(points[point])].tolist()))
            for point in wanted
        }

    indices = indices_of(points)
    answers = ask(ws, params, indices, **place)
    found = of(points, answers)
    sampled = [point for point in points if is_sampled(settings.sampled_points, point)]
    if sampled:
        asked = indices_of(sampled)
        of_sampled = pa.compute.is_in(answers["example_id"], pa.array(ws.data.example_ids[asked]))
        found |= of(sampled, draw_candidates(ws, params, answers.filter(of_sampled)))
    for point in points:
        questions = questions_at(ws, point, indices_of([point]))
        if questions:
            more = ask_choices(ws, params, questions, **place)
            found[point] = pl.concat([found[point], pl.from_arrow(more)])
    order = pl.DataFrame({"example_id": ws.data.example_ids}).with_row_index("place")
    return {
        point: rows.join(order, on="example_id", how="left", maintain_order="left")
        .sort("place", maintain_order=True)
        .drop("place")
        for point, rows in found.items()
    }
