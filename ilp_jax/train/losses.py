"""Losses and statistics of single examples from their logits."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class TokenStatistics(NamedTuple):
    """Of every slot, float32 [...] in nats.

    Attributes:
      loss: -log p of the target; the only one with a gradient.
      entropy: of the distribution.
      margin: the target's logit minus the best other.
    """

    loss: jax.Array
    entropy: jax.Array
    margin: jax.Array


@jax.custom_jvp
def token_statistics(logits_V: jax.Array, target_ids: jax.Array) -> TokenStatistics:
    """Losses of single slots, to float32's relative precision however small they are.

    A log-sum-exp minus the target's logit would be a small difference of large numbers: a loss of
    4e-7 would be 0. Here what the other tokens weigh is added up by itself, so nothing cancels,
    in the loss or in its gradient (there p - 1 is minus the others' share).

    Args:
      logits_V: float32 logits [..., V].
      target_ids: int32 [...], the token that each slot should predict.
    """
    return _of_tokens(logits_V, target_ids)[0]


@token_statistics.defjvp
def _token_statistics_jvp(primals, tangents):
    (_, target_ids), (dlogits_V, _) = primals, tangents
    stats, others_V, others, total = _of_tokens(*primals)
    dloss = jnp.sum(others_V * dlogits_V, axis=-1) - others * _at(target_ids, dlogits_V)
    return stats, jax.tree.map(jnp.zeros_like, stats)._replace(loss=dloss / total)


def _of_tokens(logits_V, target_ids):
    """The statistics; weights of other tokens than the target (the largest logit's is 1); sums."""
    target = _at(target_ids, logits_V)
    # One array without the target serves maximum, sum and gradient.
    token_V = jax.lax.broadcasted_iota(target_ids.dtype, logits_V.shape, logits_V.ndim - 1)
    others_V = jnp.where(token_V == target_ids[..., None], -jnp.inf, logits_V)
    best_other = jnp.max(others_V, axis=-1)
    peak = jnp.maximum(target, best_other)
    below = target - peak
    others_V = jnp.exp(others_V - peak[..., None])
    others = jnp.sum(others_V, axis=-1)
    own, above_one = jnp.exp(below), others + jnp.expm1(below)
    log_total, total = jnp.log1p(above_one), 1.0 + above_one
    sum_below = jnp.sum(others_V * logits_V, axis=-1) - peak * others + own * below
    entropy = log_total - sum_below / total
    stats = TokenStatistics(log_total - below, entropy, target - best_other)
    return stats, others_V, others, total


def _at(ids, values_V):
    return jnp.take_along_axis(values_V, ids[..., None], -1)[..., 0]


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
    of_slot = token_statistics(logits_BxRxV, target_ids_BxR)
    n_tokens_B = jnp.sum(target_mask_BxR, axis=-1)

    def mean(values_BxR):
        return jnp.sum(values_BxR * target_mask_BxR, axis=-1) / jnp.maximum(n_tokens_B, 1.0)

    return {
        "loss_sum": jnp.sum(of_slot.loss * target_mask_BxR, axis=-1),
        "n_tokens": n_tokens_B.astype(jnp.int32),
        "n_correct": jnp.sum((of_slot.margin > 0) * target_mask_BxR, axis=-1).astype(jnp.int32),
        "prob_mean": mean(jnp.exp(-jax.lax.stop_gradient(of_slot.loss))),
        "entropy_mean": mean(of_slot.entropy),
        "margin_mean": mean(of_slot.margin),
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
