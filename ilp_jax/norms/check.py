"""``check-norms``: exact norms against vmap on the configured model, shrunk."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ilp_jax.data.batches import RowBatch
from ilp_jax.errors import RunFailure
from ilp_jax.models import weights
from ilp_jax.models.config import ModelConfig
from ilp_jax.models.decoder import Decoder
from ilp_jax.models.lora import COLLECTION, Adapted, LoraConfig
from ilp_jax.norms.oracle import vmap_norms
from ilp_jax.train.step import gradients
from ilp_jax.world.base import model_config as world_shape
from ilp_jax.world.facts import Sizes

TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2}
"""Largest relative error allowed by compute dtype.

In bfloat16, vmap itself differs from one example at a time by 1e-3 to 2e-3: the limit is
the dtype's noise, not the method's.
"""


def shrink(config: ModelConfig) -> ModelConfig:
    """The same variant at a size whose whole per-example gradients fit: 3 layers, D of 48."""
    n_kv = 2 if config.n_kv_heads < config.n_heads else 4
    head_dim = 12 if config.head_dim * config.n_heads == config.d_model else 16
    return dataclasses.replace(
        config,
        vocab_size=min(config.vocab_size, 61),
        d_model=48,
        n_layers=min(config.n_layers, 3),
        n_heads=4,
        n_kv_heads=n_kv,
        head_dim=head_dim,
        d_ff=80,
        rope_scaling=_shrink_rope(config, head_dim),
    )


def random_rows(config: ModelConfig, n_rows: int, length: int, seed: int = 0) -> RowBatch:
    """Rows of random tokens with prompts, targets and padding of several lengths.

    The vocabulary is smaller than a row is long, so that tokens repeat within rows; the last
    row is padding only, as in a batch that is not full.

    Args:
      config: gives the vocabulary.
      n_rows: B.
      length: T, and also R.
      seed: of NumPy's generator.
    """
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, config.vocab_size, (n_rows, length)).astype(np.int32)
    lengths = rng.integers(length // 2 + 1, length + 1, n_rows)
    lengths[-1] = 1
    prompts = np.minimum(rng.integers(1, length // 2 + 1, n_rows), lengths)
    at = np.arange(length, dtype=np.int32)
    branch = np.where(at[None] < lengths[:, None], 0, -1).astype(np.int32)
    n_targets = lengths - prompts
    slots = at[None] < n_targets[:, None]
    index = np.where(slots, prompts[:, None] - 1 + at[None], 0).astype(np.int32)
    targets = np.take_along_axis(tokens, np.minimum(index + 1, length - 1), axis=1)
    return RowBatch(
        tokens_BxT=tokens,
        positions_BxT=np.broadcast_to(at, tokens.shape).copy(),
        branch_BxT=branch,
        target_index_BxR=index,
        target_ids_BxR=np.where(slots, targets, 0).astype(np.int32),
        target_mask_BxR=slots.astype(np.float32),
    )


def random_params(decoder: Decoder, rows: RowBatch, seed: int = 0):
    """Random parameters with every scale and bias off its initial value, so that none hides.

    Returns:
      The tree of parameters, ``Adapted`` where the decoder has adapters.
    """
    row = rows.tokens_BxT[:1], rows.positions_BxT[:1], rows.branch_BxT[:1]
    variables = compile_quickly(decoder.init, jax.random.key(seed), *row)(
        jax.random.key(seed), *row
    )
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    moved = [
        leaf + 0.1 * jax.random.normal(key, leaf.shape)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    variables = jax.tree.unflatten(tree, moved)
    if decoder.lora is None:
        return variables["params"]
    return Adapted(variables["params"], variables[COLLECTION])


def compile_quickly(fun: Callable, *args: Any) -> Callable:
    """Compiles for these arguments; on CPU with as little optimisation as there is.

    The programs here run once on a tiny model, where compiling takes most of the time.

    Args:
      fun: a pure function of arrays.
      *args: arguments of the shapes to compile for.
    """
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    lowered = jax.jit(fun).lower(*args)
    return lowered.compile(compiler_options=options if jax.default_backend() == "cpu" else None)


def relative_errors(
    decoder: Decoder,
    rows: RowBatch,
    normalization: str = "example",
    n_microbatches: int = 1,
    seed: int = 0,
) -> dict[str, float]:
    """Largest relative error over examples of each norm, tapped against vmap.

    A group's error is relative to the example's total norm where that is the larger, since a
    group without parameters has norm 0. In float32 both are computed at JAX's precision
    ``highest``: what is compared is the method, not the TF32 or bfloat16 in which a GPU or TPU
    multiplies float32 by default.

    Args:
      decoder: the model with its norm method.
      rows: arrays [B, ...].
      normalization: see ``train.losses.example_weights``.
      n_microbatches: parts that the batch is cut into.
      seed: of the random parameters.
    """
    params, base = random_params(decoder, rows, seed), None
    if isinstance(params, Adapted):
        base, params = params
    cut = jax.tree.map(lambda x: x.reshape(n_microbatches, -1, *x.shape[1:]), rows)
    tapped = functools.partial(
        gradients,
        decoder=decoder,
        normalization=normalization,
        with_norms=True,
        with_gradient=True,
    )
    by_vmap = functools.partial(vmap_norms, decoder=decoder)
    precision = "highest" if decoder.config.compute_dtype == "float32" else None
    with jax.default_matmul_precision(precision):
        _, stats = compile_quickly(tapped, params, cut, base)(params, cut, base)
        reference = compile_quickly(by_vmap, params, rows, base)(params, rows, base)
    real = rows.target_mask_BxR.sum(axis=1) > 0
    floor = 1e-3 * np.asarray(reference["grad_norm"])[real]
    return {
        name: float(
            np.max(
                np.abs(np.asarray(stats[name])[real] - np.asarray(reference[name])[real])
                / np.maximum(np.asarray(reference[name])[real], floor)
            )
        )
        for name in reference
    }


def check_norms(config: ConfigDict) -> dict[str, float]:
    """The largest relative error of every norm of a config's model, shrunk, over both methods.

    Args:
      config: a resolved config.

    Returns:
      Error by statistic's name (``grad_norm``, ``grad_norm_attn``, ...).
    """
    model = shrink(
        dataclasses.replace(
            _shape(config),
            compute_dtype=config.model.compute_dtype,
            remat=config.model.remat,
        )
    )
    adapters = None
    if config.lora.rank:
        adapters = LoraConfig(min(config.lora.rank, 4), tuple(config.lora.targets))
    rows = random_rows(model, n_rows=8, length=24, seed=config.seed)
    worst: dict[str, float] = {}
    for method in ("gram", "direct"):
        errors = relative_errors(
            Decoder(model, method, lora=adapters),
            rows,
            config.train.loss_normalization,
            n_microbatches=2 if config.train.microbatches > 1 else 1,
            seed=config.seed,
        )
        worst = {name: max(error, worst.get(name, 0.0)) for name, error in errors.items()}
    return worst


def _shape(config: ConfigDict) -> ModelConfig:
    """The shape of a config's model; that of a world's base needs no trained weights."""
    if config.world.family:
        return world_shape(config.world.family, Sizes(**config.world.sizes.to_dict()))
    return weights.load_config(config.model.path)


def report(errors: dict[str, float], compute_dtype: str) -> str:
    """The errors as lines of text.

    Args:
      errors: as ``check_norms`` gives them.
      compute_dtype: says what is tolerated (``TOLERANCE``).

    Raises:
      RunFailure: an error is above the tolerance.
    """
    worst, limit = max(errors.values()), TOLERANCE[compute_dtype]
    lines = [f"{name:<24}{error:.2e}" for name, error in errors.items()]
    lines.append(
        f"largest relative error  {worst:.2e}  (tolerated in {compute_dtype}: {limit:.0e}; "
        "tapped norms against vmap(grad), Gram and direct, model shrunk)"
    )
    if not worst <= limit:
        print("\n".join(lines))
        raise RunFailure("check-norms", f"a norm is off by {worst:.2e}, tolerated is {limit:.0e}")
    return "\n".join(lines)


def _shrink_rope(config: ModelConfig, head_dim: int):
    scaling = config.rope_scaling
    if scaling is None or scaling.kind != "factors":
        return scaling
    return dataclasses.replace(scaling, factors=scaling.factors[: head_dim // 2])
