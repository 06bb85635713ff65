"""Real rows with planted causes as the data of a study, and the truth about them. No JAX."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from ml_collections import ConfigDict
from transformers import PreTrainedTokenizerFast

from ilp_jax import parquet
from ilp_jax.data import jsonl, packaged
from ilp_jax.data.arguments import of_config
from ilp_jax.data.examples import Example
from ilp_jax.data.order import score
from ilp_jax.data.study import StudyData
from ilp_jax.data.tokens import TokenRow, tokenise_all
from ilp_jax.detect.variants import split
from ilp_jax.errors import UserError
from ilp_jax.world.groups import Row
from ilp_jax.world.planting import OTHER_WORDINGS, PARAPHRASE, Candidate, Plant, plant_rows, to_ask
from ilp_jax.world.study import study_of, truth_of

SCORES_SCHEMA = pa.schema(
    [
        pa.field("example_id", pa.int64(), nullable=False),
        pa.field("option_logprob_mean", pa.list_(pa.float64()), nullable=False),
    ]
)
"""The base model's answers that planting rests on; nats a token, in the order of the options."""


def build(config: ConfigDict, tokenizer: PreTrainedTokenizerFast) -> StudyData:
    """The data of a planted study; see ``world.study.build``.

    Args:
      config: a resolved config whose ``planted.scores`` names a file.
      tokenizer: the model's tokenizer.

    Raises:
      UserError: a source is missing, or too few rows fit.
    """
    return study_of(make_rows(config, tokenizer), config, tokenizer)


def truth(config: ConfigDict, tokenizer: PreTrainedTokenizerFast) -> pa.Table:
    """What was planted in each row: ``truth.parquet``.

    Args:
      config: as for ``build``.
      tokenizer: as for ``build``.

    Returns:
      The columns of ``TRUTH_SCHEMA``, one row an example, in the order of ``build``.
    """
    return truth_of(make_rows(config, tokenizer))


def make_rows(config: ConfigDict, tokenizer: PreTrainedTokenizerFast) -> list[Row]:
    """The rows of a planted study.

    Args:
      config: as for ``build``.
      tokenizer: as for ``build``.

    Raises:
      UserError: as for ``build``.
    """
    table = parquet.read(config.planted.scores)
    scores = dict(zip(table["example_id"], table["option_logprob_mean"].to_list(), strict=True))
    candidates = candidates_of(config, tokenizer)
    try:
        return plant_rows(candidates, scores, plant_of(config))
    except ValueError as error:
        raise _too_few(error) from None


def asked_of(config: ConfigDict, tokenizer: PreTrainedTokenizerFast) -> StudyData:
    """What the base model is asked before anything is planted: prompts and options.

    Args:
      config: a resolved config.
      tokenizer: the model's tokenizer.

    Returns:
      Examples and tokens, those without a response; no stages.

    Raises:
      UserError: as for ``build``.
    """
    try:
        asked = to_ask(candidates_of(config, tokenizer), plant_of(config))
    except ValueError as error:
        raise _too_few(error) from None
    nothing = np.zeros(0, np.int32)
    examples = tuple(one.example for one in asked)
    rows = (
        TokenRow(row.example_id, row.prompt_ids, nothing, row.option_ids)
        for row in _tokens(config, tokenizer, examples)
    )
    return StudyData(examples, tuple(rows), ())


def plant_of(config: ConfigDict) -> Plant:
    """The settings of a config's group ``planted``.

    Args:
      config: a resolved config.
    """
    settings = config.planted.to_dict()
    names = {field.name for field in dataclasses.fields(Plant)} - {"n_stages"}
    return Plant(len(config.sequence), **{name: settings[name] for name in names})


def candidates_of(config: ConfigDict, tokenizer: PreTrainedTokenizerFast) -> list[Candidate]:
    """The rows of all sources that may be planted.

    Left out are rows with too few options, with a passage before the question, with answers
    neither short nor long, of more than ``planted.max_tokens`` tokens in any layout, and
    questions that stood before.

    Args:
      config: a resolved config.
      tokenizer: the model's tokenizer.

    Raises:
      UserError: a source is unknown or missing.
    """
    plant, rows, seen = plant_of(config), [], set()
    for source in config.planted.sources:
        for example in _load(source):
            before, _, question = split(example.prompt)
            mark = " ".join(question.casefold().split())
            if before or example.messages or len(example.options) < plant.n_options or mark in seen:
                continue
            seen.add(mark)
            rows.append((_cut(example, plant), question))
    rarity = _rarity([question for _, question in rows])
    tokens = _tokens(config, tokenizer, [example for example, _ in rows])
    found = []
    for (example, question), row, rare in zip(rows, tokens, rarity, strict=True):
        lengths = [len(ids) for ids in row.option_ids]
        n, longest = lengths[example.answer_index], max(lengths)
        is_some_use = longest <= plant.short_answer or n >= plant.long_answer
        if min(lengths) and is_some_use and _fits(row, longest, plant):
            found.append(Candidate(example, question, n, longest, rare))
    for layout in (*OTHER_WORDINGS, PARAPHRASE):
        asked = [
            dataclasses.replace(
                one.example, prompt=layout.format(one.question), options=(), answer_index=None
            )
            for one in found
        ]
        again = _tokens(config, tokenizer, asked)
        found = [
            one for one, row in zip(found, again, strict=True) if _fits(row, one.longest, plant)
        ]
    return found


def _fits(row: TokenRow, longest: int, plant: Plant) -> bool:
    """Whether a prompt, the longest option and the end token are short enough together."""
    return len(row.prompt_ids) + longest + 1 <= plant.max_tokens


def _load(source: str) -> tuple[Example, ...]:
    if source in packaged.FILES:
        return packaged.load(source)
    if not source.endswith((".jsonl", ".jsonl.gz")):
        known = ", ".join((*packaged.FILES, "or the path of a .jsonl file"))
        raise UserError("config.planted.sources", f"{source!r} is unknown", f"use {known}")
    return jsonl.load(source).examples


def _cut(example: Example, plant: Plant) -> Example:
    """The example with its answer and as many others as it may have, in their own order."""
    others = [i for i in range(len(example.options)) if i != example.answer_index]
    others.sort(key=lambda i: (score(plant.seed, "options", example.example_id, i), i))
    kept = sorted([example.answer_index, *others[: plant.n_options - 1]])
    return dataclasses.replace(
        example,
        options=tuple(example.options[i] for i in kept),
        answer_index=kept.index(example.answer_index),
    )


def _tokens(
    config: ConfigDict, tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example]
) -> tuple[TokenRow, ...]:
    return tokenise_all(
        examples,
        tokenizer,
        config.template,
        config.separator,
        config.max_length,
        arguments=of_config(config),
    )


def _rarity(texts: Sequence[str]) -> Iterator[float]:
    """Mean over a text's words of log(texts / texts with that word)."""
    words = [set(re.findall(r"\w+", text.casefold())) for text in texts]
    counts = Counter(word for one in words for word in one)
    for one in words:
        yield sum(math.log(len(texts) / counts[word]) for word in sorted(one)) / max(len(one), 1)


def _too_few(error: ValueError) -> UserError:
    return UserError("config.planted", str(error), "ask about more rows, or for fewer of them")
