"""Progressive epochs with early stopping: a stage goes on for as long as its loss falls.

The study's remedy of insufficient training (arXiv:2604.10079, section 4.5), which settles the
length of training for each data set. Each stage is trained as in the run, its learning-rate cycle
whole, and then epoch by epoch at a constant part of its peak rate (``mitigate.further_rate``),
until an epoch lowers the mean loss of its rows by less than ``mitigate.delta`` or
``mitigate.further_epochs`` are done. The study watches a validation set; most runs here have none,
and the question is whether the rows themselves are learned, so their own loss is watched. Nothing
of the diagnosis is used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from ilp_jax import files
from ilp_jax.data.study import Stage
from ilp_jax.mitigate.looks import PARTS, look
from ilp_jax.train import loop
from ilp_jax.workspace import Workspace


def next_stage(
    losses: Sequence[Sequence[float]], n_stages: int, delta: float, most: int
) -> int | None:
    """The stage that is trained next: the last one again, or the one after it.

    Args:
      losses: of each stage so far, the mean loss of its rows in nats a token: after its cycle, and
        after each further epoch.
      n_stages: stages of the run.
      delta: an epoch that lowers the loss by less ends the stage.
      most: further epochs of a stage.

    Returns:
      Its place; None where all is done.
    """
    if not losses:
        return 0
    own = losses[-1]
    improves = len(own) < 2 or own[-2] - own[-1] >= delta
    if improves and len(own) <= most:
        return len(losses) - 1
    return len(losses) if len(losses) < n_stages else None


def train(ws: Workspace, load_base: Callable[[], Any]) -> tuple[Workspace, Any]:
    """Trains stage by stage and epoch by epoch; goes on where it was.

    Args:
      ws: the arm's workspace, with the run's stages.
      load_base: see ``train.loop.train``.

    Returns:
      The workspace with what was trained in the end, and the parameters on the device.

    Raises:
      RunFailure: see ``train.loop.train``.
    """
    settings, path, run = ws.config.mitigate, ws.workdir / PARTS, ws.data
    losses: list[list[float]] = files.read_json(path)["losses"] if path.exists() else []
    limits = (len(run.stages), settings.delta, settings.further_epochs)
    params = None
    while (stage := next_stage(losses, *limits)) is not None:
        stages = _stages(run.stages, losses, settings.further_rate)
        stages.append(_part(run.stages[stage], stages, stage < len(losses), settings.further_rate))
        ws = dataclasses.replace(ws, data=dataclasses.replace(run, stages=tuple(stages)))
        params = loop.train(ws, load_base)
        loss = float(look(ws, params, run.stages[stage].rows)["loss"].mean())
        if stage == len(losses):
            losses.append([])
        losses[stage].append(loss)
        files.write_json(path, {"losses": losses})
    stages = _stages(run.stages, losses, settings.further_rate)
    ws = dataclasses.replace(ws, data=dataclasses.replace(run, stages=tuple(stages)))
    return ws, loop.train(ws, load_base) if params is None else params


def _stages(run: Sequence[Stage], losses: Sequence[Sequence[float]], rate: float) -> list[Stage]:
    """What was trained so far."""
    stages: list[Stage] = []
    for stage, own in zip(run, losses, strict=False):
        for k in range(len(own)):
            stages.append(_part(stage, stages, bool(k), rate))
    return stages


def _part(stage: Stage, before: Sequence[Stage], is_further: bool, rate: float) -> Stage:
    """A stage's whole cycle, or one epoch more of it."""
    fields = stage.config.copy_and_resolve_references()
    if is_further:
        with fields.unlocked():
            fields.epochs, fields.warmup_steps, fields.schedule = 1, 0, "constant"
            fields.learning_rate = stage.config.learning_rate * rate
            fields.optimizer_state = "keep"
    return dataclasses.replace(stage, index=len(before) + 1, config=fields)
