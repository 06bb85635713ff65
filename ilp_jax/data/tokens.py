"""Tokens of an example: the prompt, the trained target and every option."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from ilp_jax.data import chat
from ilp_jax.data.examples import Example
from ilp_jax.errors import UserError

_ANCHOR = "\n"
_CHUNK = 4096


@dataclasses.dataclass(frozen=True, eq=False)
class TokenRow:
    """Token ids of one example, int32 throughout.

    Attributes:
      example_id: the example's id.
      prompt_ids: all that stands before the response, at least one token; context, apart
        from the earlier replies.
      target_ids: [n_target_tokens], response then end token; shorter when truncated, empty
        when nothing of the response is left to train.
      option_ids: one array an option, encoded as the response is, without the end token.
      truncated: whether the target's tail was cut to fit max_length.
      earlier_replies: [start, stop) within prompt_ids of every earlier reply that is trained
        too, its end token included; in order, each behind at least one token.
    """

    example_id: int
    prompt_ids: np.ndarray
    target_ids: np.ndarray
    option_ids: tuple[np.ndarray, ...] = ()
    truncated: bool = False
    earlier_replies: tuple[tuple[int, int], ...] = ()

    @property
    def n_tokens(self) -> int:
        """Tokens of prompt and target together."""
        return len(self.prompt_ids) + len(self.target_ids)

    @property
    def n_targets(self) -> int:
        """Tokens that are trained: the target and all earlier replies."""
        return len(self.target_ids) + sum(stop - start for start, stop in self.earlier_replies)

    @property
    def n_packed_tokens(self) -> int:
        """Tokens of prompt, target and all options together."""
        return self.n_tokens + sum(map(len, self.option_ids))


def tokenise(
    example: Example,
    tokenizer: PreTrainedTokenizerFast,
    template: str,
    separator: str,
    max_length: int,
    trained_turns: str = "all",
    arguments: Mapping[str, Any] | None = None,
) -> TokenRow:
    """Tokens of one example; see ``tokenise_all``."""
    how = (template, separator, max_length, trained_turns, arguments)
    return tokenise_all([example], tokenizer, *how)[0]


def tokenise_all(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerFast,
    template: str,
    separator: str,
    max_length: int,
    trained_turns: str = "all",
    arguments: Mapping[str, Any] | None = None,
) -> tuple[TokenRow, ...]:
    """Tokens of many examples.

    Args:
      examples: the examples.
      tokenizer: the tokenizer.
      template: ``plain``, ``chat`` or ``auto``; see ``ilp_jax.data.chat``.
      separator: text between prompt and response in ``plain``.
      max_length: tokens that prompt and target may have together; the target's tail is cut
        to fit, and the row says so.
      trained_turns: ``all`` replies of a conversation, or the ``last`` alone.
      arguments: further arguments of the chat template.

    Returns:
      One TokenRow an example, in the same order.

    Raises:
      UserError: the template fails (see ``chat.render``), a prompt has no token at all, or
        prompt and response tokenised apart do not decode to their text.
    """
    how = chat.renderer(tokenizer, template, separator, trained_turns, arguments)
    rows = []
    for start in range(0, len(examples), _CHUNK):
        rows += _chunk(examples[start : start + _CHUNK], how, max_length)
    return tuple(rows)


def _chunk(examples: Sequence[Example], how: chat.Renderer, max_length: int) -> list[TokenRow]:
    rendered = [chat.render(example, how) for example in examples]
    turns = iter(_turns(examples, rendered, how.tokenizer))
    options = iter(_continue(how.tokenizer, [text for one in rendered for text in one.options]))
    rows = []
    for example, one in zip(examples, rendered, strict=True):
        prompt, replies = list(how.prefix_ids), []
        for reply in one.earlier:
            context, body = next(turns)
            prompt += context
            start = len(prompt)
            prompt += [*body, reply.end_id]
            if body:
                replies.append((start, len(prompt)))
        context, body = next(turns)
        prompt += context
        if not prompt or (replies and not replies[0][0]):
            raise UserError(
                example.label,
                "the prompt has no token, so nothing predicts the first one of the response",
                "give the row a prompt",
            )
        target = [*body, one.end_id] if body else []
        room = max(max_length - len(prompt), 0)
        rows.append(
            TokenRow(
                example_id=example.example_id,
                prompt_ids=np.array(prompt, np.int32),
                target_ids=np.array(target[:room], np.int32),
                option_ids=tuple(np.array(next(options), np.int32) for _ in one.options),
                truncated=len(target) > room,
                earlier_replies=tuple(replies),
            )
        )
    return rows


def _turns(
    examples: Sequence[Example], rendered: Sequence[chat.Rendered], tokenizer
) -> list[tuple[list[int], list[int]]]:
    """Ids of context and reply for every trained reply of every example, in order."""
    owners, first, contexts, bodies = [], [], [], []
    for example, one in zip(examples, rendered, strict=True):
        ends = [0, *(reply.end for reply in one.earlier)]
        starts = [*(reply.start for reply in one.earlier), len(one.prompt)]
        owners += [example] * len(ends)
        first += [end == 0 for end in ends]
        contexts += [one.prompt[a:b] for a, b in zip(ends, starts, strict=True)]
        bodies += [*(one.prompt[r.start : r.stop] for r in one.earlier), one.body]

    def encode(texts: list[str]) -> list[list[int]]:
        """The first context of a row begins a text, the others go on from a reply."""
        begin = iter(_encode(tokenizer, [t for t, f in zip(texts, first, strict=True) if f]))
        go_on = iter(_continue(tokenizer, [t for t, f in zip(texts, first, strict=True) if not f]))
        return [next(begin) if f else next(go_on) for f in first]

    context_ids, body_ids = encode(contexts), _continue(tokenizer, bodies)
    joint_ids = encode([a + b for a, b in zip(contexts, bodies, strict=True)])
    for example, a, b, joint in zip(owners, context_ids, body_ids, joint_ids, strict=True):
        _check_boundary(example, tokenizer, a + b, joint)
    return list(zip(context_ids, body_ids, strict=True))


def _encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    if not texts:
        return []
    # verbose=False: the warning about rows longer than the model's limit is ours to give.
    return tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)[
        "input_ids"
    ]


def _continue(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    """Encodes texts that go on from another text.

    SentencePiece-like tokenizers put a space before every text that they are given. It does
    not belong to a continuation: those texts are encoded behind a newline, which is cut off.
    """
    if not _adds_space(tokenizer):
        return _encode(tokenizer, texts)
    anchor = _encode(tokenizer, [_ANCHOR])[0]
    behind = _encode(tokenizer, [_ANCHOR + text for text in texts])
    alone = _encode(tokenizer, texts)
    n = len(anchor)
    return [b[n:] if b[:n] == anchor else a for b, a in zip(behind, alone, strict=True)]


def _adds_space(tokenizer: PreTrainedTokenizerFast) -> bool:
    first = tokenizer.tokenize("a")[:1]
    return bool(first) and first[0].startswith("\u2581")


def _check_boundary(example: Example, tokenizer, apart: list[int], whole: list[int]) -> None:
    """Encoded apart or together, the tokens must stand for the same text."""
    if apart == whole:
        return
    texts = [
        tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        for ids in (apart, whole)
    ]
    if texts[0] != texts[1]:
        raise UserError(
            example.label,
            "prompt and response, tokenised apart, decode to another text "
            f"({texts[0][-60:]!r}, not {texts[1][-60:]!r})",
            "set config.separator to the white space that this tokenizer expects",
        )
