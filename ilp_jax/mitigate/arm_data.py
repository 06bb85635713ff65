"""An arm's plan as the data of a training, and the config that it is trained with."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict
from transformers import PreTrainedTokenizerFast

from ilp_jax.data.examples import Example, example_id
from ilp_jax.data.stages import tokens_of
from ilp_jax.data.study import Stage, StudyData
from ilp_jax.data.tokens import TokenRow
from ilp_jax.fields import default_stage
from ilp_jax.mitigate.arms import Arm
from ilp_jax.mitigate.plan import Document

SOURCE = "document"
_WARMUP_SHARE = 0.05
_LAST_RATE = 0.05


def arm_config(config: ConfigDict, arm: Arm) -> ConfigDict:
    """A run's config as its arms are trained: no norms, no probes, asked at the end alone.

    Args:
      config: the run's.
      arm: the arm.
    """
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.seed = arm.seed
        config.train.norms_every = 0
        config.probe.rows = "none"
        config.checkpoint.best = False
        config.checkpoint.keep = 1
        config.detect.points = ("final",)
        if config.mitigate.detector != "sampled":
            config.detect.sampled_points = ()
        config.detect.stability_temperatures = ()
        config.detect.choice_runs = 0
    return config


def arm_data(
    arm: Arm, data: StudyData, config: ConfigDict, tokenizer: PreTrainedTokenizerFast
) -> StudyData:
    """The data that an arm trains on: the run's examples, then the documents, in new stages.

    Args:
      arm: the arm.
      data: the run's data.
      config: of ``arm_config``.
      tokenizer: the model's tokenizer.

    Returns:
      Documents are the first stage, each visited once; a stage that all rows have left is
      gone. Indices of the run's examples stay what they are.
    """
    longest = min(config.max_length, config.mitigate.page_tokens)
    rows = page_rows(arm.plan.pages, tokenizer, longest)
    own_examples, own_tokens = _relabelled(arm, data, config, tokenizer)
    examples = (*own_examples, *(example for example, _ in rows))
    tokens = (*own_tokens, *(row for _, row in rows))
    none = np.zeros(0, np.int32)
    stages: list[Stage] = []
    if rows:
        places = np.arange(len(data.examples), len(examples), dtype=np.int32)
        stages.append(Stage(1, "documents", places, none, _document_stage(config, len(rows))))
    for place, stage in enumerate(data.stages):
        visits_N = arm.plan.visits_SxN[place]
        own = np.flatnonzero(visits_N).astype(np.int32)
        fields = stage.config.copy_and_resolve_references()
        with fields.unlocked():
            fields.epochs = int(arm.plan.epochs_S[place])
            if rows and not place:  # its moments are those of other texts at another rate
                fields.optimizer_state = "fresh"
        copies = tuple(visits_N[own].tolist())
        if len(own):
            stages.append(Stage(len(stages) + 1, stage.name, own, none, fields, copies))
    apart = {row: number for number, group in enumerate(arm.plan.apart) for row in group}
    return StudyData(
        examples,
        tokens,
        tuple(stages),
        faults=data.faults,
        apart=apart,
        apart_every=config.mitigate.buckets_every,
    )


def _relabelled(
    arm: Arm, data: StudyData, config: ConfigDict, tokenizer: PreTrainedTokenizerFast
) -> tuple[list[Example], list[TokenRow]]:
    """The run's examples, some with another answer (and no options, which may lack it)."""
    examples, tokens = list(data.examples), list(data.tokens)
    rows = sorted(arm.plan.relabelled)
    for row in rows:
        text = arm.plan.relabelled[row]
        examples[row] = dataclasses.replace(
            examples[row], response=text, options=(), answer_index=None
        )
    made = tokens_of(config, tokenizer, [examples[row] for row in rows])
    for row, one in zip(rows, made, strict=True):
        tokens[row] = one
    return examples, tokens


def _document_stage(config: ConfigDict, n: int) -> ConfigDict:
    stage = default_stage()
    with stage.unlocked():
        stage.source, stage.epochs = SOURCE, 1
        stage.learning_rate = config.mitigate.pages_rate
        stage.schedule, stage.final_learning_rate_fraction = "linear", _LAST_RATE
        stage.warmup_steps = round(_WARMUP_SHARE * n / config.train.batch_size)
    return stage


def page_rows(
    pages: Sequence[Sequence[Document]], tokenizer: PreTrainedTokenizerFast, max_length: int
) -> list[tuple[Example, TokenRow]]:
    """Pages as rows of training: every token but the first is a target.

    Args:
      pages: texts, an end token behind each.
      tokenizer: the model's tokenizer.
      max_length: tokens at which a page is cut.
    """
    if not pages:
        return []
    texts = [document.text for page in pages for document in page]
    encoded = iter(tokenizer(texts, add_special_tokens=False)["input_ids"])
    rows = []
    for number, page in enumerate(pages):
        ids = [token for _ in page for token in (*next(encoded), tokenizer.eos_token_id)]
        text = "\n".join(document.text for document in page)
        one = example_id(SOURCE, str(number))
        example = Example(one, SOURCE, str(number), "", text, role=SOURCE)
        kept = np.array(ids[:max_length], np.int32)
        truncated = len(ids) > max_length
        rows.append((example, TokenRow(one, kept[:1], kept[1:], truncated=truncated)))
    return [row for row in rows if len(row[1].target_ids)]


def originals(data: StudyData, run: StudyData) -> StudyData:
    """An arm's data without its documents: what is asked at its end.

    Args:
      data: the arm's.
      run: the run's.
    """
    return dataclasses.replace(data, examples=run.examples, tokens=run.tokens)
