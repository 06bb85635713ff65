"""FLOPs of one row, and numbers of parameters, from a model's shape.

A matmul of T rows by a weight of I x O takes 2 T I O FLOPs, and its backward pass as much for
the input's gradient and again for the weight's (Kaplan et al. 2020, arXiv:2001.08361, Table 1;
Chowdhery et al. 2022, arXiv:2204.02311, appendix B). Attention over T tokens takes 4 T^2 H N a
layer and twice that backwards: ``models.layers.attend`` computes the whole square, so nothing
is halved. Softmax, norms, rotations and the optimiser are left out. Per-example norms take
2 T^2 (I + O) by the Gram form and no further matmul by the direct one (``norms.rules``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ilp_jax.models.config import ModelConfig
from ilp_jax.models.layers import adapter_rank
from ilp_jax.models.lora import LoraConfig
from ilp_jax.norms import rules


@dataclasses.dataclass(frozen=True)
class Model:
    """What is computed with.

    Attributes:
      config: shape, dtype and remat.
      lora: adapters, or None where all parameters are trained.
      norm_method: see ``rules.choose``.
      gram_cost_ratio: see ``rules.choose``.
    """

    config: ModelConfig
    lora: LoraConfig | None = None
    norm_method: str = rules.AUTO
    gram_cost_ratio: float = rules.GRAM_COST_RATIO

    @property
    def n_trained(self) -> int:
        """Parameters that are trained."""
        return n_params(self.config) if self.lora is None else n_adapters(self.config, self.lora)

    @property
    def value_bytes(self) -> int:
        """Bytes of an activation, and of a weight as it enters a matmul."""
        return 2 if self.config.compute_dtype == "bfloat16" else 4

    def method(self, length: int, d_in: int, d_out: int) -> str:
        """How a weight's norms are taken; ``off`` under adapters, whose norms cost no matmul."""
        if self.lora is not None:
            return rules.OFF
        return rules.choose(self.norm_method, length, d_in, d_out, self.gram_cost_ratio)


def projections(c: ModelConfig) -> tuple[tuple[int, dict[str, int]], ...]:
    """A layer's inputs, each as its width and the widths of all that is projected from it."""
    q, kv = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
    return (
        (c.d_model, {"q": q, "k": kv, "v": kv}),
        (q, {"o": c.d_model}),
        (c.d_model, {"gate": c.d_ff, "up": c.d_ff}),
        (c.d_ff, {"down": c.d_model}),
    )


def n_params(c: ModelConfig) -> int:
    """Parameters of a decoder.

    Args:
      c: its shape.
    """
    q, kv = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
    layer = sum(d_in * sum(outs.values()) for d_in, outs in projections(c)) + 2 * c.d_model
    layer += c.qkv_bias * (q + 2 * kv) + c.o_bias * c.d_model
    layer += c.mlp_bias * (2 * c.d_ff + c.d_model)
    layer += {"none": 0, "head": 2 * c.head_dim, "full": q + kv}[c.qk_norm]
    tables = c.vocab_size * c.d_model * (1 if c.tie_embeddings else 2)
    return c.n_layers * layer + tables + c.d_model


def n_adapters(c: ModelConfig, lora: LoraConfig) -> int:
    """Parameters of all adapters.

    Args:
      c: the decoder's shape.
      lora: which projections have one, and their rank.
    """
    return c.n_layers * sum(
        adapter_rank(lora, name) * (d_in + width) for d_in, name, width in _each(c)
    )


def forward(model: Model, length: int, slots: int) -> float:
    """FLOPs of one row's forward pass.

    Args:
      model: what is computed with.
      length: T, tokens of the row, padding included.
      slots: R, places whose logits are computed.
    """
    c = model.config
    return _layers(model, length) + 2.0 * slots * c.d_model * c.vocab_size


def backward(model: Model, length: int, slots: int, *, norms: bool, update: bool) -> float:
    """FLOPs of one row's backward pass, with what ``remat`` computes again.

    Args:
      model: what is computed with.
      length: T.
      slots: R.
      norms: whether per-example norms are taken.
      update: whether the parameters' gradient is wanted; without it only what norms need is
        computed: gradients of inputs, and of weights where the direct form is taken.
    """
    c = model.config
    total = 8.0 * length**2 * c.n_heads * c.head_dim * c.n_layers
    if c.remat == "full":
        total += _layers(model, length)
    for d_in, d_out, n, positions in _weights(c, length, slots):
        weight = 2.0 * positions * d_in * d_out
        method = model.method(positions, d_in, d_out) if norms else rules.OFF
        total += n * weight
        if method == rules.DIRECT or (update and model.lora is None):
            total += n * weight
        if method == rules.GRAM:
            total += n * 2.0 * positions**2 * (d_in + d_out)
    if model.lora is not None:
        return total + 2 * _adapters(model, length)
    if norms:
        total += 2.0 * length**2 * c.d_model  # of the embedding: cotangents of equal tokens
        total += 2.0 * slots * length * c.d_model * c.tie_embeddings  # the tied table's cross term
    return total


def direct_bytes(model: Model, length: int, slots: int) -> float:
    """Bytes that the direct form of norms moves through memory for one row.

    Each example's gradient is float32: written, read for the square, and added to a total
    that is read and written, 16 bytes a weight.

    Args:
      model: what is computed with.
      length: T.
      slots: R.
    """
    return sum(
        16.0 * n * d_in * d_out
        for d_in, d_out, n, positions in _weights(model.config, length, slots)
        if model.method(positions, d_in, d_out) == rules.DIRECT
    )


def one_token(model: Model, n_keys: int) -> float:
    """FLOPs of one token behind a cache.

    Args:
      model: what is computed with.
      n_keys: slots of the cache that it attends to, empty ones included.
    """
    c = model.config
    attention = 4.0 * n_keys * c.n_heads * c.head_dim * c.n_layers
    own = 4.0 * c.n_heads * c.head_dim * c.n_layers
    return forward(model, 1, 1) - own + attention


def cache_bytes(model: Model, n_keys: int) -> float:
    """Bytes of one answer's keys and values.

    Args:
      model: what is computed with.
      n_keys: slots of the cache.
    """
    c = model.config
    return 2.0 * c.n_layers * n_keys * c.n_kv_heads * c.head_dim * model.value_bytes


def _layers(model: Model, length: int) -> float:
    c = model.config
    weights = sum(d_in * sum(outs.values()) for d_in, outs in projections(c))
    attention = 4.0 * length**2 * c.n_heads * c.head_dim
    return c.n_layers * (2.0 * length * weights + attention) + _adapters(model, length)


def _adapters(model: Model, length: int) -> float:
    return 2.0 * length * n_adapters(model.config, model.lora) if model.lora else 0.0


def _weights(c: ModelConfig, length: int, slots: int) -> Iterator[tuple[int, int, int, int]]:
    """(I, O of all that share the input, how often, positions) of every input; the head last."""
    for d_in, outs in projections(c):
        yield d_in, sum(outs.values()), c.n_layers, length
    # A tied head's operands stand the other way round, which changes no figure.
    yield c.d_model, c.vocab_size, 1, slots


def _each(c: ModelConfig) -> Iterator[tuple[int, str, int]]:
    for d_in, outs in projections(c):
        for name, width in outs.items():
            yield d_in, name, width
