"""What a plan is about: the model's shape and the rows, as a run would have them."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from ilp_jax.data.examples import Example, example_id
from ilp_jax.data.lengths import fitted
from ilp_jax.data.stages import build
from ilp_jax.data.study import StudyData, assemble
from ilp_jax.data.tokens import TokenRow
from ilp_jax.detect import variants
from ilp_jax.detect.screen import is_sampled
from ilp_jax.errors import UserError
from ilp_jax.models import presets, weights
from ilp_jax.models.config import ModelConfig
from ilp_jax.models.lora import LoraConfig
from ilp_jax.models.tokenizer import load_tokenizer
from ilp_jax.planning.asking import Asked, asked_of
from ilp_jax.planning.flops import Model
from ilp_jax.stats.inference import BASE
from ilp_jax.world import base as world_base
from ilp_jax.world.study import make_world

PRESET = "preset:"
"""In front of a name in ``config.model.path``: a published shape, without weights."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is planned.

    Attributes:
      config: the resolved config.
      model: shape of the model, and how it is computed and trained.
      data: rows, tokenised as for training.
      asked: the questions about options at a point, see ``asking.Asked``.
      assumed: what the rows are assumed to be, '' where they are the config's own.
    """

    config: ConfigDict
    model: Model
    data: StudyData
    asked: Asked
    assumed: str = ""


@dataclasses.dataclass(frozen=True)
class Assumption:
    """Rows that stand in for data that are not here.

    Attributes:
      rows: rows that each stage trains on.
      tokens: tokens a row.
      targets: of these, trained ones, the end token included.
    """

    rows: int
    tokens: int
    targets: int = 16

    def __post_init__(self):
        if not 1 <= self.targets < self.tokens or self.rows < 1:
            raise UserError(
                "ilp plan",
                f"{self.rows} rows of {self.tokens} tokens, {self.targets} of them trained, "
                "leave no prompt",
                "give --rows, --tokens and --targets of at least 1, more tokens than targets",
            )


def open_subject(config: ConfigDict, assumption: Assumption | None = None) -> Subject:
    """Reads what a run would read, but for the weights' values.

    Args:
      config: the resolved config; ``model.path`` may be ``preset:NAME`` where rows are assumed.
      assumption: rows in place of the config's own data, None for these.

    Returns:
      The subject. Options that the base model's answers make in a run are not among the rows.

    Raises:
      UserError: the model or the data are not here, or do not fit.
    """
    model = model_of(config)
    if assumption is not None:
        data = assumed_data(config, assumption)
        text = (
            f"{assumption.rows:,} rows a stage of {assumption.tokens} tokens, "
            f"{assumption.targets} of them trained"
        )
        return Subject(config, model, data, _assumed_questions(config, data), text)
    path = config.model.tuned or config.model.path
    if path.startswith(PRESET):
        raise UserError(
            path, "has no tokenizer, so rows cannot be counted", "add --rows N --tokens T"
        )
    if config.planted.sources and not config.planted.scores:
        raise UserError(
            "config.planted.scores",
            "is empty: which rows are planted rests on the base model's answers",
            "give the file that an earlier run left in its run.json, or --rows N --tokens T",
        )
    if config.world.family:
        tokenizer = world_base.word_tokenizer(make_world(config).sizes)
    else:
        tokenizer = load_tokenizer(path)
    config = fitted(config, model.config.max_position)
    data = build(config, tokenizer)
    view = types.SimpleNamespace(config=config, data=data, tokenizer=tokenizer)
    return Subject(config, model, data, asked_of(view))


def model_of(config: ConfigDict) -> Model:
    """The model of a config, without its weights.

    Args:
      config: the resolved config.

    Raises:
      UserError: nothing at ``model.path``, or no preset of that name.
    """
    lora = config.lora
    shape = dataclasses.replace(
        _shape(config), compute_dtype=config.model.compute_dtype, remat=config.model.remat
    )
    adapters = LoraConfig(lora.rank, tuple(lora.targets), lora.scale) if lora.rank else None
    return Model(shape, adapters, config.train.norm_method, config.train.gram_cost_ratio)


def _shape(config: ConfigDict) -> ModelConfig:
    if config.world.family:
        return world_base.model_config(config.world.family, make_world(config).sizes)
    if config.model.path.startswith(PRESET):
        return presets.preset(config.model.path.removeprefix(PRESET))
    return weights.load_config(config.model.path)


def assumed_data(config: ConfigDict, assumption: Assumption) -> StudyData:
    """Rows of equal length for every stage of a config.

    A stage holds out as many as it says beside them, and gives every row as many options as it
    asks for, each of half the target's length (distractors are as short as answers).

    Args:
      config: the resolved config; ``sequence`` and the stages' numbers are used.
      assumption: the rows.

    Raises:
      UserError: the config names no stage.
    """
    if not config.sequence:
        raise UserError("config.sequence", "names no stage", "list names of config.stages")
    blank = np.zeros(assumption.tokens, np.int32)
    prompt, target = blank[assumption.targets :], blank[: assumption.targets]
    parts = {}
    for name in dict.fromkeys(config.sequence):
        settings = config.stages[name]
        n_options = settings.n_options or (settings.n_distractors and settings.n_distractors + 1)
        options = n_options * (target[: max(assumption.targets // 2, 1)],)

        def row(i: int, options=options, name=name) -> tuple[Example, TokenRow]:
            key = example_id(name, str(i))
            texts = tuple(map(str, range(len(options))))
            example = Example(key, name, str(i), "", "0", options=texts, answer_index=0)
            return example, TokenRow(key, prompt, target, options)

        n_held = settings.held_out_rows
        rows = [row(i) for i in range(assumption.rows + n_held)]
        parts[name] = (name, settings, rows[n_held:], rows[:n_held])
    return assemble([parts[name] for name in config.sequence])


def _assumed_questions(config: ConfigDict, data: StudyData) -> Asked:
    """Questions of rows that have lengths alone; a list of options lengthens the prompt."""
    nothing, settings = np.zeros(0, np.int32), config.detect

    def asked(point: str, indices: Sequence[int]) -> Sequence[TokenRow]:
        rows = [data.tokens[i] for i in indices if data.tokens[i].option_ids]
        n_wordings = len(set(settings.base_prompt_variants) - {variants.AS_TRAINED})
        questions = [
            TokenRow(row.example_id, row.prompt_ids, nothing, row.option_ids)
            for row in rows * (n_wordings if point == BASE else 0)
        ]
        if is_sampled(settings.choice_run_points, point):
            for row in rows * settings.choice_runs:
                prompt = np.concatenate([row.prompt_ids, *row.option_ids])
                questions.append(TokenRow(row.example_id, prompt, nothing, row.option_ids))
        return questions

    return asked
