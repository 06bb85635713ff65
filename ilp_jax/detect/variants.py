"""Other wordings of a question, lists of its options, and the choices left to chance. No JAX.

``prompt_variant`` in ``inference/{point}.parquet``: 0 is the question as trained; ``ANSWER_IS``
and ``SHORT`` are the same question in other words; ``LISTED`` lists the options and scores
their text; ``LETTERED`` lists them behind letters and scores the letters. The study lists
lettered options (section 3.1.1) and gives no prompt; the wordings are ours.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from ilp_jax.data.conversation import plain_prompt, text_of
from ilp_jax.data.examples import Example
from ilp_jax.data.order import score

AS_TRAINED, ANSWER_IS, SHORT, LISTED, LETTERED = range(5)
CHOICE_PROMPTS = {"listed": LISTED, "letters": LETTERED}
"""``config.detect.choice_prompt`` -> variant."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_LABEL = re.compile(r"^[ \t]*(?:question|q)[ \t]*:[ \t]*", re.IGNORECASE | re.MULTILINE)
_CUE = re.compile(r"\banswer(?: is)?[ \t]*:$", re.IGNORECASE)
_CUE_LINE = re.compile(r"(?:(?:the )?(?:correct |best )?answer(?: is)?|a)[ \t]*:", re.IGNORECASE)


def reworded(example: Example, variant: int) -> Example:
    """The question in other words, with the same response and options.

    What stands before the question, such as a passage or earlier turns, stays as it is.

    Args:
      example: the example.
      variant: ``ANSWER_IS`` or ``SHORT``.
    """
    before, _, question = split(_last_text(example))
    if variant == ANSWER_IS:
        text = f"{before}{question}\nThe correct answer is:"
    elif variant == SHORT:
        text = f"{before}Answer this question.\nQ: {question}\nA:"
    else:
        raise ValueError(f"variant {variant} is no other wording")
    return _with_last_text(example, text)


def listed(example: Example, order: Sequence[int], variant: int) -> Example | None:
    """The question with its options listed.

    Args:
      example: an example with options.
      order: which option stands first, second, ...
      variant: ``LISTED`` or ``LETTERED``.

    Returns:
      The example whose options are what is scored, in the order of ``example.options``: the
      options' texts, or their letters. None where there are more options than letters.
    """
    lines = [" ".join(example.options[i].split()) for i in order]
    if variant == LETTERED:
        if len(lines) > len(LETTERS):
            return None
        lines = [f"{letter}. {line}" for letter, line in zip(LETTERS, lines, strict=False)]
        place = {option: letter for option, letter in zip(order, LETTERS, strict=False)}
        options = tuple(place[i] for i in range(len(order)))
        example = dataclasses.replace(
            example, options=options, response=options[example.answer_index]
        )
    elif variant == LISTED:
        lines = ["Options:", *(f"- {line}" for line in lines)]
    else:
        raise ValueError(f"variant {variant} lists no options")
    text = "".join(split(_last_text(example)))
    return _with_last_text(example, "\n".join([text, *lines, "Answer:"]))


def split(text: str) -> tuple[str, str, str]:
    """A prompt's parts without its cue, such as ``Answer:``, on its last line.

    Args:
      text: the prompt.

    Returns:
      What stands before the question, its label (``Question:`` or ``Q:``, with white space)
      and the question, which is all where there is no label.
    """
    text = text.rstrip()
    head, _, last = text.rpartition("\n")
    if _CUE_LINE.fullmatch(last.strip()) and head.strip():
        text = head.rstrip()
    elif (cue := _CUE.search(last)) and text[: -len(cue[0])].strip():
        text = text[: -len(cue[0])].rstrip()
    labels = [m for m in _LABEL.finditer(text) if text[m.end() :].strip()]
    if not labels:
        return "", "", text
    label = labels[-1]
    return text[: label.start()], label[0], text[label.end() :]


def order_of(seed: int, example_id: int, run: int, n_options: int) -> tuple[int, ...]:
    """The order in which a run lists the options: a function of seed, example and run alone.

    Args:
      seed: the run's seed.
      example_id: the example.
      run: repetition, from 0.
      n_options: options.

    Returns:
      Which option stands first, second, ...; all orders are equally likely.
    """
    scores = [score(seed, "choice order", example_id, run, i) for i in range(n_options)]
    return tuple(sorted(range(n_options), key=lambda i: (scores[i], i)))


def drawn(seed: int, example_id: int, run: int, probabilities: np.ndarray) -> int:
    """An option drawn by its probability, with the run's own random number.

    The number is the same at every point of a training: points differ by what was learned.

    Args:
      seed: the run's seed.
      example_id: the example.
      run: repetition, from 0.
      probabilities: [n_options], sum 1.

    Returns:
      The option's place.
    """
    number = score(seed, "choice draw", example_id, run) / 2**64
    place = int(np.searchsorted(np.cumsum(probabilities), number, side="right"))
    return min(place, len(probabilities) - 1)  # where rounding leaves the sum below the number


def _last_text(example: Example) -> str:
    return text_of(example.messages[_asked(example)]) if example.messages else example.prompt


def _asked(example: Example) -> int:
    """The turn that asks: the user's last; later ones are calls of tools and their results."""
    users = [i for i, turn in enumerate(example.messages) if turn["role"] == "user"]
    return users[-1] if users else len(example.messages) - 1


def _with_last_text(example: Example, text: str) -> Example:
    if not example.messages:
        return dataclasses.replace(example, prompt=text)
    i = _asked(example)
    turn = {**example.messages[i], "content": text}
    messages = (*example.messages[:i], turn, *example.messages[i + 1 :])
    return dataclasses.replace(example, messages=messages, prompt=plain_prompt(messages))
