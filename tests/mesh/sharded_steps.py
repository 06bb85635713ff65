"""Run by test_sharding.py on virtual devices: steps on a mesh, beside the same on one device."""

from __future__ import annotations

import dataclasses
import json
import sys

import jax
import numpy as np
from ml_collections import ConfigDict

from ilp_jax.ahead import hlo
from ilp_jax.config import default_config
from ilp_jax.fields.mesh import mesh_fields
from ilp_jax.mesh.layout import layout_of
from ilp_jax.mesh.rows import fetch_own
from ilp_jax.models.config import ModelConfig
from ilp_jax.models.decoder import Decoder
from ilp_jax.norms import check
from ilp_jax.train.optim import make_optimizer
from ilp_jax.train.step import in_microbatches, init_state
from ilp_jax.workspace import make_programs

FAMILIES = {
    "llama": {},
    "qwen2": {"qkv_bias": True, "tie_embeddings": True},
    "qwen3": {"qk_norm": "head", "tie_embeddings": True},
    "olmo2": {"qk_norm": "full", "norm_position": "post"},
}


def model(family: str) -> ModelConfig:
    return ModelConfig(
        vocab_size=32,
        d_model=64,
        n_layers=2,
        n_heads=4,
        n_kv_heads=2,
        head_dim=16,
        d_ff=96,
        remat="full",
        **FAMILIES[family],
    )


def settings(**sizes: int) -> ConfigDict:
    fields = mesh_fields()
    fields.update(sizes)
    return fields


def collectives(compiled) -> dict[str, tuple[int, float]]:
    """Collectives of a compiled program by kind: runs in a step, and bytes received."""
    found = hlo.collectives(compiled.as_text())
    return {kind: (one.runs, one.received) for kind, one in found.items()}


def step(config: ModelConfig, rows, method: str, layout, n_microbatches: int, norms: bool = True):
    """The state after an update, the statistics by row, and the compiled program."""
    decoder = Decoder(config, method)
    optimizer = make_optimizer(default_config().train)
    state = init_state(check.random_params(decoder, rows), optimizer)
    place = None
    if layout is not None:
        decoder = dataclasses.replace(decoder, shards=layout.shards)
        state = jax.device_put(state, layout.shardings(state))
        place = layout.placement
    cut = in_microbatches(rows, n_microbatches, *(() if place is None else (place,)))
    rate = jax.device_put(np.float32(1e-3), None if place is None else place.whole)
    program = make_programs(decoder, optimizer, "token", layout).train[norms]
    compiled = program.lower(state, cut, rate).compile()
    with jax.transfer_guard("disallow"):
        state, stats = compiled(state, cut, rate)
    return state, fetch_own(stats)[1], compiled


def compare(family: str, method: str, sizes: dict[str, int], n_microbatches: int) -> dict:
    """Errors of a sharded step, and its collectives with and without norms."""
    config = model(family)
    rows = check.random_rows(config, n_rows=16, length=24)
    plain_state, plain, _ = step(config, rows, method, None, n_microbatches)
    layout = layout_of(settings(**sizes))
    state, stats, compiled = step(config, rows, method, layout, n_microbatches)
    *_, without = step(config, rows, method, layout, n_microbatches, norms=False)
    errors = {
        name: float(np.max(np.abs(stats[name] - values) / np.maximum(np.abs(values), 1e-3)))
        for name, values in plain.items()
    }
    # The first moments are the gradient's tenth. An update itself says nothing of how near two
    # gradients are: from moments of 0 it is the gradient's sign, even of one that is all rounding.
    moments = jax.tree.map(
        lambda a, b: float(np.max(np.abs(a - b)) / np.max(np.abs(b))),
        jax.device_get(state.opt_state[1].mu),
        jax.device_get(plain_state.opt_state[1].mu),
    )
    kernel = state.opt_state[1].mu["layers"]["mlp"]["up"]["kernel"]
    return {
        "errors": errors,
        "moments": max(jax.tree.leaves(moments)),
        "share": kernel.addressable_shards[0].data.size / kernel.size,
        "with": collectives(compiled),
        "without": collectives(without),
    }


if __name__ == "__main__":
    for case in json.loads(sys.argv[1]):
        print(json.dumps(compare(**case)))
