"""The algebra of per-example squared gradient norms, one function a rule.

Notation: one example's input to a weight is x (T x I), the cotangent of its output is
g (T x O); the example's gradient of the weight is x^T g (I x O).

* Gram: ||x^T g||^2 = <x x^T, g g^T> (Goodfellow 2015, arXiv 1510.01799; for sequences
  Li et al. 2022, arXiv 2110.05679, eq. 4): 2 T^2 (I + O) extra FLOPs.
* Direct: form x^T g example by example, square and add it up; the sum over examples of
  the same tensors is the weight's gradient, so no extra matmul, but every example's
  tensor passes through memory.

Both are exact up to float32 rounding. Where the tokens' parts cancel, that is a share of a small
rest: with s the norm over the root of the summed squares of x_t^T g_t, a norm's relative error is
about eps / s^2 by Gram, and below eps / s directly. So an example whose s^2 is below
``GRAM_SHARE`` gets its norm directly, whatever the method.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

GRAM, DIRECT, OFF, AUTO = "gram", "direct", "off", "auto"
FORMS = (GRAM, DIRECT, OFF)

GRAM_COST_RATIO = 180.0
"""Gram is taken while its 2 T^2 (I + O) FLOPs stay below this many FLOPs per weight.

Measured on a 2-core CPU in float32 (crossover T of 150 to 230 at widths of 512 to 1536);
an accelerator's own figure belongs in the config field ``train.gram_cost_ratio``.
"""

GRAM_SHARE = float(jnp.finfo(jnp.float32).eps) / 1e-5
"""Least share of the tokens' own squares, added up, that a Gram form's squared norm is taken at.

Its error was at most 0.5 eps over that share at T of 24 to 512 and widths of 48 to 1024, however
the tokens cancelled: above this share a norm is right to 1e-5 (``check.TOLERANCE``).
"""

_BLOCK = 64
"""Rows of an example's gradient that are formed at once: 64 x O floats beside the step's own."""


def choose(method: str, length: int, d_in: int, d_out: int, ratio: float = GRAM_COST_RATIO) -> str:
    """Picks ``gram`` or ``direct`` for a weight, unless ``method`` names one already.

    Args:
      method: ``auto``, ``gram``, ``direct`` or ``off``.
      length: T, positions of a row that reach this weight.
      d_in: I, width of the input.
      d_out: O, width of the output (all weights that share the input together).
      ratio: FLOPs per weight that the Gram form may cost.

    Raises:
      ValueError: the method is unknown.
    """
    if method in FORMS:
        return method
    if method != AUTO:
        raise ValueError(f"method={method!r} is not one of {(AUTO, *FORMS)}")
    return GRAM if 2 * length**2 * (d_in + d_out) <= ratio * d_in * d_out else DIRECT


def einsum_f32(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """An einsum that accumulates and returns float32 whatever the operands' dtype.

    XLA:CPU has no bf16 x bf16 -> f32 dot inside a scanned, rematerialised backward pass,
    so operands are widened there; elsewhere the matrix units accumulate in float32.
    """
    if a.dtype == jnp.float32 and b.dtype == jnp.float32:
        return jnp.einsum(spec, a, b)

    def widened(a, b):
        return jnp.einsum(spec, a.astype(jnp.float32), b.astype(jnp.float32))

    def native(a, b):
        return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)

    return lax.platform_dependent(a, b, cpu=widened, default=native)


def gram_squares(x_BxTxI: jax.Array, gs_BxTxO: tuple[jax.Array, ...]) -> jax.Array:
    """Sum over weights of ||x_b^T g_b||^2 by Gram matrices; the x Gram is shared. float32 [B].

    Examples whose tokens cancel below ``GRAM_SHARE`` are computed again, directly.
    """
    x_gram_BxTxT = einsum_f32("bti,bsi->bts", x_BxTxI, x_BxTxI)
    g_gram_BxTxT = sum(einsum_f32("bto,bso->bts", g, g) for g in gs_BxTxO)
    squares_B = jnp.einsum("bts,bts->b", x_gram_BxTxT, g_gram_BxTxT)
    of_tokens_B = jnp.einsum("btt,btt->b", x_gram_BxTxT, g_gram_BxTxT)

    def again(state):
        squares_B, cancels_B = state
        b = jnp.argmax(cancels_B)
        x_TxI, *gs_TxO = (lax.dynamic_index_in_dim(a, b, 0, False) for a in (x_BxTxI, *gs_BxTxO))
        square = _square(x_TxI, tuple(gs_TxO))
        return squares_B.at[b].set(square), cancels_B.at[b].set(False)

    cancels_B = squares_B < GRAM_SHARE * of_tokens_B
    squares_B, _ = lax.while_loop(lambda state: jnp.any(state[1]), again, (squares_B, cancels_B))
    return squares_B


def _square(x_TxI: jax.Array, gs_TxO: tuple[jax.Array, ...]) -> jax.Array:
    """One example's squared norm from its own gradients, formed a few rows at a time."""

    def of_row(x_T):
        rows_O = (einsum_f32("t,to->o", x_T, g) for g in gs_TxO)
        return sum(jnp.vdot(row, row) for row in rows_O)

    return jnp.sum(lax.map(of_row, x_TxI.T, batch_size=min(_BLOCK, x_TxI.shape[1])))


