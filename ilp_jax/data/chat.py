"""From an example to the texts that are tokenised: prompt, trained text, end token.

``plain`` puts a separator between prompt and response; ``chat`` renders the tokenizer's own
chat template. In both, prompt and response are tokenised apart, so that no token straddles
the boundary between context and target. Of a conversation every reply of the assistant is
trained, or the last one alone.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
from typing import NamedTuple

import jinja2
from transformers import PreTrainedTokenizerFast

from ilp_jax.data import rendering
from ilp_jax.data.conversation import plain_with_replies, replies_in
from ilp_jax.data.examples import Example
from ilp_jax.errors import UserError

TEMPLATES = ("auto", "plain", "chat")
TRAINED_TURNS = ("all", "last")
_MARK = "@response@"
_LAST_ONLY = "set config.trained_turns='last' to train the last reply alone"
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
      name: how errors name the template.
      trained_turns: ``all`` or ``last``.
    """

    tokenizer: PreTrainedTokenizerFast
    kind: str
    separator: str
    prefix_ids: tuple[int, ...]
    special: tuple[str, ...]
    template: str
    name: str
    trained_turns: str


def renderer(
    tokenizer: PreTrainedTokenizerFast, template: str, separator: str, trained_turns: str = "all"
) -> Renderer:
    """Settles which template is used.

    Args:
      tokenizer: the tokenizer.
      template: ``plain``, ``chat``, or ``auto`` (``chat`` when the tokenizer has a template).
      separator: text between prompt and response in ``plain``.
      trained_turns: which replies of a conversation are trained: ``all``, or the ``last``.

    Returns:
      What ``render`` takes.

    Raises:
      UserError: unknown template or turns; ``chat`` without a chat template; ``plain``
        without an end token.
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
        written = _undated(tokenizer.get_chat_template()) if kind == "chat" else ""
    except ValueError as error:  # several named templates, none of them the default
        what = f"has no usable chat template ({error})"
        raise UserError("tokenizer", what, "use template='plain'") from error
    added = tokenizer.added_tokens_decoder.values()
    special = {*tokenizer.all_special_tokens, *(str(token) for token in added if token.special)}
    return Renderer(
        tokenizer=tokenizer,
        kind=kind,
        separator=separator,
        prefix_ids=_prefix(tokenizer) if kind == "plain" else (),
        special=tuple(sorted(special)),
        template=written,
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
      ``chat`` the body reaches to the first special token after the response, which is the end
      token; what follows it, such as a newline, is not trained. An earlier reply is trained as
      the template writes it within the whole conversation, unless it is only white space or
      nothing stands before it.

    Raises:
      UserError: the template refuses the turns, changes the prompt when the response is
        added, leaves a reply out, or does not close it with a special token.
    """
    return _plain(example, how) if how.kind == "plain" else _chat(example, how)


def _plain(example: Example, how: Renderer) -> Rendered:
    prompt, replies = example.prompt, ()
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
    turns = list(example.messages or [{"role": "user", "content": example.prompt}])
    turns.append({"role": "assistant", "content": example.response})
    where = f"{example.source}:{example.source_key}"
    last = len(turns) - 1
    before = replies_in(turns[:last]) if how.trained_turns == "all" else ()
    try:
        full = _apply(how, turns)
        reply = _written(full, turns, last, where, how)
        earlier = [_written(full, turns, i, where, how) for i in before]
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        raise UserError(where, f"{how.name} refuses the turns ({error})", "mend the row") from error
    starts = [len(one.prompt) for one in [*earlier, reply]]
    stops = [len(one.prompt + one.body + one.end) for one in earlier]
    if any(stop > start for stop, start in zip(stops, starts[1:], strict=True)):
        raise UserError(where, f"{how.name} does not keep the turns in order", _LAST_ONLY)
    options = (one.strip() if reply.strips else one for one in example.options)
    return Rendered(
        prompt=reply.prompt,
        body=reply.body,
        options=tuple(reply.lead + one + reply.gap for one in options),
        end_id=how.tokenizer.convert_tokens_to_ids(reply.end),
        earlier=tuple(
            Reply(
                start=start,
                stop=stop - len(one.end),
                end=stop,
                end_id=how.tokenizer.convert_tokens_to_ids(one.end),
            )
            for one, start, stop in zip(earlier, starts, stops, strict=False)
        ),
    )


class _Written(NamedTuple):
    """A reply as the template writes it: all that stands before it, its body and end token.

    ``lead`` and ``gap`` are what the template puts around any reply, both part of the body;
    ``strips`` says that it takes white space off the reply's ends.
    """

    prompt: str
    body: str
    end: str
    lead: str
    gap: str
    strips: bool


def _written(full: str, turns: list, i: int, where: str, how: Renderer) -> _Written:
    """Finds the ``i``-th turn, a reply, in the rendered conversation ``full``."""
    prompt = _apply(how, turns[:i], add_generation_prompt=True)
    is_last = i == len(turns) - 1
    # With a mark in place of the reply: what the template writes around any reply.
    marked = [*turns[:i], {**turns[i], "content": _MARK}, *turns[i + 1 :]]
    rest_of_mark = _after(prompt, _apply(how, marked), where, how, is_last)
    rest = _after(prompt, full, where, how, is_last)
    lead, found, tail = rest_of_mark.partition(_MARK)
    at = {tail.find(one): one for one in sorted(how.special, key=len) if one in tail}
    if not found or not at:
        raise UserError(
            how.name, "does not close the response with a special token", "use template='plain'"
        )
    response = turns[i]["content"]
    gap, end = tail[: min(at)], at[min(at)]
    body = _body(rest, lead, tail, gap, response)
    if body is None:
        raise UserError(
            where,
            f"{how.name} does not render the response whole",
            "use template='plain'" if is_last else _LAST_ONLY,
        )
    return _Written(prompt, body, end, lead, gap, strips=rest != lead + response + tail)


def _after(prompt: str, full: str, where: str, how: Renderer, is_last: bool) -> str:
    """What the template writes after the prompt once the response is there."""
    if not full.startswith(prompt):
        raise UserError(
            where,
            f"{how.name} renders the prompt differently once the response is added",
            "use template='plain', or a template whose generation prompt begins the reply"
            if is_last
            else _LAST_ONLY,
        )
    return full[len(prompt) :]


def _apply(how: Renderer, turns: list, add_generation_prompt: bool = False) -> str:
    return rendering.apply(
        how.tokenizer,
        turns,
        how.template,
        how.name,
        add_generation_prompt=add_generation_prompt,
        date_string=_DATE.strftime("%d %b %Y"),
    )


def _undated(template: str) -> str:
    """The template with a fixed date wherever it asks for today's."""
    return _NOW.sub(lambda call: repr(_DATE.strftime(call[2])), template)


def _body(rest: str, lead: str, tail: str, gap: str, response: str) -> str | None:
    """The trained text: the response as rendered, with what the template puts around it."""
    if not rest.endswith(tail) or len(rest) < len(tail):
        return None
    body = rest[: len(rest) - len(tail)]
    # Some templates strip the response or lay a reasoning part out anew: then the text must
    # still be there, white space aside.
    whole = body == lead + response or "".join(body.split()).endswith("".join(response.split()))
    return body + gap if whole else None


def _prefix(tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    """The ids that the tokenizer puts before a text by itself."""
    with_special = tokenizer("a")["input_ids"]
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    for start in range(len(with_special) - len(bare) + 1):
        if with_special[start : start + len(bare)] == bare:
            return tuple(with_special[:start])
    return ()
