"""Distractors that the base model itself gives: its own wrong answers to the question.

Where it is wrong before training, its favourite answers are the ones that training has to
overcome; they are plausible by construction. The study does not say how it makes distractors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ilp_jax.data import distractors
from ilp_jax.data.examples import Example
from ilp_jax.data.order import score
from ilp_jax.data.study import Stage, StudyData
from ilp_jax.models import ends
from ilp_jax.models.sample import sample

if TYPE_CHECKING:
    from ilp_jax.workspace import Workspace


def wanted(data: StudyData) -> dict[int, Stage]:
    """Rows that get the base model's answers, each with the first stage that it stands in.

    Args:
      data: the study.

    Returns:
      By index into ``data.examples``: rows of stages with ``distractors`` of ``base_answers``
      or ``both`` that have no options of their source. Twins and what they contradict keep
      the options that they have in common.
    """
    parents = {example.parent_id for example in data.examples} - {None}
    found: dict[int, Stage] = {}
    for stage in data.stages:
        settings = stage.config
        if not settings.get("n_distractors", 0) or settings.distractors == distractors.SIMILAR:
            continue
        for index in (*stage.rows.tolist(), *stage.held_out.tolist()):
            example = data.examples[index]
            free = not example.options or distractors.MARK in example.marks
            if free and example.parent_id is None and example.example_id not in parents:
                found.setdefault(index, stage)
    return found


def draw_options(ws: Workspace, params: Any, *, bar: Any = None) -> list[Example]:
    """Draws answers of the base model and makes options of the wrong ones.

    ``config.detect.distractor_draws`` answers a row are drawn at ``detect.temperature``. One
    counts when it ends, by the end token or a line's end, is of the response's type
    (``distractors.answer_type``: a small model's essays are no distractors of a name), and
    clashes neither with the response nor with what the data answers to the same question
    (``distractors.clashes``); those drawn most often come first. ``both`` is filled up with the
    options that the row has from similar questions.

    Args:
      ws: the run's workspace.
      params: the base model's parameters on the device.
      bar: a progress bar to advance by one an example, or None.

    Returns:
      The examples with their new options; those with too few wrong answers are left out.
    """
    data, stages = ws.data, wanted(ws.data)
    indices = sorted(stages)
    if not indices:
        return []
    right = _right_answers(data, stages)
    texts, made = _texts(ws, params, indices, bar), []
    for index in indices:
        example, settings = data.examples[index], stages[index].config
        n_tokens = max(len(data.tokens[index].target_ids) - 1, 1)
        kind = distractors.answer_type(example.response, n_tokens)
        fitting = [one for one in texts[index] if _type_of(ws, one) == kind]
        wrong = _distinct(fitting, right[index])[: settings.n_distractors]
        source = distractors.BASE
        if settings.distractors == distractors.BOTH:
            others = [one for one in example.options if one != example.response]
            wrong = _distinct([*wrong, *others], right[index])[: settings.n_distractors]
            source = distractors.BOTH
        if len(wrong) == settings.n_distractors:
            made.append(distractors.with_options(example, wrong, int(ws.config.seed), source))
    return made


def _texts(ws: Workspace, params: Any, indices: Sequence[int], bar: Any) -> dict[int, list[str]]:
    """Answers of each row that end, the most frequent first."""
    settings, rows = ws.config.detect, ws.data.tokens
    # Other keys than those of the answers that are drawn for detection.
    keys = [score("base answers", int(ws.data.example_ids[i])) % 2**63 for i in indices]
    control = _control_ids(ws.tokenizer)
    with jax.transfer_guard("disallow"):
        samples = sample(
            ws.decoder,
            params,
            [rows[i].prompt_ids for i in indices],
            example_ids=keys,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            seed=ws.config.seed,
            end_id=ends.of_study(ws.data, ws.tokenizer),
            n_samples=settings.distractor_draws,
            batch_size=settings.batch_size,
            bar=bar,
        )
    found = {}
    for row, index in enumerate(indices):
        counted: Counter[str] = Counter()
        for run in range(settings.distractor_draws):
            n, ended = samples.lengths_ExN[row, run], samples.ended_ExN[row, run]
            tokens = samples.tokens_ExNxG[row, run, : n - ended]
            # A control token, such as the header of another turn, is no part of an answer.
            stop = int(np.argmax([*np.isin(tokens, control), True]))
            ended = ended and stop == len(tokens)
            text = ws.tokenizer.decode(tokens[:stop].tolist()).lstrip()
            text, newline, _ = text.partition("\n")
            if text.strip() and (ended or newline):
                counted[text.strip()] += 1
        found[index] = [text for text, _ in counted.most_common()]
    return found


def _control_ids(tokenizer: Any) -> list[int]:
    added = tokenizer.added_tokens_decoder.items()
    return [*tokenizer.all_special_ids, *(number for number, token in added if token.special)]


def _type_of(ws: Workspace, text: str) -> tuple[str, int]:
    ids = ws.tokenizer(text, add_special_tokens=False)["input_ids"]
    return distractors.answer_type(text, len(ids))


def _distinct(texts: Sequence[str], right: frozenset[str]) -> list[str]:
    """The texts that are wrong, each once."""
    keys, kept = set(), []
    for text in texts:
        key = distractors.key(text)
        if key not in keys and not distractors.clashes(key, right):
            keys.add(key)
            kept.append(text)
    return kept


def _right_answers(data: StudyData, stages: dict[int, Stage]) -> dict[int, frozenset[str]]:
    """By row, all that the data answers to the same question."""
    # Only answers of the same type would need lengths.
    questions = [distractors.answered(example, 1) for example in data.examples]
    pool, found = distractors.Neighbours(questions, seed=0), {}
    for limit in {stage.config.same_question_similarity for stage in stages.values()}:
        rows = [i for i, one in stages.items() if one.config.same_question_similarity == limit]
        answers = pool.right_answers([questions[i] for i in rows], limit)
        found |= dict(zip(rows, answers, strict=True))
    return found
