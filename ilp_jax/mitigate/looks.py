"""What arms see of their rows on the way, where what comes next rests on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ilp_jax.train.probe import probe
from ilp_jax.train.schedule import total_steps
from ilp_jax.workspace import Workspace

PARTS = "parts.json"
"""In an arm's folder: what was seen and decided so far."""


def look(ws: Workspace, params: Any, rows: Sequence[int]) -> dict[str, np.ndarray]:
    """Rows at the end of what was trained so far.

    Args:
      ws: the arm's workspace; its data has the stages so far.
      params: parameters on the device.
      rows: indices of examples.

    Returns:
      [R] each: ``example_id``, ``loss`` (mean over the target's tokens, nats) and ``prob_mean``
      (mean probability a token).

    Raises:
      RunFailure: a loss is not finite.
    """
    step = total_steps(ws.data, ws.config.train.batch_size)
    place = {"stage": len(ws.data.stages), "epoch": 1, "step": step}
    batches = probe(ws, params, rows, with_norms=False, **place)
    names = ("example_id", "loss_sum", "n_tokens", "prob_mean")
    found = {name: np.concatenate([one[name] for one in batches]) for name in names}
    found["loss"] = found.pop("loss_sum") / found.pop("n_tokens")
    return found
