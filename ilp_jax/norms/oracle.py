"""The reference that every tapped norm is held against: vmap over whole gradients."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ilp_jax.data.batches import RowBatch
from ilp_jax.models.decoder import GROUPS, Decoder, group_of
from ilp_jax.models.lora import Adapted, variables_of
from ilp_jax.train.losses import target_statistics


def vmap_norms(
    params: Any, rows: RowBatch, base: Any = None, *, decoder: Decoder
) -> dict[str, jax.Array]:
    """Per-example gradient norms by ``vmap(grad)`` on batches of one, no taps involved.

    Holds B whole gradients at once: for small models only.

    Args:
      params: what is trained: the parameters, or with ``base`` the adapters.
      rows: arrays [B, ...], without a microbatch axis.
      decoder: the model.
      base: the frozen parameters under adapters, None without.

    Returns:
      ``grad_norm`` and ``grad_norm_{group}``, each float32 [B]: the norm of the gradient of
      each example's own mean loss, 0 for rows without targets.
    """
    grads = row_gradients(params, rows, base, decoder=decoder)
    squares = dict.fromkeys(GROUPS, jnp.zeros(rows.tokens_BxT.shape[0]))
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        group = group_of(tuple(key.key for key in path))
        squares[group] += jnp.sum(jnp.square(grad), axis=tuple(range(1, grad.ndim)))
    norms = {f"grad_norm_{group}": jnp.sqrt(square) for group, square in squares.items()}
    return {"grad_norm": jnp.sqrt(sum(squares.values()))} | norms


def row_gradients(params: Any, rows: RowBatch, base: Any = None, *, decoder: Decoder) -> Any:
    """The whole gradient of every example's own mean loss, by ``vmap(grad)`` on batches of one.

    Args:
      params: what is trained: the parameters, or with ``base`` the adapters.
      rows: arrays [B, ...], without a microbatch axis.
      decoder: the model.
      base: the frozen parameters under adapters, None without.

    Returns:
      The tree of ``params`` with a leading axis B; zeros for rows without targets.
    """

    def mean_loss(params, row):
        one = jax.tree.map(lambda x: x[None], row)
        logits = decoder.apply(
            variables_of(_whole(params, base)),
            one.tokens_BxT,
            one.positions_BxT,
            one.branch_BxT,
            one.target_index_BxR,
        )
        stats = target_statistics(logits, one.target_ids_BxR, one.target_mask_BxR)
        return jnp.sum(stats["loss_sum"] / jnp.maximum(stats["n_tokens"], 1))

    return jax.vmap(jax.grad(mean_loss), in_axes=(None, 0))(params, rows)


def _whole(params: Any, base: Any) -> Any:
    return params if base is None else Adapted(base, params)
