"""The later stages again without some rows: does what was lost stay?

A score of influence is a first-order account of one training. This is the check: the stages
after one are trained again from its end, each time with other rows left out, and the lost rows
are asked at the end. A row that is left out stays in its batch with no target, so that every
other row meets the same updates in the same order at the same rates; the batch loss is then
the mean over the rows that are left.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import polars as pl

from ilp_jax import progress
from ilp_jax.data.batches import BatchMeta, RowBatch, probe_batches
from ilp_jax.errors import RunFailure
from ilp_jax.mesh.rows import fetch_own
from ilp_jax.train import loop
from ilp_jax.train.schedule import places
from ilp_jax.train.step import TrainState, in_microbatches

if TYPE_CHECKING:
    from ilp_jax.workspace import Workspace


def leave_out(
    ws: Workspace,
    start: tuple[TrainState, Any],
    lost: Sequence[int],
    after: int,
    arms: Mapping[str, Collection[int]],
) -> pl.DataFrame:
    """Trains the stages after one once for every arm; writes nothing.

    Args:
      ws: the run's workspace.
      start: the state before the run's first update, which is consumed, and the frozen base
        (``loop.start``).
      lost: the rows to ask, indices into ``ws.data.examples``.
      after: the stage at whose end the arms part.
      arms: name -> example ids that its later stages leave out; none of them leaves nothing
        out and ends where the run did.

    Returns:
      One row a lost row and arm, in the order of the arms: ``arm``, ``example_id``, ``loss``
      (nats a token) and ``correct`` (exact match) at the end, and both at the end of the
      stage, ``loss_before`` and ``correct_before``.

    Raises:
      RunFailure: a loss is not finite.
    """
    state, base = start
    size = ws.config.train.batch_size
    order = list(places(ws.data, size))
    before = [place for place in order if place.stage.index <= after]
    later = order[len(before) :]
    out = []
    with progress.bar("leave out", total=len(before) + len(arms) * len(later)) as bar:
        for place in before:
            state = _update(ws, state, base, place, ())
            bar.advance(1, text=place.stage.name)
        lie = jax.tree.map(lambda leaf: leaf.sharding, state)
        kept, at_start = jax.device_get(state), _ask(ws, loop.with_base(state.params, base), lost)
        for name, left_out in arms.items():
            state = jax.device_put(kept, lie)
            for place in later:
                state = _update(ws, state, base, place, left_out)
                bar.advance(1, text=f"{name}: {place.stage.name}")
            asked = _ask(ws, loop.with_base(state.params, base), lost)
            out.append(
                asked.join(at_start, on="example_id", suffix="_before").with_columns(
                    arm=pl.lit(name)
                )
            )
    return pl.concat(out).select(
        "arm", "example_id", "loss", "correct", "loss_before", "correct_before"
    )


def without(rows: RowBatch, meta: BatchMeta, left_out: Collection[int]) -> RowBatch:
    """A batch in which some rows have no target, and so no weight.

    Args:
      rows: arrays [B, ...].
      meta: which example each row is.
      left_out: example ids.
    """
    stays_B = ~np.isin(meta.example_id_B, np.array(sorted(left_out), np.int64))
    return rows._replace(target_mask_BxR=rows.target_mask_BxR * stays_B[:, None])


def _update(ws: Workspace, state: TrainState, base: Any, place: Any, left_out) -> TrainState:
    state = loop.at_stage_start(ws, state, place)
    rows, meta = loop.batch_of(ws, place)
    return loop.update(ws, state, base, place, without(rows, meta, left_out), meta)[0]


def _ask(ws: Workspace, params: Any, indices: Sequence[int]) -> pl.DataFrame:
    parts = []
    size = ws.place.batch_size(ws.config.probe.batch_size)
    for rows, meta in probe_batches(ws.data, indices, size, ws.config.length_buckets):
        _, stats = fetch_own(ws.programs.probe[False](params, in_microbatches(rows, 1, ws.place)))
        n = meta.n_real
        n_tokens = stats["n_tokens"][:n]
        truncated = [ws.data.tokens[i].truncated for i in meta.example_index_B[:n].tolist()]
        columns = {
            "example_id": meta.example_id_B[:n],
            "loss": stats["loss_sum"][:n].astype(np.float64) / n_tokens,
            "correct": (stats["n_correct"][:n] == n_tokens) & ~np.array(truncated, bool),
        }
        parts.append(pl.DataFrame(columns))
    rows = pl.concat(parts)
    if not rows["loss"].is_finite().all():
        raise RunFailure(ws.workdir, "a loss is not finite with rows left out")
    return rows
