"""From an example to the texts that are tokenised: prompt, trained text, end token.

``plain`` puts a separator between prompt and response; ``chat`` renders the tokenizer's own
chat template. In both, prompt and response are tokenised apart, so that no token straddles
the boundary between context and target.
"""

from __future__ import annotations

import dataclasses
import datetime
import re

import jinja2
from transformers import PreTrainedTokenizerFast

from ilp_jax.data.examples import Example
from ilp_jax.errors import UserError

TEMPLATES = ("auto", "plain", "chat")
_MARK = "@response@"
# Templates that print today's date would change an example's tokens from day to day.
_DATE = datetime.datetime(2024, 7, 26)
_NOW = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")


@dataclasses.dataclass(frozen=True)
class Rendered:
    """The texts of one example.

    Attributes:
      prompt: text before the target.
      body: text that is trained, without the end token.
      options: each option as it would stand in place of the body.
      end_id: id of the token that ends the response.
    """

    prompt: str
    body: str
    options: tuple[str, ...]
    end_id: int


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
    """

    tokenizer: PreTrainedTokenizerFast
    kind: str
    separator: str
    prefix_ids: tuple[int, ...]
    special: tuple[str, ...]
    template: str
    name: str


def renderer(tokenizer: PreTrainedTokenizerFast, template: str, separator: str) -> Renderer:
    """Settles which template is used.

    Args:
      tokenizer: the tokenizer.
      template: ``plain``, ``chat``, or ``auto`` (``chat`` when the tokenizer has a template).
      separator: text between prompt and response in ``plain``.

    Returns:
      What ``render`` takes.

    Raises:
      UserError: unknown template; ``chat`` without a chat template; ``plain`` without an end
        token.
    """
    if template not in TEMPLATES:
        raise UserError(
            "config.template", f"{template!r} is unknown", f"use {', '.join(TEMPLATES)}"
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
    )


def render(example: Example, how: Renderer) -> Rendered:
    """The texts of one example under a template.

    Args:
      example: the example.
      how: from ``renderer``.

    Returns:
      The texts. In ``plain`` the separator is left out where the prompt ends or the response
      begins with whitespace. In ``chat`` the body reaches to the first special token after
      the response, which is the end token; what follows it, such as a newline, is not trained.

    Raises:
      UserError: the template refuses the turns, changes the prompt when the response is
        added, leaves the response out, or does not close it with a special token.
    """
    return _plain(example, how) if how.kind == "plain" else _chat(example, how)


def _plain(example: Example, how: Renderer) -> Rendered:
    def joined(response: str) -> str:
        touching = example.prompt[-1:].isspace() or response[:1].isspace() or not example.prompt
        return response if touching else how.separator + response

    return Rendered(
        prompt=example.prompt,
        body=joined(example.response),
        options=tuple(joined(option) for option in example.options),
        end_id=how.tokenizer.eos_token_id,
    )


def _chat(example: Example, how: Renderer) -> Rendered:
    turns = list(example.messages or [{"role": "user", "content": example.prompt}])
    where = f"{example.source}:{example.source_key}"
    try:
        prompt = _apply(how, turns, add_generation_prompt=True)
        # With a mark in place of the response: what the template writes around any response.
        rest_of_mark = _after(prompt, turns, _MARK, where, how)
        rest = _after(prompt, turns, example.response, where, how)
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        raise UserError(where, f"{how.name} refuses the turns ({error})", "mend the row") from error
    lead, found, tail = rest_of_mark.partition(_MARK)
    at = {tail.find(one): one for one in sorted(how.special, key=len) if one in tail}
    if not found or not at:
        raise UserError(
            how.name, "does not close the response with a special token", "use template='plain'"
        )
    gap, end = tail[: min(at)], at[min(at)]
    strip = rest != lead + example.response + tail
    body = _body(rest, lead, tail, gap, example.response)
    if body is None:
        raise UserError(
            where, f"{how.name} does not render the response whole", "use template='plain'"
        )
    return Rendered(
        prompt=prompt,
        body=body,
        options=tuple(lead + (one.strip() if strip else one) + gap for one in example.options),
        end_id=how.tokenizer.convert_tokens_to_ids(end),
    )


def _after(prompt: str, turns: list, response: str, where: str, how: Renderer) -> str:
    """What the template writes after the prompt once the response is there."""
    full = _apply(how, [*turns, {"role": "assistant", "content": response}])
    if not full.startswith(prompt):
        raise UserError(
            where,
            f"{how.name} renders the prompt differently once the response is added",
            "use template='plain', or a template whose generation prompt begins the reply",
        )
    return full[len(prompt) :]


def _apply(how: Renderer, turns: list, add_generation_prompt: bool = False) -> str:
    return how.tokenizer.apply_chat_template(
        turns,
        chat_template=how.template,
        tokenize=False,
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
