"""Who erased whom: each later update's part in the loss of rows that were learned, then lost.

To first order, an update changes the mean loss l_z of a lost row z by the product of its
gradient with the change of the parameters, and that change is a sum over the rows e of the
batch. With the rate, e's weight w_e in the batch loss, and gradients before the update:

    raw             -rate w_e <grad l_z, grad l_e>
    preconditioned  -rate w_e c <grad l_z, grad l_e / (sqrt(v) + eps)>

``raw`` is the rise that e would cause in plain gradient descent (TracIn, Pruthi et al. 2020,
arXiv:2002.08484, taken at every update); ``preconditioned`` what AdamW makes of it: c is the
factor of clipping, v the second moment with this update's gradient, corrected for its start.
AdamW's first moment spreads a gradient over later updates, with weights that add up to about
one; here all of it counts at its own update. Weight decay is no row's doing.

A run keeps its newest checkpoint alone, so it is trained again from its base: data order and
updates are functions of the config, and the end is compared with the run's own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from etils import epath
from ml_collections import ConfigDict
from rich.console import Group

from ilp_jax import progress
from ilp_jax.analysis import influence as analysis
from ilp_jax.data.batches import BatchMeta
from ilp_jax.models.lora import Adapted
from ilp_jax.stats.influence import METHODS, computed_with, read_influence, write_influence
from ilp_jax.stats.reader import read_diagnosis, read_examples, read_plan
from ilp_jax.train import loop
from ilp_jax.train.row_products import Scorer, parts_of
from ilp_jax.train.schedule import places, total_steps
from ilp_jax.train.step import TrainState

if TYPE_CHECKING:
    from ilp_jax.workspace import Workspace

DIFFERENCE = "largest_difference"
"""Metadata: the largest difference between a parameter at the end of the training that was
followed and at the end of the run."""


def influence(ws: Workspace, load_base: Callable[[], Any], load_final: Callable[[], Any]) -> Group:
    """Follows the run's lost rows through a second training; writes ``influence.parquet``.

    What is there already from the same settings is not computed again. A call that is killed
    leaves nothing behind.

    Args:
      ws: the run's workspace.
      load_base: gives the base parameters on the device, which are consumed.
      load_final: gives the run's final parameters on the device.

    Returns:
      The table of the strongest pairs.

    Raises:
      UserError: the detector asked for has no verdicts at the ends of stages and of the run.
      RunFailure: a score is not finite, or the disk is full.
    """
    settings, lost = ready(ws.config, ws.workdir)
    stored = computed_with(ws.workdir)
    if any(stored.get(name) != value for name, value in settings.items()):
        place = {one: index for index, one in enumerate(ws.data.example_ids.tolist())}
        groups = {
            stage: [place[one] for one in lost.filter(pl.col("stage") == stage)["example_id"]]
            for stage in sorted(lost["stage"].unique())
        }
        totals, difference = Totals({}, len(ws.data.examples)), 0.0
        if groups:
            totals, state = follow(ws, loop.start(ws, load_base), groups)
            difference = _difference(state.params, load_final())
        rows = analysis.strongest(
            totals.score, totals.step, totals.indices, ws.data.example_ids, ws.config.influence.top
        )
        stored = settings | {DIFFERENCE: f"{difference:.3g}"}
        write_influence(ws.workdir, rows, stored)
    rows = read_influence(ws.workdir)
    return analysis.render(rows, read_examples(ws.workdir), stored)


class Totals:
    """Sums over updates of every lost row's scores, and of all lost rows together.

    Attributes:
      indices: int32 [Z], the lost rows, indices into the data's examples.
      score: by method, float64 [Z + 1, n_examples]; the last row is all lost rows together.
      step: by method, int64 of that shape: the update with the largest part in the score, 0
        where there was none.
    """

    def __init__(self, groups: Mapping[int, list[int]], n_examples: int):
        self.indices = np.array([i for rows in groups.values() for i in rows], np.int32)
        shape = (len(self.indices) + 1, n_examples)
        self.score = {method: np.zeros(shape) for method in METHODS}
        self.step = {method: np.zeros(shape, np.int64) for method in METHODS}
        self._largest = {method: np.zeros(shape) for method in METHODS}

    def add(self, step: int, meta: BatchMeta, scores: Mapping[str, np.ndarray]) -> None:
        """Adds an update's scores.

        Args:
          step: the update.
          meta: the rows of its batch.
          scores: by method, float64 [Z, B]; 0 where the lost row's last stage is not over.
        """
        # A batch may visit an example twice.
        visited, place = np.unique(meta.example_index_B[: meta.n_real], return_inverse=True)
        for method in METHODS:
            own = np.zeros((len(visited), len(self.indices)))
            np.add.at(own, place, scores[method][:, : meta.n_real].T)
            own = np.vstack([own.T, own.sum(axis=1)])
            self.score[method][:, visited] += own
            larger = own > self._largest[method][:, visited]
            for array, values in ((self._largest, own), (self.step, step)):
                part = array[method][:, visited]
                array[method][:, visited] = np.where(larger, values, part)


def follow(
    ws: Workspace, start: tuple[TrainState, Any], groups: Mapping[int, list[int]]
) -> tuple[Totals, TrainState]:
    """Trains as the run did, and scores the rows of every update after a lost row's last stage.

    Args:
      ws: the run's workspace.
      start: the state before the first update, which is consumed, and the frozen base.
      groups: last stage -> the lost rows of that stage, indices into ``ws.data.examples``.

    Returns:
      The sums, and the state after the last update.

    Raises:
      RunFailure: a score is not finite.
    """
    (state, base), train = start, ws.config.train
    totals = Totals(groups, len(ws.data.examples))
    scorer = Scorer(ws, base, groups, parts_of(ws, state.params))
    every, first = ws.config.influence.every_updates, min(groups)
    total, looked_at = total_steps(ws.data, train.batch_size), 0
    with progress.bar("influence", total=total) as bar:
        for place in places(ws.data, train.batch_size):
            state = loop.at_stage_start(ws, state, place)
            rows, meta = loop.batch_of(ws, place)
            waiting = None
            if place.stage.index > first:
                if looked_at % every == 0:
                    waiting = scorer.dispatch(state, rows, place)
                looked_at += 1
            state, _ = loop.update(ws, state, base, place, rows, meta)
            if waiting is not None:
                totals.add(place.step, meta, scorer.fetch(waiting, place))
            bar.advance(1, text=f"{place.stage.name} epoch {place.epoch}")
    return totals, state


def ready(config: ConfigDict, workdir: epath.Path) -> tuple[dict[str, str], pl.DataFrame]:
    """What is asked for; called before anything is written, too.

    Args:
      config: the resolved config.
      workdir: the run's folder.

    Returns:
      The metadata and the lost rows to follow: ``example_id`` and ``stage``, their last.

    Raises:
      UserError: see ``influence``.
    """
    own = config.influence
    lost = analysis.lost(read_diagnosis(workdir), read_plan(workdir), own.detector)
    chosen = analysis.choose(lost, own.n_lost, own.seed)
    ids = json.dumps(chosen["example_id"].to_list())
    settings = {
        "detector": own.detector,
        "n_lost": str(len(lost)),
        "n_followed": str(len(chosen)),
        "followed": hashlib.sha256(ids.encode()).hexdigest()[:16],
        "every_updates": str(own.every_updates),
        "top": str(own.top),
        "seed": str(own.seed),
        "updated": "LoRA adapters" if config.lora.rank else "all parameters",
    }
    return settings, chosen


def _difference(trained: Any, final: Any) -> float:
    """The largest absolute difference between two sets of parameters."""
    final = final.adapters if isinstance(final, Adapted) else final
    most = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), trained, final)
    return float(max(jax.tree.leaves(jax.device_get(most))))
