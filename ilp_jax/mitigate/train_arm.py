"""Trains one arm: a run of its own under ``arms/NAME/SEED``, restartable at any moment."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from etils import epath

from ilp_jax import files, run_record
from ilp_jax import identity as rests_on
from ilp_jax.config import to_dict
from ilp_jax.data.batches import probe_batches
from ilp_jax.data.study import StudyData
from ilp_jax.data.tables import write_examples, write_plan
from ilp_jax.detect.normalise import normalise
from ilp_jax.detect.point import Point, ask_point
from ilp_jax.mesh.rows import fetch_own
from ilp_jax.mitigate import progressive, resample
from ilp_jax.mitigate.arm_data import arm_config, arm_data, originals
from ilp_jax.mitigate.arms import PROGRESSIVE, SHAM, WEIGHTED, Arm
from ilp_jax.run_data import PLAN
from ilp_jax.session import device_in_words
from ilp_jax.train import loop
from ilp_jax.train.schedule import total_steps
from ilp_jax.train.step import in_microbatches
from ilp_jax.workspace import Workspace, anchored

FOLDER = "arms"
ARM = "arm.json"
_PHASE = "detect"


def arm_folder(workdir: epath.Path, arm: Arm) -> epath.Path:
    """Where an arm's run is."""
    return workdir / FOLDER / arm.label / str(arm.seed)


def is_trained(ws: Workspace, arm: Arm, hashed: str | None = None) -> bool:
    """Whether an arm's answers are there, of just this plan.

    Args:
      ws: the run's workspace.
      arm: the arm.
      hashed: its `identity` where that is known: hashing takes a while.
    """
    hashed = hashed or identity(arm, ws)
    return run_record.is_finished(arm_folder(ws.workdir, arm), _PHASE, hashed)


def identity(arm: Arm, ws: Workspace) -> str:
    """All that an arm's result rests on, as a hash."""
    config = to_dict(arm_config(ws.config, arm))
    mitigate = config.pop("mitigate")
    own = {
        resample.NAME: [mitigate["resample_every"], mitigate["relapse"]],
        PROGRESSIVE: [mitigate[name] for name in ("delta", "further_epochs", "further_rate")],
        WEIGHTED: [mitigate["anchor_decay"]],
    }
    plan = arm.plan
    return run_record.hash_config(
        {
            "config": {name: value for name, value in config.items() if name not in _NO_RESULT},
            "rate": mitigate["pages_rate"],
            "visits": plan.visits_SxN.tolist(),
            "epochs": plan.epochs_S.tolist(),
            **({"relabelled": sorted(plan.relabelled.items())} if plan.relabelled else {}),
            **({"apart": [plan.apart, mitigate["buckets_every"]]} if plan.apart else {}),
            **({arm.name: own[arm.name]} if arm.name in own else {}),
            "pages": [[one.text for one in page] for page in plan.pages],
        }
    )


_NO_RESULT = ("cache_dir", "checkpoint", "diagnose", "influence", "replay", "report")


