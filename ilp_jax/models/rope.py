"""Rotary position embeddings, Hugging Face's half-rotation convention."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from ilp_jax.models.config import ModelConfig, RopeScaling


def inverse_frequencies(config: ModelConfig) -> np.ndarray:
    """Radians a position for each of the head_dim / 2 rotated pairs. float32 [head_dim / 2].

    Raises:
      ValueError: for a scaling kind that is not known.
    """
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponents
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies.astype(np.float32)
    if scaling.kind == "linear":
        frequencies = frequencies / scaling.factor
    elif scaling.kind == "factors":
        frequencies = frequencies / np.asarray(scaling.factors, np.float32)
    elif scaling.kind == "llama3":
        frequencies = _llama3(frequencies, scaling)
    else:
        raise ValueError(f"unknown rope scaling {scaling.kind!r}")
    return frequencies.astype(np.float32)


def _llama3(frequencies: np.ndarray, scaling: RopeScaling) -> np.ndarray:
    """LLaMA 3.1's stretch: long waves divided, short ones kept, a linear ramp between."""
    wavelengths = 2 * math.pi / frequencies
    cycles = scaling.original_max_position / wavelengths
    ramp = (cycles - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = np.clip(ramp, 0.0, 1.0)
    return (1 - kept) * frequencies / scaling.factor + kept * frequencies


def angles(config: ModelConfig, positions_BxT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine of every position's angles, each float32 [B, T, 1, head_dim / 2]."""
    frequencies_N = jnp.asarray(inverse_frequencies(config))
    angles_BxTx1xN = (
        positions_BxT[:, :, None, None].astype(jnp.float32) * frequencies_N[None, None, None, :]
    )
    return jnp.cos(angles_BxTx1xN), jnp.sin(angles_BxTx1xN)


def rotate(x_BxTxHxN: jax.Array, cos_sin: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotates pair (i, i + N/2) of every head by its position's angle, in float32."""
    cos, sin = cos_sin
    low, high = jnp.split(x_BxTxHxN.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1)
    return rotated.astype(x_BxTxHxN.dtype)
