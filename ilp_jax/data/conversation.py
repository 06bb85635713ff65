"""Conversations as text, for tokenizers without a chat template."""

from __future__ import annotations

from collections.abc import Sequence


def plain_prompt(messages: Sequence[dict]) -> str:
    """Turns as text, up to where the assistant's next reply begins.

    Args:
      messages: the turns before the response, each with ``role`` and ``content``.

    Returns:
      A single turn's content as it is; several as ``Role: content`` lines that end with
      ``Assistant:``.
    """
    if len(messages) == 1:
        return messages[0]["content"]
    return "".join(f"{_header(m)} {m['content']}\n" for m in messages) + "Assistant:"


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
        content = message["content"]
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
      Those that say something and are not the first: a reply follows a turn.
    """
    return tuple(
        i
        for i, message in enumerate(messages)
        if i and message["role"] == "assistant" and message["content"].strip()
    )


def _header(message: dict) -> str:
    return f"{message['role'].capitalize()}:"
