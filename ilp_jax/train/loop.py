"""The training loop: updates in order, statistics one step behind, milestones, checkpoints.

What happens after update s happens in this order, so that a checkpoint of s promises all of
it: rows of s, then at an epoch's end its milestones (``milestones``), then everything on
disk, then the checkpoint. A restore at s deletes what is later and computes it again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ilp_jax import progress
from ilp_jax.data.batches import BatchMeta, RowBatch, train_batch
from ilp_jax.data.study import Stage
from ilp_jax.errors import Stopped
from ilp_jax.mesh import processes
from ilp_jax.mesh.layout import Layout, constrained
from ilp_jax.mesh.rows import fetch_own, put
from ilp_jax.models.lora import COLLECTION, Adapted
from ilp_jax.stats import shards
from ilp_jax.stats.inference import discard_inference_after
from ilp_jax.stats.writer import StatsWriter, compact, discard_after
from ilp_jax.train.checkpoint import BestCheckpoint, Checkpoints
from ilp_jax.train.metrics import MetricsLog, batch_loss
from ilp_jax.train.milestones import Milestones
from ilp_jax.train.optim import learning_rate, renewed
from ilp_jax.train.probe import columns_of
from ilp_jax.train.schedule import Place, places, total_steps
from ilp_jax.train.step import TrainState, in_microbatches, init_state

if TYPE_CHECKING:
    from ilp_jax.workspace import Workspace

_STEPS_BETWEEN_LOOKS = 16
STATS, CHECKPOINTS, BEST = "stats", "checkpoints/state", "checkpoints/best"


def train(ws: Workspace, load_base: Any) -> Any:
    """Trains every stage in sequence, or goes on where a killed run stopped.

    Args:
      ws: the run's workspace.
      load_base: a function without arguments that gives the base parameters on the device;
        called where they are needed: without a checkpoint to go on from, and under
        adapters. Without adapters they are consumed.

    Returns:
      The final parameters on the device, ``Adapted`` where adapters were trained.

    Raises:
      RunFailure: a loss or norm is not finite, or the disk is full. Rows and checkpoints
        from before are kept.
    """
    checkpoints = Checkpoints(ws.workdir / CHECKPOINTS, ws.config.checkpoint.keep)
    best = BestCheckpoint(ws.workdir / BEST)
    # Closed whatever happens, so that a notebook may call again after an interruption.
    with contextlib.closing(checkpoints), contextlib.closing(best):
        params = _train(ws, load_base, checkpoints, best)
    compact_stats(ws, "train")
    return params


def _train(ws: Workspace, load_base: Any, checkpoints: Checkpoints, best: BestCheckpoint) -> Any:
    config = ws.config
    state, base, start = restore_or_start(ws, checkpoints, load_base)
    # Without a checkpoint even update 0's rows of this phase are computed again.
    kept = start if start else -1
    processes.on_first(lambda: _discard_after(ws, kept))
    best.discard_after(kept)

    total = total_steps(ws.data, config.train.batch_size)
    with (
        stats_writer(ws, "train") as writer,
        MetricsLog(ws.workdir, resume_step=start, enabled=processes.is_first()) as metrics,
        progress.bar("train", total=total, done=start) as bar,
        processes.stoppable() as stop,
    ):
        milestones = Milestones(ws, writer, metrics, best, start)
        saved_at = time.monotonic()
        pending: _Pending | None = None
        for place in places(ws.data, config.train.batch_size, after=start):
            state = at_stage_start(ws, state, place)
            state, dispatched = dispatch(ws, state, base, place)
            if pending is not None:
                record(ws, pending, writer, metrics, bar)
            pending = dispatched
            stopped = stop.at(place.step)
            due = stopped or checkpoint_due(ws, place, _minutes_since(saved_at, place))
            if place.ends_epoch or due:
                record(ws, pending, writer, metrics, bar)
                pending = None
            if place.ends_epoch:
                milestones.pass_epoch(place, with_base(state.params, base), bar)
            if due:
                writer.flush()
                checkpoints.save(place.step, state)
                saved_at = time.monotonic()
            if stopped and place.step < total:
                checkpoints.wait()
                raise Stopped(place.step, total)
        checkpoints.wait()
        best.wait()
    return with_base(state.params, base)


def _discard_after(ws: Workspace, step: int) -> None:
    discard_after(ws.workdir / STATS, step)
    discard_inference_after(ws.workdir, step)


def _minutes_since(saved_at: float, place: Place) -> float:
    """Minutes since the last checkpoint, the same in every process.

    Several look at the first one's clock, and not after every update: they would have to wait.
    """
    if processes.count() == 1:
        return (time.monotonic() - saved_at) / 60
    if place.step % _STEPS_BETWEEN_LOOKS:
        return 0.0
    return processes.on_first(lambda: (time.monotonic() - saved_at) / 60)


def stats_writer(ws: Workspace, prefix: str) -> StatsWriter:
    """A writer of this process's rows of a phase."""
    return StatsWriter(ws.workdir / STATS, prefix, processes.index(), norms_of(ws))


