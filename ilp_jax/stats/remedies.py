"""Keeps ``remedies.parquet``: what became of every trained example in every arm."""

from __future__ import annotations

import polars as pl
import pyarrow as pa
from etils import epath

from ilp_jax import files, parquet
from ilp_jax.errors import UserError

FILE = "remedies.parquet"
OF_PARAPHRASE = "_paraphrase"
"""Suffix of the four columns that say the same of an example's untrained paraphrase."""


def _field(name: str, kind: pa.DataType, meaning: str, unit: str = "", null: bool = False):
    return pa.field(name, kind, nullable=null, metadata={"meaning": meaning, "unit": unit})


def _outcome(suffix: str, of: str) -> list[pa.Field]:
    null = bool(suffix)
    return [
        _field(f"p_before{suffix}", pa.float64(), f"probability of {of}, run", "[0, 1]", True),
        _field(f"p_after{suffix}", pa.float64(), f"probability of {of}, arm", "[0, 1]", True),
        _field(f"learned_before{suffix}", pa.bool_(), f"whether the run learned {of}", "", null),
        _field(f"learned_after{suffix}", pa.bool_(), f"whether the arm learned {of}", "", null),
    ]


REMEDIES_SCHEMA = pa.schema(
    [
        _field("example_id", pa.int64(), "the example, as in examples.parquet"),
        _field("role", pa.string(), "train, or held_out: never trained, in no part of an arm"),
        _field("cause", pa.string(), "diagnosed; null: learned before", null=True),
        _field(
            "remedy",
            pa.string(),
            "the cause whose remedy it was given, or none; null: not of the rows that the arm "
            "deals with (learned, without a cause, or judged wrong)",
            null=True,
        ),
        _field("arm", pa.string(), "the training that it was in"),
        _field("is_sham", pa.bool_(), "whether the remedy was a sham"),
        _field("seed", pa.int64(), "the training's seed"),
        _field("treated", pa.bool_(), "whether the remedy found something to do for it"),
        _field("deleted", pa.bool_(), "whether the arm did not train it at all"),
        _field("group_id", pa.int64(), "rows that contradict each other have the same"),
        *_outcome("", "its recorded answer"),
        *_outcome(OF_PARAPHRASE, "the answer to its first paraphrase"),
        _field("steps", pa.int64(), "updates of the arm's training", "updates"),
        _field("tokens", pa.int64(), "tokens of rows in them, prompts included", "tokens"),
    ]
)


def write_remedies(run_folder: epath.PathLike, table: pa.Table | pl.DataFrame) -> None:
    """Writes ``remedies.parquet`` whole.

    Args:
      run_folder: the run's folder.
      table: the columns of `REMEDIES_SCHEMA`.
    """
    path = files.as_path(run_folder) / FILE
    parquet.write(path, table, {"file": "remedies"}, schema=REMEDIES_SCHEMA)


def has_remedies(run_folder: epath.PathLike) -> bool:
    """Whether arms were trained there; the file is not opened."""
    return (files.as_path(run_folder) / FILE).exists()


def read_remedies(run_folder: epath.PathLike) -> pl.DataFrame:
    """Reads ``remedies.parquet``.

    Args:
      run_folder: the run's folder.

    Raises:
      UserError: no arm was trained there, or the file is damaged.
    """
    path = files.as_path(run_folder) / FILE
    if not path.exists():
        raise UserError(
            path.parent, f"has no {FILE}", f"run `ilp mitigate --workdir {path.parent}`"
        )
    return parquet.read(path)
