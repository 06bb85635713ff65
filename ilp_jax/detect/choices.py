"""Further rows of mode ``choice``: other wordings, and options listed in an order of each run.

* Other wordings (``prompt_variant`` 1 and 2): asked of the base model, so that what it knows
  does not hang on one prompt (the study's P_exist, Eq. 2). ``prediction`` is the likeliest.
* Runs (``prompt_variant`` 3 or 4): the study's repeated inference on multiple choice (section
  3.1.3). Each run lists the options in an order of its own and draws its ``prediction`` from
  softmax(log-likelihood a token / temperature); ``confidence`` is that probability, ``seed``
  is filled. Order and draw come from ``config.seed``, the example and the run alone, so that
  they are the same at every point.

``options`` and their log-likelihoods stand in the order of ``examples.parquet``, whatever was
listed; where letters are scored, they are those of the option's letter. A row whose prompt and
longest option exceed ``config.max_length`` is not asked in that variant, in no run of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
import pyarrow as pa
from scipy.special import softmax

from ilp_jax.data.examples import Example
from ilp_jax.data.stages import tokens_of
from ilp_jax.data.study import StudyData
from ilp_jax.data.tokens import TokenRow
from ilp_jax.detect import variants
from ilp_jax.detect.ask import option_logprobs, scored
from ilp_jax.detect.screen import is_sampled
from ilp_jax.stats.inference import BASE
from ilp_jax.stats.schema import INFERENCE_SCHEMA

if TYPE_CHECKING:
    from ilp_jax.workspace import Workspace

_NOTHING = np.zeros(0, np.int32)


class Question(NamedTuple):
    """One question as it is asked.

    Attributes:
      index: the example's place in ``ws.data.examples``.
      variant: ``prompt_variant``.
      run: repetition, from 0.
      example: the example as asked; its options are what is scored, in the original order.
    """

    index: int
    variant: int
    run: int
    example: Example


def other_wordings(ws: Workspace, indices: Sequence[int]) -> list[Question]:
    """The questions of ``config.detect.base_prompt_variants``, but for those as trained.

    Args:
      ws: the run's workspace.
      indices: indices into ``ws.data.examples``; those without options are passed over.
    """
    wanted = sorted(set(ws.config.detect.base_prompt_variants) - {variants.AS_TRAINED})
    return [
        Question(index, variant, 0, variants.reworded(ws.data.examples[index], variant))
        for variant in wanted
        for index in _with_options(ws, indices)
    ]


def permuted_runs(ws: Workspace, indices: Sequence[int]) -> list[Question]:
    """The questions of ``config.detect.choice_runs``; see ``other_wordings``."""
    settings, seed = ws.config.detect, int(ws.config.seed)
    variant = variants.CHOICE_PROMPTS[settings.choice_prompt]
    found = []
    for index in _with_options(ws, indices) if settings.choice_runs else ():
        example = ws.data.examples[index]
        for run in range(settings.choice_runs):
            order = variants.order_of(seed, example.example_id, run, len(example.options))
            asked = variants.listed(example, order, variant)
            if asked is not None:
                found.append(Question(index, variant, run, asked))
    return found


def fitting(
    ws: Workspace, questions: Sequence[Question]
) -> tuple[list[Question], tuple[TokenRow, ...]]:
    """The questions that fit ``config.max_length`` in all their runs, and their tokens.

    Args:
      ws: the run's workspace.
      questions: the questions.

    Returns:
      Questions, and rows of prompt and options without a response.
    """
    rows = tokens_of(ws.config, ws.tokenizer, [question.example for question in questions])
    too_long = {
        (question.index, question.variant)
        for question, row in zip(questions, rows, strict=True)
        if len(row.prompt_ids) + max(map(len, row.option_ids)) > ws.config.max_length
    }
    kept = [
        (question, TokenRow(row.example_id, row.prompt_ids, _NOTHING, row.option_ids))
        for question, row in zip(questions, rows, strict=True)
        if (question.index, question.variant) not in too_long
    ]
    return [question for question, _ in kept], tuple(row for _, row in kept)


def questions_at(ws: Workspace, point: str, indices: Sequence[int]) -> list[Question]:
    """All questions of a point beside the one as trained, which ``ask`` asks.

    Args:
      ws: the run's workspace.
      point: the point's name.
      indices: indices into ``ws.data.examples``.
    """
    questions = other_wordings(ws, indices) if point == BASE else []
    if is_sampled(ws.config.detect.choice_run_points, point):
        questions += permuted_runs(ws, indices)
    return questions


def ask_choices(
    ws: Workspace,
    params: Any,
    questions: Sequence[Question],
    *,
    stage: int,
    epoch: int,
    step: int,
    bar: Any = None,
) -> pa.Table:
    """The model's choices.

    Args:
      ws: the run's workspace.
      params: parameters on the device.
      questions: what to ask; those too long are left out.
      stage: stage in which is asked, 0 for the base model.
      epoch: its epoch, 0 for the base model.
      step: updates done.
      bar: a progress bar to advance by one a question, or None.

    Returns:
      A table of ``INFERENCE_SCHEMA``, in the order of the questions.
    """
    questions, rows = fitting(ws, questions)
    data = StudyData(tuple(question.example for question in questions), rows, ())
    records: list[dict] = [{}] * len(questions)
    with jax.transfer_guard("disallow"):
        for batch, scores in scored(ws, params, data, range(len(questions)), bar):
            for row in range(batch.meta.n_real):
                place = int(batch.meta.example_index_B[row])
                logprobs = option_logprobs(
                    batch.slot_branch_BxR[row],
                    scores["logprob"][row],
                    len(rows[place].option_ids),
                )
                records[place] = _record(ws, questions[place], *logprobs)
    constants = {"stage": stage, "epoch": epoch, "step": step, "mode": "choice"}
    return pa.Table.from_pylist([constants | record for record in records], INFERENCE_SCHEMA)


def _record(ws: Workspace, question: Question, sums: list[float], means: list[float]) -> dict:
    example = ws.data.examples[question.index]
    record = {
        "example_id": example.example_id,
        "run": question.run,
        "prompt_variant": question.variant,
        "temperature": 0.0,
        "gold_logprob": sums[example.answer_index],
        "options": list(example.options),
        "option_logprob_sum": sums,
        "option_logprob_mean": means,
    }
    probabilities, place = softmax(means), int(np.argmax(means))
    if question.variant in variants.CHOICE_PROMPTS.values():
        temperature, seed = float(ws.config.detect.temperature), int(ws.config.seed)
        record |= {"temperature": temperature, "seed": seed}
        if temperature:
            probabilities = softmax(np.array(means) / temperature)
            place = variants.drawn(seed, example.example_id, question.run, probabilities)
    return record | {
        "prediction": example.options[place],
        "confidence": float(probabilities[place]),
        "correct": place == example.answer_index,
    }


def _with_options(ws: Workspace, indices: Sequence[int]) -> list[int]:
    return [index for index in sorted(indices) if ws.data.examples[index].options]
