"""The data's tables in a run's folder, and the options that the run made for its examples."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from ilp_jax import progress
from ilp_jax.data import made_options
from ilp_jax.data.stages import tokens_of
from ilp_jax.data.tables import examples_changes, read_examples, write_examples, write_plan
from ilp_jax.detect import base_answers
from ilp_jax.errors import UserError
from ilp_jax.mesh import processes
from ilp_jax.stats.truth import write_truth
from ilp_jax.workspace import Workspace
from ilp_jax.world import real
from ilp_jax.world.study import truth

PLAN = "plan.parquet"
"""Written last of the data's tables."""


def write_data(ws: Workspace) -> Workspace:
    """Writes ``examples.parquet`` and ``plan.parquet``; a resumed run must have the same data.

    Args:
      ws: the workspace with its data as built.

    Returns:
      The workspace with the options that the run made, if it has.

    Raises:
      UserError: the data are no longer those in the folder.
      RunFailure: the disk is full.
    """
    path, built = ws.workdir / "examples.parquet", ws.data
    if (ws.workdir / PLAN).exists():
        written = read_examples(path)
    else:
        if ws.config.world.family:
            write_truth(ws.workdir, truth(ws.config))
        if ws.config.planted.sources:
            write_truth(ws.workdir, real.truth(ws.config, ws.tokenizer))
        write_examples(path, built)
        order_known = not ws.config.model.tuned
        write_plan(ws.workdir / PLAN, built, ws.config.seed, order_known)
        written = built.examples
    if made_options.exists(ws.workdir):
        tokenise = functools.partial(tokens_of, ws.config, ws.tokenizer)
        ws = dataclasses.replace(ws, data=made_options.apply(ws.workdir, built, tokenise))
    if written == ws.data.examples:
        return ws
    # The options are made, and the table of examples does not have them yet.
    if written == built.examples:
        write_examples(path, ws.data)
        return ws
    raise UserError(
        ws.workdir,
        "its data is no longer what the run began with "
        f"({examples_changes(written, ws.data.examples)})",
        "put the data files back, or give another --workdir",
    )


def make_options(ws: Workspace, params: Any) -> Workspace:
    """Draws the base model's own wrong answers as options, where a stage asks for them.

    Args:
      ws: the workspace of ``write_data``.
      params: the base model's parameters on the device.

    Returns:
      The workspace with these options; as it was where none are wanted or all are made.

    Raises:
      RunFailure: the disk is full.
    """
    rows = base_answers.wanted(ws.data)
    if not rows or processes.on_first(lambda: made_options.exists(ws.workdir)):
        return ws
    with progress.bar("probe base answers", total=len(rows)) as bar:
        made = base_answers.draw_options(ws, params, bar=bar)
    processes.on_first(lambda: made_options.write(ws.workdir, made))
    return processes.first_then_rest(lambda: write_data(ws))
