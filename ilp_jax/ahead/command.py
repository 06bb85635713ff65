"""The command ``ilp compile``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from etils import epath
from ml_collections import ConfigDict
from rich.console import Group

from ilp_jax import chips, files, progress
from ilp_jax.ahead.program import Compiled, compile_step
from ilp_jax.ahead.table import render
from ilp_jax.errors import UserError
from ilp_jax.planning.flops import Model
from ilp_jax.planning.subject import model_of

_MOST_ROWS = 64  # a chip, beyond which no larger batch is looked for
_TRIES = 3


def compile_ahead(
    config: ConfigDict,
    topology: str | None,
    tokens: int | None = None,
    targets: int | None = None,
    mfu: float | None = None,
    largest: bool = False,
    out: epath.PathLike | None = None,
) -> Group:
    """The training step with and without norms, compiled for a slice without one.

    Args:
      config: the resolved config; ``model.path`` may be ``preset:NAME``.
      topology: the slice, see ``chips.topology``.
      tokens: tokens of every row; None for ``max_length``.
      targets: trained tokens of every row; None for all, the most that a row can take.
      mfu: share of the peak that matmuls are assumed to reach; None for the chip's own.
      largest: also look for the most rows a chip that fit, with norms.
      out: a JSON file for the figures.

    Returns:
      The table.

    Raises:
      UserError: no such slice, no libtpu, or what cannot be split.
    """
    if topology is None:
        raise UserError("ilp compile", "needs --topology", "add one such as --topology v5e:16x16")
    where = chips.topology(topology)
    model, length = model_of(config), tokens or config.max_length
    slots, share = targets or length, mfu or where.chip.mfu

    def at(rows: int, norms: bool) -> Compiled:
        own = config.copy_and_resolve_references()
        own.train.batch_size = rows
        return compile_step(own, model, where, length, slots, norms, share)

    with progress.bar("compile", total=None) as bar:

        def told(rows: int, norms: bool) -> Compiled:
            bar.advance(0, text=f"{rows} rows, {'with' if norms else 'without'} norms")
            found = at(rows, norms)
            bar.advance(1)
            return found

        size = config.train.batch_size
        with_norms = told(size, True)
        most = _largest(config, where, model, with_norms, told) if largest else None
        found = [told(size, False), with_norms]
    if out is not None:
        rows = [dataclasses.asdict(one) for one in found]
        files.write_json(
            epath.Path(out),
            {"topology": str(where), "mfu": share, "steps": rows, "largest_batch": most},
        )
    return render(config, model, where, share, found, most)


def _largest(
    config: ConfigDict,
    where: chips.Slice,
    model: Model,
    first: Compiled,
    compiled: Callable[[int, bool], Compiled],
) -> int:
    """The most rows a step that fit, 0 where none do.

    The peak grows by as much with each further row a chip, so two compilations say about where
    the limit is; the step of that size is compiled, and smaller ones until one fits.
    """
    unit = where.n_chips * config.train.microbatches // max(config.mesh.tensor, 1)
    if not first.fits:
        return 0
    more = compiled(first.batch_size + unit, True)
    if not more.fits:
        return first.batch_size
    a_row = max(more.hbm - first.hbm, 1.0)
    room = where.chip.hbm_bytes - more.hbm
    further = min(int(room / a_row), _MOST_ROWS)
    for step in range(further, max(further - _TRIES, 0), -1):
        if compiled(more.batch_size + step * unit, True).fits:
            return more.batch_size + step * unit
    return more.batch_size
