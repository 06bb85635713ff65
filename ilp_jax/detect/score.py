"""One forward pass over packed rows: everything that detection needs of each target slot."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ilp_jax.data.batches import RowBatch
from ilp_jax.models.decoder import Decoder
from ilp_jax.models.lora import variables_of


def score_step(
    params: Any, rows: RowBatch, temperature: jax.Array, *, decoder: Decoder
) -> dict[str, jax.Array]:
    """Scores every target slot of every branch of a batch of packed rows.

    Args:
      params: parameters to ask, or ``Adapted``.
      rows: arrays [B, ...]; see ``data.batches.option_batches``.
      temperature: float32 scalar that divides the logits of ``logprob_tempered``.
      decoder: the model.

    Returns:
      Arrays [B, R]: ``logprob`` and ``logprob_tempered`` of the target (nats), ``argmax``
      (int32, the likeliest token), ``argmax_logprob`` (nats) and ``correct`` (bool, the
      target is the strict argmax). Values in empty slots mean nothing.
    """
    logits_BxRxV = decoder.apply(
        variables_of(params),
        rows.tokens_BxT,
        rows.positions_BxT,
        rows.branch_BxT,
        rows.target_index_BxR,
    )

    def at_target(values_BxRxV):
        return jnp.take_along_axis(values_BxRxV, rows.target_ids_BxR[..., None], -1)[..., 0]

    target_BxR = at_target(logits_BxRxV)
    log_z_BxR = jax.nn.logsumexp(logits_BxRxV, axis=-1)
    tempered_z_BxR = jax.nn.logsumexp(logits_BxRxV / temperature, axis=-1)
    vocabulary = jnp.arange(logits_BxRxV.shape[-1], dtype=rows.target_ids_BxR.dtype)
    is_target_BxRxV = vocabulary[None, None, :] == rows.target_ids_BxR[..., None]
    best_other_BxR = jnp.max(jnp.where(is_target_BxRxV, -jnp.inf, logits_BxRxV), axis=-1)
    return {
        "logprob": target_BxR - log_z_BxR,
        "logprob_tempered": target_BxR / temperature - tempered_z_BxR,
        "argmax": jnp.argmax(logits_BxRxV, axis=-1).astype(jnp.int32),
        "argmax_logprob": jnp.max(logits_BxRxV, axis=-1) - log_z_BxR,
        "correct": target_BxR > best_other_BxR,
    }
