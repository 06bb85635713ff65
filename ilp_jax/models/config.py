"""The one description of a decoder: every family is a setting of these fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

# What lies beyond is no model but a damaged or hostile file. The widest and deepest published
# models have d_model 18,432, d_ff 73,728, 1,000 layers, 128 heads and theta 1e9; token ids and
# positions are int32 here, and 1e12 leaves float32 room for theta's powers.
LIMITS: Mapping[str, tuple[float, float]] = {
    "vocab_size": (1, 2**31 - 1),
    "d_model": (1, 2**20),
    "n_layers": (1, 2**12),
    "n_heads": (1, 2**12),
    "n_kv_heads": (1, 2**12),
    "head_dim": (2, 2**12),
    "d_ff": (1, 2**20),
    "rope_theta": (1.0, 1e12),
    "norm_eps": (1e-30, 0.1),
    "max_position": (1, 2**31 - 1),
}
"""Least and greatest value of the fields of a `ModelConfig`."""

ROPE_LIMITS: Mapping[str, tuple[float, float]] = {
    "factor": (1e-3, 1e6),
    "low_freq_factor": (1e-6, 1e6),
    "high_freq_factor": (1e-6, 1e6),
    "original_max_position": (1, 2**31 - 1),
}
"""The same of a `RopeScaling`; ``factor`` holds for each of ``factors`` too."""


def _check(values: Any, limits: Mapping[str, tuple[float, float]]) -> None:
    for field, (low, high) in limits.items():
        if not low <= getattr(values, field) <= high:
            raise ValueError(f"{field}={getattr(values, field)} is not from {low} to {high}")


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched beyond the pre-training length.

    Attributes:
      kind: ``linear`` (every frequency divided by ``factor``; positions interpolated),
        ``llama3`` (long wavelengths divided by ``factor``, short ones kept, a ramp
        between; LLaMA 3.1 and later) or ``factors`` (each of the head_dim / 2
        frequencies divided by its own entry of ``factors``, as GGUF files store it).
      factor: the stretch.
      low_freq_factor: ``llama3``: wavelengths above original_max_position divided by
        this are stretched fully.
      high_freq_factor: ``llama3``: wavelengths below original_max_position divided by
        this are kept.
      original_max_position: ``llama3``: tokens of context in pre-training.
      factors: ``factors``: one divisor a frequency.
    """

    kind: str
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position: int = 8192
    factors: tuple[float, ...] = ()

    def __post_init__(self):
        _check(self, ROPE_LIMITS)
        low, high = ROPE_LIMITS["factor"]
        if not all(low <= factor <= high for factor in self.factors):
            raise ValueError(f"a rotary factor is not from {low} to {high}")
        if self.kind == "llama3" and self.low_freq_factor >= self.high_freq_factor:
            raise ValueError(
                f"low_freq_factor={self.low_freq_factor} is not below "
                f"high_freq_factor={self.high_freq_factor}"
            )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape and variant of a decoder-only transformer.

    LLaMA is the default; the other families differ from it in these fields alone:
    Qwen2 has ``qkv_bias``; Qwen3 has ``qk_norm='head'`` and its own ``head_dim``;
    OLMo2 has ``qk_norm='full'`` and ``norm_position='post'``.

    Attributes:
      vocab_size: V, rows of the embedding.
      d_model: D, width of the residual stream.
      n_layers: L.
      n_heads: H, query heads.
      n_kv_heads: K, key and value heads (K divides H; K < H is grouped-query attention).
      head_dim: N, width of a head; H * N need not equal D.
      d_ff: F, hidden width of the gated MLP.
      rope_theta: base of the rotary frequencies.
      rope_scaling: None or how the frequencies are stretched.
      norm_eps: epsilon of every RMSNorm.
      tie_embeddings: the head is the embedding's transpose, one parameter.
      qkv_bias: biases on q, k and v.
      o_bias: bias on the attention's output (LLaMA's ``attention_bias`` sets both).
      mlp_bias: biases on gate, up and down.
      qk_norm: ``none``, ``head`` (RMSNorm over each head, scale of N shared by heads)
        or ``full`` (RMSNorm over all heads together, scale of H * N and K * N).
      norm_position: ``pre`` (norm before each sublayer) or ``post`` (norm on its output).
      max_position: longest row in tokens that the model was made for.
      compute_dtype: dtype of activations and matmuls, ``float32`` or ``bfloat16``;
        parameters, norms' statistics, softmax and losses stay float32.
      remat: ``none`` or ``full``: recompute each layer's activations in the backward
        pass (less memory, about a third more time).
    """

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-5
    tie_embeddings: bool = False
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: str = "none"
    norm_position: str = "pre"
    max_position: int = 2048
    compute_dtype: str = "float32"
    remat: str = "none"

    def __post_init__(self):
        _check(self, LIMITS)
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_kv_heads={self.n_kv_heads} does not divide n_heads={self.n_heads}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} is odd: rotary embeddings need pairs")
        scaling = self.rope_scaling
        if scaling and scaling.kind == "factors" and len(scaling.factors) != self.head_dim // 2:
            raise ValueError(f"{len(scaling.factors)} rotary factors, not {self.head_dim // 2}")
        for field, allowed in (
            ("qk_norm", ("none", "head", "full")),
            ("norm_position", ("pre", "post")),
            ("remat", ("none", "full")),
            ("compute_dtype", ("float32", "bfloat16")),
        ):
            if getattr(self, field) not in allowed:
                raise ValueError(f"{field}={getattr(self, field)!r} is not one of {allowed}")
