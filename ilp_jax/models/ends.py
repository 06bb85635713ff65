"""The tokens that end a model's answers, from all that says so.

A model may have several: ``generation_config.json`` and ``config.json`` list them, the tokenizer
has one, and its chat template closes a reply with one, which need not be the tokenizer's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from ilp_jax.data import chat
from ilp_jax.data.examples import Example
from ilp_jax.data.study import StudyData
from ilp_jax.errors import UserError
from ilp_jax.models.stated import Stated, read

GENERATION = "generation_config.json"
_KEY = "eos_token_id"
_MEND = "copy the model's own file again"
_HELD = "generation_config"  # the tokenizer's attribute
# llama.cpp knows the ends of a GGUF file by these texts as well (``special_eog_ids`` of its
# src/llama-vocab.cpp): a file can name three, and some models have more.
_GGUF_KEYS = ("eos", "eot", "eom")
_GGUF_TEXTS = frozenset(
    ("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<end_of_turn>")
    + ("<|endoftext|>", "<|eom_id|>", "<EOT>", "_<EOT>", "<|end_of_text|>", "<end_of_utterance>")
)


def of_folder(folder: Path) -> dict[str, Any]:
    """What a model folder says of generation.

    Args:
      folder: the model folder.

    Returns:
      Its generation_config.json, ``{}`` where there is none, with the ends of its config.json
      among ``eos_token_id``, which is a list.

    Raises:
      UserError: a file is no JSON object, or an end is no token's number.
    """
    stated = _read(folder / GENERATION)
    ends = _numbers(Stated(stated.get, folder / GENERATION, _MEND))
    config = folder / "config.json"
    ends += _numbers(Stated(_read(config).get, config, _MEND))
    return stated | {_KEY: _once(ends)}


def of_gguf(told: Stated, control: Iterable[tuple[int, str]]) -> dict[str, Any]:
    """What a GGUF file says of generation, in the shape of ``of_folder``.

    Args:
      told: its metadata below ``tokenizer.``.
      control: number and text of each control token.

    Raises:
      UserError: an end is no token's number.
    """
    named = [n for key in _GGUF_KEYS for n in _numbers(told, f"ggml.{key}_token_id")]
    return {_KEY: _once([*named, *(i for i, text in control if text in _GGUF_TEXTS)])}


def keep(tokenizer: PreTrainedTokenizerFast, generation: dict[str, Any]) -> None:
    """Lets a tokenizer carry what its model's files say of generation."""
    setattr(tokenizer, _HELD, generation)


def end_ids(tokenizer: PreTrainedTokenizerFast, trained: Iterable[int] = ()) -> tuple[int, ...]:
    """All tokens that end an answer of a model, each once.

    Args:
      tokenizer: the model's.
      trained: ends that its training taught.

    Returns:
      ``trained``, the chat template's end, the tokenizer's, and those of the model's files.
    """
    stated = getattr(tokenizer, _HELD, {}).get(_KEY, [])
    known = [*trained, _template_end(tokenizer), tokenizer.eos_token_id, *stated]
    return tuple(_once(one for one in known if one is not None))


def of_study(data: StudyData, tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    """As ``end_ids``, with the ends that a study trains, the most frequent first.

    Args:
      data: the study.
      tokenizer: the model's.
    """
    counts: Counter[int] = Counter()
    for row in data.tokens:
        if len(row.target_ids) and not row.truncated:
            counts[int(row.target_ids[-1])] += 1
        counts.update(int(row.prompt_ids[stop - 1]) for _, stop in row.earlier_replies)
    return end_ids(tokenizer, [token for token, _ in counts.most_common()])


def generation_config(tokenizer: PreTrainedTokenizerFast, ends: tuple[int, ...]) -> dict[str, Any]:
    """The generation_config.json of an exported model: its source's, with these ends.

    Args:
      tokenizer: the model's.
      ends: what ``end_ids`` gave.
    """
    out = dict(getattr(tokenizer, _HELD, {}))
    out.pop("_from_model_config", None)  # would have the ends of an older config.json again
    for key in ("bos_token_id", "pad_token_id"):
        if out.get(key) is None and getattr(tokenizer, key) is not None:
            out[key] = getattr(tokenizer, key)
    return out | {_KEY: written(ends)}


def written(ends: tuple[int, ...]) -> int | list[int] | None:
    """Ends as Hugging Face's files hold them: a number, a list of several, or null."""
    return list(ends) if len(ends) > 1 else next(iter(ends), None)


def _template_end(tokenizer: PreTrainedTokenizerFast) -> int | None:
    if not tokenizer.chat_template:
        return None
    asked = Example(0, "template", "end", "a question", "an answer")
    try:
        return chat.render(asked, chat.renderer(tokenizer, "chat", " ")).end_id
    except UserError:  # rows that it cannot render are refused where they are rendered
        return None


def _read(path: Path) -> dict[str, Any]:
    return read(path, _MEND) if path.exists() else {}


def _numbers(told: Stated, key: str = _KEY) -> list[int]:
    """A number or a list of them; -1 stands for none in some files."""
    value = told.value(key)
    values = [one for one in (value if isinstance(value, list) else [value]) if one is not None]
    if not all(type(one) is int and -1 <= one < 2**31 for one in values):
        raise told.wrong(key, value, "no token's number, and no list of them")
    return [one for one in values if one >= 0]


def _once(values: Iterable[int]) -> list[int]:
    return list(dict.fromkeys(int(one) for one in values))
