"""From an example to the texts that are tokenised: prompt, trained text, end token.

``plain`` puts a separator between prompt and response; ``chat`` renders the tokenizer's own
chat template. In both, prompt and response are tokenised apart, so that no token straddles
the boundary between context and target. Of a conversation every reply of the assistant is
trained, or the last one alone.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerFast

from ilp_jax.data import rendering
from ilp_jax.data.arguments import check_ours, unread, words
from ilp_jax.data.conversation import CALLS, plain_with_replies, replies_in, reply_of
from ilp_jax.data.examples import Example
from ilp_jax.data.reply import LAST_ONLY, REFUSALS, Look, find
from ilp_jax.errors import UserError
from ilp_jax.fields.names import nearest

TEMPLATES = ("auto", "plain", "chat")
TRAINED_TURNS = ("all", "last")
_ARGUMENTS = "config.chat_template_kwargs"
# Templates that print today's date would change an example's tokens from day to day.
_DATE = datetime.datetime(2024, 7, 26)
_NOW = re.compile(r"""strftime_now\(\s*(["'])(.{0,99}?)\1\s*\)""")


class Reply(NamedTuple):
    """Where an earlier reply of the assistant stands in the prompt.

    Attributes:
      start: its first character.
      stop: behind its last character.
      end: behind the text of the end token that follows it at once.
      end_id: id of that token.
    """

    start: int
    stop: int
    end: int
    end_id: int


@dataclasses.dataclass(frozen=True)
class Rendered:
    """The texts of one example.

    Attributes:
      prompt: text before the target, earlier replies included.
      body: text that is trained, without the end token.
      options: each option as it would stand in place of the body.
      end_id: id of the token that ends the response.
      earlier: replies within the prompt that are trained too, in order.
    """

    prompt: str
    body: str
    options: tuple[str, ...]
    end_id: int
    earlier: tuple[Reply, ...] = ()


@dataclasses.dataclass(frozen=True)
class Renderer:
    """A tokenizer with all that is asked of it once.

    Attributes:
      tokenizer: the tokenizer.
      kind: ``plain`` or ``chat``.
      separator: text between prompt and response in ``plain``.
      prefix_ids: what the tokenizer itself puts before a text (its BOS token), in ``plain``;
        a chat template writes its own.
      special: texts of the tokenizer's special tokens.
      template: the chat template with the date fixed, or ''.
      tool_template: the one for rows with tools, where the tokenizer has one of its own.
      arguments: further arguments of the template, for every row.
      name: how errors name the template.
      trained_turns: ``all`` or ``last``.
    """

    tokenizer: PreTrainedTokenizerFast
    kind: str
    separator: str
    prefix_ids: tuple[int, ...]
    special: tuple[str, ...]
    template: str
    tool_template: str
    arguments: Mapping[str, Any]
    name: str
    trained_turns: str


def renderer(
    tokenizer: PreTrainedTokenizerFast,
    template: str,
    separator: str,
    trained_turns: str = "all",
    arguments: Mapping[str, Any] | None = None,
) -> Renderer:
    """Settles which template is used.

    Args:
      tokenizer: the tokenizer.
      template: ``plain``, ``chat``, or ``auto`` (``chat`` when the tokenizer has a template).
      separator: text between prompt and response in ``plain``.
      trained_turns: which replies of a conversation are trained: ``all``, or the ``last``.
      arguments: further arguments of the chat template, such as ``enable_thinking``.

    Returns:
      What ``render`` takes.

    Raises:
      UserError: unknown template or turns; ``chat`` without a chat template; ``plain``
        without an end token; arguments that the template does not read.
    """
    if template not in TEMPLATES:
        raise UserError(
            "config.template", f"{template!r} is unknown", f"use {', '.join(TEMPLATES)}"
        )
    if trained_turns not in TRAINED_TURNS:
        raise UserError(
            "config.trained_turns", f"{trained_turns!r} is unknown", "use 'all' or 'last'"
        )
    kind = template
    if kind == "auto":
        kind = "chat" if tokenizer.chat_template else "plain"
    if kind == "chat" and not tokenizer.chat_template:
        raise UserError(
            "config.template", "the tokenizer has no chat template", "use template='plain'"
        )
    if kind == "plain" and tokenizer.eos_token_id is None:
        raise UserError(
            "tokenizer", "has no end-of-text token", "set eos_token in tokenizer_config.json"
        )
    try:
        written = ["", ""]
        if kind == "chat":  # the second is for rows with tools
            written = [_undated(tokenizer.get_chat_template(tools=one)) for one in (None, [{}])]
    except ValueError as error:  # several named templates, none of them the default
        what = f"has no usable chat template ({error})"
        raise UserError("tokenizer", what, "use template='plain'") from error
    added = tokenizer.added_tokens_decoder.values()
    special = {*tokenizer.all_special_tokens, *(str(token) for token in added if token.special)}
    check_ours(_ARGUMENTS, arguments or ())
    for name in unread(arguments or (), written):
        what = f"the {kind} template does not read {name!r}"
        raise UserError(_ARGUMENTS, what, nearest(name, words(written)) or "leave it out")
    return Renderer(
        tokenizer=tokenizer,
        kind=kind,
        separator=separator,
        prefix_ids=_prefix(tokenizer) if kind == "plain" else (),
        special=tuple(sorted(special)),
        template=written[0],
        tool_template=written[1],
        arguments=dict(arguments or {}),
        name=f"chat template of {tokenizer.name_or_path or 'the tokenizer'}",
        trained_turns=trained_turns,
    )


def render(example: Example, how: Renderer) -> Rendered:
    """The texts of one example under a template.

    Args:
      example: the example.
      how: from ``renderer``.

    Returns:
      The texts. In ``plain`` the separator is left out where the prompt ends or the response
      begins with whitespace; an earlier reply that is trained is followed by the end token. In
      ``chat`` the body reaches to the first special token after the response, or after its tool
      calls, which is the end token; what follows it, such as a newline, is not trained. Where a
      reply begins, ``ilp_jax.data.reply`` tells. An earlier reply is trained as the template
      writes it within the whole conversation, unless it is only white space, nothing stands
      before it, or the row marks it as context (``conversation.MARKS``).

    Raises:
      UserError: the template refuses the turns, leaves a reply, its tool calls or the row's tools
        out, or does not close a reply with a special token, or nothing tells where one begins.
    """
    return _plain(example, how) if how.kind == "plain" else _chat(example, how)


def _plain(example: Example, how: Renderer) -> Rendered:
    prompt, replies = example.prompt, ()
    turns = [*(example.messages or ()), reply_of(example)]
    unsaid = [key for key in CALLS if any(turn.get(key) for turn in turns)]
    unsaid += ["tools"] if "tools" in example.chat else []
    if unsaid:
        what = f"the plain layout has no place for {' and '.join(unsaid)}"
        raise UserError(example.label, what, "use a tokenizer with a chat template that has one")
    end, end_id = how.tokenizer.eos_token, how.tokenizer.eos_token_id
    if how.trained_turns == "all" and replies_in(example.messages or ()):
        prompt, replies = plain_with_replies(example.messages, how.separator, end)

    def joined(response: str) -> str:
        touching = prompt[-1:].isspace() or response[:1].isspace() or not prompt
        return response if touching else how.separator + response

    return Rendered(
        prompt=prompt,
        body=joined(example.response),
        options=tuple(joined(option) for option in example.options),
        end_id=end_id,
        earlier=tuple(Reply(*reply, reply[1] + len(end), end_id) for reply in replies),
    )


def _chat(example: Example, how: Renderer) -> Rendered:
    turns = [*(example.messages or [{"role": "user", "content": example.prompt}])]
    turns.append(reply_of(example))
    where, last = example.label, len(turns) - 1
    look = Look(functools.partial(apply, how, example.chat), how.special, where, how.name)
    before = replies_in(turns[:last]) if how.trained_turns == "all" else ()
    try:
        full = look.draw(turns)
        reply = find(full, turns, last, look)
        earlier = [find(full, turns, i, look) for i in before]
    except REFUSALS as error:
        raise UserError(where, f"{how.name} refuses the turns ({error})", "mend the row") from error
    stops = [one.stop + len(one.end) for one in earlier]
    starts = [one.start for one in [*earlier, reply]]
    if any(stop > start for stop, start in zip(stops, starts[1:], strict=True)):
        raise UserError(where, f"{how.name} does not keep the turns in order", LAST_ONLY)
    options = (one.strip() if reply.strips else one for one in example.options)
    return Rendered(
        prompt=full[: reply.start],
        body=full[reply.start : reply.stop],
        options=tuple(reply.lead + one + reply.gap for one in options),
        end_id=how.tokenizer.convert_tokens_to_ids(reply.end),
        earlier=tuple(
            Reply(one.start, one.stop, stop, how.tokenizer.convert_tokens_to_ids(one.end))
            for one, stop in zip(earlier, stops, strict=True)
        ),
    )


def apply(
    how: Renderer,
    given: Mapping[str, Any],
    turns: Sequence[dict],
    add_generation_prompt: bool = False,
) -> str:
    """Turns as the chat template writes them.

    Args:
      how: from ``renderer``.
      given: what it is given beside the turns, see ``Example.chat``.
      turns: the turns.
      add_generation_prompt: whether an empty reply is begun behind them.

    Raises:
      Exception: what the template raises, see ``reply.REFUSALS``.
    """
    tools = given.get("tools")
    arguments = {"date_string": _DATE.strftime("%d %b %Y"), **how.arguments}
    return rendering.apply(
        how.tokenizer,
        turns,
        how.tool_template if tools else how.template,
        how.name,
        tools=tools,
        documents=given.get("documents"),
        add_generation_prompt=add_generation_prompt,
        **arguments | given.get("chat_template_kwargs", {}),
    )


def _undated(template: str) -> str:
    """The template with a fixed date wherever it asks for today's."""
    return _NOW.sub(lambda call: repr(_DATE.strftime(call[2])), template)


def _prefix(tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    """The ids that the tokenizer puts before a text by itself."""
    with_special = tokenizer("a")["input_ids"]
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    for start in range(len(with_special) - len(bare) + 1):
        if with_special[start : start + len(bare)] == bare:
            return tuple(with_special[:start])
    return ()
