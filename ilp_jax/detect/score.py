"""One forward pass over packed rows: everything that detection needs of each target slot."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ilp_jax.data.batches import RowBatch
from ilp_jax.models.decoder import Decoder
from ilp_jax.models.lora import variables_of
from ilp_jax.train.losses import token_statistics


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

    argmax_BxR = jnp.argmax(logits_BxRxV, axis=-1).astype(jnp.int32)
    at_BxRx2 = jnp.stack([rows.target_ids_BxR, argmax_BxR], axis=-1)
    target_BxR, most_BxR = jnp.moveaxis(jnp.take_along_axis(logits_BxRxV, at_BxRx2, -1), -1, 0)
    likeliest = token_statistics(logits_BxRxV, argmax_BxR)
    tempered = token_statistics(logits_BxRxV / temperature, argmax_BxR)
    return {
        "logprob": (target_BxR - most_BxR) - likeliest.loss,
        "logprob_tempered": (target_BxR - most_BxR) / temperature - tempered.loss,
        "argmax": argmax_BxR,
        "argmax_logprob": -likeliest.loss,
        "correct": (rows.target_ids_BxR == argmax_BxR) & (likeliest.margin > 0),
    }
