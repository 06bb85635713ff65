"""Rotary position embeddings, Hugging Face's half-rotation convention."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from ilp_jax.models.config import ModelConfig, RopeScaling

FACTOR_TOLERANCE = 2e-6
"""How far, relatively, a file's factors may lie from those of the formula that they came from.

llama.cpp's converter computes them in float32; measured, those of LLaMA 3.1 8B and 3.2 1B lie
within 3e-7.
"""
_LLAMA3 = (1.0, 4.0, 8192)  # low and high factor, original length: LLaMA 3.1, 3.2 and 3.3


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


def from_factors(factors: np.ndarray, theta: float) -> RopeScaling | None:
    """The scaling behind factors that divide the frequencies, as GGUF files hold them.

    Args:
      factors: one divisor a frequency, [head_dim / 2].
      theta: base of the frequencies.

    Returns:
      ``linear`` where all are the same, ``llama3`` where they follow its formula; else the
      factors as they are. None where nothing is scaled.
    """
    factors = np.asarray(factors, np.float32)
    if np.allclose(factors, factors[0], rtol=FACTOR_TOLERANCE, atol=0):
        alone = np.allclose(factors, 1.0, rtol=FACTOR_TOLERANCE, atol=0)
        return None if alone else RopeScaling("linear", factor=float(factors[0]))
    n, factor = len(factors), float(factors.max())
    frequencies = 1.0 / theta ** (np.arange(n, dtype=np.float64) / n)
    for low, high, original in (_LLAMA3, *_fits(factors, frequencies)):
        found = RopeScaling("llama3", factor, low, high, original)
        expected = frequencies / _llama3(frequencies, found)
        if np.allclose(factors, expected, rtol=FACTOR_TOLERANCE, atol=0):
            return found
    return RopeScaling("factors", factors=tuple(map(float, factors)))


def _fits(factors: np.ndarray, frequencies: np.ndarray) -> list[tuple[float, float, int]]:
    """(low, high, original length) of the line that the ramp's factors lie on.

    The three have one degree of freedom too many: ``low`` is 1.
    """
    inverse = 1.0 / factors.astype(np.float64)
    kept = (inverse - inverse.min()) / (1.0 - inverse.min())
    ramp = (kept > FACTOR_TOLERANCE) & (kept < 1 - FACTOR_TOLERANCE)
    if ramp.sum() < 2 or factors.min() < 1 - FACTOR_TOLERANCE:
        return []
    slope, start = np.polyfit(frequencies[ramp] / (2 * math.pi), kept[ramp], 1)
    if not (start < 0 < slope):
        return []
    original, high = round(-slope / start), 1 - 1 / start
    return [(1.0, one, original) for one in (float(round(high, 3)), float(high))]


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
