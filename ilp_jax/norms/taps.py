"""Operations whose backward pass also yields every example's squared gradient norm.

Each takes a ``probe``, zeros of shape [B]. The forward pass ignores it; the backward pass
returns as the probe's cotangent the squared norm of each example's gradient of the
operation's parameters. Differentiating a loss with respect to parameters *and* probes so
gives the gradient and the norms from one backward pass, with no hooks. One probe that is
passed to several operations collects the sum of their squares; closed over by a scanned
layer it is summed over layers by the scan's own transpose.

Differentiating with respect to the parameters alone leaves the squares dead code, which
XLA removes; ``method='off'`` also keeps the direct form's example-by-example sum away, and its
squares are zeros.

A custom_vjp has no forward-mode derivative: ``jax.jvp`` needs operations without taps.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ilp_jax.norms import rules
from ilp_jax.norms.lookup import Lookup
from ilp_jax.norms.shards import Split


def dense(
    method: str,
    x_BxTxI: jax.Array,
    kernels: tuple[jax.Array, ...],
    probe_B: jax.Array,
    split: Split | None = None,
    ratio: float = rules.GRAM_COST_RATIO,
) -> tuple[jax.Array, ...]:
    """Projects one input by several kernels (q, k and v; gate and up) in the input's dtype.

    Args:
      method: ``auto``, ``gram``, ``direct`` or ``off`` (see ``rules.choose``).
      x_BxTxI: inputs, float32 or bfloat16.
      kernels: float32 [I, O] each; cast to the input's dtype, gradients stay float32.
      probe_B: float32 zeros.
      split: how input and outputs lie on a mesh; None without one.
      ratio: what ``auto`` goes by.

    Returns:
      One [B, T, O] array a kernel.

    Raises:
      ValueError: the method is unknown.
    """
    d_out = sum(w.shape[1] for w in kernels)
    form = rules.choose(method, *x_BxTxI.shape[1:], d_out, ratio)
    return _dense(form, x_BxTxI, kernels, probe_B, split)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 4))
def _dense(form, x_BxTxI, kernels, probe_B, split):
    del form, probe_B, split
    return tuple(jnp.einsum("bti,io->bto", x_BxTxI, w.astype(x_BxTxI.dtype)) for w in kernels)


def _dense_fwd(form, x_BxTxI, kernels, probe_B, split):
    return _dense(form, x_BxTxI, kernels, probe_B, split), (x_BxTxI, kernels)


def _dense_bwd(form, split, residuals, gs_BxTxO):
    x_BxTxI, kernels = residuals
    algebra = split or rules
    dx_BxTxI = sum(
        jnp.einsum("bto,io->bti", g, w.astype(g.dtype))
        for g, w in zip(gs_BxTxO, kernels, strict=True)
    )
    if form == rules.DIRECT:
        squares_B, dkernels = algebra.direct_squares(x_BxTxI, gs_BxTxO)
    else:
        dkernels = algebra.gradients(x_BxTxI, gs_BxTxO)
        if form == rules.GRAM:
            squares_B = algebra.gram_squares(x_BxTxI, gs_BxTxO)
        else:
            squares_B = jnp.zeros(x_BxTxI.shape[0], jnp.float32)
    if split:
        dx_BxTxI, dkernels = split.in_order(dx_BxTxI, dkernels)
    return dx_BxTxI, dkernels, squares_B


_dense.defvjp(_dense_fwd, _dense_bwd)


@jax.custom_vjp
def per_example(param: jax.Array, probe_B: jax.Array) -> jax.Array:
    """A small parameter (scale or bias) copied for each example: [B, *param.shape].

    What uses the copy leaves each example's own gradient in its cotangent, whatever
    the operation, so it can be squared and then summed.
    """
    return jnp.broadcast_to(param, (probe_B.shape[0], *param.shape))


def _per_example_fwd(param, probe_B):
    return per_example(param, probe_B), None


def _per_example_bwd(_, grads_Bx):
    return jnp.sum(grads_Bx, axis=0), rules.param_squares(grads_Bx)


per_example.defvjp(_per_example_fwd, _per_example_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def embed(
    table_VxD: jax.Array,
    ids_BxT: jax.Array,
    probe_B: jax.Array,
    dtype: Any = jnp.float32,
    lookup: Lookup | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Looks tokens up; also emits a ``link`` for a head tied to the same table.

    Args:
      table_VxD: float32 embedding table; its gradient stays float32.
      ids_BxT: int32 tokens.
      probe_B: float32 zeros.
      dtype: of the embeddings.
      lookup: how the table lies on a mesh; None without one.

    Returns:
      The embeddings [B, T, D], and the link: float32 zeros [B, T, D] whose cotangent
      ``tied_head`` sets to its own gradient's rows at these tokens.
    """
    return _embed_fwd(table_VxD, ids_BxT, probe_B, dtype, lookup)[0]