def gradients(x_BxTxI: jax.Array, gs_BxTxO: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """Each weight's gradient summed over examples, float32 [I, O]."""
    # Written as x^T g: XLA:CPU runs the transpose that autodiff would emit 2.3x slower.
    return tuple(einsum_f32("bti,bto->io", x_BxTxI, g) for g in gs_BxTxO)


def direct_squares(
    x_BxTxI: jax.Array, gs_BxTxO: tuple[jax.Array, ...]
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """The same squares from each example's own gradient, and the summed gradients.

    One example at a time: temporaries are one I x O tensor a weight.

    Returns:
      float32 [B] squares, and per weight the float32 [I, O] gradient summed over examples.
    """

    def of_example(x_TxI, gs_TxO):
        return tuple(einsum_f32("ti,to->io", x_TxI, g) for g in gs_TxO)

    def square_of(grads_IxO):
        return sum(jnp.vdot(grad, grad) for grad in grads_IxO)

    def add_example(totals_IxO, example):
        grads_IxO = of_example(*example)
        return jax.tree.map(jnp.add, totals_IxO, grads_IxO), square_of(grads_IxO)

    if len(x_BxTxI) == 1:  # as on a chip with one row: no second tensor to add it to
        grads_IxO = of_example(x_BxTxI[0], tuple(g[0] for g in gs_BxTxO))
        # Squared apart from the matmul, and before chips sum it up: else libtpu does so in a
        # second buffer, and a head's gradient is the largest array of a step.
        grads_IxO = lax.optimization_barrier(grads_IxO)
        square, grads_IxO = lax.optimization_barrier((square_of(grads_IxO), grads_IxO))
        return square[None], grads_IxO

    d_in = x_BxTxI.shape[-1]
    zeros = tuple(jnp.zeros((d_in, g.shape[-1]), jnp.float32) for g in gs_BxTxO)
    totals_IxO, squares_B = lax.scan(add_example, zeros, (x_BxTxI, gs_BxTxO))
    return squares_B, totals_IxO


def param_squares(grads_Bx: jax.Array) -> jax.Array:
    """Squares of per-example gradients that are formed anyway (scales, biases). float32 [B]."""
    wide = grads_Bx.astype(jnp.float32)
    return jnp.sum(jnp.square(wide), axis=tuple(range(1, wide.ndim)))


def embedding_squares(ids_BxT: jax.Array, g_BxTxD: jax.Array) -> jax.Array:
    """||sum_t onehot(id_t) g_t^T||^2. float32 [B].

    A token that stands twice in a row adds its two cotangents before the square; added at each of
    its n places, the square counts there by 1 / n.
    """
    same_BxTxT = (ids_BxT[:, :, None] == ids_BxT[:, None, :]).astype(g_BxTxD.dtype)
    of_token_BxTxD = einsum_f32("bts,bsd->btd", same_BxTxT, g_BxTxD)
    n_BxT = jnp.sum(same_BxTxT, axis=2, dtype=jnp.float32)
    return jnp.sum(jnp.sum(jnp.square(of_token_BxTxD), axis=2) / n_BxT, axis=1)


def head_rows_of_inputs(ids_BxT: jax.Array, h_BxRxD: jax.Array, g_BxRxV: jax.Array) -> jax.Array:
    """Rows of a tied head's per-example gradient at the row's own input tokens. [B, T, D].

    G_head[v] = sum_r g[r, v] h[r], taken at v = ids_t for each t.
    """
    g_at_ids_BxRxT = jnp.take_along_axis(g_BxRxV, ids_BxT[:, None, :], axis=2)
    return einsum_f32("brt,brd->btd", g_at_ids_BxRxT, h_BxRxD)


def tied_cross_term(g_BxTxD: jax.Array, head_rows_BxTxD: jax.Array) -> jax.Array:
    """2 <G_embed, G_head> of a tied table, from ||G_embed + G_head||^2. float32 [B].

    <G_embed, G_head> = sum_t <g_t, G_head[id_t]> (the shared-embedding term of Ding et al.
    2024, arXiv 2405.18194). Without it the norm of a tied table is wrong by percents.
    """
    return 2.0 * jnp.sum(g_BxTxD.astype(jnp.float32) * head_rows_BxTxD, axis=(1, 2))