def train_arm(
    ws: Workspace,
    arm: Arm,
    load_base: Callable[[], Any],
    weights_hash: str,
    general: StudyData,
    asked: StudyData,
) -> None:
    """Trains an arm and asks it about everything at its end; goes on where it was.

    Args:
      ws: the run's workspace.
      arm: the arm.
      load_base: see ``train.loop.train``.
      weights_hash: of the base.
      general: texts whose loss is measured at the end.
      asked: the run's examples, and its paraphrases where they are made.

    Raises:
      InUse: another process is at it.
      UserError: the folder holds an arm of another plan.
      RunFailure: a loss is not finite, or the disk is full.
    """
    folder = arm_folder(ws.workdir, arm)
    config = arm_config(ws.config, arm)
    data = arm_data(arm, ws.data, config, ws.tokenizer)
    own = dataclasses.replace(ws, config=config, workdir=folder, data=data)
    if arm.name == WEIGHTED:
        own = anchored(own, config.mitigate.anchor_decay)
    start, hashed = time.monotonic(), identity(arm, ws)
    with run_record.locked(folder):
        run_record.open_run(
            folder,
            to_dict(config),
            config_hash=hashed,
            device=device_in_words(),
            seeds={"data": arm.seed},
            weights_hash=weights_hash,
        )
        rests_on.hold(own, (folder / PLAN).exists())
        run_record.begin_phase(folder, "train", device_in_words())
        write_examples(folder / "examples.parquet", data)
        write_plan(folder / PLAN, data, config.seed)
        if arm.name == resample.NAME:
            fill = sorted(arm.fill)
            own, params = resample.train(own, arm, ws.data, fill, load_base)
            data = own.data
            write_plan(folder / PLAN, data, config.seed)
        elif arm.name == PROGRESSIVE:
            own, params = progressive.train(own, load_base)
            data = own.data
            write_plan(folder / PLAN, data, config.seed)
        else:
            params = loop.train(own, load_base)
        run_record.finish_phase(folder, "train", time.monotonic() - start)
        at_end = dataclasses.replace(own, data=originals(data, asked))
        last = data.stages[-1]
        step = total_steps(data, config.train.batch_size)
        place = {"stage": last.index, "epoch": last.epochs, "step": step}
        began = time.monotonic()
        ask_point(at_end, params, Point("final", **place, weights_hash=weights_hash))
        about = _about(arm, ws, own) | {"general_loss": general_loss(own, params, general)}
        files.write_json(folder / ARM, about)
        run_record.finish_phase(folder, _PHASE, time.monotonic() - began, hashed)
        # Only its answers count from here on, and a checkpoint is thrice a model's size.
        checkpoints = folder / loop.CHECKPOINTS
        if checkpoints.exists():
            checkpoints.rmtree()


def general_loss(ws: Workspace, params: Any, general: StudyData) -> float:
    """Mean loss of texts, in nats a token.

    Args:
      ws: for its programs and layout.
      params: parameters on the device.
      general: the texts.
    """
    loss, n_tokens = 0.0, 0
    size = ws.place.batch_size(ws.config.probe.batch_size)
    rows = range(len(general.examples))
    for batch, meta in probe_batches(general, rows, size, ws.config.length_buckets):
        _, stats = fetch_own(ws.programs.probe[False](params, in_microbatches(batch, 1, ws.place)))
        loss += float(stats["loss_sum"][: meta.n_real].sum())
        n_tokens += int(stats["n_tokens"][: meta.n_real].sum())
    return loss / max(n_tokens, 1)


def _about(arm: Arm, ws: Workspace, own: Workspace) -> dict[str, Any]:
    """What was done in an arm, to which rows, and what it cost."""
    ids = ws.data.example_ids
    trained = {int(i) for i in np.flatnonzero(arm.plan.visits_SxN.sum(axis=0))}
    began = {int(i) for stage in ws.data.stages for i in stage.rows}
    size = own.config.train.batch_size
    return {
        "name": arm.label,
        "seed": arm.seed,
        "is_sham": arm.name == SHAM,
        "remedy": {str(ids[row]): remedy for row, remedy in arm.assigned.items()},
        "treated": [int(ids[row]) for row in sorted(arm.treated)],
        "deleted": [int(ids[row]) for row in sorted(began - trained)],
        "pages": len(arm.plan.pages),
        "documents_with_answer": _with_answer(arm, ws),
        "documents": sum(map(len, arm.plan.pages)),
        "documents_of_rows": sum(one.row >= 0 for page in arm.plan.pages for one in page),
        "steps": total_steps(own.data, size),
        "tokens": _tokens(own),
    }


def _with_answer(arm: Arm, ws: Workspace) -> int:
    """Documents told to a row that have its recorded answer in their text."""
    told = [one for page in arm.plan.pages for one in page if one.row >= 0]
    responses = [normalise(ws.data.examples[one.row].response) for one in told]
    pairs = zip(told, responses, strict=True)
    return sum(f" {response} " in f" {normalise(one.text)} " for one, response in pairs)


def _tokens(ws: Workspace) -> int:
    """Tokens of all rows of all updates, prompts included, padding not."""
    lengths = np.array([row.n_tokens for row in ws.data.tokens])
    return int(
        sum(stage.epochs * (lengths[stage.rows] * stage.copies_N).sum() for stage in ws.data.stages)
    )
