"""Options that the run itself made: ``distractors.parquet`` in the run's folder.

The base model's own wrong answers are drawn once, in the phase probe. From then on they are
read from this file, so that every later point, and a run that goes on, asks the same options.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import pyarrow as pa
from etils import epath

from ilp_jax import files, parquet
from ilp_jax.data.distractors import MARK
from ilp_jax.data.examples import Example
from ilp_jax.data.study import StudyData
from ilp_jax.data.tokens import TokenRow

FILE = "distractors.parquet"

SCHEMA = pa.schema(
    [
        pa.field("example_id", pa.int64(), nullable=False),
        pa.field("options", pa.list_(pa.string()), nullable=False),
        pa.field("distractors", pa.string(), nullable=False),
    ]
)


def write(workdir: epath.PathLike, made: Sequence[Example]) -> None:
    """Writes the options of examples, atomically.

    Args:
      workdir: the run's folder.
      made: examples whose options were made; ``marks`` say where they come from.
    """
    rows = [
        {
            "example_id": example.example_id,
            "options": list(example.options),
            "distractors": example.marks[MARK],
        }
        for example in made
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    parquet.write(files.as_path(workdir) / FILE, table, {"file": "distractors"})


def exists(workdir: epath.PathLike) -> bool:
    """Whether the run has made its options."""
    return (files.as_path(workdir) / FILE).exists()


def apply(
    workdir: epath.PathLike,
    data: StudyData,
    tokenise: Callable[[Sequence[Example]], Sequence[TokenRow]],
) -> StudyData:
    """The data with the options of the file.

    Args:
      workdir: the run's folder, with the file.
      data: the study as it was built.
      tokenise: gives the tokens of examples.

    Raises:
      UserError: the file is damaged.
    """
    table = parquet.conform(parquet.read_arrow(files.as_path(workdir) / FILE), SCHEMA)
    made = {row["example_id"]: row for row in table.to_pylist()}
    examples, places = list(data.examples), []
    for place, example in enumerate(examples):
        row = made.get(example.example_id)
        # A response that is no longer among the options: the data changed, which is found out
        # where the data is compared.
        if row is not None and example.response in row["options"]:
            places.append(place)
            examples[place] = dataclasses.replace(
                example,
                options=tuple(row["options"]),
                answer_index=row["options"].index(example.response),
                marks={**example.marks, MARK: row["distractors"]},
            )
    tokens = list(data.tokens)
    for place, row in zip(places, tokenise([examples[i] for i in places]), strict=True):
        tokens[place] = row
    return dataclasses.replace(data, examples=tuple(examples), tokens=tuple(tokens))
