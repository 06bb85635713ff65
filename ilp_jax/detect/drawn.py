"""Adds really generated answers to those that ``ask`` computes without drawing.

* ``sample``: beside the one row of the exact law (``seed`` null) stand ``n_samples`` rows with
  ``seed`` filled, ``run`` 0, 1, ...: an answer drawn at ``temperature``, its text, its
  probability at that temperature, and whether it is the target: the same tokens, end token
  included, or the same text after ``normalise`` where the config says so.
* ``greedy``: where teacher forcing found a wrong token, ``prediction`` and ``confidence`` become
  those of the answer that the model generates. Elsewhere that is the response, as it stood.

Of a conversation every trained reply is generated, each behind the true turns before it; they
are correct when all are, as in the exact law, and ``prediction`` has a line for each.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
import polars as pl
import pyarrow as pa

from ilp_jax.data.tokens import TokenRow
from ilp_jax.detect.normalise import normalise
from ilp_jax.detect.screen import candidates
from ilp_jax.models import ends
from ilp_jax.models.sample import Samples, sample
from ilp_jax.stats.schema import INFERENCE_SCHEMA

if TYPE_CHECKING:
    from ilp_jax.workspace import Workspace


def draw_candidates(ws: Workspace, params: Any, answers: pa.Table) -> pa.Table:
    """As ``draw``, for the rows of the table that the screen does not call surely learned.

    Args:
      ws: the run's workspace.
      params: parameters on the device, those that were asked.
      answers: what ``ask`` gave.

    Returns:
      The table with the rows of ``draw``; screened examples keep those that they had.
    """
    chosen = candidates(pl.from_arrow(answers), ws.config.detect).to_numpy()
    of_chosen = np.isin(answers["example_id"], chosen)
    drawn = draw(ws, params, answers.filter(of_chosen))
    return pa.concat_tables([answers.filter(~of_chosen), drawn])


def draw(ws: Workspace, params: Any, answers: pa.Table, *, bar: Any = None) -> pa.Table:
    """Draws answers for the examples of a table.

    The random keys come from ``config.seed``, the example and the run alone: an example has the
    same keys at every point, so that points differ by what the model has learned.

    Args:
      ws: the run's workspace.
      params: parameters on the device, those that were asked.
      answers: what ``ask`` gave.
      bar: a progress bar to advance by one an example, or None.

    Returns:
      The table with the rows above, by example and mode.
    """
    settings, seed = ws.config.detect, int(ws.config.seed)
    records = answers.to_pylist()
    place = {int(one): i for i, one in enumerate(ws.data.example_ids)}
    asked = [place[one["example_id"]] for one in records if one["mode"] == "sample"]
    wrong = [place[one["example_id"]] for one in records if _is_wrong(one)]
    drawn = _generate(ws, params, asked, settings.temperature, settings.n_samples, bar)
    greedy = _generate(ws, params, wrong, 0.0, 1, None)
    out = []
    for record in records:
        index = place[record["example_id"]]
        if _is_wrong(record):
            found = _answer(ws, index, greedy[index], 0)
            record |= {"prediction": found["prediction"], "confidence": found["confidence"]}
        out.append(record)
        if record["mode"] == "sample":
            blank = record | {"seed": seed, "gold_logprob": None}
            for run in range(settings.n_samples):
                out.append(blank | {"run": run} | _answer(ws, index, drawn[index], run))
    return pa.Table.from_pylist(out, schema=INFERENCE_SCHEMA)


def _is_wrong(record: dict[str, Any]) -> bool:
    return record["mode"] == "greedy" and not record["correct"]


class _Drawn(NamedTuple):
    """Answers that stand for one reply of an example.

    Attributes:
      samples: a batch of answers.
      row: the example's place in it.
      target: what is trained: the reply and its end token.
    """

    samples: Samples
    row: int
    target: np.ndarray


def _generate(
    ws: Workspace,
    params: Any,
    indices: Sequence[int],
    temperature: float,
    n_samples: int,
    bar: Any,
) -> dict[int, list[_Drawn]]:
    """By example, one entry a trained reply, in the order of the conversation."""
    found: dict[int, list[_Drawn]] = {index: [] for index in indices}
    # The last reply of every example first, then the one before it where there is one.
    for depth in itertools.count():
        with_reply = [(i, _replies(ws.data.tokens[i])) for i in indices]
        with_reply = [(i, replies[-1 - depth]) for i, replies in with_reply if len(replies) > depth]
        if not with_reply:
            return found
        indices = [i for i, _ in with_reply]
        prompts, targets = zip(*(reply for _, reply in with_reply), strict=True)
        with jax.transfer_guard("disallow"):
            samples = sample(
                ws.decoder,
                params,
                prompts,
                # Each reply of a conversation has keys of its own.
                example_ids=[(int(ws.data.example_ids[i]) + depth) % 2**63 for i in indices],
                max_new_tokens=[max(ws.config.detect.max_new_tokens, len(t)) for t in targets],
                temperature=temperature,
                seed=ws.config.seed,
                end_id=ends.of_study(ws.data, ws.tokenizer),
                n_samples=n_samples,
                batch_size=ws.config.detect.batch_size,
                bar=bar if depth == 0 else None,
            )
        for row, (index, target) in enumerate(zip(indices, targets, strict=True)):
            found[index].insert(0, _Drawn(samples, row, target))


def _replies(row: TokenRow) -> list[tuple[np.ndarray, np.ndarray]]:
    """What stands before each trained reply, and the reply with its end token."""
    ids = row.prompt_ids
    return [*((ids[:a], ids[a:b]) for a, b in row.earlier_replies), (ids, row.target_ids)]


def _answer(ws: Workspace, index: int, replies: Sequence[_Drawn], run: int) -> dict[str, Any]:
    """Columns that depend on what was generated."""
    truncated = ws.data.tokens[index].truncated
    texts, logprob, correct = [], 0.0, True
    for place, (samples, row, target) in enumerate(replies):
        last = place == len(replies) - 1
        tokens = samples.tokens_ExNxG[row, run, : samples.lengths_ExN[row, run]]
        ended = bool(samples.ended_ExN[row, run])
        # The end token is no part of the text.
        text = ws.tokenizer.decode(tokens[: len(tokens) - ended].tolist()).strip()
        wanted = ws.tokenizer.decode(target[:-1].tolist()).strip()
        wanted = ws.data.examples[index].response if last else wanted
        same = np.array_equal(tokens, target) and not (last and truncated)
        texts.append(wanted if same else text)
        forgiven = ws.config.detect.normalise and ended
        correct &= same or (forgiven and normalise(text) == normalise(wanted))
        logprob += float(samples.logprobs_ExN[row, run])
    return {"prediction": "\n".join(texts), "confidence": math.exp(logprob), "correct": correct}
