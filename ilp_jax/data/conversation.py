"""Conversations: what a turn says, which turns are trained, and all of it as plain text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ilp_jax.data.examples import Example

CALLS = ("tool_calls", "function_call")
"""Keys of a turn that say something beside its ``content``."""
MARKS = ("weight", "train", "training", "loss")
"""Keys that say whether a reply is trained: 1 or true, 0 or false (OpenAI, Mistral, axolotl,
ms-swift)."""
# Marks of the field that would train a part of a reply, or weigh it: named, not passed over.
_NOT_HONOURED = (
    *("train_detail", "training_detail", "mask", "masked", "loss_mask", "token_weights"),
    *("loss_weight", "loss_scale", "weights"),
)


def content_of(message: Mapping[str, Any]) -> str:
    """A turn's text without its calls; '' where it has none."""
    return message.get("content") or ""


def text_of(message: Mapping[str, Any]) -> str:
    """All that a turn says: its content, then each of its tool calls as a line of JSON."""
    calls = [message[key] for key in CALLS if message.get(key)]
    calls = [one for some in calls for one in (some if isinstance(some, list) else [some])]
    told = [one.get("function", one) if isinstance(one, dict) else one for one in calls]
    lines = [json.dumps(one, ensure_ascii=False) for one in told]
    content = content_of(message)
    return "\n".join([*([content] if content or not lines else []), *lines])


def reply_of(example: Example) -> dict[str, Any]:
    """The turn that is trained: as the row has it, unless it was given another response."""
    reply = example.chat.get("reply")
    if reply and text_of(reply) == example.response:
        return reply
    return {"role": "assistant", "content": example.response}


def is_trained(message: Mapping[str, Any]) -> bool:
    """Whether a turn's marks let it be trained; without marks it is.

    Args:
      message: a turn that ``wrong_mark`` finds nothing wrong with.
    """
    return all(message.get(key, True) for key in MARKS)


def wrong_mark(message: Mapping[str, Any]) -> str:
    """What is wrong with a turn's marks for training, or ''.

    Args:
      message: a turn without null values.
    """
    for key in _NOT_HONOURED:
        if key in message:
            return f"a message's {key!r} is not honoured: a reply is trained whole or not at all"
    found = {key: message[key] for key in MARKS if key in message}
    for key, value in found.items():
        if not isinstance(value, int | float) or value not in (0, 1):
            return f"a message's {key} is {value!r}: only 0 and 1, or false and true, are honoured"
        if value and message["role"] != "assistant":
            return (
                f"{key}={value!r} asks that the {message['role']}'s turn be trained: only the "
                "assistant's are"
            )
    if len(set(map(bool, found.values()))) > 1:
        return f"a message's {' and '.join(found)} contradict each other"
    return ""


def plain_prompt(messages: Sequence[dict]) -> str:
    """Turns as text, up to where the assistant's next reply begins.

    Args:
      messages: the turns before the response, each with ``role`` and ``content``.

    Returns:
      A single turn's content as it is; several as ``Role: content`` lines that end with
      ``Assistant:``.
    """
    if len(messages) == 1:
        return text_of(messages[0])
    return "".join(f"{_header(m)} {text_of(m)}\n" for m in messages) + "Assistant:"


def plain_with_replies(
    messages: Sequence[dict], separator: str, end: str
) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The text of ``plain_prompt`` with its replies closed, so that they can be trained.

    Args:
      messages: the turns before the response.
      separator: text between ``Assistant:`` and a reply that does not begin with white space.
      end: text of the end token, put behind every reply.

    Returns:
      The text, and [start, stop) of every reply in it, separator included and end token left
      out. Without replies to train the text is ``plain_prompt``'s.
    """
    indices = replies_in(messages)
    if not indices:
        return plain_prompt(messages), ()
    text, replies = "", []
    for i, message in enumerate(messages):
        text += _header(message)
        content = text_of(message)
        if i in indices:
            body = content if content[:1].isspace() else separator + content
            replies.append((len(text), len(text + body)))
            text += f"{body}{end}\n"
        else:
            text += f" {content}\n"
    return text + "Assistant:", tuple(replies)


def replies_in(messages: Sequence[dict]) -> tuple[int, ...]:
    """Indices of the assistant's turns that can be trained.

    Args:
      messages: turns.

    Returns:
      Those that say something, are not marked as context alone (``is_trained``) and are not the
      first: a reply follows a turn.
    """
    return tuple(
        i
        for i, message in enumerate(messages)
        if i and message["role"] == "assistant" and text_of(message).strip() and is_trained(message)
    )


def _header(message: dict) -> str:
    return f"{message['role'].capitalize()}:"
