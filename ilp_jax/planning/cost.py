"""Seconds of a plan's lines on a slice of chips: what bounds them, and how long they take.

A batch takes as long as the slowest of three: its FLOPs at the assumed share of the peak; the
weights' way from memory into the chip, once for each pass over them; and, where parameters are
split over chips, their way between chips. To that come what the direct form of norms and the
update move through memory. Rows are never split, so every chip has as many as the fullest one.

Assumed of several chips: parameters, gradients and moments are split over all of them (FSDP),
weights travel in the compute dtype for each forward and each backward pass and gradients back
in float32; where nothing is trained and all parameters fit one chip, each has its own copy.
"""

from __future__ import annotations

import dataclasses

from ilp_jax.chips import Slice
from ilp_jax.planning import flops
from ilp_jax.planning.flops import Model
from ilp_jax.planning.work import Answers, Line, Passes

UPDATE_BYTES = 28.0
"""A trained parameter in an update: itself and two moments read and written, its gradient read."""
CACHE_PASSES = 3.0
"""A cache is read, written behind the new token, and read again, at every token."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a line takes.

    Attributes:
      flops: all FLOPs, padding and empty rows included.
      compute: seconds of them at the assumed share of the peak.
      memory: seconds that bytes take between memory and chip.
      network: seconds that bytes take between chips.
      seconds: wall time.
    """

    flops: float = 0.0
    compute: float = 0.0
    memory: float = 0.0
    network: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Cost(*(a + b for a, b in pairs))

    @property
    def bound(self) -> str:
        """What takes longest: ``compute``, ``memory`` or ``network``."""
        names = ("compute", "memory", "network")
        return max(names, key=lambda name: getattr(self, name))


def cost(line: Line, model: Model, chips: Slice, mfu: float) -> Cost:
    """Cost of a line.

    Args:
      line: what is run.
      model: what it is run with.
      chips: where.
      mfu: share of the peak that matmuls reach.
    """
    total = Cost()
    for one in line.work:
        for shape, n in one.shapes.items():
            kind = _passes if isinstance(one, Passes) else _answers
            per_batch = kind(one, shape, model, chips, mfu)
            total += Cost(*(n * value for value in dataclasses.astuple(per_batch)))
    return total


def padded_batch(size: int, n_chips: int) -> int:
    """Rows of a batch whose size is made a multiple of the chips, as detection's is."""
    return -(-size // n_chips) * n_chips


def _passes(work: Passes, shape: tuple[int, int], model: Model, chips: Slice, mfu: float) -> Cost:
    one, n, (length, slots) = chips.chip, chips.n_chips, shape
    per_row = flops.forward(model, length, slots)
    if work.backward:
        per_row += flops.backward(model, length, slots, norms=work.norms, update=work.update)
    parts = work.microbatches
    rows_a_chip = parts * -(-(work.batch_rows // parts) // n)
    compute = rows_a_chip * per_row / (one.peak(model.config.compute_dtype) * mfu)
    n_params = flops.n_params(model.config)
    passes = parts * (1 + work.backward * (1 + (model.config.remat == "full")))
    reads = passes * 4.0 * n_params / one.hbm_bandwidth
    network = 0.0
    if _is_split(model, chips, work.update):
        network = passes * n_params * model.value_bytes / one.receives
        network += parts * work.update * 4.0 * model.n_trained / one.receives
    extra = work.update * UPDATE_BYTES * model.n_trained / n
    if work.norms:
        extra += rows_a_chip * flops.direct_bytes(model, length, slots)
    extra /= one.hbm_bandwidth
    return Cost(
        work.batch_rows * per_row,
        compute,
        reads + extra,
        network,
        max(compute, reads, network) + extra,
    )


def _answers(work: Answers, shape: tuple[int, int], model: Model, chips: Slice, mfu: float) -> Cost:
    one, (length, n_new) = chips.chip, shape
    speed = one.peak(model.config.compute_dtype) * mfu
    prompts = Passes({(length, 1): 1}, work.batch_rows)
    total = _passes(prompts, (length, 1), model, chips, mfu)
    answers = work.batch_rows * work.n_samples
    on_chip = -(-work.batch_rows // chips.n_chips) * work.n_samples
    n_keys = length + n_new - 1
    token = flops.one_token(model, n_keys)
    # The weights' conversion does not depend on the token, so it is done once.
    weights = flops.n_params(model.config) * model.value_bytes
    cached = CACHE_PASSES * on_chip * flops.cache_bytes(model, n_keys)
    compute, memory = on_chip * token / speed, (weights + cached) / one.hbm_bandwidth
    network = weights / one.receives if _is_split(model, chips, False) else 0.0
    step = Cost(answers * token, compute, memory, network, max(compute, memory, network))
    return total + Cost(*((n_new - 1) * value for value in dataclasses.astuple(step)))


def _is_split(model: Model, chips: Slice, trains: bool) -> bool:
    whole = 4.0 * flops.n_params(model.config)
    return chips.n_chips > 1 and (trains or whole > chips.chip.hbm_bytes)
