"""The parts of a decoder layer, built from operations that yield per-example norms."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ilp_jax.models import rope
from ilp_jax.models.config import ModelConfig
from ilp_jax.models.lora import COLLECTION, LoraConfig
from ilp_jax.norms import rules, taps
from ilp_jax.norms.shards import Shards, Split

Probes = Mapping[str, jax.Array]
"""Zeros [B] by module group, and by ``ADAPTERS`` + group for adapters."""

KeysValues = tuple[jax.Array, jax.Array]
"""Rotated keys and values of some tokens, each [..., B, S, K, N] in the activations' dtype."""


class Past(NamedTuple):
    """Earlier tokens that a row goes on from, S slots a row.

    Attributes:
      keys_values: of every layer, each [L, B, S, K, N].
      visible_BxS: bool, which slots hold a token; the row's own tokens see all of these.
    """

    keys_values: KeysValues
    visible_BxS: jax.Array


ADAPTERS = "adapters_"
"""In front of a group's name: the probe of its adapters."""

_KERNEL_INIT = nn.initializers.normal(0.02)


@dataclasses.dataclass(frozen=True)
class Options:
    """How the layers' operations are built; no option changes the base model's function.

    Attributes:
      method: how norms are taken (``rules.choose``); ``off`` where none are wanted.
      gram_cost_ratio: see ``rules.GRAM_COST_RATIO``.
      lora: adapters beside the frozen projections, or None.
      shards: how activations lie on a mesh, or None.
    """

    method: str = rules.OFF
    gram_cost_ratio: float = rules.GRAM_COST_RATIO
    lora: LoraConfig | None = None
    shards: Shards | None = None

    def pin(self, x_BxTxD: jax.Array) -> jax.Array:
        """Holds the residual stream to its place on the mesh."""
        return x_BxTxD if self.shards is None else self.shards.pin(x_BxTxD)

    def per_example(self, param: jax.Array, probe_B: jax.Array) -> jax.Array:
        """``taps.per_example``, every copy with its row."""
        return self.pin(taps.per_example(param, probe_B))


class Dense(nn.Module):
    """Several projections of one input, each with its kernel and perhaps bias and adapter.

    Attributes:
      features: width of each projection by name; parameters are ``{name}/kernel`` (I x O).
      use_bias: whether each has ``{name}/bias``.
      group: module group whose probes collect the squared norms.
      options: see ``Options``.
      parts: heads or channels that a mesh's axis ``tensor`` splits, if it divides them.
      narrows: the input, not the outputs, has these parts.
    """

    features: tuple[tuple[str, int], ...]
    use_bias: bool
    group: str
    options: Options
    parts: int
    narrows: bool = False

    @nn.compact
    def __call__(self, x_BxTxI: jax.Array, probes: Probes) -> tuple[jax.Array, ...]:
        """One [B, T, O] output a projection; squared norms go to the probes' cotangents."""
        options, probe_B = self.options, probes[self.group]
        d_in = x_BxTxI.shape[-1]
        projections = [
            _Projection(d_in, width, self.use_bias, adapter_rank(options.lora, name), name=name)
            for name, width in self.features
        ]
        weights = [projection() for projection in projections]
        method = rules.OFF if options.lora else options.method
        kernels = tuple(kernel for kernel, _, _ in weights)
        split = None
        if options.shards:
            kernel_specs = tuple(
                options.shards.of_layer(f"{self.group}/{name}/kernel", (d_in, width))
                for name, width in self.features
            )
            splits = options.shards.splits(self.parts)
            split = Split(
                options.shards, kernel_specs, splits and self.narrows, splits and not self.narrows
            )
        if split:
            x_BxTxI = split.pin_input(x_BxTxI)
        outputs = taps.dense(method, x_BxTxI, kernels, probe_B, split, options.gram_cost_ratio)
        if split:
            outputs = tuple(split.pin_output(y) for y in outputs)
        if self.use_bias:
            outputs = tuple(
                y + options.per_example(bias, probe_B)[:, None, :].astype(y.dtype)
                for y, (_, bias, _) in zip(outputs, weights, strict=True)
            )
        if options.lora is None:
            return outputs
        return tuple(
            y if adapter is None else y + self._adapted(x_BxTxI, adapter, probes)
            for y, (_, _, adapter) in zip(outputs, weights, strict=True)
        )

    def _adapted(
        self, x_BxTxI: jax.Array, adapter: tuple[jax.Array, jax.Array], probes: Probes
    ) -> jax.Array:
        """scale * (x A) B in the input's dtype."""
        if self.options.method == rules.OFF:
            a, b = (part.astype(x_BxTxI.dtype) for part in adapter)
            return self.options.lora.scale * jnp.matmul(jnp.matmul(x_BxTxI, a), b)
        # Adapters are small: a copy for each example costs little, and leaves each example's
        # own gradient in its cotangent.
        probe_B = probes[ADAPTERS + self.group]
        copies = (self.options.per_example(part, probe_B) for part in adapter)
        a_BxIxR, b_BxRxO = (copy.astype(x_BxTxI.dtype) for copy in copies)
        inner_BxTxR = jnp.einsum("bti,bir->btr", x_BxTxI, a_BxIxR)
        return self.options.lora.scale * jnp.einsum("btr,bro->bto", inner_BxTxR, b_BxRxO)


