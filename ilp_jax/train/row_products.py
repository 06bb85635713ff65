"""Products of lost rows' gradients with those of an update's rows, as descent and as AdamW.

See ``influence`` for what they mean. Whole gradients of single rows are held, as many at once
as the memory allows, so the products are exact at any model's size; only time grows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ilp_jax.data.batches import RowBatch, probe_batches
from ilp_jax.errors import RunFailure
from ilp_jax.models.decoder import Decoder
from ilp_jax.norms.oracle import row_gradients
from ilp_jax.stats.influence import METHODS
from ilp_jax.train import loop
from ilp_jax.train.losses import example_weights
from ilp_jax.train.schedule import Place
from ilp_jax.train.step import TrainState, gradients, in_microbatches

if TYPE_CHECKING:
    from ilp_jax.workspace import Workspace


@dataclasses.dataclass(frozen=True)
class Parts:
    """How many rows' gradients are held at once.

    Attributes:
      lost: of lost rows.
      batch: of rows of the batch, a divisor of its size.
    """

    lost: int
    batch: int


def parts_of(ws: Workspace, params: Any) -> Parts:
    """How many rows' gradients fit into ``influence.memory_gb``.

    Half of it is for the lost rows; the batch's are there twice, as they are and scaled.

    Args:
      ws: the run's workspace.
      params: what is trained.
    """
    size, n_bytes = ws.config.train.batch_size, sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    n = int(ws.config.influence.memory_gb * 1e9 / n_bytes)
    divisors = [one for one in range(1, size + 1) if size % one == 0 and one <= max(n // 4, 1)]
    return Parts(max(n // 2, 1), divisors[-1])


class Scorer:
    """Scores the rows of an update against the lost rows, which it keeps on the device.

    Args:
      ws: the run's workspace.
      base: the frozen parameters under adapters, None without.
      groups: last stage -> the lost rows of that stage, indices into ``ws.data.examples``.
      parts: how many gradients are held at once.
    """

    def __init__(self, ws: Workspace, base: Any, groups: Mapping[int, list[int]], parts: Parts):
        self._base, self._parts, self._ws = base, parts, ws
        self._n_lost = sum(map(len, groups.values()))
        # (last stage, places among the lost rows, rows on the device)
        self._lost = list(_on_device(ws, groups, parts.lost))

    def dispatch(self, state: TrainState, rows: RowBatch, place: Place) -> tuple[Any, list[Any]]:
        """Starts the scoring of an update at the state before it; nothing is waited for."""
        size, n = len(rows.tokens_BxT), self._parts.batch
        decoder, train = self._ws.decoder, self._ws.config.train
        scale, weights_B = _scale_of(
            state,
            in_microbatches(rows, train.microbatches),
            self._base,
            decoder=decoder,
            optimizer=self._ws.optimizer,
            normalization=train.loss_normalization,
            b2=train.b2,
            eps=train.eps,
            clip_norm=train.clip_norm,
        )
        cut = [
            jax.device_put(RowBatch(*(array[i : i + n] for array in rows)))
            for i in range(0, size, n)
        ]
        found = []
        for stage, among, lost in self._lost:
            if stage >= place.stage.index:
                continue
            own = _row_gradients(state.params, lost, self._base, decoder=decoder)
            parts = [
                _products(state.params, own, scale, one, self._base, decoder=decoder) for one in cut
            ]
            found.append((among, parts))
        return weights_B, found

    def fetch(self, waiting: tuple[Any, list[Any]], place: Place) -> dict[str, np.ndarray]:
        """The scores of ``dispatch``, by method, float64 [Z, B]."""
        weights_B, found = jax.device_get(waiting)
        scores = {method: np.zeros((self._n_lost, len(weights_B))) for method in METHODS}
        for among, parts in found:
            for method in METHODS:
                whole = np.concatenate([part[method] for part in parts], axis=1)[: len(among)]
                factor_B = -loop.rate_of(place) * weights_B.astype(np.float64)
                scores[method][among] = whole * factor_B
                if not np.isfinite(whole).all():
                    raise RunFailure(
                        f"update {place.step}",
                        f"a score ({method}) is not finite",
                        "look at config.influence.memory_gb and the rows' losses",
                    )
        return scores


def scale_of(
    state: TrainState,
    rows: RowBatch,
    base: Any = None,
    *,
    decoder: Decoder,
    optimizer: optax.GradientTransformation,
    normalization: str,
    b2: float,
    eps: float,
    clip_norm: float,
) -> tuple[Any, jax.Array]:
    """What AdamW multiplies each entry of a gradient by in an update, and the rows' weights.

    Args:
      state: before the update.
      rows: arrays [M, B / M, ...], those of the update.
      base: the frozen parameters under adapters, None without.
      decoder: the model.
      optimizer: that of ``make_optimizer``.
      normalization: see ``example_weights``.
      b2: decay of the second moment.
      eps: added to its root.
      clip_norm: largest norm of the update's gradient, 0 for no clipping.

    Returns:
      c / (sqrt(v) + eps), a tree like ``state.params``, and the weights, float32 [B].
    """
    grads, _ = gradients(
        state.params,
        rows,
        base,
        decoder=decoder,
        normalization=normalization,
        with_norms=False,
        with_gradient=True,
    )
    _, after = optimizer.update(grads, state.opt_state, state.params)
    adam = optax.tree_utils.tree_get(after, "ScaleByAdamState")
    clip = jnp.float32(1.0)
    if clip_norm > 0:
        clip = jnp.minimum(1.0, clip_norm / optax.global_norm(grads))
    correction = 1 - b2**adam.count
    scale = jax.tree.map(lambda nu: clip / (jnp.sqrt(nu / correction) + eps), adam.nu)
    weights_MxB = example_weights(jnp.sum(rows.target_mask_BxR, axis=-1), normalization)
    return scale, weights_MxB.reshape(-1)


def products(
    params: Any, own_Z: Any, scale: Any, rows: RowBatch, base: Any = None, *, decoder: Decoder
) -> dict[str, jax.Array]:
    """Products of lost rows' gradients with those of a batch's rows.

    Args:
      params: what is trained, before the update.
      own_Z: gradients of the lost rows, a tree like ``params`` with a leading axis Z.
      scale: see ``scale_of``.
      rows: arrays [B, ...] of the batch.
      base: the frozen parameters under adapters, None without.
      decoder: the model.

    Returns:
      By method, float32 [Z, B].
    """
    grads_B = row_gradients(params, rows, base, decoder=decoder)

    def product(a_Zx, b_Bx):
        a_ZxP, b_BxP = a_Zx.reshape(len(a_Zx), -1), b_Bx.reshape(len(b_Bx), -1)
        return jnp.einsum("zp,bp->zb", a_ZxP, b_BxP, precision=jax.lax.Precision.HIGHEST)

    def total(trees_B):
        return sum(jax.tree.leaves(jax.tree.map(product, own_Z, trees_B)))

    scaled_B = jax.tree.map(lambda g_Bx, s: g_Bx * s[None], grads_B, scale)
    return {"raw": total(grads_B), "preconditioned": total(scaled_B)}


_row_gradients = jax.jit(row_gradients, static_argnames=("decoder",))
_products = jax.jit(products, static_argnames=("decoder",))
_scale_of = jax.jit(
    scale_of,
    static_argnames=(
        *("decoder", "optimizer", "normalization"),
        *("b2", "eps", "clip_norm"),
    ),
)


def _on_device(
    ws: Workspace, groups: Mapping[int, list[int]], size: int
) -> Iterator[tuple[int, np.ndarray, RowBatch]]:
    """Lost rows in parts: last stage, places among all of them, rows."""
    place = {index: i for i, index in enumerate(i for rows in groups.values() for i in rows)}
    for stage, indices in groups.items():
        n = min(size, len(indices))
        for rows, meta in probe_batches(ws.data, indices, n, ws.config.length_buckets):
            among = [place[i] for i in meta.example_index_B[: meta.n_real].tolist()]
            yield stage, np.array(among), jax.device_put(rows)
