"""Losses and statistics of single examples from their logits."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def target_statistics(
    logits_BxRxV: jax.Array, target_ids_BxR: jax.Array, target_mask_BxR: jax.Array
) -> dict[str, jax.Array]:
    """What each example's target tokens cost and how sure the model is of them.

    Only ``loss_sum`` carries a gradient.

    Args:
      logits_BxRxV: float32 logits at the target slots.
      target_ids_BxR: int32 token that each slot should predict.
      target_mask_BxR: float32, 1 at real slots, 0 at padding.

    Returns:
      Arrays [B]: ``loss_sum`` (float32, nats, sum over target tokens), ``n_tokens`` (int32),
      ``n_correct`` (int32, targets that are the strict argmax), and means over target
      tokens, 0 for an example without any: ``prob_mean`` (probability of the target),
      ``entropy_mean`` (nats), ``margin_mean`` (target's logit minus the best other, nats).
    """
    log_z_BxR = jax.nn.logsumexp(logits_BxRxV, axis=-1)
    target_logit_BxR = jnp.take_along_axis(logits_BxRxV, target_ids_BxR[..., None], -1)[..., 0]
    loss_BxR = (log_z_BxR - target_logit_BxR) * target_mask_BxR

    logits_BxRxV, log_z_BxR, target_logit_BxR = jax.lax.stop_gradient(
        (logits_BxRxV, log_z_BxR, target_logit_BxR)
    )
    probs_BxRxV = jnp.exp(logits_BxRxV - log_z_BxR[..., None])
    entropy_BxR = log_z_BxR - jnp.sum(probs_BxRxV * logits_BxRxV, axis=-1)
    vocabulary = jnp.arange(logits_BxRxV.shape[-1], dtype=target_ids_BxR.dtype)
    is_target_BxRxV = vocabulary[None, None, :] == target_ids_BxR[..., None]
    best_other_BxR = jnp.max(jnp.where(is_target_BxRxV, -jnp.inf, logits_BxRxV), axis=-1)
    margin_BxR = target_logit_BxR - best_other_BxR
    prob_BxR = jnp.exp(target_logit_BxR - log_z_BxR)

    n_tokens_B = jnp.sum(target_mask_BxR, axis=-1)

    def mean(values_BxR):
        return jnp.sum(values_BxR * target_mask_BxR, axis=-1) / jnp.maximum(n_tokens_B, 1.0)

    return {
        "loss_sum": jnp.sum(loss_BxR, axis=-1),
        "n_tokens": n_tokens_B.astype(jnp.int32),
        "n_correct": jnp.sum((margin_BxR > 0) * target_mask_BxR, axis=-1).astype(jnp.int32),
        "prob_mean": mean(prob_BxR),
        "entropy_mean": mean(entropy_BxR),
        "margin_mean": mean(margin_BxR),
    }


def example_weights(n_tokens_B: jax.Array, normalization: str) -> jax.Array:
    """Each example's weight w in the step's loss sum_b w_b * (mean loss of b). float32 [B].

    Args:
      n_tokens_B: target tokens of every example of the whole step (all microbatches, as
        [M, B / M] too, and all hosts), 0 for padding.
      normalization: ``token``: every target token of the step counts alike
        (w_b = n_b / sum n); ``example``: every example counts alike (w_b = 1 / examples).

    Raises:
      ValueError: for another normalisation.
    """
    n_tokens_B = n_tokens_B.astype(jnp.float32)
    if normalization == "token":
        return n_tokens_B / jnp.maximum(jnp.sum(n_tokens_B), 1.0)
    if normalization == "example":
        real_B = (n_tokens_B > 0).astype(jnp.float32)
        return real_B / jnp.maximum(jnp.sum(real_B), 1.0)
    raise ValueError(f"loss_normalization={normalization!r} is neither 'token' nor 'example'")
