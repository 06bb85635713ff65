"""Replay sensitivity: what a few updates on one example alone do for it, from the final model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from etils import epath
from ml_collections import ConfigDict
from rich.console import Group

from ilp_jax import progress
from ilp_jax.analysis import replay as analysis
from ilp_jax.data.batches import probe_batches
from ilp_jax.errors import RunFailure
from ilp_jax.mesh.rows import fetch_own, put
from ilp_jax.models.lora import Adapted
from ilp_jax.stats.reader import read_diagnosis
from ilp_jax.stats.replay import measured, put_part, put_together
from ilp_jax.train.step import in_microbatches, init_state

if TYPE_CHECKING:
    from ilp_jax.workspace import Workspace

_PART_EXAMPLES = 8
"""Examples whose rows may be lost when a call is killed."""


def replay(ws: Workspace, load_params: Callable[[], Any], limit: int | None = None) -> Group:
    """Replays the run's unlearned rows and some learned ones; writes ``replay.parquet``.

    What an earlier call has measured with the same settings is not measured again.

    Args:
      ws: the run's workspace.
      load_params: gives the final parameters on the device; called when there is something
        to measure.
      limit: replay only the first so many examples, unlearned ones first; None for all.

    Returns:
      The table of what came back.

    Raises:
      UserError: the detector asked for has no verdict at the end, or other settings made
        the ``replay.parquet`` that is there.
      RunFailure: a loss is not finite, or the disk is full. What was measured is kept.
    """
    settings, kept, found = ready(ws.config, ws.workdir)
    n_targets = {row.example_id: row.n_targets for row in ws.data.tokens}
    chosen = analysis.choose(found, n_targets, ws.config.replay, ws.config.seed)
    queue = [one for ids in chosen for one in ids][:limit]
    done = set(kept["example_id"].to_list())
    place = {one: index for index, one in enumerate(ws.data.example_ids.tolist())}
    left = [place[one] for one in queue if one not in done]
    if left:
        frames = measure(
            ws, load_params(), left, learning_rate_of(ws.config), ws.config.replay.steps
        )
        with progress.bar("replay", total=len(queue), done=len(queue) - len(left)) as bar:
            _keep(ws, frames, settings, bar)
    rows = put_together(ws.workdir, settings)
    return analysis.render(analysis.figures(rows, found), settings, ws.config.seed)


def measure(
    ws: Workspace,
    params: Any,
    indices: Iterable[int],
    learning_rate: float,
    steps: Sequence[int],
) -> Iterator[pl.DataFrame]:
    """Replays examples one after another, each from the same parameters and no moments.

    Every update minimises the example's own mean loss with the run's optimiser (clipping and
    decay included) at a constant rate. One program is compiled a length bucket; a copy of
    the trained parameters and their moments are on the device beside ``params``.

    Args:
      ws: the run's workspace.
      params: the parameters to begin from, which are left as they are; of ``Adapted`` only
        the adapters are updated.
      indices: indices into ``ws.data.examples``.
      learning_rate: of every update.
      steps: increasing numbers of updates after which it is measured, from 1.

    Yields:
      An example's rows of ``REPLAY_SCHEMA``: k = 0 and every one of ``steps``.

    Raises:
      RunFailure: a loss is not finite.
    """
    adapted = isinstance(params, Adapted)
    trained, base = (params.adapters, params.base) if adapted else (params, None)
    # The training step consumes its state, so each example begins from a copy.
    fresh = jax.jit(lambda tree: init_state(jax.tree.map(jnp.copy, tree), ws.optimizer))
    rate = put(np.float32(learning_rate), ws.place.whole)
    for index in indices:
        # On a mesh empty rows fill the batch.
        size = ws.place.batch_size(1)
        batch, _ = next(probe_batches(ws.data, [index], size, ws.config.length_buckets))
        rows = in_microbatches(batch, 1, ws.place)
        with jax.transfer_guard("disallow"):
            state, stats = fresh(trained), []
            for _ in range(steps[-1]):
                # Its statistics are those before the update.
                state, before = ws.programs.train[False](state, rows, rate, base)
                stats.append(before)
            last = state.params if base is None else Adapted(base, state.params)
            stats.append(ws.programs.probe[False](last, rows))
            host = [fetch_own(stats[k])[1] for k in (0, *steps)]
        # The device's memory must be free before the next copy is made.
        del state, last
        yield _rows(ws, index, (0, *steps), host)


def ready(
    config: ConfigDict, workdir: epath.Path
) -> tuple[dict[str, str], pl.DataFrame, pl.DataFrame]:
    """What a replay begins from; asked before anything is written, too.

    Args:
      config: the resolved config.
      workdir: the run's folder.

    Returns:
      The metadata (``settings_of``), the rows measured so far and the verdicts.

    Raises:
      UserError: see ``replay``.
    """
    settings = settings_of(config)
    found = analysis.verdicts(read_diagnosis(workdir), config.replay.detector)
    return settings, measured(workdir, settings), found


def settings_of(config: ConfigDict) -> dict[str, str]:
    """What the measurements depend on, and which detector chose the rows: the metadata."""
    train = config.train
    optimizer = ", ".join(
        f"{name}={train[name]}" for name in ("b1", "b2", "eps", "weight_decay", "clip_norm")
    )
    return {
        "learning_rate": str(learning_rate_of(config)),
        "steps": json.dumps(list(config.replay.steps)),
        "optimizer": f"{train.optimizer} ({optimizer})",
        "updated": "LoRA adapters" if config.lora.rank else "all parameters",
        "detector": config.replay.detector,
    }


def learning_rate_of(config: ConfigDict) -> float:
    """The rate of the updates: the config's, or a fraction of the last stage's peak."""
    peak = config.stages[config.sequence[-1]].learning_rate
    # Twelve digits, so that a tenth of 2e-5 reads 2e-06.
    part = float(f"{peak * config.replay.learning_rate_fraction:.12g}")
    return config.replay.learning_rate or part


def _keep(
    ws: Workspace, frames: Iterator[pl.DataFrame], settings: Mapping[str, str], bar: Any
) -> None:
    """Writes parts as the rows come, the last one also when the call is interrupted."""
    waiting: list[pl.DataFrame] = []

    def put() -> None:
        if waiting:
            put_part(ws.workdir, pl.concat(waiting), settings)
            waiting.clear()

    try:
        for frame in frames:
            waiting.append(frame)
            bar.advance(1, text=_text(frame))
            if len(waiting) == _PART_EXAMPLES:
                put()
    finally:
        put()


def _text(frame: pl.DataFrame) -> str:
    losses = frame["loss"]
    return f"loss {losses[0]:.3f} to {losses[-1]:.3f}"


def _rows(ws: Workspace, index: int, ks: Sequence[int], host: list[dict]) -> pl.DataFrame:
    example, truncated = ws.data.examples[index], ws.data.tokens[index].truncated
    loss_sum = np.array([one["loss_sum"][0] for one in host], np.float64)
    n_tokens = np.array([one["n_tokens"][0] for one in host])
    n_correct = np.array([one["n_correct"][0] for one in host])
    bad = np.flatnonzero(~np.isfinite(loss_sum))
    if bad.size:
        raise RunFailure(
            f"replay of example {example.example_id} ({example.source} {example.source_key})",
            f"the loss after {ks[bad[0]]} updates is {loss_sum[bad[0]]}",
            "lower config.replay.learning_rate and delete what was replayed with this one",
        )
    columns = {
        "example_id": np.full(len(ks), example.example_id, np.int64),
        "k": np.array(ks, np.int32),
        "loss": loss_sum / n_tokens,
        "p_gold": np.exp(-loss_sum),
        "correct": (n_correct == n_tokens) & (not truncated),
    }
    return pl.DataFrame(columns)
