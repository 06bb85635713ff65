"""The data of a run on disk: ``examples.parquet`` and ``plan.parquet``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ilp_jax import parquet
from ilp_jax.data.examples import MARKS, Example
from ilp_jax.data.order import epoch_order
from ilp_jax.data.study import StudyData
from ilp_jax.errors import UserError

EXAMPLES_SCHEMA = pa.schema(
    [
        pa.field("example_id", pa.int64(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_key", pa.string(), nullable=False),
        pa.field("role", pa.string(), nullable=False),
        pa.field("parent_id", pa.int64()),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("messages", pa.string()),
        pa.field("response", pa.string(), nullable=False),
        pa.field("options", pa.list_(pa.string()), nullable=False),
        pa.field("answer_index", pa.int32()),
        pa.field("knowledge", pa.list_(pa.string()), nullable=False),
        pa.field("n_prompt_tokens", pa.int32(), nullable=False),
        pa.field("n_target_tokens", pa.int32(), nullable=False),
        pa.field("truncated", pa.bool_(), nullable=False),
        pa.field("meta", pa.string(), nullable=False),
        pa.field("marks", pa.string(), nullable=False),
        pa.field("chat", pa.string()),
        pa.field("notes", pa.list_(pa.string())),
    ]
)

_SHOWN = 3  # differing rows named in an error

PLAN_SCHEMA = pa.schema(
    [
        pa.field("example_id", pa.int64(), nullable=False),
        pa.field("stage", pa.int32(), nullable=False),
        pa.field("position", pa.float64()),  # null where the order of training is not known
        pa.field("copies", pa.int32()),  # visits an epoch; null likewise
    ]
)


def write_examples(path, study_data: StudyData) -> None:
    """Writes every example of a study, atomically, as ``examples.parquet``.

    Args:
      path: file to write.
      study_data: the examples and their tokens, in the same order.
    """
    rows = [
        {
            **{
                name: getattr(example, name)
                for name in EXAMPLES_SCHEMA.names
                if hasattr(example, name)
                and name not in ("messages", "meta", "marks", "chat", "notes")
            },
            "options": list(example.options),
            "knowledge": list(example.knowledge),
            "messages": None if example.messages is None else _json(example.messages),
            "meta": _json(dict(example.meta)),
            "marks": _json(dict(example.marks)),
            "chat": _json(example.chat) if example.chat else None,
            "notes": list(example.notes),
            "n_prompt_tokens": tokens.n_tokens - tokens.n_targets,
            "n_target_tokens": tokens.n_targets,
            "truncated": tokens.truncated,
        }
        for example, tokens in zip(study_data.examples, study_data.tokens, strict=True)
    ]
    table = pa.Table.from_pylist(rows, schema=EXAMPLES_SCHEMA)
    parquet.write(path, table, {"file": "examples"})


def read_examples(path) -> tuple[Example, ...]:
    """Reads ``examples.parquet``; token counts stay in the file.

    Args:
      path: file written by ``write_examples``.

    Returns:
      The examples in the file's order.

    Raises:
      UserError: the file is missing, is not Parquet, or lacks a column.
    """
    table = parquet.read_arrow(path)
    for name in ("chat", "notes"):  # which older tables do not have
        if name not in table.column_names:
            nothing = pa.nulls(len(table), EXAMPLES_SCHEMA.field(name).type)
            table = table.append_column(EXAMPLES_SCHEMA.field(name), nothing)
    table = _with_marks(table)
    missing = [name for name in EXAMPLES_SCHEMA.names if name not in table.column_names]
    if missing:
        raise UserError(path, f"lacks the columns {', '.join(missing)}", "write it again")
    fields = [field.name for field in dataclasses.fields(Example) if field.name != "place"]
    return tuple(
        Example(
            **{
                **{name: row[name] for name in fields},
                "messages": None if row["messages"] is None else tuple(json.loads(row["messages"])),
                "options": tuple(row["options"]),
                "knowledge": tuple(row["knowledge"]),
                "meta": json.loads(row["meta"]),
                "marks": json.loads(row["marks"]),
                "chat": json.loads(row["chat"] or "{}"),
                "notes": tuple(row["notes"] or ()),
            }
        )
        for row in table.to_pylist()
    )


def write_plan(path, study_data: StudyData, seed: int, order_known: bool = True) -> None:
    """Writes ``plan.parquet``: what every stage trains on, and when it sees it first.

    Args:
      path: file to write, atomically.
      study_data: the study.
      seed: the run's seed.
      order_known: False where a model was tuned elsewhere: ``position`` and ``copies`` are then
        null.
    """
    tables = []
    for stage in study_data.stages:
        own_seed = seed + int(stage.config.get("seed_offset", 0))
        order, _ = epoch_order(own_seed, stage.index, 1, len(stage.rows), stage.copies)
        _, first_slot = np.unique(order, return_index=True)
        rank = np.argsort(np.argsort(first_slot))
        tables.append(
            pa.table(
                [
                    study_data.example_ids[stage.rows],
                    np.full(len(rank), stage.index, np.int32),
                    rank / max(len(rank) - 1, 1) if order_known else pa.nulls(len(rank)),
                    stage.copies_N if order_known else pa.nulls(len(rank)),
                ],
                schema=PLAN_SCHEMA,
            )
        )
    table = pa.concat_tables(tables) if tables else PLAN_SCHEMA.empty_table()
    parquet.write(path, table, {"file": "plan", "seed": str(seed)})


def plan_changes(path, study_data: StudyData) -> str:
    """Which rows' places in the stages are no longer those of a file.

    Args:
      path: file written by ``write_plan``; it may be missing.
      study_data: the study as it is now.

    Returns:
      The first of them, and how many more; empty where there are none.
    """
    if not path.exists():
        return ""
    table = parquet.read_arrow(path).to_pylist()
    was = {(row["stage"], row["example_id"]): row["copies"] for row in table}
    now = {
        (stage.index, one): copies
        for stage in study_data.stages
        for one, copies in zip(
            study_data.example_ids[stage.rows].tolist(), stage.copies_N.tolist(), strict=True
        )
    }
    names = {one.example_id: _name(one) for one in study_data.examples}
    told = [
        f"row {names.get(one, one)} of stage {stage}: "
        f"copies {was.get((stage, one), 0)}, now {now.get((stage, one), 0)}"
        for stage, one in sorted({*was, *now})
        if was.get((stage, one)) != now.get((stage, one))
    ]
    return _shortened(told)


def examples_changes(was: Sequence[Example], now: Sequence[Example]) -> str:
    """Which examples are no longer what they were: the first of them, and how many more.

    Args:
      was: the examples of ``examples.parquet``.
      now: those of the study.
    """
    before, after = ({one.example_id: one for one in examples} for examples in (was, now))
    told = [f"{_name(one)} is gone" for key, one in before.items() if key not in after]
    told += [f"{_name(one)} is new" for key, one in after.items() if key not in before]
    told += [
        f"{_name(one)} has another {_differing(before[key], one)}"
        for key, one in after.items()
        if key in before and before[key] != one
    ]
    return _shortened(told) or "in another order"


def _shortened(told: Sequence[str]) -> str:
    """The first of some phrases, and how many more there are."""
    more = f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    return "; ".join(told[:_SHOWN]) + more


def _name(example: Example) -> str:
    return f"{example.source}:{example.source_key}"


def _differing(one: Example, other: Example) -> str:
    fields = (field.name for field in dataclasses.fields(Example))
    return next(name for name in fields if getattr(one, name) != getattr(other, name))


def _with_marks(table: pa.Table) -> pa.Table:
    """Takes the marks out of ``meta``, where older versions put them."""
    if "marks" in table.column_names or "meta" not in table.column_names:
        return table
    found = [json.loads(text) for text in table["meta"].to_pylist()]
    meta = [_json({k: v for k, v in one.items() if k not in MARKS}) for one in found]
    marks = [_json({k: v for k, v in one.items() if k in MARKS}) for one in found]
    place = table.column_names.index("meta")
    table = table.set_column(place, "meta", pa.array(meta, pa.string()))
    return table.append_column("marks", pa.array(marks, pa.string()))


def _json(value) -> str:
    # Keys stay in their order: templates write some of them.
    return json.dumps(value, ensure_ascii=False)
