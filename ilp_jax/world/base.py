"""The base model of a world: a tiny decoder of any family, pre-trained and kept as a folder."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ilp_jax.models.config import ModelConfig
from ilp_jax.models.decoder import Decoder
from ilp_jax.world import facts as words

FAMILIES = {
    "llama": {},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": "head"},
    "olmo2": {"qk_norm": "full", "norm_position": "post"},
}
"""What sets each family's decoder apart, as fields of ``ModelConfig``."""


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """How a base model is trained.

    Attributes:
      steps: updates.
      batch_size: documents an update.
      peak: learning rate after warm-up; it falls to 0 by a cosine.
      warmup: updates of linear warm-up.
    """

    steps: int = 360
    batch_size: int = 256
    peak: float = 4e-3
    warmup: int = 40


def model_config(family: str, sizes: words.Sizes) -> ModelConfig:
    """The shape of a world's base model: 4 layers, width 128.

    Args:
      family: a key of ``FAMILIES``.
      sizes: the world's sizes, for its vocabulary.
    """
    return ModelConfig(
        vocab_size=len(words.vocabulary(sizes)),
        d_model=128,
        n_layers=4,
        n_heads=4,
        n_kv_heads=4,
        head_dim=32,
        d_ff=384,
        tie_embeddings=True,
        max_position=64,
        **FAMILIES[family],
    )


def word_tokenizer(sizes: words.Sizes) -> PreTrainedTokenizerFast:
    """A tokenizer with a word of the world a token.

    Args:
      sizes: the world's sizes.
    """
    vocabulary = {word: i for i, word in enumerate(words.vocabulary(sizes))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=words.PAD))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=words.END, pad_token=words.PAD
    )


def pretrain(
    config: ModelConfig, rows_NxT: np.ndarray, how: Pretraining, seed: int, bar: Any = None
) -> Any:
    """Trains a decoder on documents, every token a target.

    Args:
      config: its shape.
      rows_NxT: int32 documents padded with 0, steps x batch_size of them or more.
      how: steps, batch and rate.
      seed: of the first parameters.
      bar: a progress bar to advance by one an update, or None.

    Returns:
      The parameters on the device.
    """
    decoder = Decoder(config)
    rate = optax.warmup_cosine_decay_schedule(0.0, how.peak, how.warmup, how.steps)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(rate, b2=0.98, weight_decay=0.01)
    )
    blank = np.zeros((1, 1), np.int32)
    params = jax.jit(decoder.init)(jax.random.key(seed), blank, blank, blank)["params"]
    state = jax.jit(optimizer.init)(params)
    step = jax.jit(
        functools.partial(_step, decoder=decoder, optimizer=optimizer), donate_argnums=(0, 1)
    )
    for i in range(how.steps):
        rows = rows_NxT[i * how.batch_size : (i + 1) * how.batch_size]
        params, state, loss = step(params, state, rows)
        if bar is not None:
            bar.advance(1, text=f"loss {float(loss):.3f}" if i % 20 == 19 else None)
    return params


def _step(params, state, rows_BxT, *, decoder, optimizer):
    def loss_of(params):
        inputs, targets = rows_BxT[:, :-1], rows_BxT[:, 1:]
        positions = jnp.broadcast_to(jnp.arange(inputs.shape[1]), inputs.shape)
        branch = jnp.where(inputs > 0, 0, -1)
        logits = decoder.apply({"params": params}, inputs, positions, branch)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        mask = targets > 0
        return jnp.sum(losses * mask) / jnp.sum(mask)

    loss, grads = jax.value_and_grad(loss_of)(params)
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state, loss