def compact_stats(ws: Workspace, prefix: str) -> None:
    """Merges a phase's shards, each process its own; those of processes that are no more, too."""
    folder, n = ws.workdir / STATS, processes.count()
    processes.exchange("written")  # before anybody looks at what there is
    hosts = {shard.host for shard, _ in shards.find(folder, prefix)}
    for host in sorted(hosts):
        if host % n == processes.index():
            compact(folder, prefix, host)
    processes.exchange("merged")


def restore_or_start(
    ws: Workspace, checkpoints: Checkpoints, load_base: Any
) -> tuple[TrainState, Any, int]:
    """The newest readable checkpoint's state or the start's, the frozen base, the step.

    The base is None where all parameters are trained: then the state holds them.
    """
    newest = checkpoints.latest_step()
    if newest is None:
        return *start(ws, load_base), 0
    base = None if ws.decoder.lora is None else load_base()
    step, state = checkpoints.restore(newest, abstract_state(ws))
    return state, base, step


def start(ws: Workspace, load_base: Any) -> tuple[TrainState, Any]:
    """The state before the first update, and the frozen base (None: all is trained)."""
    make = jax.jit(_first_state, static_argnums=(1, 2), donate_argnums=0)
    base = load_base()
    if ws.decoder.lora is None:
        return make(base, ws.optimizer, ws.layout), None
    return make(_first_adapters(ws), ws.optimizer, ws.layout), base


def _first_state(params: Any, optimizer: Any, layout: Layout | None) -> TrainState:
    return constrained(layout, init_state(params, optimizer))


def with_base(trained: Any, base: Any) -> Any:
    """A model's parameters from what is trained and what is frozen (None: nothing is)."""
    return trained if base is None else Adapted(base, trained)


def at_start(ws: Workspace, base: Any) -> Any:
    """The parameters before the first update: the base's, with new adapters if there are any."""
    return base if ws.decoder.lora is None else Adapted(base, _first_adapters(ws))


def norms_of(ws: Workspace) -> dict[str, str]:
    """What the statistics' metadata says of their gradient norms."""
    return {"grad_norm_of": "all parameters" if ws.decoder.lora is None else "LoRA adapters"}


def _first_adapters(ws: Workspace) -> Any:
    row = np.zeros((1, 1), np.int32)

    # Jitted, so that the base's initial values, which nobody asks for, are never computed.
    def init(key):
        return constrained(ws.layout, ws.decoder.init(key, row, row, row)[COLLECTION])

    return jax.jit(init)(jax.random.key(ws.config.seed))


def abstract_state(ws: Workspace) -> TrainState:
    """Shapes of the training state and where they lie, without its values."""
    row = jax.ShapeDtypeStruct((1, 1), np.int32)
    variables = jax.eval_shape(ws.decoder.init, jax.random.key(0), row, row, row)
    trained = variables["params" if ws.decoder.lora is None else COLLECTION]
    shapes = jax.eval_shape(lambda params: init_state(params, ws.optimizer), trained)
    if ws.layout is None:
        device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        places = jax.tree.map(lambda leaf: device, shapes)
    else:
        places = ws.layout.shardings(shapes)
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        places,
    )


