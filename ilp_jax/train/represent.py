"""The base model's own representations of the prompts, by which near-duplicates are found."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ilp_jax.data.batches import RowBatch, prompt_batches
from ilp_jax.mesh.rows import fetch, put
from ilp_jax.models.decoder import Decoder
from ilp_jax.models.lora import variables_of

if TYPE_CHECKING:
    from ilp_jax.workspace import Workspace

LAST_NORM = "final_norm"
METADATA = {
    "vectors_of": "base model",
    "layer": "last hidden state, after the final norm",
    "pooling": "the prompt's last token",
    "normalised": "L2 norm 1",
}
"""What the vectors are; stands in their file."""


def represent_step(params: Any, rows: RowBatch, *, decoder: Decoder) -> jax.Array:
    """One vector a prompt: the last hidden state of its last token, scaled to length 1.

    A decoder's last token is the one that has seen the whole prompt (Wang et al. 2024,
    arXiv:2401.00368, section 3.1). On planted worlds it finds questions asked in other
    sentences, which the mean over tokens (Reimers & Gurevych 2019, arXiv:1908.10084) does not.

    Args:
      params: parameters, or ``Adapted``.
      rows: arrays [B, ...] with the prompts in branch 0 and padding in branch -1.
      decoder: the model.

    Returns:
      float32 [B, D]; zeros where the state is 0.
    """
    # The logits are not used, so the compiler leaves the head out.
    _, kept = decoder.apply(
        variables_of(params),
        rows.tokens_BxT,
        rows.positions_BxT,
        rows.branch_BxT,
        capture_intermediates=lambda module, _: module.name == LAST_NORM,
        mutable="intermediates",
    )
    (h_BxTxD,) = kept["intermediates"][LAST_NORM]["__call__"]
    last_B = jnp.sum(rows.branch_BxT == 0, axis=1) - 1
    h_BxD = jnp.take_along_axis(h_BxTxD, last_B[:, None, None], axis=1)[:, 0]
    h_BxD = h_BxD.astype(jnp.float32)
    return h_BxD / jnp.maximum(jnp.linalg.norm(h_BxD, axis=-1, keepdims=True), 1e-30)


def representations(
    ws: Workspace, params: Any, indices: Sequence[int], bar: Any = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Vectors of some examples' prompts, batch by batch, so that not all are held at once.

    Args:
      ws: the run's workspace.
      params: the base model's parameters on the device.
      indices: indices into ``ws.data.examples``.
      bar: a progress bar to advance by one an example, or None.

    Yields:
      Example ids, int64 [b], and their vectors, float32 [b, D]; shortest prompts first.
    """
    step = jax.jit(functools.partial(represent_step, decoder=ws.decoder))
    waiting = None
    size = ws.place.batch_size(ws.config.probe.batch_size)
    for rows, meta in prompt_batches(ws.data, indices, size, ws.config.length_buckets):
        with jax.transfer_guard("disallow"):
            vectors = step(params, put(rows, ws.place.rows))
        # The batch before is read while this one runs.
        if waiting is not None:
            yield _fetched(*waiting)
        waiting = (meta, vectors)
        if bar is not None:
            bar.advance(meta.n_real)
    if waiting is not None:
        yield _fetched(*waiting)


def _fetched(meta: Any, vectors: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    n = meta.n_real
    return meta.example_id_B[:n], np.asarray(fetch(vectors))[:n]
