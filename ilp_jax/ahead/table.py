"""Compiled steps as a table in a terminal, and what to change where one does not fit."""

from __future__ import annotations

from collections.abc import Sequence

from ml_collections import ConfigDict
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ilp_jax.ahead.hlo import KINDS
from ilp_jax.ahead.program import Compiled
from ilp_jax.chips import Slice
from ilp_jax.mesh import axes
from ilp_jax.planning import flops
from ilp_jax.planning.flops import Model

_GIB = 2**30


def render(
    config: ConfigDict,
    model: Model,
    where: Slice,
    mfu: float,
    found: Sequence[Compiled],
    largest: int | None,
) -> Group:
    """The table, a column a step.

    Args:
      config: the resolved config.
      model: what was compiled.
      where: for which slice.
      mfu: share of the peak that was assumed.
      found: the steps.
      largest: most rows that fit, with norms; None where that was not looked for.
    """
    one = found[0]
    billions = flops.n_params(model.config) / 1e9
    title = (
        f"{billions:.2f} billion parameters on {where}: {one.batch_size} rows of {one.length} "
        f"tokens, {one.slots} trained, {model.config.compute_dtype}"
    )
    table = Table(title=title, title_justify="left", title_style="bold", pad_edge=False)
    table.add_column("a chip, a step")
    for step in found:
        table.add_column("with norms" if step.norms else "without", justify="right", no_wrap=True)

    def row(name: str, cell) -> None:
        table.add_row(name, *(cell(step) if step.fits else "-" for step in found))

    room = where.chip.hbm_bytes / _GIB
    table.add_row("fits", *("yes" if step.fits else "no" for step in found))
    table.add_row(f"memory, GiB of {room:.1f}", *(f"{step.hbm / _GIB:.2f}" for step in found))
    table.add_row("  parameters and moments", *(f"{step.state / _GIB:.2f}" for step in found))
    table.add_row("  beside them", *(f"{step.temporaries / _GIB:.2f}" for step in found))
    row("TFLOP", lambda step: f"{step.flops / where.n_chips / 1e12:.2f}")
    for kind in KINDS:
        if any(kind in step.collectives for step in found):
            row(kind, lambda step, kind=kind: _collective(step, kind))
    row("s, transfers hidden", lambda step: f"{step.seconds[0]:.3f}")
    row("s, none hidden", lambda step: f"{step.seconds[1]:.3f}")
    table.add_row("s to compile here", *(f"{step.compile_seconds:.0f}" for step in found))
    notes = [
        f"Seconds are an estimate: {mfu:.0%} of the peak assumed for matmuls, and "
        f"{where.chip.receives / 1e9:.0f} GB/s between chips; no chip was timed. A collective is "
        "shown as runs (places in the program), GiB received.",
    ]
    if whole := axes.left_whole(axes.mesh_shape(config.mesh, where.n_chips)[-1], model.config):
        notes.append(f"{whole}.")
    if largest is not None:
        notes.append(
            f"Most rows that fit, with norms: {largest} a step, {largest / where.n_chips:g} a chip."
            if largest
            else "No batch fits."
        )
    if not all(step.fits for step in found):
        notes.append(_mend(config, model, where, found))
    return Group(table, *(Text(note) for note in notes))


def _collective(step: Compiled, kind: str) -> str:
    one = step.collectives.get(kind)
    return f"{one.runs} ({one.sites}), {one.received / _GIB:.2f}" if one else "0"


def _mend(config: ConfigDict, model: Model, where: Slice, found: Sequence[Compiled]) -> str:
    """What to change, the cheapest first."""
    state = found[0].state
    if state > where.chip.hbm_bytes:
        ways = ["more chips: parameters and moments alone are more than one holds"]
        if config.mesh.data != 1:
            ways.insert(0, "mesh.data=1, so that no copies are held")
        if model.lora is None:
            ways.append("LoRA (lora.rank=16), which trains and keeps moments of adapters alone")
        return f"It does not fit. Change: {'; '.join(ways)}."
    ways = []
    if model.config.remat != "full":
        ways.append("model.remat=full")
    if model.config.compute_dtype != "bfloat16":
        ways.append("model.compute_dtype=bfloat16")
    parts = config.train.microbatches
    if config.train.batch_size // parts > where.n_chips:
        ways.append(f"train.microbatches={parts * 2}: half as many rows at a time")
    ways.append("shorter rows (max_length), or fewer rows (train.batch_size)")
    ways.append("mesh.tensor=2 or more, which splits widths and the vocabulary too")
    ways.append("more chips")
    return f"It does not fit. Change, the cheapest first: {'; '.join(ways)}."
