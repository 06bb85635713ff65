"""What happens at the ends of epochs: probes, convergence, held-out loss, points of detection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from ilp_jax.data.study import Stage, StudyData
from ilp_jax.detect.points import ask_points
from ilp_jax.mesh import processes
from ilp_jax.stats.inference import put_inference
from ilp_jax.stats.reader import read_stats
from ilp_jax.stats.writer import StatsWriter
from ilp_jax.train.checkpoint import BestCheckpoint
from ilp_jax.train.convergence import converged_epoch
from ilp_jax.train.metrics import MetricsLog
from ilp_jax.train.optim import learning_rate
from ilp_jax.train.probe import mean_loss, probe
from ilp_jax.train.schedule import Place

if TYPE_CHECKING:
    from ilp_jax.workspace import Workspace


class Milestones:
    """Runs the milestones of a training, from its start or from a checkpoint.

    The only state is the probe losses so far, which are read back from the statistics on
    disk, so that nothing of it needs to be in a checkpoint.

    Args:
      ws: the run's workspace.
      writer: takes the probes' rows.
      metrics: takes the probes' means.
      best: keeps the parameters with the lowest held-out loss.
      start: updates done before.
    """

    def __init__(
        self,
        ws: Workspace,
        writer: StatsWriter,
        metrics: MetricsLog,
        best: BestCheckpoint,
        start: int,
    ):
        self._ws, self._writer, self._metrics, self._best = ws, writer, metrics, best
        self._losses = _probe_losses(ws, start)

    def pass_epoch(self, place: Place, params: Any, bar: Any) -> None:
        """Does all that is due after an epoch's last update.

        Args:
          place: that update.
          params: the parameters after it.
          bar: the training's progress bar, whose text says what is going on.
        """
        settings = self._ws.config.probe
        is_due = place.epoch % settings.every_epochs == 0 or place.ends_stage
        if is_due and settings.rows != "none":
            bar.advance(0, text=f"{place.stage.name} epoch {place.epoch}  probing")
            self._probe(place, params)
        points = self._points(place)
        if points:
            bar.advance(0, text=f"{place.stage.name} epoch {place.epoch}  asking")
            self._ask(place, params, points)

    def _probe(self, place: Place, params: Any) -> None:
        ws, settings = self._ws, self._ws.config.probe
        norms_at = "stage_end" if place.ends_stage else "epoch"
        trained = _all_trained(ws) if place.ends_stage or settings.rows == "all" else []
        batches = probe(
            ws,
            params,
            np.union1d(np.union1d(place.stage.rows, trained), _held_out(ws)).astype(int),
            with_norms=norms_at in settings.norms_at,
            stage=place.stage.index,
            epoch=place.epoch,
            step=place.step,
        )
        for columns in batches:
            self._writer.append(place.step, columns)
        ids = ws.data.example_ids

        def mean(rows: np.ndarray) -> float:
            return mean_loss(batches, ids[rows], shared=True)

        self._losses[place.stage.index, place.epoch] = mean(place.stage.rows)
        if place.ends_stage and place.stage.index < len(ws.data.stages):
            following = ws.data.stages[place.stage.index]
            self._losses[following.index, 0] = mean(following.rows)
        scalars = {"probe_loss": self._losses[place.stage.index, place.epoch]}
        held_out = mean(_held_out(ws))
        if np.isfinite(held_out):
            scalars["held_out_loss"] = held_out
        self._metrics.log(
            place.step, stage=place.stage.index, epoch=place.epoch, event="probe", **scalars
        )
        if np.isfinite(held_out) and ws.config.checkpoint.best:
            self._best.offer(place.step, params, held_out)

    def _points(self, place: Place) -> dict[str, np.ndarray]:
        """Points reached at this epoch's end, with the examples to ask at each."""
        wanted, stage = self._ws.config.detect.points, place.stage
        points = {}
        if f"epoch_{place.epoch}" in wanted:
            points[f"epoch_{place.epoch}"] = own_rows(self._ws.data, stage)
        name = f"stage_{stage.index}"
        if place.ends_stage and ("stage" in wanted or name in wanted):
            points[name] = np.arange(len(self._ws.data.examples))
        if "converged" in wanted and stage_converged(self._ws, stage, self._losses) == place.epoch:
            points["converged"] = own_rows(self._ws.data, stage)
        return {point: rows for point, rows in points.items() if len(rows)}

    def _ask(self, place: Place, params: Any, points: dict[str, np.ndarray]) -> None:
        found = ask_points(
            self._ws,
            params,
            points,
            stage=place.stage.index,
            epoch=place.epoch,
            step=place.step,
        )
        if processes.is_first():
            for point, rows in found.items():
                put_inference(self._ws.workdir, point, rows, place.step)


def own_rows(data: StudyData, stage: Stage) -> np.ndarray:
    """Rows whose own stage this is: the first that trains on them. int32.

    So that a row of several stages stands once at ``epoch_K`` and at ``converged``.

    Args:
      data: the study.
      stage: one of its stages.
    """
    earlier = [one.rows for one in data.stages[: stage.index - 1]]
    return stage.rows[~np.isin(stage.rows, np.concatenate(earlier or [stage.rows[:0]]))]


def stage_converged(
    ws: Workspace, stage: Stage, losses: dict[tuple[int, int], float]
) -> int | None:
    """The epoch at which a stage converged, by the probes so far; see ``convergence``.

    Args:
      ws: the run's workspace.
      stage: the stage.
      losses: mean probe loss by (stage, epoch), epoch 0 being the stage's start.
    """
    by_epoch = {e: loss for (index, e), loss in losses.items() if index == stage.index and e}
    start = losses.get((stage.index, 0))
    if start is None or not by_epoch:
        return None
    n_steps = stage.epochs * -(-stage.n_visits // ws.config.train.batch_size)
    last = {e: e * n_steps // stage.epochs - 1 for e in by_epoch}
    rates = {e: learning_rate(stage.config, last[e], n_steps) for e in by_epoch}
    return converged_epoch(
        start, by_epoch, rates, stage.config.learning_rate, ws.config.convergence
    )


def _probe_losses(ws: Workspace, start: int) -> dict[tuple[int, int], float]:
    """Mean probe loss of each stage's rows so far, from the statistics on disk."""
    probes = (
        read_stats(ws.workdir, ("loss_sum", "n_tokens"), "probe")
        .filter(pl.col("step") <= start)
        .select("example_id", "stage", "epoch", "step", "loss_sum", "n_tokens")
    )
    losses: dict[tuple[int, int], float] = {}
    for (stage_index, epoch), rows in probes.group_by("stage", "epoch"):
        columns = [{name: rows[name].to_numpy() for name in rows.columns}]
        stages = ws.data.stages
        if stage_index:
            ids = ws.data.example_ids[stages[stage_index - 1].rows]
            losses[stage_index, epoch] = mean_loss(columns, ids)
        ended = stage_index == 0 or epoch == stages[stage_index - 1].epochs
        if ended and stage_index < len(stages):
            following = ws.data.example_ids[stages[stage_index].rows]
            losses[stage_index + 1, 0] = mean_loss(columns, following)
    return losses


def _all_trained(ws: Workspace) -> np.ndarray:
    return np.unique(np.concatenate([stage.rows for stage in ws.data.stages]))


def _held_out(ws: Workspace) -> np.ndarray:
    return np.unique(np.concatenate([stage.held_out for stage in ws.data.stages]))
