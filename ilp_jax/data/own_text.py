"""A row's own text and keys beside what the layout makes of them.

Special tokens in a row's own text are read as control tokens. Where it is certain what they stand
for (an end token at the end of a reply, a prompt that is rendered already), the layout writes
them in their place, once. Elsewhere they stay, and the row says so in its ``notes``, as it does
of keys that the layout has no use for.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from ilp_jax.data import chat
from ilp_jax.data.arguments import check_ours, unread
from ilp_jax.data.conversation import MARKS, plain_prompt, reply_of, text_of
from ilp_jax.data.examples import Example
from ilp_jax.data.reply import REFUSALS, Look, unused
from ilp_jax.errors import UserError

_NAMED = 5  # rows that a note names; ours
_NOTHING: dict[str, Any] = {}
_TURNS = ("@user@", "@reply@", "@next@", "@system@")


def mended(examples: Sequence[Example], how: chat.Renderer) -> list[Example]:
    """The rows with special tokens of their own text in place, and notes of what is left.

    Args:
      examples: rows as they were read.
      how: from ``chat.renderer``.

    Raises:
      UserError: the template does not write a row's tools, or refuses its turns, or the row
        gives it an argument that is ours.
    """
    around = _around(how)
    special = re.compile(
        "|".join(map(re.escape, sorted(how.special, key=len, reverse=True))) or "$^"
    )
    return [_mended(example, how, around, special) for example in examples]


def told(examples: Iterable[Example]) -> list[str]:
    """What the rows' notes say, each with the number of its rows and the names of the first.

    Args:
      examples: the rows.
    """
    rows: dict[str, list[str]] = {}
    for example in sorted(examples, key=_in_file):
        for note in example.notes:
            rows.setdefault(note, []).append(example.label)
    return [
        f"{len(names)} {'row' if len(names) == 1 else 'rows'}: {note} "
        f"({', '.join(names[:_NAMED])}{_more(len(names) - _NAMED)})"
        for note, names in rows.items()
    ]


def _in_file(example: Example) -> tuple[str, int]:
    """Rows of a file by line."""
    file, _, line = example.label.rpartition(":")
    return (file, int(line)) if line.isdecimal() else (example.label, 0)


def _more(n: int) -> str:
    return f" and {n} more" if n > 0 else ""


class _Around(NamedTuple):
    """What a layout writes around the turns of a conversation; '' where it is not known.

    Attributes:
      end: the end token of a reply.
      user: before the first user's turn.
      reply: between a user's turn and a reply.
      next: between a reply and the next user's turn.
      system: before a system's turn.
      asked: between a system's turn and a user's.
      last: behind the last turn, generation prompt included.
      closed: behind the last turn without it.
    """

    end: str
    user: str = ""
    reply: str = ""
    next: str = ""
    system: str = ""
    asked: str = ""
    last: str = ""
    closed: str = ""


def _around(how: chat.Renderer) -> _Around:
    """Found by rendering marks."""
    if how.kind == "plain":
        return _Around(how.tokenizer.eos_token)
    draw = functools.partial(_drawn, how)
    user, reply, following, system = (unused(mark, how.template) for mark in _TURNS)
    turns = _said(user=user, assistant=reply) + _said(user=following)
    first, between, behind, last = _split(draw(turns, True), user, reply, following)
    closed = draw(turns).partition(following)[2]
    found = Look(str, how.special, "", "").first_special(behind)
    before, asked, _ = _split(draw(_said(system=system, user=user), True), system, user)
    return _Around(found[1] if found else "", first, between, behind, before, asked, last, closed)


def _said(**turns: str) -> list[dict]:
    return [{"role": role, "content": said} for role, said in turns.items()]


def _drawn(
    how: chat.Renderer, turns: Sequence[dict], prompted: bool = False, given=_NOTHING
) -> str:
    """Turns as the template writes them; '' where it refuses them."""
    try:
        return chat.apply(how, given, turns, prompted)
    except REFUSALS:
        return ""


def _split(text: str, *marks: str) -> list[str]:
    """The text between marks; all '' where one is missing."""
    parts = []
    for mark in marks:
        part, there, text = text.partition(mark)
        if not there:
            return [""] * (len(marks) + 1)
        parts.append(part)
    return [*parts, text]


def _mended(example: Example, how: chat.Renderer, around: _Around, special: re.Pattern) -> Example:
    notes = list(example.notes)
    if how.kind == "chat" and example.messages is None:
        turns = _turns(example.prompt, how, around)
        if turns:
            example = dataclasses.replace(example, messages=turns, prompt=plain_prompt(turns))
            notes.append("its prompt was rendered by the template already, and is read as turns")
    if around.end in _special(example, special):
        bare = _without_ends(example, around)
        if bare != example:
            notes.append(f"the special token {around.end} that closes its reply is written once")
        example = bare
    notes += _unwritten(example, how)
    found = _special(example, special)
    if len(found) == 1:
        notes.append(f"special token {found[0]} stands in its own text, read as a control token")
    elif found:
        what = f"special tokens {', '.join(found)} stand"
        notes.append(f"{what} in its own text, read as control tokens")
    return dataclasses.replace(example, notes=tuple(notes)) if notes else example


def _special(example: Example, special: re.Pattern) -> list[str]:
    """The special tokens that stand in the row's own text."""
    return sorted({one for text in _strings(_own(example)) for one in special.findall(text)})