def adapter_rank(lora: LoraConfig | None, projection: str) -> int:
    """Rank of a projection's adapter, 0 where it has none."""
    return lora.rank if lora is not None and projection in lora.targets else 0


class _Projection(nn.Module):
    """Holds one projection's parameters, and its adapter's, under its name."""

    d_in: int
    d_out: int
    use_bias: bool
    rank: int

    @nn.compact
    def __call__(self):
        kernel = self.param("kernel", _KERNEL_INIT, (self.d_in, self.d_out), jnp.float32)
        bias = adapter = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.d_out,), jnp.float32)
        if self.rank:
            # Variance 1 / I, as for a linear layer; B is zero, so the sum begins at the base.
            a_init = nn.initializers.lecun_normal()
            a = self.variable(
                COLLECTION, "a", lambda: a_init(self.make_rng("params"), (self.d_in, self.rank))
            )
            b = self.variable(COLLECTION, "b", jnp.zeros, (self.rank, self.d_out), jnp.float32)
            adapter = a.value, b.value
        return kernel, bias, adapter


class RMSNorm(nn.Module):
    """x / rms(x) * scale over the last axis; statistics in float32 (arXiv 1910.07467)."""

    epsilon: float
    options: Options = Options()

    @nn.compact
    def __call__(self, x: jax.Array, probe_B: jax.Array) -> jax.Array:
        """Normalises x [B, ..., width] over its last axis, in x's dtype."""
        width = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (width,), jnp.float32)
        wide = x.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
        scale_B = self.options.per_example(scale, probe_B)
        scale_B = scale_B.reshape(scale_B.shape[0], *(1,) * (x.ndim - 2), width)
        return (wide * jax.lax.rsqrt(mean_square + self.epsilon) * scale_B).astype(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions and optional q/k norms."""

    config: ModelConfig
    options: Options

    @nn.compact
    def __call__(
        self,
        x_BxTxD: jax.Array,
        mask_BxTxS: jax.Array,
        cos_sin: tuple[jax.Array, jax.Array],
        probes: Probes,
        past: KeysValues | None = None,
    ) -> tuple[jax.Array, KeysValues | None]:
        """Attends within each row of x, and to ``past`` in front of it.

        The mask is bool, query first, over the past's slots and then the row's own tokens.

        Returns:
          The output [B, T, D], and the row's own keys and values where ``past`` is given.
        """
        c = self.config
        batch, length, _ = x_BxTxD.shape
        query_width, key_width = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
        q, k, v = _share_scope(
            self,
            (("q", query_width), ("k", key_width), ("v", key_width)),
            *(c.qkv_bias, "attn", c.n_kv_heads),
        )(x_BxTxD, probes)
        if c.qk_norm == "full":
            q = RMSNorm(c.norm_eps, self.options, name="q_norm")(q, probes["norm"])
            k = RMSNorm(c.norm_eps, self.options, name="k_norm")(k, probes["norm"])
        q_BxTxHxN = q.reshape(batch, length, c.n_heads, c.head_dim)
        k_BxTxKxN = k.reshape(batch, length, c.n_kv_heads, c.head_dim)
        v_BxTxKxN = v.reshape(batch, length, c.n_kv_heads, c.head_dim)
        if c.qk_norm == "head":
            q_BxTxHxN = RMSNorm(c.norm_eps, self.options, name="q_norm")(q_BxTxHxN, probes["norm"])
            k_BxTxKxN = RMSNorm(c.norm_eps, self.options, name="k_norm")(k_BxTxKxN, probes["norm"])
        q_BxTxHxN = rope.rotate(q_BxTxHxN, cos_sin)
        own = rope.rotate(k_BxTxKxN, cos_sin), v_BxTxKxN
        keys, values = own
        if past is not None:
            keys, values = (jnp.concatenate(pair, 1) for pair in zip(past, own, strict=True))
        out_BxTxHN = attend(q_BxTxHxN, keys, values, mask_BxTxS)
        (y_BxTxD,) = _share_scope(
            self, (("o", c.d_model),), c.o_bias, "attn", c.n_kv_heads, narrows=True
        )(out_BxTxHN, probes)
        return y_BxTxD, None if past is None else own


def attend(
    q_BxTxHxN: jax.Array, k_BxSxKxN: jax.Array, v_BxSxKxN: jax.Array, mask_BxTxS: jax.Array
) -> jax.Array:
    """Softmax attention, H / K query heads to a key head; softmax in float32. [B, T, H * N].

    A query with no key allowed would be NaN: every row's mask must allow at least one.
    """
    batch, length, n_heads, head_dim = q_BxTxHxN.shape
    n_kv = k_BxSxKxN.shape[2]
    q = q_BxTxHxN.reshape(batch, length, n_kv, n_heads // n_kv, head_dim) * head_dim**-0.5
    scores = jnp.einsum("btkgn,bskn->bkgts", q, k_BxSxKxN).astype(jnp.float32)
    scores = jnp.where(mask_BxTxS[:, None, None, :, :], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v_BxSxKxN.dtype)
    out = jnp.einsum("bkgts,bskn->btkgn", weights, v_BxSxKxN)
    return out.reshape(batch, length, n_heads * head_dim)


class GatedMLP(nn.Module):
    """down(silu(gate(x)) * up(x)) (SwiGLU, arXiv 2002.05202)."""

    config: ModelConfig
    options: Options

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array, probes: Probes) -> jax.Array:
        """Applies the MLP to every token. [B, T, D]."""
        c = self.config
        gate_BxTxF, up_BxTxF = _share_scope(
            self, (("gate", c.d_ff), ("up", c.d_ff)), c.mlp_bias, "mlp", c.d_ff
        )(x_BxTxD, probes)
        (y_BxTxD,) = _share_scope(
            self, (("down", c.d_model),), c.mlp_bias, "mlp", c.d_ff, narrows=True
        )(nn.silu(gate_BxTxF) * up_BxTxF, probes)
        return y_BxTxD


def _share_scope(
    module, features, use_bias: bool, group: str, parts: int, narrows: bool = False
) -> Dense:
    """A ``Dense`` whose parameters lie directly under ``module`` (attn/q, not attn/Dense_0/q)."""
    dense = Dense(features, use_bias, group, module.options, parts, narrows)
    nn.share_scope(module, dense)
    return dense


class Layer(nn.Module):
    """One decoder layer, norms before the sublayers (LLaMA, Qwen) or on their output (OLMo2)."""

    config: ModelConfig
    options: Options

    @nn.compact
    def __call__(self, x_BxTxD, mask_BxTxS, cos_sin, probes, past=None):
        """The residual stream [B, T, D] after the layer, and what ``Attention`` gives beside."""
        c = self.config
        attention = Attention(c, self.options, name="attn")
        mlp = GatedMLP(c, self.options, name="mlp")
        attn_norm = RMSNorm(c.norm_eps, self.options, name="attn_norm")
        mlp_norm = RMSNorm(c.norm_eps, self.options, name="mlp_norm")
        if c.norm_position == "pre":
            normed = attn_norm(x_BxTxD, probes["norm"])
            attended, own = attention(normed, mask_BxTxS, cos_sin, probes, past)
            x_BxTxD = x_BxTxD + attended
            x_BxTxD = x_BxTxD + mlp(mlp_norm(x_BxTxD, probes["norm"]), probes)
        else:
            attended, own = attention(x_BxTxD, mask_BxTxS, cos_sin, probes, past)
            x_BxTxD = x_BxTxD + attn_norm(attended, probes["norm"])
            x_BxTxD = x_BxTxD + mlp_norm(mlp(x_BxTxD, probes), probes["norm"])
        return self.options.pin(x_BxTxD), own
