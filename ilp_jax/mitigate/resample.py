"""Dynamic resampling: what is seen to fall is visited again in the next part of the training.

The study's remedy of left-side forgetting (arXiv:2604.10079, section 4.4): every 500 updates, or a
tenth of the run where that is less, rows whose target's probability has fallen by 5% of its best
are resampled. Here each stage is cut into such parts, its learning-rate cycle kept; a part visits
what the run would, and spends its further visits (``mitigate.extra_visits``) on the rows that have
fallen, worst first, once each and again while visits are left; on random learned rows where none
has. Nothing of the diagnosis is used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ilp_jax import files
from ilp_jax.data.study import Stage, StudyData
from ilp_jax.mitigate.arms import Arm
from ilp_jax.mitigate.looks import PARTS, look
from ilp_jax.train import loop
from ilp_jax.workspace import Workspace

NAME = "resample"


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a stage before it is known what is resampled in it.

    Attributes:
      stage: place of the stage.
      visits_N: int [N], the run's visits that fall into it.
      extra: further visits.
    """

    stage: int
    visits_N: np.ndarray
    extra: int


def parts_of(arm: Arm, base_SxN: np.ndarray, batch_size: int, every: int) -> list[Part]:
    """The fine-tuning cut into parts; each visit falls into one at random.

    Args:
      arm: the arm; its plan's visits settle how many there are.
      base_SxN: int [S, N], the run's visits an epoch.
      batch_size: examples in an update.
      every: updates of a part, at most.
    """
    rng = np.random.default_rng([arm.seed, *NAME.encode()])
    epochs_S = arm.plan.epochs_S
    total_S = arm.plan.visits_S * epochs_S
    size = max(min(every * batch_size, int(total_S.sum()) // 10), batch_size)
    parts = []
    for place, total in enumerate(total_S.tolist()):
        n = max(round(total / size), 1)
        visits = np.repeat(np.arange(base_SxN.shape[1]), base_SxN[place] * epochs_S[place])
        extra = total - len(visits)
        for k, own in enumerate(np.array_split(rng.permutation(visits), n)):
            count_N = np.bincount(own, minlength=base_SxN.shape[1])
            parts.append(Part(place, count_N, extra * (k + 1) // n - extra * k // n))
    return parts


def resampled(
    part: Part,
    best_N: np.ndarray,
    now_N: np.ndarray,
    relapse: float,
    fill: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """The visits of a part. int [N]

    Args:
      part: the part.
      best_N: best probability of each row's target so far; 0 where it was not trained yet.
      now_N: the probability now.
      relapse: relative fall from which on a row is resampled.
      fill: rows that take what is left where nothing has fallen.
      rng: draws of these.
    """
    fall_N = np.where(best_N > 0, 1 - now_N / np.maximum(best_N, 1e-9), 0.0)
    fallen = np.flatnonzero(fall_N >= relapse)
    fallen = fallen[np.argsort(-fall_N[fallen], kind="stable")]
    pool = fallen if len(fallen) else rng.permutation(fill)
    visits_N = part.visits_N.copy()
    if len(pool):
        np.add.at(visits_N, np.resize(pool, part.extra), 1)
    return visits_N


def train(
    ws: Workspace,
    arm: Arm,
    run: StudyData,
    fill: Sequence[int],
    load_base: Callable[[], Any],
) -> tuple[Workspace, Any]:
    """Trains part by part; goes on where it was.

    Args:
      ws: the arm's workspace: its data has the documents' stage and the run's stages.
      arm: the arm.
      run: the run's data.
      fill: rows that take further visits where nothing has fallen.
      load_base: see ``train.loop.train``.

    Returns:
      The workspace with what was trained in the end, and the parameters on the device.

    Raises:
      RunFailure: see ``train.loop.train``.
    """
    settings, size = ws.config.mitigate, ws.config.train.batch_size
    base_SxN = np.stack([_visits(stage, len(run.examples)) for stage in run.stages])
    parts = parts_of(arm, base_SxN, size, settings.resample_every)
    path = ws.workdir / PARTS
    known = files.read_json(path) if path.exists() else {"visits": [], "probability": []}
    documents = [stage for stage in ws.data.stages if stage.name == "documents"]
    stages = {stage.name: stage.config for stage in ws.data.stages}
    params = None
    for k, part in enumerate(parts):
        rng = np.random.default_rng([arm.seed, k])
        if k == len(known["visits"]):
            best_N, now_N = _best_and_now(known["probability"], len(run.examples))
            visits_N = resampled(part, best_N, now_N, settings.relapse, np.array(fill), rng)
            known["visits"].append(visits_N.tolist())
            files.write_json(path, known)
        data = _data(ws, run, documents, parts, known["visits"][: k + 1], stages)
        if k < len(known["probability"]):
            continue  # trained and looked at by a call that was stopped
        ws = dataclasses.replace(ws, data=data)
        params = loop.train(ws, load_base)
        known["probability"].append(_probability(ws, params, run, data.stages).tolist())
        files.write_json(path, known)
    ws = dataclasses.replace(ws, data=_data(ws, run, documents, parts, known["visits"], stages))
    return ws, loop.train(ws, load_base) if params is None else params


def _visits(stage: Stage, n: int) -> np.ndarray:
    visits_N = np.zeros(n, np.int64)
    visits_N[stage.rows] = stage.copies_N
    return visits_N


def _best_and_now(probes: Sequence[Sequence[float]], n: int) -> tuple[np.ndarray, np.ndarray]:
    """0 where a row was not trained yet."""
    if not probes:
        return np.zeros(n), np.zeros(n)
    found = np.array(probes)
    return found.max(axis=0), found[-1]


def _probability(ws: Workspace, params: Any, run: StudyData, stages: Sequence[Stage]) -> np.ndarray:
    """Mean probability a token of every row that was trained so far, 0 of the others. [N]"""
    n = len(run.examples)
    rows = np.unique(np.concatenate([stage.rows for stage in stages]))
    seen = look(ws, params, rows[rows < n])  # not the documents
    at = {one: i for i, one in enumerate(run.example_ids.tolist())}
    found_N = np.zeros(n)
    found_N[[at[one] for one in seen["example_id"].tolist()]] = seen["prob_mean"]
    return found_N


def cycles_of(parts: Sequence[Part], batch_size: int) -> list[tuple[int, int]]:
    """Each part's place in its stage's learning-rate cycle: updates before it, and in all.

    Args:
      parts: of `parts_of`.
      batch_size: examples in an update.
    """
    updates = [-(-(int(part.visits_N.sum()) + part.extra) // batch_size) for part in parts]
    found = []
    for k, part in enumerate(parts):
        own = [i for i, other in enumerate(parts) if other.stage == part.stage]
        found.append((sum(updates[i] for i in own if i < k), sum(updates[i] for i in own)))
    return found


def _data(
    ws: Workspace,
    run: StudyData,
    documents: Sequence[Stage],
    parts: Sequence[Part],
    visits: Sequence[Sequence[int]],
    configs: dict[str, Any],
) -> StudyData:
    """The data of the parts so far, each a stage of one epoch within its stage's cycle."""
    stages = list(documents)
    cycles = cycles_of(parts, ws.config.train.batch_size)
    for part, own, cycle in zip(parts, visits, cycles, strict=False):
        rows = np.flatnonzero(own).astype(np.int32)
        copies = tuple(int(own[i]) for i in rows)
        name = run.stages[part.stage].name
        fields = configs[name].copy_and_resolve_references()
        with fields.unlocked():
            fields.epochs = 1
            if cycle[0]:
                fields.optimizer_state = "keep"
        stages.append(Stage(len(stages) + 1, name, rows, rows[:0], fields, copies, cycle))
    return dataclasses.replace(ws.data, stages=tuple(stages))
