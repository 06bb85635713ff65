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
from ilp_jax.planning.subject import model_of

_MOST_ROWS = 64  # a chip, beyond which no larger batch is looked for
_TRIES = 8  # compilations to find it


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
      tokens: tokens of every row; None for ``max_length``, or the model's positions if fewer.
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
    model = model_of(config)
    length = tokens or min(config.max_length, model.config.max_position)
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
        most = _largest(config, where, with_norms, told) if largest else None
        found = [told(size, False), with_norms]
    if out is not None:
        rows = [dataclasses.asdict(one) for one in found]
        files.write_json(
            out,
            {"topology": str(where), "mfu": share, "steps": rows, "largest_batch": most},
        )
    return render(config, model, where, share, found, most)


def _largest(
    config: ConfigDict,
    where: chips.Slice,
    first: Compiled,
    compiled: Callable[[int, bool], Compiled],
) -> int:
    """The most rows a step that fit, 0 where none do.

    Of the last two sizes that fit, the growth of the peak says where the limit is; since the
    compiler may lay out a larger step in another way, no guess is more than twice what fits.
    """
    unit = where.n_chips * config.train.microbatches // max(config.mesh.tensor, 1)
    known: list[tuple[int, float]] = []  # rows a chip that fit, and bytes
    over, guess, found = _MOST_ROWS + 1, max(first.batch_size // unit, 1), first
    for _ in range(_TRIES):
        if found.fits:
            known.append((found.batch_size // unit, found.hbm))
            guess = _next(known, where.chip.hbm_bytes)
        else:
            over = found.batch_size // unit
        if not known:
            guess = guess // 2
        guess = min(guess, over - 1)
        if guess < 1 or known and guess <= known[-1][0]:
            break
        found = compiled(guess * unit, True)
    else:
        if found.fits:
            known.append((found.batch_size // unit, found.hbm))
    return known[-1][0] * unit if known else 0


def _next(known: list[tuple[int, float]], room: float) -> int:
    """Where the line through the last two sizes meets the limit; at most twice the last."""
    rows, held = known[-1]
    if len(known) == 1:
        return rows + 1
    before, held_before = known[-2]
    a_row = (held - held_before) / (rows - before)
    further = int((room - held) / a_row) if a_row > 0 else rows
    return rows + min(max(further, 0), rows)
