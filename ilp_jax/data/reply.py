"""Where a reply stands in a conversation that a chat template wrote.

A template says nothing of it, so it is found by what changes with the reply: rendered again
with a mark in its place, all before the mark is the same for any reply. What of that is context,
and what the model writes itself, is told by the generation prompt; where there is none, or where
it opens a part of the reply that the template then leaves out, by what follows the turn before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jinja2

from ilp_jax.data.conversation import CALLS, content_of
from ilp_jax.errors import UserError

LAST_ONLY = "set config.trained_turns='last' to train the last reply alone"
_PLAIN = "use template='plain'"
_MARK, _BEFORE = "@response@", "@before@"

REFUSALS = (jinja2.TemplateError, TypeError, ValueError, AttributeError, KeyError)
"""What a template may raise over turns that it was not written for."""
Draw = Callable[..., str]
"""Turns, and whether the generation prompt is added, to the text that the template writes."""


class Written(NamedTuple):
    """A reply as the template writes it.

    Attributes:
      start: of the trained text, in the conversation.
      stop: behind it, where the end token begins.
      end: text of the end token.
      lead: what the template writes before any reply, as a part of the trained text.
      gap: what it writes between any reply and the end token.
      strips: whether it takes white space off the reply's ends.
    """

    start: int
    stop: int
    end: str
    lead: str
    gap: str
    strips: bool


def find(full: str, turns: Sequence[dict], i: int, look: Look) -> Written:
    """Finds the ``i``-th turn, a reply, in the rendered conversation.

    Args:
      full: the conversation, all of ``turns``.
      turns: the turns.
      i: which of them; not the first.
      look: how to render and how to name what is wrong.

    Raises:
      UserError: the reply is not there whole, is not closed with a special token, or nothing
        tells where it begins.
    """
    turn, mark = turns[i], unused(_MARK, full)
    content, last = content_of(turn), i == len(turns) - 1
    before, there, tail = look.draw(_with(turns, i, mark)).partition(mark)
    calls, seen = any(turn.get(key) for key in CALLS), turns
    if calls and not (there and content.strip()):
        # Some templates leave the content out beside calls, or lay an empty one out otherwise.
        seen = [*turns[:i], {"role": turn["role"], "content": mark}]
        before, there, tail = look.draw(seen).partition(mark)
    if not there or not look.first_special(tail):
        raise UserError(look.name, "does not close the response with a special token", _PLAIN)
    start = _start(full, before, seen, i, mark, look)
    if calls:
        stop, end = _behind_calls(full, turns, i, mark, look)
        if not last:  # a template may lay the tools' results beside the calls
            behind = look.draw(_with(turns, i + 1, mark)).partition(mark)[0]
            if len(behind) < stop + len(end):
                what = f"{look.name} does not close a reply before the turn behind it"
                raise UserError(look.where, what, LAST_ONLY)
        body = full[start:stop]
        whole = _squashed(content) in _squashed(body)
        lead, gap, strips = before[start:], "", False
    else:
        at, end = look.first_special(tail)
        lead, gap = before[start:], tail[:at]
        last_of_it = len(full) - len(tail)
        stop, strips = last_of_it + at, full[start:last_of_it] != lead + content
        # Some templates strip the response or lay a reasoning part out anew, which the generation
        # prompt may have begun: then the text must still be there, white space aside.
        whole = not strips or _squashed(full[:last_of_it]).endswith(_squashed(content))
        whole &= full.endswith(tail) and last_of_it >= start
    if not whole:
        mend = _PLAIN if last else LAST_ONLY
        raise UserError(look.where, f"{look.name} does not render the response whole", mend)
    return Written(start, stop, end, lead, gap, strips)


class Look(NamedTuple):
    """How a row's conversation is looked at.

    Attributes:
      draw: renders turns with all else that the row gives.
      special: texts of the special tokens.
      where: the row, for messages.
      name: the template, for messages.
    """

    draw: Draw
    special: Iterable[str]
    where: str
    name: str

    def first_special(self, text: str) -> tuple[int, str] | None:
        """Place and text of the first special token, the longest there; None without one."""
        found = [(text.find(one), -len(one), one) for one in self.special if one in text]
        return (min(found)[0], min(found)[2]) if found else None

    def whole(self, text: str) -> str:
        """The text without what may be the beginning of a token or a word at its end."""
        ends = [text.rfind(one) + len(one) for one in self.special if one in text]
        ends += [at + 1 for at, c in enumerate(text) if c.isspace()]
        return text[: max(ends, default=0)]


def unused(mark: str, text: str) -> str:
    """A mark that does not stand in the text."""
    while mark in text:
        mark = f"@{mark}@"
    return mark


def _with(turns: Sequence[dict], i: int, content: str) -> list[dict]:
    """The turns with another content of one of them."""
    return [*turns[:i], {**turns[i], "content": content}, *turns[i + 1 :]]


def _start(full: str, before: str, turns: Sequence[dict], i: int, mark: str, look: Look) -> int:
    """Where the trained text of a reply begins in ``full``; ``before`` is before any reply."""
    prompt = look.draw(turns[:i], add_generation_prompt=True)
    if full.startswith(prompt) and before.startswith(prompt) and not before[len(prompt) :].strip():
        return len(prompt)
    bare = look.draw(turns[:i])
    shared = os.path.commonprefix([bare, prompt])
    shared = shared if shared == bare else look.whole(shared)
    opened = prompt[len(shared) :]
    if opened.strip():
        # The model is given the generation prompt, or as much of it as the reply begins with.
        begun = os.path.commonprefix([full, prompt])
        begun = begun if begun == prompt else look.whole(begun)
        if begun[len(shared) :].strip():
            return len(begun)
    start = len(before) - _behind_header(turns, i, mark, opened, look)
    if start <= len(before) and full.startswith(before[:start]):
        return start
    what = (
        "renders the prompt differently once the response is added"
        if opened.strip()
        else "has no generation prompt (add_generation_prompt) that tells where a reply begins"
    )
    mend = f"{_PLAIN}, or a template whose generation prompt begins the reply"
    raise UserError(look.where, f"{look.name} {what}", mend if i == len(turns) - 1 else LAST_ONLY)


def _behind_header(turns: Sequence[dict], i: int, mark: str, opened: str, look: Look) -> int:
    """Characters between a reply's header and its content; -1 where no header is found.

    The header stands behind the turn before. It is the part that the generation prompt begins
    with; of a template without one it is all, but for a space that belongs to the first word.
    ``opened`` is what the generation prompt adds.
    """
    marked = _with(turns, i - 1, _BEFORE)
    _, there, between = look.draw(_with(marked, i, mark)).partition(_BEFORE)
    between, also, _ = between.partition(mark)
    _, alone, closing = look.draw(marked[:i]).partition(_BEFORE)
    if not (there and also and alone):
        return -1
    shared = os.path.commonprefix([closing, between])
    rest = between[len(shared if shared == closing else look.whole(shared)) :]
    header = os.path.commonprefix([rest, opened]) if opened.strip() else rest.rstrip(" ")
    if header not in (rest, opened, rest.rstrip(" ")):
        header = look.whole(header)
    return len(rest) - len(header) if header.strip() else -1


def _behind_calls(
    full: str, turns: Sequence[dict], i: int, mark: str, look: Look
) -> tuple[int, str]:
    """Where a reply with tool calls ends in ``full``, and its end token."""
    plain = {"role": turns[i]["role"], "content": content_of(turns[i])}
    key = next(key for key in CALLS if turns[i].get(key))
    if _tried(look, [*turns[:i], plain, *turns[i + 1 :]]) == full:
        raise UserError(
            look.where,
            f"{look.name} does not write {key!r} of a reply",
            "use a template that does, or mark the reply with weight 0",
        )
    # What follows a reply without calls follows one with calls as well, in most templates.
    tail = _tried(look, [*turns[:i], {**plain, "content": mark}, *turns[i + 1 :]])
    tail = tail.partition(mark)[2]
    if full.endswith(tail) and (found := look.first_special(tail)):
        return len(full) - len(tail) + found[0], found[1]
    alone = look.draw(turns[: i + 1]).rstrip()
    ends = [one for one in look.special if alone.endswith(one)]
    if not ends or not full.startswith(alone):
        what = f"does not close a reply with {key!r} with a special token"
        raise UserError(look.where, f"{look.name} {what}", LAST_ONLY)
    end = max(ends, key=len)
    return len(alone) - len(end), end


def _tried(look: Look, turns: list[dict]) -> str:
    """Turns that the row does not have, rendered; '' where the template refuses them."""
    try:
        return look.draw(turns)
    except REFUSALS:
        return ""


def _squashed(text: str) -> str:
    return "".join(text.split())
