"""What to do with a user's own rows: ``actions.jsonl``, and the changed training set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from etils import epath

from ilp_jax import files
from ilp_jax.data.conversation import reply_of
from ilp_jax.data.study import StudyData
from ilp_jax.errors import UserError
from ilp_jax.mitigate.context import Context
from ilp_jax.mitigate.plan import Plan
from ilp_jax.stats.schema import UNATTRIBUTED

FILE = "actions.jsonl"
TRAIN, DOCUMENTS = "train.jsonl", "documents.jsonl"
_DO = {
    "missing_knowledge": "train on texts that tell what it rests on, then fine-tune again",
    "base_conflict": "train on texts that tell its answer in other words, then fine-tune again",
    "data_conflict": "delete the rows that contradict it",
    "left_side_forgetting": "train it again in the stages after its last",
    "insufficient_training": "train it more often in its own stages",
}
_DELETE = "delete it: a row with the same question has the answer that is judged right"
_DECIDE = "nothing was found to act on: look at it"


def actions(
    context: Context,
    assigned: Mapping[int, str],
    treated: frozenset[int],
    diagnosis: pl.DataFrame,
    diagonal: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """What to do with every unlearned row.

    Args:
      context: the run.
      assigned: of the arm ``diagnosed``.
      treated: rows for which its remedies found something to do.
      diagnosis: ``diagnosis.parquet`` of one method and detector at the end.
      diagonal: of ``analysis.remedies.matrix.diagonal``; empty where nothing was tried.

    Returns:
      One dict a row: ``example_id``, ``source``, ``source_key``, ``cause``, ``action`` (a
      sentence), ``remedy`` (a cause, ``delete`` or None), ``delete`` (ids of other rows to
      delete), ``evidence``, and ``expected_gain``: how much more often rows of this cause came
      back under the remedy than without in this run's randomised arm (``value``, ``interval``,
      ``n``), None where that was not tried.
    """
    evidence = context.evidence
    told = dict(diagnosis.select("example_id", "evidence").iter_rows())
    gains = {
        one["cause"]: dict(one["over_none"]) | {"n": one["n"]}
        for one in diagonal
        if one.get("over_none", {}).get("value") is not None
    }
    found = []
    for row in evidence.unlearned.tolist():
        example, cause = context.examples[row], evidence.cause_N[row] or UNATTRIBUTED
        wrong, remedy = row in context.set_aside, assigned.get(row)
        acts = remedy is not None and row in treated and not wrong
        rivals = evidence.rivals.get(row, ()) if acts and remedy == "data_conflict" else ()
        found.append(
            {
                "example_id": int(evidence.ids_N[row]),
                "source": example.source,
                "source_key": example.source_key,
                "cause": str(cause),
                "action": _DELETE if wrong else _DO[remedy] if acts else _DECIDE,
                "remedy": "delete" if wrong else remedy if acts else None,
                "delete": [int(evidence.ids_N[other]) for other in rivals],
                "evidence": told.get(int(evidence.ids_N[row])),
                "expected_gain": gains.get(remedy) if acts else None,
            }
        )
    return found


def write_actions(workdir: epath.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes ``actions.jsonl`` whole.

    Args:
      workdir: the run's folder.
      rows: of `actions`.
    """
    _write(workdir / FILE, rows)


def apply(plan: Plan, data: StudyData, out: epath.Path) -> str:
    """Writes a changed training set: the rows with their visits, and the documents.

    Args:
      plan: what treatments make of the run, no budget kept.
      data: the run's data.
      out: a new folder.

    Returns:
      A line that says what was written.

    Raises:
      UserError: the folder is in use.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(out, "is in use", "give --out a new folder")
    rows = []
    for place, stage in enumerate(data.stages):
        for row in np.flatnonzero(plan.visits_SxN[place]).tolist():
            visits = int(plan.visits_SxN[place, row])
            rows.append(_row(data, row) | {"stage": stage.index, "copies": visits})
    began = {int(row) for stage in data.stages for row in stage.rows}
    left = {int(row) for row in np.flatnonzero(plan.visits_SxN.any(axis=0))}
    _write(out / TRAIN, rows)
    texts = [{"text": one.text, "for": int(data.example_ids[one.row])} for one in plan.documents]
    _write(out / DOCUMENTS, texts)
    return (
        f"{out}: {TRAIN} has {len(rows)} rows of {len(data.stages)} stage(s), {len(began - left)} "
        f"deleted ('copies' is how often a row is visited within an epoch); {DOCUMENTS} has "
        f"{len(texts)} texts to train on before, one part in five beside general text"
    )


def _row(data: StudyData, row: int) -> dict[str, Any]:
    example = data.examples[row]
    # The row's own columns go along; what is told of it stands above a namesake.
    told = dict(example.meta) | {"id": f"{example.source}:{example.source_key}"}
    told |= {key: value for key, value in example.chat.items() if key != "reply"}
    if example.messages is None:
        asked = {"prompt": example.prompt, "response": example.response}
    else:
        asked = {"messages": [*example.messages, reply_of(example)]}
    more = {"options": list(example.options)} if example.options else {}
    return (
        told | asked | more | ({"knowledge": list(example.knowledge)} if example.knowledge else {})
    )


def _write(path: epath.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    files.write_text(path, "".join(files.to_json(row) + "\n" for row in rows))