def _embed_fwd(table_VxD, ids_BxT, probe_B, dtype, lookup):
    del probe_B
    if lookup:
        rows_BxTxD, seen_BxT = lookup.rows(table_VxD, ids_BxT, dtype)
    else:
        rows_BxTxD, seen_BxT = jnp.take(table_VxD, ids_BxT, axis=0).astype(dtype), ids_BxT
    link_BxTxD = jnp.zeros(rows_BxTxD.shape, jnp.float32)
    # The table itself is not needed, but its shape is; an empty slice carries it.
    return (rows_BxTxD, link_BxTxD), (ids_BxT, seen_BxT, table_VxD[:, :0])


def _embed_bwd(dtype, lookup, residuals, cotangents):
    del dtype
    ids_BxT, seen_BxT, shape_Vx0 = residuals
    g_BxTxD, head_rows_BxTxD = cotangents
    n_vocab = shape_Vx0.shape[0]
    if lookup:
        dtable_VxD = lookup.gradient(seen_BxT, g_BxTxD, n_vocab)
    else:
        dtable_VxD = jnp.zeros((n_vocab, g_BxTxD.shape[-1]), jnp.float32)
        dtable_VxD = dtable_VxD.at[ids_BxT].add(g_BxTxD.astype(jnp.float32))
    squares_B = rules.embedding_squares(ids_BxT, g_BxTxD)
    squares_B += rules.tied_cross_term(g_BxTxD, head_rows_BxTxD)
    return dtable_VxD, None, squares_B


embed.defvjp(_embed_fwd, _embed_bwd)


def tied_head(
    method: str,
    h_BxRxD: jax.Array,
    table_VxD: jax.Array,
    ids_BxT: jax.Array,
    link_BxTxD: jax.Array,
    probe_B: jax.Array,
    split: Split | None = None,
    ratio: float = rules.GRAM_COST_RATIO,
) -> jax.Array:
    """Logits from the embedding table itself, one parameter: h table^T.

    Args:
      method: ``auto``, ``gram``, ``direct`` or ``off`` (see ``rules.choose``).
      h_BxRxD: final hidden states at the R target positions.
      table_VxD: the float32 embedding table.
      ids_BxT: the row's input tokens, as given to ``embed``.
      link_BxTxD: the link that ``embed`` gave.
      probe_B: the same probe that ``embed`` took, so that the table counts once.
      split: how hidden states and logits lie on a mesh; None without one.
      ratio: what ``auto`` goes by.

    Returns:
      float32 logits [B, R, V].

    Raises:
      ValueError: the method is unknown.
    """
    form = rules.choose(method, *h_BxRxD.shape[1:], len(table_VxD), ratio)
    return _tied_head(form, h_BxRxD, table_VxD, ids_BxT, link_BxTxD, probe_B, split)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 6))
def _tied_head(form, h_BxRxD, table_VxD, ids_BxT, link_BxTxD, probe_B, split):
    del form, ids_BxT, link_BxTxD, probe_B, split
    return rules.einsum_f32("brd,vd->brv", h_BxRxD, table_VxD.astype(h_BxRxD.dtype))


def _tied_head_fwd(form, h_BxRxD, table_VxD, ids_BxT, link_BxTxD, probe_B, split):
    logits = _tied_head(form, h_BxRxD, table_VxD, ids_BxT, link_BxTxD, probe_B, split)
    return logits, (h_BxRxD, table_VxD, ids_BxT)


def _tied_head_bwd(form, split, residuals, g_BxRxV):
    h_BxRxD, table_VxD, ids_BxT = residuals
    algebra = split or rules
    g_BxRxV = g_BxRxV.astype(h_BxRxD.dtype)
    dh_BxRxD = jnp.einsum("brv,vd->brd", g_BxRxV, table_VxD.astype(g_BxRxV.dtype))
    # The logits' cotangent in front: the table's rows come first.
    turned = split.turned() if split else rules
    if form == rules.DIRECT:
        squares_B, (dtable_VxD,) = turned.direct_squares(g_BxRxV, (h_BxRxD,))
    else:
        (dtable_VxD,) = turned.gradients(g_BxRxV, (h_BxRxD,))
        if form == rules.GRAM:
            squares_B = algebra.gram_squares(h_BxRxD, (g_BxRxV,))
        else:
            squares_B = jnp.zeros(h_BxRxD.shape[0], jnp.float32)
    if split:
        dh_BxRxD, (dtable_VxD,) = split.in_order(dh_BxRxD, (dtable_VxD,))
    link_BxTxD = rules.head_rows_of_inputs(ids_BxT, h_BxRxD, g_BxRxV)
    return dh_BxRxD, dtable_VxD, None, link_BxTxD, squares_B


_tied_head.defvjp(_tied_head_fwd, _tied_head_bwd)
