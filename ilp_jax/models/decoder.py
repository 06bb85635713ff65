"""One decoder-only transformer for LLaMA, Qwen2, Qwen3 and OLMo2.

Families differ in ``ModelConfig`` fields alone. Layers are scanned, so parameters carry a
leading layer axis and compilation does not grow with depth. Parameters: ``embed/embedding``
(V x D), ``layers/...`` (L x ...), ``final_norm/scale`` (D) and, unless tied, ``head/kernel``
(D x V).
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ilp_jax.models import rope
from ilp_jax.models.config import ModelConfig
from ilp_jax.models.layers import (
    ADAPTERS,
    KeysValues,
    Layer,
    Options,
    Past,
    Probes,
    RMSNorm,
)
from ilp_jax.models.lora import COLLECTION, LoraConfig
from ilp_jax.norms import rules, taps
from ilp_jax.norms.lookup import Lookup
from ilp_jax.norms.shards import Shards, Split

GROUPS = ("embed", "attn", "mlp", "norm", "head")
"""Module groups of a gradient norm; every parameter is in exactly one."""

NORM_METHODS = (rules.AUTO, rules.GRAM, rules.DIRECT)


def zero_probes(batch_size: int) -> dict[str, jax.Array]:
    """A fresh probe for each group: float32 zeros [B]."""
    return {group: jnp.zeros(batch_size, jnp.float32) for group in GROUPS}


def attention_mask(branch_BxT: jax.Array) -> jax.Array:
    """Which earlier tokens each token sees. bool [B, T, T], query first.

    Branch 0 is the trunk (a training row, or the prompt of a row of options), k >= 1 an
    option that sees the trunk and itself but no other option, -1 padding. A padding token
    sees itself, so that no softmax is over nothing.
    """
    length = branch_BxT.shape[1]
    causal_TxT = jnp.tril(jnp.ones((length, length), bool))
    key, query = branch_BxT[:, None, :], branch_BxT[:, :, None]
    visible = (key == 0) | ((key == query) & (key != -1))
    return (causal_TxT[None] & visible) | jnp.eye(length, dtype=bool)[None]


class Decoder(nn.Module):
    """Logits of a batch of rows.

    Attributes:
      config: the model's shape and variant.
      norm_method: ``auto``, ``gram`` or ``direct`` when probes are given.
      gram_cost_ratio: see ``rules.GRAM_COST_RATIO``.
      lora: adapters in a collection ``lora`` beside ``params``, or None. With adapters the
        norms are theirs alone.
      shards: how activations lie on a mesh of several devices, or None.
    """

    config: ModelConfig
    norm_method: str = rules.AUTO
    gram_cost_ratio: float = rules.GRAM_COST_RATIO
    lora: LoraConfig | None = None
    shards: Shards | None = None

    @nn.compact
    def __call__(
        self,
        tokens_BxT: jax.Array,
        positions_BxT: jax.Array,
        branch_BxT: jax.Array,
        target_index_BxR: jax.Array | None = None,
        probes: Probes | None = None,
        past: Past | None = None,
    ) -> jax.Array | tuple[jax.Array, KeysValues]:
        """Runs the decoder.

        Args:
          tokens_BxT: int32 token ids.
          positions_BxT: int32 rotary positions.
          branch_BxT: int32 branches, see ``attention_mask``.
          target_index_BxR: int32 places in the row whose logits are wanted; None for all.
          probes: zeros [B] for each of ``GROUPS``, or None to leave norms out.
          past: earlier tokens that every row goes on from (perhaps no slot at all), or None.

        Returns:
          float32 logits, [B, R, V], or [B, T, V] without ``target_index_BxR``; where ``past``
          is given also the row's own keys and values, each [L, B, T, K, N].

        Raises:
          ValueError: with probes, for another method or other groups.
        """
        c = self.config
        if probes is None:
            method, probes = rules.OFF, zero_probes(tokens_BxT.shape[0])
        elif self.norm_method not in NORM_METHODS or set(probes) != set(GROUPS):
            asked = f"norm_method={self.norm_method!r} with probes {sorted(probes)}"
            raise ValueError(f"{asked}: norms need one of {NORM_METHODS}, and {GROUPS}")
        else:
            method = self.norm_method
        options = Options(method, self.gram_cost_ratio, self.lora, self.shards)
        if self.lora is not None:
            # What is frozen gets probes that nobody differentiates.
            adapters = {ADAPTERS + group: probes[group] for group in ("attn", "mlp")}
            probes, method = zero_probes(tokens_BxT.shape[0]) | adapters, rules.OFF

        table_VxD = _Table(c.vocab_size, c.d_model, name="embed")()
        lookup = None
        if self.shards:
            table_spec = self.shards.of_matrix("embed/embedding", table_VxD.shape)
            if self.shards.divides(tokens_BxT.shape[0]):  # else a lone row, to initialise
                lookup = Lookup(self.shards, table_spec)
        x_BxTxD, link_BxTxD = taps.embed(
            table_VxD, tokens_BxT, probes["embed"], c.compute_dtype, lookup
        )
        x_BxTxD, link_BxTxD = options.pin(x_BxTxD), options.pin(link_BxTxD)

        layer = nn.remat(Layer, prevent_cse=False) if c.remat == "full" else Layer
        layers = nn.scan(
            layer,
            variable_axes={"params": 0, COLLECTION: 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast, nn.broadcast, 0),
            length=c.n_layers,
        )(c, options, name="layers")
        mask_BxTxS, earlier = attention_mask(branch_BxT), None
        if past is not None:
            earlier, shape = past.keys_values, (*branch_BxT.shape, past.visible_BxS.shape[1])
            in_past_BxTxS = jnp.broadcast_to(past.visible_BxS[:, None, :], shape)
            mask_BxTxS = jnp.concatenate([in_past_BxTxS, mask_BxTxS], axis=-1)
        angles = rope.angles(c, positions_BxT)
        x_BxTxD, own = layers(x_BxTxD, mask_BxTxS, angles, probes, earlier)

        if target_index_BxR is not None:
            x_BxTxD = jnp.take_along_axis(x_BxTxD, target_index_BxR[:, :, None], axis=1)
        h_BxRxD = RMSNorm(c.norm_eps, options, name="final_norm")(
            options.pin(x_BxTxD), probes["norm"]
        )
        split = None
        if self.shards:
            head_spec = self.shards.of_matrix("head/kernel", table_VxD.shape[::-1])
            spec = table_spec if c.tie_embeddings else head_spec
            splits = self.shards.splits(c.vocab_size)
            split = Split(self.shards, (spec,), output=splits, is_head=self.lora is None)
            h_BxRxD = split.pin_input(h_BxRxD)
        if c.tie_embeddings:
            logits_BxRxV = taps.tied_head(
                *(method, h_BxRxD, table_VxD, tokens_BxT, link_BxTxD, probes["embed"]),
                *(split, self.gram_cost_ratio),
            )
        else:
            kernel_DxV = _Head(c.d_model, c.vocab_size, name="head")()
            (logits_BxRxV,) = taps.dense(
                method, h_BxRxD, (kernel_DxV,), probes["head"], split, self.gram_cost_ratio
            )
        if split:
            logits_BxRxV = split.pin_output(logits_BxRxV)
        logits_BxRxV = logits_BxRxV.astype(jnp.float32)
        return logits_BxRxV if past is None else (logits_BxRxV, own)


class _Table(nn.Module):
    """Holds ``embedding`` (V x D)."""

    vocab_size: int
    d_model: int

    @nn.compact
    def __call__(self):
        shape = (self.vocab_size, self.d_model)
        return self.param("embedding", nn.initializers.normal(0.02), shape, jnp.float32)


class _Head(nn.Module):
    """Holds an untied head's ``kernel`` (D x V)."""

    d_model: int
    vocab_size: int

    @nn.compact
    def __call__(self):
        shape = (self.d_model, self.vocab_size)
        return self.param("kernel", nn.initializers.normal(0.02), shape, jnp.float32)


def group_of(path: tuple[str, ...]) -> str:
    """The module group of a parameter by its path in the tree (q/k norms are ``norm``)."""
    if any(name.endswith("norm") for name in path):
        return "norm"
    return next(name for name in path if name in GROUPS)
