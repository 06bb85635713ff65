"""The parts of a decoder layer, built from operations that yield per-example norms."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from ilp_jax.models import rope
from ilp_jax.models.config import ModelConfig
from ilp_jax.norms import rules, taps

Probes = Mapping[str, jax.Array]
"""Zeros [B] by module group; ``NormTaps.groups`` lists the names."""

_KERNEL_INIT = nn.initializers.normal(0.02)


class Dense(nn.Module):
    """Several projections of one input, each with its kernel and perhaps its bias.

    Attributes:
      features: width of each projection by name; parameters are ``{name}/kernel`` (I x O).
      use_bias: whether each has ``{name}/bias``.
      method: how norms are taken (``rules.choose``).
      gram_cost_ratio: see ``rules.GRAM_COST_RATIO``.
    """

    features: tuple[tuple[str, int], ...]
    use_bias: bool
    method: str
    gram_cost_ratio: float

    @nn.compact
    def __call__(self, x_BxTxI: jax.Array, probe_B: jax.Array) -> tuple[jax.Array, ...]:
        """One [B, T, O] output a projection; squared norms go to the probe's cotangent."""
        d_in = x_BxTxI.shape[-1]
        d_out = sum(width for _, width in self.features)
        projections = [
            _Projection(d_in, width, self.use_bias, name=name) for name, width in self.features
        ]
        params = [projection() for projection in projections]
        method = rules.choose(self.method, x_BxTxI.shape[1], d_in, d_out, self.gram_cost_ratio)
        outputs = taps.dense(method, x_BxTxI, tuple(kernel for kernel, _ in params), probe_B)
        if not self.use_bias:
            return outputs
        return tuple(
            y + taps.per_example(bias, probe_B)[:, None, :].astype(y.dtype)
            for y, (_, bias) in zip(outputs, params, strict=True)
        )


class _Projection(nn.Module):
    """Holds one projection's parameters under its name."""

    d_in: int
    d_out: int
    use_bias: bool

    @nn.compact
    def __call__(self):
        kernel = self.param("kernel", _KERNEL_INIT, (self.d_in, self.d_out), jnp.float32)
        if not self.use_bias:
            return kernel, None
        return kernel, self.param("bias", nn.initializers.zeros, (self.d_out,), jnp.float32)


