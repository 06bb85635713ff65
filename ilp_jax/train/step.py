"""Pure steps: (state, rows) -> (state, statistics of every example)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from ilp_jax.data.batches import RowBatch
from ilp_jax.mesh.layout import Layout, constrained
from ilp_jax.mesh.rows import ONE_DEVICE, Placement, put
from ilp_jax.models.decoder import GROUPS, Decoder, zero_probes
from ilp_jax.models.lora import Adapted, variables_of
from ilp_jax.train.losses import example_weights, target_statistics

Params = Any
Stats = dict[str, jax.Array]


class TrainState(struct.PyTreeNode):
    """All that an update changes.

    Attributes:
      params: what is trained, float32: the parameters, or adapters alone.
      opt_state: the optimiser's moments.
      step: int32 scalar, updates done.
    """

    params: Params
    opt_state: optax.OptState
    step: jax.Array


def init_state(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first update."""
    return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))


def train_step(
    state: TrainState,
    rows: RowBatch,
    learning_rate: jax.Array,
    base: Params | None = None,
    *,
    decoder: Decoder,
    optimizer: optax.GradientTransformation,
    normalization: str,
    with_norms: bool,
    layout: Layout | None = None,
) -> tuple[TrainState, Stats]:
    """One update from the rows of all microbatches.

    Args:
      state: parameters before the update.
      rows: arrays [M, B / M, ...]: M microbatches whose gradients are added up, with the
        loss weighted over all of them together.
      learning_rate: float32 scalar.
      base: the frozen parameters under adapters; None where all is trained.
      decoder: the model.
      optimizer: direction of the update.
      normalization: see ``example_weights``.
      with_norms: whether per-example gradient norms are computed.
      layout: where parameters and moments lie; None on one device.

    Returns:
      The state after the update and the statistics at the parameters before it, each [B] in
      row order (on a mesh [M, B / M], where they lie): those of ``target_statistics`` and, with
      norms, ``grad_norm`` and ``grad_norm_{group}``: the L2 norm of the gradient of the
      example's own mean loss.
    """
    grads, stats = gradients(
        state.params,
        rows,
        base,
        decoder=decoder,
        normalization=normalization,
        with_norms=with_norms,
        with_gradient=True,
    )
    grads = constrained(layout, grads)
    direction, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = jax.tree.map(lambda p, d: p - learning_rate * d, state.params, direction)
    return constrained(layout, TrainState(params, opt_state, state.step + 1)), stats


def probe_step(params: Params, rows: RowBatch, *, decoder: Decoder, with_norms: bool) -> Stats:
    """The same statistics without an update; with norms it needs a backward pass.

    Args:
      params: parameters to ask, or ``Adapted``.
      rows: arrays [M, B / M, ...].
      decoder: the model.
      with_norms: whether per-example gradient norms are computed.
    """
    params, base = (params.adapters, params.base) if isinstance(params, Adapted) else (params, None)
    _, stats = gradients(
        params,
        rows,
        base,
        decoder=decoder,
        normalization="example",
        with_norms=with_norms,
        with_gradient=False,
    )
    return stats


def gradients(
    params: Params,
    rows: RowBatch,
    base: Params | None = None,
    *,
    decoder: Decoder,
    normalization: str,
    with_norms: bool,
    with_gradient: bool,
) -> tuple[Params | None, Stats]:
    """Gradient of the weighted loss and statistics of every example, by one backward pass.

    Args:
      params: what is trained, float32.
      rows: arrays [M, B / M, ...].
      base: the frozen parameters under adapters, None without.
      decoder: the model.
      normalization: see ``example_weights``.
      with_norms: whether per-example norms are taken.
      with_gradient: whether the parameters' gradient is wanted.

    Returns:
      The gradient (None when not wanted), summed over microbatches, and statistics [B]; on a
      mesh [M, B / M], since in one line they would have to change places.
    """
    n_microbatches, batch_size = rows.tokens_BxT.shape[:2]
    weights_MxB = example_weights(jnp.sum(rows.target_mask_BxR, axis=-1), normalization)

    def loss(params, probes, rows, weights_B):
        logits = decoder.apply(
            variables_of(params if base is None else Adapted(base, params)),
            rows.tokens_BxT,
            rows.positions_BxT,
            rows.branch_BxT,
            rows.target_index_BxR,
            probes,
        )
        stats = target_statistics(logits, rows.target_ids_BxR, rows.target_mask_BxR)
        mean_B = stats["loss_sum"] / jnp.maximum(stats["n_tokens"], 1)
        return jnp.sum(weights_B * mean_B), stats

    def in_line(stats_MxB):
        if decoder.shards is not None:
            return stats_MxB
        return jax.tree.map(lambda x: x.reshape(-1), stats_MxB)

    def microbatch(rows, weights_B):
        probes = zero_probes(batch_size) if with_norms else None
        wanted = (0,) * with_gradient + (1,) * with_norms
        if not wanted:
            return None, loss(params, probes, rows, weights_B)[1]
        grads, stats = jax.grad(loss, argnums=wanted, has_aux=True)(params, probes, rows, weights_B)
        if with_norms:
            stats |= norms_from_squares(grads[-1], weights_B)
        return (grads[0] if with_gradient else None), stats

    if n_microbatches == 1:
        one = jax.tree.map(lambda x: x[0], rows)
        grads, stats = microbatch(one, weights_MxB[0])
        return grads, in_line(jax.tree.map(lambda x: x[None], stats))

    def accumulate(total, inputs):
        grads, stats = microbatch(*inputs)
        return jax.tree.map(jnp.add, total, grads), stats

    zeros = jax.tree.map(jnp.zeros_like, params) if with_gradient else None
    grads, stats = jax.lax.scan(accumulate, zeros, (rows, weights_MxB))
    return grads, in_line(stats)


def norms_from_squares(squares: dict[str, jax.Array], weights_B: jax.Array) -> Stats:
    """Norms of each example's own mean-loss gradient from its probes' cotangents.

    A probe holds w_b^2 ||g_b||^2, since the loss that was differentiated weighs example b by
    w_b. A Gram form can fall below zero by rounding, hence the clamp.

    Args:
      squares: cotangent [B] of each group's probe.
      weights_B: the loss weights; 0 for padding rows, whose norm is 0.
    """
    safe_B = jnp.where(weights_B > 0, weights_B, 1.0)
    total_B = sum(squares[group] for group in GROUPS)
    named = {"grad_norm": total_B} | {f"grad_norm_{group}": squares[group] for group in GROUPS}
    return {name: jnp.sqrt(jnp.maximum(value, 0.0)) / safe_B for name, value in named.items()}


def in_microbatches(rows: Any, n_microbatches: int, place: Placement = ONE_DEVICE) -> Any:
    """Rows [B, ...] as [M, B / M, ...] on their devices, by an explicit transfer.

    Row r of microbatch m is row m * (B / M) + r of the batch.
    """

    def cut(array: np.ndarray) -> np.ndarray:
        return array.reshape(n_microbatches, -1, *array.shape[1:])

    return put(jax.tree.map(cut, rows), place.microbatches)
