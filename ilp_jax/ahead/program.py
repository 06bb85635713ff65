"""The training step of a config, compiled for a slice."""

from __future__ import annotations

import dataclasses
import re
import time
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ilp_jax.ahead import hlo
from ilp_jax.ahead.topology import devices_of
from ilp_jax.chips import Slice
from ilp_jax.data.batches import RowBatch
from ilp_jax.errors import UserError
from ilp_jax.mesh.axes import check_fit, make_mesh
from ilp_jax.mesh.layout import Layout
from ilp_jax.mesh.rules import parse
from ilp_jax.models.decoder import Decoder
from ilp_jax.models.lora import COLLECTION
from ilp_jax.planning import flops
from ilp_jax.planning.cost import UPDATE_BYTES
from ilp_jax.planning.flops import Model
from ilp_jax.train.optim import make_optimizer
from ilp_jax.train.step import init_state
from ilp_jax.workspace import make_programs

# What libtpu says where a step does not fit: of all it holds, or of what it needs beside the state.
_HELD = re.compile(r"Used ([\d.]+)([KMG]) of [\d.]+[KMG] hbm")
_BESIDE = re.compile(r"required for HLO temporaries \(([\d.]+)([KMG])\)")
_UNIT = {"K": 2**10, "M": 2**20, "G": 2**30}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What a compiled step takes on every chip.

    Attributes:
      batch_size: rows of a step, over all chips.
      length: tokens of a row.
      slots: trained tokens of a row.
      norms: whether per-example norms are taken.
      fits: whether it fits the chip's memory.
      state: bytes of parameters and moments.
      temporaries: bytes beside them at the peak; where it does not fit, all that it asked for.
      flops: FLOPs of all chips, by ``planning.flops``.
      collectives: by kind.
      compute: seconds of the FLOPs at the assumed share of the peak.
      network: seconds that the collectives' bytes take between chips.
      memory: seconds that weights and the update take between memory and chip.
      compile_seconds: how long compiling took here.
    """

    batch_size: int
    length: int
    slots: int
    norms: bool
    fits: bool
    state: float
    temporaries: float
    flops: float = 0.0
    collectives: dict[str, hlo.Collective] = dataclasses.field(default_factory=dict)
    compute: float = 0.0
    network: float = 0.0
    memory: float = 0.0
    compile_seconds: float = 0.0

    @property
    def hbm(self) -> float:
        """Bytes a chip, at the peak."""
        return self.state + self.temporaries

    @property
    def seconds(self) -> tuple[float, float]:
        """A step's least and most: transfers hidden behind compute, and not at all."""
        parts = self.compute, self.network, self.memory
        return max(parts), sum(parts)


def compile_step(
    config: ConfigDict, model: Model, chips: Slice, length: int, slots: int, norms: bool, mfu: float
) -> Compiled:
    """Compiles one training step.

    Args:
      config: the resolved config; ``train`` and ``mesh`` are used.
      model: shape, dtype, remat and adapters.
      chips: the slice.
      length: T, tokens of every row.
      slots: R, trained tokens of every row.
      norms: whether per-example norms are taken.
      mfu: share of the peak that matmuls are assumed to reach.

    Returns:
      What it takes.

    Raises:
      UserError: libtpu is not here, or rows or heads cannot be split over the mesh.
    """
    layout = Layout(make_mesh(config.mesh, devices_of(chips)), parse(config.mesh.rules))
    check_fit(layout.mesh, config)
    decoder = Decoder(
        model.config, model.norm_method, model.gram_cost_ratio, model.lora, layout.shards
    )
    state, base = _state(decoder, config, layout)
    rows = _rows(config, layout, length, slots)
    rate = jax.ShapeDtypeStruct((), np.float32, sharding=layout.placement.whole)
    optimizer = make_optimizer(config.train)
    programs = make_programs(decoder, optimizer, config.train.loss_normalization, layout)
    lowered = programs.train[norms].lower(state, rows, rate, base)
    state_bytes = sum(map(_on_chip, jax.tree.leaves((state, base))))
    common = {"batch_size": config.train.batch_size, "length": length, "slots": slots}
    start = time.monotonic()
    try:
        compiled = lowered.compile()
    except Exception as error:  # XLA's own type; its text has the figures
        temporaries = _asked(str(error), state_bytes)
        if temporaries is None:
            raise
        return Compiled(
            **common,
            norms=norms,
            fits=False,
            state=state_bytes,
            temporaries=temporaries,
            compile_seconds=time.monotonic() - start,
        )
    taken = time.monotonic() - start
    memory = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    temporaries = held + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    found = hlo.collectives(compiled.as_text())
    per_row = flops.forward(model, length, slots)
    per_row += flops.backward(model, length, slots, norms=norms, update=True)
    total = config.train.batch_size * per_row
    peak = chips.chip.peak(model.config.compute_dtype) * chips.n_chips
    received = sum(one.received for one in found.values())
    return Compiled(
        **common,
        norms=norms,
        fits=True,
        state=state_bytes,
        temporaries=temporaries - state_bytes,
        flops=total,
        collectives=found,
        compute=total / (peak * mfu),
        network=received / chips.chip.receives,
        memory=_traffic(config, model, chips) / chips.chip.hbm_bandwidth,
        compile_seconds=taken,
    )


def _asked(error: str, state_bytes: float) -> float | None:
    """Bytes beside the state that a step asked for in vain; None for another error."""
    for pattern, less in ((_HELD, state_bytes), (_BESIDE, 0.0)):
        if found := pattern.search(error):
            return float(found[1]) * _UNIT[found[2]] - less
    return None


def _traffic(config: ConfigDict, model: Model, chips: Slice) -> float:
    """Bytes between memory and chip for weights that pass and for the update."""
    passes = config.train.microbatches * (2 + (model.config.remat == "full"))
    weights = passes * 2.0 * model.value_bytes * flops.n_params(model.config)
    return weights + UPDATE_BYTES * model.n_trained / chips.n_chips


def _state(decoder: Decoder, config: ConfigDict, layout: Layout) -> tuple[Any, Any]:
    """The training state and the frozen base (None: all is trained), as shapes."""
    row = jax.ShapeDtypeStruct((1, 1), np.int32)
    variables = jax.eval_shape(decoder.init, jax.random.key(0), row, row, row)
    optimizer = make_optimizer(config.train)
    trained = variables["params" if decoder.lora is None else COLLECTION]
    state = jax.eval_shape(lambda params: init_state(params, optimizer), trained)
    base = None if decoder.lora is None else variables["params"]
    return tuple(_placed(tree, layout) for tree in (state, base))


def _placed(tree: Any, layout: Layout) -> Any:
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        tree,
        layout.shardings(tree),
    )


def _rows(config: ConfigDict, layout: Layout, length: int, slots: int) -> RowBatch:
    parts = config.train.microbatches
    shape = parts, config.train.batch_size // parts
    if not 1 <= slots <= length:
        raise UserError("--targets", f"{slots} of {length} tokens cannot be trained", "give fewer")

    def array(width: int, dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*shape, width), dtype, sharding=layout.placement.microbatches)

    tokens, targets = array(length, np.int32), array(slots, np.int32)
    return RowBatch(tokens, tokens, tokens, targets, targets, array(slots, np.float32))


def _on_chip(leaf: jax.ShapeDtypeStruct) -> int:
    return int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
