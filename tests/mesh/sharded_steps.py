"""Run by test_sharding.py on virtual devices: steps on a mesh, beside the same on one device."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from types import MappingProxyType

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
from ilp_jax.models.lora import LoraConfig
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


def model(family: str, shape: Mapping[str, int]) -> ModelConfig:
    sizes = {"vocab_size": 32, "d_model": 64, "n_heads": 4, "n_kv_heads": 2, "d_ff": 96}
    of_family = FAMILIES[family]
    return ModelConfig(n_layers=2, head_dim=16, remat="full", **sizes | shape, **of_family)


def settings(**sizes) -> ConfigDict:
    fields = mesh_fields()
    fields.update(sizes)
    return fields


def collectives(compiled) -> dict[str, tuple[int, float]]:
    """Collectives of a compiled program by kind: runs in a step, and bytes received."""
    found = hlo.collectives(compiled.as_text())
    return {kind: (one.runs, one.received) for kind, one in found.items()}


def step(decoder: Decoder, rows, layout, n_microbatches: int, norms: bool = True):
    """The state after an update, the statistics by row, and the compiled program."""
    optimizer = make_optimizer(default_config().train)
    params, base = check.random_params(decoder, rows), None
    if decoder.lora:
        base, params = params
    state = init_state(params, optimizer)
    place = None
    if layout is not None:
        decoder = dataclasses.replace(decoder, shards=layout.shards)
        state, base = jax.device_put((state, base), layout.shardings((state, base)))
        place = layout.placement
    cut = in_microbatches(rows, n_microbatches, *(() if place is None else (place,)))
    rate = jax.device_put(np.float32(1e-3), None if place is None else place.whole)
    program = make_programs(decoder, optimizer, "token", layout).train[norms]
    compiled = program.lower(state, cut, rate, base).compile()
    with jax.transfer_guard("disallow"):
        state, stats = compiled(state, cut, rate, base)
    return state, fetch_own(stats)[1], compiled


def compare(
    family: str,
    method: str,
    sizes: dict,
    n_microbatches: int,
    shape: Mapping[str, int] = MappingProxyType({}),
    rank: int = 0,
) -> dict:
    """Errors of a sharded step, and its collectives with and without norms."""
    config = model(family, shape)
    decoder = Decoder(config, method, lora=LoraConfig(rank) if rank else None)
    rows = check.random_rows(config, n_rows=16, length=24)
    plain_state, plain, _ = step(decoder, rows, None, n_microbatches)
    layout = layout_of(settings(**sizes))
    state, stats, compiled = step(decoder, rows, layout, n_microbatches)
    without = None
    if not shape:
        *_, without = step(decoder, rows, layout, n_microbatches, norms=False)
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
    kernel = jax.tree.leaves(state.opt_state[1].mu["layers"]["mlp"]["up"])[0]
    return {
        "errors": errors,
        "moments": max(jax.tree.leaves(moments)),
        "share": kernel.addressable_shards[0].data.size / kernel.size,
        "with": collectives(compiled),
        "without": without and collectives(without),
    }


if __name__ == "__main__":
    for case in json.loads(sys.argv[1]):
        print(json.dumps(compare(**case)))
