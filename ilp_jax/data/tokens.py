"""Tokens of an example: the prompt, the trained target and every option."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

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
      prompt_ids: [n_prompt_tokens], context, never trained; at least one token.
      target_ids: [n_target_tokens], response then end token; shorter when truncated, empty
        when nothing of the response is left to train.
      option_ids: one array an option, encoded as the response is, without the end token.
      truncated: whether the target's tail was cut to fit max_length.
    """

    example_id: int
    prompt_ids: np.ndarray
    target_ids: np.ndarray
    option_ids: tuple[np.ndarray, ...] = ()
    truncated: bool = False

    @property
    def n_tokens(self) -> int:
        """Tokens of prompt and target together."""
        return len(self.prompt_ids) + len(self.target_ids)

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
) -> TokenRow:
    """Tokens of one example; see ``tokenise_all``."""
    return tokenise_all([example], tokenizer, template, separator, max_length)[0]


def tokenise_all(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerFast,
    template: str,
    separator: str,
    max_length: int,
) -> tuple[TokenRow, ...]:
    """Tokens of many examples.

    Args:
      examples: the examples.
      tokenizer: the tokenizer.
      template: ``plain``, ``chat`` or ``auto``; see ``ilp_jax.data.chat``.
      separator: text between prompt and response in ``plain``.
      max_length: tokens that prompt and target may have together; the target's tail is cut
        to fit, and the row says so.

    Returns:
      One TokenRow an example, in the same order.

    Raises:
      UserError: the template fails (see ``chat.render``), a prompt has no token at all, or
        prompt and response tokenised apart do not decode to their text.
    """
    how = chat.renderer(tokenizer, template, separator)
    rows = []
    for start in range(0, len(examples), _CHUNK):
        rows += _chunk(examples[start : start + _CHUNK], how, max_length)
    return tuple(rows)


def _chunk(examples: Sequence[Example], how: chat.Renderer, max_length: int) -> list[TokenRow]:
    rendered = [chat.render(example, how) for example in examples]
    prompts = _encode(how.tokenizer, [one.prompt for one in rendered])
    bodies = _continue(how.tokenizer, [one.body for one in rendered])
    joint = _encode(how.tokenizer, [one.prompt + one.body for one in rendered])
    options = iter(_continue(how.tokenizer, [text for one in rendered for text in one.options]))
    rows = []
    for example, one, prompt, body, whole in zip(
        examples, rendered, prompts, bodies, joint, strict=True
    ):
        _check_boundary(example, how.tokenizer, prompt + body, whole)
        prompt = [*how.prefix_ids, *prompt]
        if not prompt:
            raise UserError(
                f"{example.source}:{example.source_key}",
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
            )
        )
    return rows


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
            f"{example.source}:{example.source_key}",
            "prompt and response, tokenised apart, decode to another text "
            f"({texts[0][-60:]!r}, not {texts[1][-60:]!r})",
            "set config.separator to the white space that this tokenizer expects",
        )
