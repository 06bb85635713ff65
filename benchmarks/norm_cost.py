"""What exact per-example norms cost: one training step with them against the same without.

    python benchmarks/norm_cost.py                       # every shape, about 15 minutes
    python benchmarks/norm_cost.py small_t128 --pairs 20

Both steps are compiled from the same code; without norms the probes are not differentiated,
so that only the norm work is missing. They alternate in ABBA order, each on its own copy of
the state; a ratio is the median over pairs of (with / without), its interval the quartiles.
Temporaries come from XLA's memory analysis of the two programs. float32, AdamW, every
token of a row a target unless ``--targets N`` says how many are. Set
GLIBC_TUNABLES=glibc.malloc.hugetlb=1 on Linux CPUs, as the project's scripts do.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import time

import jax
import numpy as np

from ilp_jax.config import default_config
from ilp_jax.models.config import ModelConfig
from ilp_jax.models.decoder import Decoder
from ilp_jax.norms.check import random_params, random_rows
from ilp_jax.train.optim import make_optimizer
from ilp_jax.train.step import init_state, train_step

SMALL = ModelConfig(
    vocab_size=8192,
    d_model=512,
    n_layers=8,
    n_heads=8,
    n_kv_heads=8,
    head_dim=64,
    d_ff=1408,
    qk_norm="head",
    tie_embeddings=True,
    remat="full",
)
SMOLLM2 = ModelConfig(
    vocab_size=49152,
    d_model=576,
    n_layers=30,
    n_heads=9,
    n_kv_heads=3,
    head_dim=64,
    d_ff=1536,
    tie_embeddings=True,
    remat="full",
)
SHAPES = {
    "small_t128": (SMALL, 16, 128),
    "small_t512": (SMALL, 4, 512),
    "smollm2_t64": (SMOLLM2, 8, 64),
    "smollm2_t128": (SMOLLM2, 8, 128),
}
"""Model, rows B and row length T of each shape."""


def measure(
    model: ModelConfig,
    batch_size: int,
    length: int,
    targets: int,
    pairs: int,
    method: str = "auto",
) -> dict[str, float]:
    """Times the two steps of one shape.

    Args:
      model: the decoder.
      batch_size: rows B.
      length: tokens a row T.
      targets: target slots a row R, 0 for all.
      pairs: AB or BA pairs after one warm-up of each.
      method: how norms are taken.

    Returns:
      Median and quartiles of the ratio, median seconds of both, ratio of temporaries.
    """
    decoder = Decoder(model, method)
    rows = full_rows(model, batch_size, length, targets or length)
    params = random_params(decoder, rows)
    optimizer = make_optimizer(default_config().train)
    rows = jax.device_put(jax.tree.map(lambda x: x[None], rows))
    rate = jax.device_put(np.float32(1e-6))
    compiled, states = {}, {}
    for with_norms in (False, True):
        step = functools.partial(
            train_step,
            decoder=decoder,
            optimizer=optimizer,
            normalization="example",
            with_norms=with_norms,
        )
        states[with_norms] = jax.jit(init_state, static_argnums=1)(params, optimizer)
        compiled[with_norms] = (
            jax.jit(step, donate_argnums=0).lower(states[with_norms], rows, rate).compile()
        )

    def timed(with_norms):
        start = time.perf_counter()
        states[with_norms], stats = compiled[with_norms](states[with_norms], rows, rate)
        jax.block_until_ready((states[with_norms], stats))
        return time.perf_counter() - start

    timed(False), timed(True)
    plain, normed = [], []
    for pair in range(pairs):
        for with_norms in (False, True) if pair % 2 == 0 else (True, False):
            (normed if with_norms else plain).append(timed(with_norms))
    ratios = np.array(normed) / np.array(plain)
    temporaries = {
        key: value.memory_analysis().temp_size_in_bytes for key, value in compiled.items()
    }
    return {
        "ratio": float(np.median(ratios)),
        "ratio_q1": float(np.quantile(ratios, 0.25)),
        "ratio_q3": float(np.quantile(ratios, 0.75)),
        "ratio_of_minima": float(np.min(normed) / np.min(plain)),
        "seconds_without": float(np.median(plain)),
        "seconds_with": float(np.median(normed)),
        "temporaries_ratio": temporaries[True] / temporaries[False],
        "temporaries_with_mib": temporaries[True] / 2**20,
        "pairs": pairs,
    }


def full_rows(model: ModelConfig, batch_size: int, length: int, targets: int):
    """Rows without padding whose last ``targets`` next-token slots are trained."""
    rows = random_rows(model, batch_size, length)
    index = np.arange(length - targets, length, dtype=np.int32)[None].repeat(batch_size, 0)
    return rows._replace(
        branch_BxT=np.zeros_like(rows.branch_BxT),
        target_index_BxR=index,
        target_ids_BxR=np.roll(rows.tokens_BxT, -1, axis=1)[:, -targets:],
        target_mask_BxR=np.ones((batch_size, targets), np.float32),
    )


def main() -> None:
    """Prints one JSON line a shape."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shapes", nargs="*", default=list(SHAPES), metavar="SHAPE")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--targets", type=int, default=0, help="target slots a row; 0: all")
    parser.add_argument("--remat", choices=("full", "none"), default="full")
    parser.add_argument("--method", choices=("auto", "gram", "direct"), default="auto")
    parser.add_argument("--layers", type=int, default=0, help="override the depth")
    args = parser.parse_args()
    for name in args.shapes:
        model, batch_size, length = SHAPES[name]
        model = dataclasses.replace(model, remat=args.remat, n_layers=args.layers or model.n_layers)
        figures = measure(model, batch_size, length, args.targets, args.pairs, args.method)
        print(json.dumps({"shape": name, **{k: round(v, 4) for k, v in figures.items()}}))


if __name__ == "__main__":
    main()
