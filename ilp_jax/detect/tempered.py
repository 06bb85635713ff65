"""The exact law of sampled answers at further temperatures: nothing is drawn.

``ask`` gives it at ``detect.temperature``, in the same forward pass as all else. A verdict's
stability over temperatures needs one more pass a temperature: scores differ by what divides the
logits alone, and logits are too large to keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pyarrow as pa

from ilp_jax.data.batches import option_batches
from ilp_jax.detect.ask import RESPONSE_BRANCH
from ilp_jax.mesh.rows import fetch, placement_of, put
from ilp_jax.stats.schema import INFERENCE_SCHEMA

if TYPE_CHECKING:
    from ilp_jax.workspace import Workspace


def add_laws(
    ws: Workspace, params: Any, answers: pa.Table, temperatures: Sequence[float], *, bar: Any = None
) -> pa.Table:
    """Adds the exact law at other temperatures to a table of answers.

    Args:
      ws: the run's workspace.
      params: parameters on the device, those that were asked.
      answers: what ``ask`` gave, and perhaps ``draw``.
      temperatures: each divides the logits; not ``detect.temperature``.
      bar: a progress bar to advance by one an example and temperature, or None.

    Returns:
      The table; behind every row of the exact law (mode ``sample``, no seed) stands one for
      each temperature, with its own ``temperature`` and ``gold_logprob``.
    """
    if not temperatures:
        return answers
    place = {int(one): index for index, one in enumerate(ws.data.example_ids)}
    records = answers.to_pylist()
    asked = [place[one["example_id"]] for one in records if _is_law(one)]
    laws = [_laws(ws, params, asked, temperature, bar) for temperature in temperatures]
    out = []
    for record in records:
        out.append(record)
        if _is_law(record):
            index = place[record["example_id"]]
            out += [
                record | {"temperature": float(temperature), "gold_logprob": law[index]}
                for temperature, law in zip(temperatures, laws, strict=True)
            ]
    return pa.Table.from_pylist(out, schema=INFERENCE_SCHEMA)


def _is_law(record: dict[str, Any]) -> bool:
    return record["mode"] == "sample" and record["seed"] is None


def _laws(
    ws: Workspace, params: Any, indices: Sequence[int], temperature: float, bar: Any
) -> dict[int, float]:
    """Log-probability of each response and its end at a temperature, by example index."""
    settings, found, place = ws.config.detect, {}, placement_of(params)
    heat, size = put(np.float32(temperature), place.whole), place.batch_size(settings.batch_size)
    with jax.transfer_guard("disallow"):
        # The rows of `ask`, options included, so that its compiled program serves.
        for batch in option_batches(ws.data, indices, size, settings.length_buckets):
            scores = ws.programs.score(params, put(batch.rows, place.rows), heat)
            logprob_BxR = fetch(scores["logprob_tempered"])
            of_response_BxR = batch.slot_branch_BxR == RESPONSE_BRANCH
            totals_B = np.where(of_response_BxR, logprob_BxR, 0).sum(-1, dtype=np.float64)
            n_real = batch.meta.n_real
            for index, total in zip(
                batch.meta.example_index_B[:n_real], totals_B[:n_real], strict=True
            ):
                found[int(index)] = float(total)
            if bar is not None:
                bar.advance(n_real)
    return found
