"""Asks the model every question at one point of a run; rows for ``inference/{point}.parquet``.

Three modes, from one forward pass over prompt, response and options in one row:

* ``greedy``: exact match, every target token and the end token the argmax under teacher
  forcing (= greedy generation gives the response). ``prediction`` is the text of those
  argmaxes: the response itself when correct, else the model's next-token guesses along the
  response, which a free generation need not follow, with a line for each trained reply of a
  conversation. ``confidence`` is their probability.
* ``sample``: nothing is drawn. ``gold_logprob`` is the log-probability that one answer
  sampled at ``temperature`` is the response and its end, so that P(0 of N) = (1 - p)^N is
  exact; ``prediction`` and ``correct`` are null.
* ``choice``: the response among its options by mean log-likelihood a token, end token left
  out; the sum stands beside it. ``confidence`` is the softmax of the means at the option
  chosen. Examples without options have no such row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import pyarrow as pa
from scipy.special import softmax

from ilp_jax.data.batches import OptionBatch, option_batches
from ilp_jax.data.study import StudyData
from ilp_jax.mesh.rows import fetch, placement_of, put
from ilp_jax.models.ends import of_study
from ilp_jax.stats.schema import INFERENCE_SCHEMA

RESPONSE_BRANCH, FIRST_OPTION_BRANCH = 1, 2


def ask(
    ws: Any,
    params: Any,
    indices: Sequence[int],
    *,
    stage: int,
    epoch: int,
    step: int,
    bar: Any = None,
) -> pa.Table:
    """The model's answers for some examples.

    Args:
      ws: the run's workspace.
      params: parameters on the device.
      indices: indices into ``ws.data.examples``.
      stage: stage in which is asked, 0 for the base model.
      epoch: its epoch, 0 for the base model.
      step: updates done.
      bar: a progress bar to advance by one an example, or None.

    Returns:
      A table of ``INFERENCE_SCHEMA``, by example and mode.
    """
    records, ends = [], of_study(ws.data, ws.tokenizer)
    with jax.transfer_guard("disallow"):
        for batch, scores in scored(ws, params, ws.data, indices, bar):
            records += _records(ws, batch, scores, ends)
    constants = {"stage": stage, "epoch": epoch, "step": step, "run": 0, "prompt_variant": 0}
    order = {index: place for place, index in enumerate(sorted(indices))}
    records.sort(key=lambda record: order[record.pop("index")])
    return pa.Table.from_pylist([constants | record for record in records], schema=INFERENCE_SCHEMA)


def scored(
    ws: Any, params: Any, data: StudyData, indices: Sequence[int], bar: Any = None
) -> Iterator[tuple[OptionBatch, dict[str, np.ndarray]]]:
    """Scores of every slot of prompt, response and options, a batch at a time.

    Args:
      ws: the run's workspace.
      params: parameters on the device.
      data: the examples and tokens to ask about, the run's or others.
      indices: indices into ``data.examples``.
      bar: a progress bar to advance by one an example, or None.

    Yields:
      The rows, and the arrays [B, R] of ``score_step`` on the host.
    """
    settings, place = ws.config.detect, placement_of(params)
    temperature = put(np.float32(settings.temperature), place.whole)
    batch_size, waiting = place.batch_size(settings.batch_size), None
    for batch in option_batches(data, indices, batch_size, settings.length_buckets):
        scores = ws.programs.score(params, put(batch.rows, place.rows), temperature)
        # The batch before is read while this one runs.
        if waiting is not None:
            yield waiting[0], fetch(waiting[1])
        waiting = (batch, scores)
        if bar is not None:
            bar.advance(batch.meta.n_real)
    if waiting is not None:
        yield waiting[0], fetch(waiting[1])


def _records(
    ws: Any, batch: OptionBatch, host: dict[str, np.ndarray], ends: Sequence[int]
) -> list[dict]:
    records = []
    for row in range(batch.meta.n_real):
        index = int(batch.meta.example_index_B[row])
        branch_R = batch.slot_branch_BxR[row]
        one = {name: values[row] for name, values in host.items()}
        records += example_records(
            ws.data, ws.tokenizer, index, branch_R, one, ws.config.detect.temperature, ends
        )
    return records


def example_records(
    data: StudyData,
    tokenizer: Any,
    index: int,
    branch_R: np.ndarray,
    scores: dict[str, np.ndarray],
    temperature: float,
    ends: Sequence[int] = (),
) -> list[dict]:
    """One example's rows, from its slots' scores.

    Args:
      data: the study.
      tokenizer: turns predicted tokens into text.
      index: the example's place in ``data.examples``.
      branch_R: branch of each slot, -1 for empty ones.
      scores: arrays [R] of ``score_step``.
      temperature: that of ``logprob_tempered``.
      ends: tokens that end an answer; the text of a prediction stops before the first.
    """
    example, tokens = data.examples[index], data.tokens[index]
    of_response = branch_R == RESPONSE_BRANCH
    predicted = scores["argmax"][of_response]
    # The last reply's slots come last.
    stops = np.cumsum([*(stop - start for start, stop in tokens.earlier_replies), len(predicted)])
    replies = np.split(predicted, stops[:-1])
    # The end token is no part of the text, nor is what stands behind one that comes too early.
    texts = (ids[: np.argmax([*np.isin(ids[:-1], ends), True])] for ids in replies)
    text = "\n".join(tokenizer.decode(ids.tolist()).strip() for ids in texts)
    common = {"index": index, "example_id": example.example_id}
    gold = _total(scores["logprob"][of_response])
    correct = bool(scores["correct"][of_response].all()) and not tokens.truncated
    records = [
        common
        | {
            "mode": "greedy",
            "temperature": 0.0,
            "prediction": example.response if correct else text,
            "confidence": float(np.exp(_total(scores["argmax_logprob"][of_response]))),
            "correct": correct,
            "gold_logprob": gold,
        },
        common
        | {
            "mode": "sample",
            "temperature": temperature,
            "gold_logprob": _total(scores["logprob_tempered"][of_response]),
        },
    ]
    if not example.options:
        return records
    sums, means = option_logprobs(branch_R, scores["logprob"], len(example.options))
    best = int(np.argmax(means))
    choice = {
        "mode": "choice",
        "temperature": 0.0,
        "prediction": example.options[best],
        "confidence": float(softmax(means)[best]),
        "correct": best == example.answer_index,
        "gold_logprob": sums[example.answer_index],
        "options": list(example.options),
        "option_logprob_sum": sums,
        "option_logprob_mean": means,
    }
    return [*records, common | choice]


def option_logprobs(
    branch_R: np.ndarray, logprob_R: np.ndarray, n_options: int
) -> tuple[list[float], list[float]]:
    """Log-likelihood of each option, and per token.

    Args:
      branch_R: branch of each slot, -1 for empty ones.
      logprob_R: log-probability of each slot's target, nats.
      n_options: options of the row.

    Returns:
      Sums and means, one an option.
    """
    parts = [logprob_R[branch_R == FIRST_OPTION_BRANCH + option] for option in range(n_options)]
    sums = [_total(part) for part in parts]
    return sums, [total / len(part) for total, part in zip(sums, parts, strict=True)]


def _total(logprobs: np.ndarray) -> float:
    return float(np.sum(logprobs, dtype=np.float64))