class RMSNorm(nn.Module):
    """x / rms(x) * scale over the last axis; statistics in float32 (arXiv 1910.07467)."""

    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array, probe_B: jax.Array) -> jax.Array:
        """Normalises x [B, ..., width] over its last axis, in x's dtype."""
        width = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (width,), jnp.float32)
        wide = x.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
        scale_B = taps.per_example(scale, probe_B)
        scale_B = scale_B.reshape(scale_B.shape[0], *(1,) * (x.ndim - 2), width)
        return (wide * jax.lax.rsqrt(mean_square + self.epsilon) * scale_B).astype(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions and optional q/k norms."""

    config: ModelConfig
    method: str
    gram_cost_ratio: float

    @nn.compact
    def __call__(
        self,
        x_BxTxD: jax.Array,
        mask_BxTxT: jax.Array,
        cos_sin: tuple[jax.Array, jax.Array],
        probes: Probes,
    ) -> jax.Array:
        """Attends within each row of x; the mask is bool, query first. [B, T, D]."""
        c = self.config
        batch, length, _ = x_BxTxD.shape
        query_width, key_width = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
        q, k, v = _share_scope(
            self, (("q", query_width), ("k", key_width), ("v", key_width)), c.qkv_bias
        )(x_BxTxD, probes["attn"])
        if c.qk_norm == "full":
            q = RMSNorm(c.norm_eps, name="q_norm")(q, probes["norm"])
            k = RMSNorm(c.norm_eps, name="k_norm")(k, probes["norm"])
        q_BxTxHxN = q.reshape(batch, length, c.n_heads, c.head_dim)
        k_BxTxKxN = k.reshape(batch, length, c.n_kv_heads, c.head_dim)
        v_BxTxKxN = v.reshape(batch, length, c.n_kv_heads, c.head_dim)
        if c.qk_norm == "head":
            q_BxTxHxN = RMSNorm(c.norm_eps, name="q_norm")(q_BxTxHxN, probes["norm"])
            k_BxTxKxN = RMSNorm(c.norm_eps, name="k_norm")(k_BxTxKxN, probes["norm"])
        out_BxTxHN = attend(
            rope.rotate(q_BxTxHxN, cos_sin), rope.rotate(k_BxTxKxN, cos_sin), v_BxTxKxN, mask_BxTxT
        )
        (y_BxTxD,) = _share_scope(self, (("o", c.d_model),), c.o_bias)(out_BxTxHN, probes["attn"])
        return y_BxTxD


def attend(
    q_BxTxHxN: jax.Array, k_BxTxKxN: jax.Array, v_BxTxKxN: jax.Array, mask_BxTxT: jax.Array
) -> jax.Array:
    """Softmax attention, H / K query heads to a key head; softmax in float32. [B, T, H * N].

    A query with no key allowed would be NaN: every row's mask must allow at least one.
    """
    batch, length, n_heads, head_dim = q_BxTxHxN.shape
    n_kv = k_BxTxKxN.shape[2]
    q = q_BxTxHxN.reshape(batch, length, n_kv, n_heads // n_kv, head_dim) * head_dim**-0.5
    scores = jnp.einsum("btkgn,bskn->bkgts", q, k_BxTxKxN).astype(jnp.float32)
    scores = jnp.where(mask_BxTxT[:, None, None, :, :], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v_BxTxKxN.dtype)
    out = jnp.einsum("bkgts,bskn->btkgn", weights, v_BxTxKxN)
    return out.reshape(batch, length, n_heads * head_dim)


class GatedMLP(nn.Module):
    """down(silu(gate(x)) * up(x)) (SwiGLU, arXiv 2002.05202)."""

    config: ModelConfig
    method: str
    gram_cost_ratio: float

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array, probes: Probes) -> jax.Array:
        """Applies the MLP to every token. [B, T, D]."""
        c = self.config
        gate_BxTxF, up_BxTxF = _share_scope(self, (("gate", c.d_ff), ("up", c.d_ff)), c.mlp_bias)(
            x_BxTxD, probes["mlp"]
        )
        (y_BxTxD,) = _share_scope(self, (("down", c.d_model),), c.mlp_bias)(
            nn.silu(gate_BxTxF) * up_BxTxF, probes["mlp"]
        )
        return y_BxTxD


def _share_scope(module, features, use_bias: bool) -> Dense:
    """A ``Dense`` whose parameters lie directly under ``module`` (attn/q, not attn/Dense_0/q)."""
    dense = Dense(features, use_bias, module.method, module.gram_cost_ratio)
    nn.share_scope(module, dense)
    return dense


class Layer(nn.Module):
    """One decoder layer, norms before the sublayers (LLaMA, Qwen) or on their output (OLMo2)."""

    config: ModelConfig
    method: str
    gram_cost_ratio: float

    @nn.compact
    def __call__(self, x_BxTxD, mask_BxTxT, cos_sin, probes):
        """The residual stream [B, T, D] after the layer, and None: what a scan's body returns."""
        c = self.config
        attention = Attention(c, self.method, self.gram_cost_ratio, name="attn")
        mlp = GatedMLP(c, self.method, self.gram_cost_ratio, name="mlp")
        attn_norm = RMSNorm(c.norm_eps, name="attn_norm")
        mlp_norm = RMSNorm(c.norm_eps, name="mlp_norm")
        if c.norm_position == "pre":
            normed = attn_norm(x_BxTxD, probes["norm"])
            x_BxTxD = x_BxTxD + attention(normed, mask_BxTxT, cos_sin, probes)
            x_BxTxD = x_BxTxD + mlp(mlp_norm(x_BxTxD, probes["norm"]), probes)
        else:
            attended = attention(x_BxTxD, mask_BxTxT, cos_sin, probes)
            x_BxTxD = x_BxTxD + attn_norm(attended, probes["norm"])
            x_BxTxD = x_BxTxD + mlp_norm(mlp(x_BxTxD, probes), probes["norm"])
        return x_BxTxD, None
