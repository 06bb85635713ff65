"""Probe passes: the statistics of given examples without an update."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ilp_jax.data.batches import BatchMeta, probe_batches
from ilp_jax.errors import RunFailure
from ilp_jax.mesh import processes
from ilp_jax.mesh.rows import fetch_own
from ilp_jax.models.decoder import Decoder
from ilp_jax.train.step import in_microbatches

if TYPE_CHECKING:
    from ilp_jax.workspace import Workspace

_UNITS = 2.0**32

Columns = dict[str, Any]
"""Columns of the statistics table, as ``StatsWriter.append`` takes them."""


def probe(
    ws: Workspace,
    params: Any,
    indices: Sequence[int],
    *,
    with_norms: bool,
    stage: int,
    epoch: int,
    step: int,
    bar: Any = None,
) -> list[Columns]:
    """Probes examples at the parameters after update ``step``.

    Args:
      ws: the run's workspace.
      params: parameters on the device.
      indices: indices into ``ws.data.examples``.
      with_norms: whether gradient norms are taken.
      stage: stage in training, 0 for the base model.
      epoch: its epoch, 0 for the base model.
      step: updates done.
      bar: a progress bar to advance by one an example, or None.

    Returns:
      One batch of columns a device batch.

    Raises:
      RunFailure: a loss or norm is not finite.
    """
    visits = visits_done(ws, stage, epoch)
    out: list[Columns] = []
    with jax.transfer_guard("disallow"):
        pipelined = _pipelined(ws, params, indices, with_norms)
        for batch_index, (meta, (rows, stats)) in enumerate(pipelined):
            columns = columns_of(ws, stats, meta, rows, step=step, batch_index=batch_index)
            columns |= {
                "kind": "probe",
                "stage": stage,
                "epoch": epoch,
                "visit": visits[meta.example_index_B[rows[rows < meta.n_real]]],
                "learning_rate": np.nan,
            }
            out.append(columns)
            if bar is not None:
                bar.advance(meta.n_real)
    return out


def _pipelined(
    ws: Workspace, params: Any, indices: Sequence[int], with_norms: bool
) -> Iterator[tuple[BatchMeta, tuple[np.ndarray, dict[str, np.ndarray]]]]:
    """This process's rows of each batch and their statistics, read while the next one runs."""
    waiting = None
    size = ws.place.batch_size(ws.config.probe.batch_size)
    for rows, meta in probe_batches(ws.data, indices, size, ws.config.length_buckets):
        stats = ws.programs.probe[with_norms](params, in_microbatches(rows, 1, ws.place))
        if waiting is not None:
            yield waiting[0], fetch_own(waiting[1])
        waiting = (meta, stats)
    if waiting is not None:
        yield waiting[0], fetch_own(waiting[1])


def columns_of(
    ws: Workspace,
    stats: Mapping[str, np.ndarray],
    meta: BatchMeta,
    rows: np.ndarray | None = None,
    *,
    step: int,
    batch_index: int,
    n_parts: int = 1,
) -> Columns:
    """Columns of the table from one batch's statistics, rows that only fill left out.

    Args:
      ws: the run's workspace.
      stats: arrays [n] on the host.
      meta: which example each row of the batch is.
      rows: int32 [n], rows of the batch that the statistics are of; None for all.
      step: the update.
      batch_index: the batch's place in its epoch or probe, from 0.
      n_parts: microbatches.

    Raises:
      RunFailure: a loss or norm is not finite, naming the example and the statistic.
    """
    if rows is None:
        rows = np.arange(len(meta.example_index_B), dtype=np.int32)
    real = rows < meta.n_real
    place, n = rows[real], int(real.sum())
    columns: Columns = {name: values[real] for name, values in stats.items()}
    for name in ("loss_sum", *(s for s in columns if s.startswith("grad_norm"))):
        bad = np.flatnonzero(~np.isfinite(columns[name]))
        if bad.size:
            example = ws.data.examples[meta.example_index_B[place[bad[0]]]]
            raise RunFailure(
                f"update {step}, example {example.example_id} ({example.source} "
                f"{example.source_key})",
                f"{name} is {columns[name][bad[0]]}",
                "lower the learning rate or look at that example; statistics and checkpoints "
                "from before are kept",
            )
    if "grad_norm" in columns:
        for group in absent_groups(ws.decoder):  # The writer turns NaN into null.
            columns[f"grad_norm_{group}"] = np.full(n, np.nan, np.float32)
    rows_a_part = len(meta.example_index_B) // n_parts
    return columns | {
        "example_id": meta.example_id_B[place],
        "batch_index": batch_index,
        "microbatch": place // rows_a_part,
        "row": place % rows_a_part,
        "segment": 0,
    }


def absent_groups(decoder: Decoder) -> tuple[str, ...]:
    """Module groups without a trained parameter: a tied matrix counts whole in ``embed``."""
    if decoder.lora is not None:
        return ("embed", "norm", "head")
    return ("head",) if decoder.config.tie_embeddings else ()


def visits_done(ws: Workspace, stage: int, epoch: int) -> np.ndarray:
    """Training visits of every example up to an epoch's end. int32 [n_examples].

    Args:
      ws: the run's workspace.
      stage: the stage in training, 0 before training.
      epoch: its last finished epoch.
    """
    visits = np.zeros(len(ws.data.examples), np.int32)
    for one in ws.data.stages[:stage]:
        visits[one.rows] += one.copies_N * (epoch if one.index == stage else one.epochs)
    return visits


def mean_loss(batches: Sequence[Columns], example_ids: np.ndarray, shared: bool = False) -> float:
    """Mean over given examples of each one's mean loss, in nats a token.

    Summed in units of 2^-32 nats, so that the sum is exact and does not depend on how the rows
    were batched, or shared out to processes.

    Args:
      batches: probed columns.
      example_ids: int64, the examples that count.
      shared: each process has rows of its own, and all of them want the mean over all.

    Returns:
      The mean; NaN when none of them was probed.
    """
    ids = np.concatenate([batch["example_id"] for batch in batches])
    sums = np.concatenate([batch["loss_sum"] for batch in batches]).astype(np.float64)
    n_tokens = np.concatenate([batch["n_tokens"] for batch in batches])
    counts = np.isin(ids, example_ids)
    losses = np.rint(sums[counts] / n_tokens[counts] * _UNITS).astype(np.int64)
    total, n = int(losses.sum()), int(losses.size)
    if shared:
        total, n = map(sum, zip(*processes.exchange([total, n]), strict=True))
    return total / _UNITS / n if n else float("nan")
