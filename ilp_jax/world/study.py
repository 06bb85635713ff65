"""A world as the data of a study, and the truth about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from ml_collections import ConfigDict
from transformers import PreTrainedTokenizerFast

from ilp_jax.data.arguments import of_config
from ilp_jax.data.examples import Example, example_id
from ilp_jax.data.study import Stage, StudyData
from ilp_jax.data.tokens import TokenRow, tokenise_all
from ilp_jax.errors import UserError
from ilp_jax.stats.schema import TRUTH_SCHEMA
from ilp_jax.world.facts import Facts, Sizes, make_facts
from ilp_jax.world.groups import Mix, Row, Taught, make_rows


@dataclasses.dataclass(frozen=True, eq=False)
class World:
    """A world with the rows of its study.

    Attributes:
      seed: its number.
      facts: what is true.
      rows: the study's rows, trained or not.
      taught: what its base model is taught.
    """

    seed: int
    facts: Facts
    rows: tuple[Row, ...]
    taught: Taught

    @property
    def sizes(self) -> Sizes:
        """How large it is."""
        return self.facts.sizes


def make_world(config: ConfigDict) -> World:
    """The world of a config.

    Args:
      config: a resolved config with a world.

    Raises:
      UserError: the world is too small for its mix.
    """
    world = config.world
    sizes, mix = Sizes(**world.sizes.to_dict()), Mix(len(config.sequence), **world.mix.to_dict())
    facts = make_facts(world.seed, sizes)
    try:
        rows, taught = make_rows(world.seed, facts, mix)
    except ValueError as error:
        raise UserError(
            "config.world.mix", str(error), "raise world.sizes or ask for less"
        ) from None
    return World(world.seed, facts, tuple(rows), taught)


def build(config: ConfigDict, tokenizer: PreTrainedTokenizerFast) -> StudyData:
    """The data of a world's study.

    Args:
      config: a resolved config with a world.
      tokenizer: that of the world's base.

    Raises:
      UserError: see ``make_world``.
    """
    return study_of(make_world(config).rows, config, tokenizer)


def study_of(
    rows: Sequence[Row], config: ConfigDict, tokenizer: PreTrainedTokenizerFast
) -> StudyData:
    """Planted rows as the data of a study.

    Every stage trains the rows that its number names, each with its own visits. Rows that are
    never trained (other wordings, prerequisites) are held out.

    Args:
      rows: the rows.
      config: a resolved config, for stages and layout.
      tokenizer: the model's tokenizer.
    """
    examples = tuple(_examples(rows))
    tokens = tokenise_all(
        examples,
        tokenizer,
        config.template,
        config.separator,
        config.max_length,
        arguments=of_config(config),
    )
    held_out = np.array([i for i, row in enumerate(rows) if not row.visits], np.int32)
    stages = []
    for number, name in enumerate(config.sequence, 1):
        copies = {i: dict(row.visits).get(number, 0) for i, row in enumerate(rows)}
        own = [i for i, n in copies.items() if n]
        stages.append(
            Stage(
                number,
                name,
                np.array(own, np.int32),
                held_out if number == 1 else held_out[:0],
                config.stages[name],
                tuple(copies[i] for i in own),
            )
        )
    faults = {
        i: tuple(_targets(row, examples[i], tokenizer, config))
        for i, row in enumerate(rows)
        if row.targets and row.visits
    }
    usable = {stage.name: len(stage.rows) for stage in stages}
    return StudyData(examples, tokens, tuple(stages), {}, usable, faults)


def truth(config: ConfigDict) -> pa.Table:
    """What was planted in each row of a world's study: ``truth.parquet``.

    Args:
      config: a resolved config with a world.

    Returns:
      The columns of ``TRUTH_SCHEMA``, one row an example, in the order of ``build``.
    """
    return truth_of(make_world(config).rows)


def truth_of(rows: Sequence[Row]) -> pa.Table:
    """What was planted in rows: ``truth.parquet``.

    Args:
      rows: the rows.

    Returns:
      The columns of ``TRUTH_SCHEMA``, in the order of ``rows``.
    """
    ids = {row.key: example_id(row.source, row.key) for row in rows}
    return pa.Table.from_pylist(
        [
            {
                "example_id": ids[row.key],
                "planted": row.planted,
                "detail": row.detail,
                "group_id": ids[row.group_key],
                "related_ids": [ids[key] for key in row.related],
                "prerequisite_id": row.prerequisite and ids[row.prerequisite],
            }
            for row in rows
        ],
        schema=TRUTH_SCHEMA,
    )


def _examples(rows: Sequence[Row]) -> list[Example]:
    return [
        Example(
            example_id(row.source, row.key),
            row.source,
            row.key,
            row.prompt,
            row.response,
            role=_role(row),
            parent_id=row.paraphrase_of and example_id(row.source, row.paraphrase_of),
            options=row.options,
            answer_index=row.options.index(row.response),
        )
        for row in rows
    ]


def _role(row: Row) -> str:
    if row.visits:
        return "train"
    return "paraphrase" if row.paraphrase_of else "held_out"


def _targets(
    row: Row, example: Example, tokenizer: PreTrainedTokenizerFast, config: ConfigDict
) -> list[np.ndarray]:
    """Token ids of everything that a faulty pipeline may train a row on."""
    swapped = [
        dataclasses.replace(example, response=target, options=(), answer_index=None)
        for target in row.targets
    ]
    rows: tuple[TokenRow, ...] = tokenise_all(
        swapped,
        tokenizer,
        config.template,
        config.separator,
        config.max_length,
        arguments=of_config(config),
    )
    return [one.target_ids for one in rows]
