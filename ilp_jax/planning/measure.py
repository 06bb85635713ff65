"""What this machine's CPU does: speed of a matmul of the model's own shape, and of its memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ilp_jax.chips import Chip, Slice
from ilp_jax.models.config import ModelConfig

CPU_EFFICIENCY = 0.5
"""Share of the matmul's speed that whole passes reach. A run of
``configs/controlled.py:family=llama,world=20`` on two cores trained at .46 of it, compiling
included: 49.5 s, where a plan with .5 says 45.8."""
_SECONDS = 0.5
_COPIED_BYTES = 64 * 2**20


def cpu(config: ModelConfig, n_tokens: int) -> Slice:
    """The CPU of this machine as a chip.

    Measures a float32 matmul of ``n_tokens`` tokens by the MLP's weight, and a copy of an array
    that no cache holds, each at its fastest within half a second: other programs that run just
    now are not to count.

    Args:
      config: the model's shape.
      n_tokens: tokens of a usual batch.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    device = jax.devices("cpu")[0]
    tokens = min(max(n_tokens, 1), 4096)
    x = jax.device_put(np.ones((tokens, config.d_model), np.float32), device)
    w = jax.device_put(np.ones((config.d_model, config.d_ff), np.float32), device)
    matmul = jax.jit(jnp.matmul)
    seconds = _fastest(lambda: matmul(x, w).block_until_ready())
    flops = 2.0 * tokens * config.d_model * config.d_ff / seconds
    source, target = np.ones(_COPIED_BYTES, np.uint8), np.empty(_COPIED_BYTES, np.uint8)
    bandwidth = 2.0 * _COPIED_BYTES / _fastest(lambda: np.copyto(target, source))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    about = (
        f"measured here on {cores} cores: a float32 matmul of {tokens} x {config.d_model} by "
        f"{config.d_model} x {config.d_ff}, and a copy in memory"
    )
    # XLA:CPU widens bfloat16, so both dtypes have one speed.
    chip = Chip("cpu", flops, 1.0, memory, bandwidth, bandwidth, 1, (1,), 1, CPU_EFFICIENCY, about)
    return Slice(chip, (1,))


def _fastest(call: Callable[[], object]) -> float:
    """The shortest time of a call, in seconds."""
    call()
    times, end = [], time.perf_counter() + _SECONDS
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