def at_stage_start(ws: Workspace, state: TrainState, place: Place) -> TrainState:
    """Fresh optimiser moments where a stage begins and asks for them."""
    if place.step_in_stage or place.stage.config.optimizer_state == "keep" or place.step == 1:
        return state
    renew = jax.jit(_renewed, static_argnums=(0, 1))
    return state.replace(opt_state=renew(ws.optimizer, ws.layout, state.opt_state, state.params))


def _renewed(optimizer: Any, layout: Layout | None, opt_state: Any, params: Any) -> Any:
    return constrained(layout, renewed(optimizer, opt_state, params))


@dataclasses.dataclass(frozen=True)
class _Pending:
    """An update that has been dispatched and whose statistics are still on the device."""

    place: Place
    meta: BatchMeta
    rate: float
    stats: dict[str, jax.Array]


def dispatch(
    ws: Workspace, state: TrainState, base: Any, place: Place
) -> tuple[TrainState, _Pending]:
    """Starts one update; returns without waiting for it. The state given is consumed."""
    return update(ws, state, base, place, *batch_of(ws, place))


def batch_of(ws: Workspace, place: Place) -> tuple[RowBatch, BatchMeta]:
    """The rows of an update, on the host."""
    return train_batch(
        ws.data,
        place.stage,
        order_seed(ws, place.stage),
        place.epoch,
        place.batch_index,
        ws.config.train.batch_size,
        ws.config.length_buckets,
    )


def rate_of(place: Place) -> float:
    """An update's learning rate."""
    before, total = place.stage.cycle or (0, place.steps_in_stage)
    return learning_rate(place.stage.config, before + place.step_in_stage, total)


def update(
    ws: Workspace, state: TrainState, base: Any, place: Place, rows: RowBatch, meta: BatchMeta
) -> tuple[TrainState, _Pending]:
    """Starts the update of a place with given rows; see ``dispatch``."""
    train, rate = ws.config.train, rate_of(place)
    with_norms = bool(train.norms_every) and (place.step - 1) % train.norms_every == 0
    with jax.transfer_guard("disallow"):
        state, stats = ws.programs.train[with_norms](
            state,
            in_microbatches(rows, train.microbatches, ws.place),
            put(np.float32(rate), ws.place.whole),
            base,
        )
    return state, _Pending(place, meta, rate, stats)


def order_seed(ws: Workspace, stage: Stage) -> int:
    """Seed of a stage's data order."""
    return ws.config.seed + stage.config.seed_offset


def record(
    ws: Workspace, pending: _Pending, writer: StatsWriter, metrics: MetricsLog, bar: Any
) -> None:
    """Fetches an update's statistics and hands them to the writer and the log."""
    place = pending.place
    rows, stats = fetch_own(pending.stats)
    columns = columns_of(
        ws,
        stats,
        pending.meta,
        rows,
        step=place.step,
        batch_index=place.batch_index,
        n_parts=ws.config.train.microbatches,
    )
    columns |= {
        "kind": "train",
        "stage": place.stage.index,
        "epoch": place.epoch,
        "visit": pending.meta.visit_B[rows[rows < pending.meta.n_real]],
        "learning_rate": pending.rate,
    }
    writer.append(place.step, columns)
    if not processes.is_first():
        return
    # Of several processes the first speaks for its own rows: nobody waits for the others'.
    normalised = ws.config.train.loss_normalization
    loss = batch_loss(columns["loss_sum"], columns["n_tokens"], normalised)
    scalars = {"loss": loss, "learning_rate": pending.rate}
    if "grad_norm" in columns:
        scalars["grad_norm_mean"] = float(np.mean(columns["grad_norm"]))
        scalars["grad_norm_max"] = float(np.max(columns["grad_norm"]))
    metrics.log(place.step, stage=place.stage.index, epoch=place.epoch, **scalars)
    bar.advance(1, text=f"{place.stage.name} epoch {place.epoch}  loss {loss:.3f}")


def checkpoint_due(ws: Workspace, place: Place, minutes_since_last: float) -> bool:
    """Whether a checkpoint follows this update: by count, by time, and at stage ends."""
    settings = ws.config.checkpoint
    return (
        place.ends_stage
        or (settings.every_steps > 0 and place.step % settings.every_steps == 0)
        or (0 < settings.every_minutes <= minutes_since_last)
    )