def _own(example: Example) -> list[Any]:
    said = example.messages or example.prompt
    more = {key: value for key, value in example.chat.items() if key != "chat_template_kwargs"}
    return [said, example.response, *example.options, more]


def _strings(value: Any) -> Iterator[str]:
    """All texts within a JSON value, apart from keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _strings(one)


def _without_ends(example: Example, around: _Around) -> Example:
    """The example without end tokens that close a reply in its own text."""

    def bare(text: str) -> str:
        kept = text
        while around.end and kept.rstrip().endswith(around.end):
            kept = kept.rstrip().removesuffix(around.end)
        return kept if kept.strip() else text

    def bare_turn(turn: dict) -> dict:
        if turn["role"] != "assistant" or not turn.get("content"):
            return turn
        return {**turn, "content": bare(turn["content"])}

    messages = example.messages and tuple(map(bare_turn, example.messages))
    reply = bare_turn(reply_of(example))
    found, response = dict(example.chat), text_of(reply)
    if "reply" in found:
        found["reply"] = reply
    return dataclasses.replace(
        example,
        messages=messages,
        prompt=plain_prompt(messages) if messages else example.prompt,
        response=response,
        options=tuple(
            response if i == example.answer_index else bare(option)
            for i, option in enumerate(example.options)
        ),
        chat=found,
    )


def _turns(prompt: str, how: chat.Renderer, around: _Around) -> tuple[dict, ...] | None:
    """The turns that a prompt is the rendering of; None where that is not certain."""

    def begun(text: str) -> str:
        """A prompt may leave out the begin token, and white space at its ends."""
        return text.lstrip().removeprefix(how.tokenizer.bos_token or "").lstrip()

    text, turns, user, system = begun(prompt).rstrip(), [], begun(around.user), begun(around.system)
    behind = [one.rstrip() for one in (around.last, around.closed) if one.strip()]
    behind = next((one for one in behind if text.endswith(one)), None)
    if behind is None or not user:
        return None
    text = text.removesuffix(behind)
    if system and around.asked and text.startswith(system):
        said, _, text = text.removeprefix(system).partition(around.asked)
        turns.append({"role": "system", "content": said})
    elif text.startswith(user):
        text = text.removeprefix(user)
    roles = itertools.cycle([("user", around.reply), ("assistant", around.next)])
    for role, mark in roles:
        said, there, text = text.partition(mark) if mark else (text, "", "")
        turns.append({"role": role, "content": said})
        if not there:
            break
    # What was taken apart is certain if the template makes the same of it.
    written = [begun(_drawn(how, turns, prompted)).rstrip() for prompted in (True, False)]
    return tuple(turns) if role == "user" and begun(prompt).rstrip() in written else None


def _unwritten(example: Example, how: chat.Renderer) -> list[str]:
    """Notes on keys that the layout has no use for; tools that it does not write are refused."""
    given, turns = example.chat, [*(example.messages or ()), reply_of(example)]
    extra = Counter(key for turn in turns for key in turn)
    extra = [key for key in extra if key not in ("role", "content", *MARKS)]
    arguments = given.get("chat_template_kwargs", {})
    check_ours(example.label, arguments)
    notes = [
        f"{name!r} of its chat_template_kwargs is read by no chat template"
        for name in unread(arguments, (how.template, how.tool_template))
    ]
    asked = [key for key in ("tools", "documents") if key in given]
    if how.kind == "plain":  # which refuses tools
        extra += asked
        return [*notes, *(f"the plain layout has no place for {key!r}" for key in extra)]
    if not example.messages:
        turns = [{"role": "user", "content": example.prompt}, turns[-1]]
    if not extra and not asked:
        return notes

    whole = _drawn(how, turns, given=given)
    for key in asked:
        without = {name: one for name, one in given.items() if name != key}
        if _drawn(how, turns, given=without) == whole:
            what = f"{how.name} does not write its {key}"
            if key == "tools":
                raise UserError(example.label, what, "use a template that does, or leave it out")
            notes.append(what)
    for key in extra:
        without = [{name: one for name, one in turn.items() if name != key} for turn in turns]
        if _drawn(how, without, given=given) == whole:
            notes.append(f"the chat template writes nothing of its messages' {key!r}")
    return notes
