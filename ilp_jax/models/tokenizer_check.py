"""Whether a loaded tokenizer is the one that its files describe, on a sample of strings.

transformers builds a tokenizer anew by the model's family: one of Qwen2's classes reads the
vocabulary of any tokenizer.json and cuts text by Qwen2's own rule, whatever the file says.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from ilp_jax.errors import UserError
from ilp_jax.models.stated import read

SAMPLE = (
    "Hello world",
    " one  two   three    four",
    "In 1234567 of 3.14159 and 1,000,000: 0x7f, 12ab34, ½ Ⅷ ٣٤",
    "a\nb\n\nc\r\n\r\n  d\t\te   ",
    "I'll don't they've I'M 'S 's it's",
    "na\u00efve nai\u0308ve \ufb01ne \u00c5 A\u030a",  # composed, decomposed, a ligature
    "日本語の文。中文 한국어 Привет שלום नमस्ते",
    "🙂👩‍👩‍👧 Ω≈ç √2 \u00a0x\u2003y\u3000z",
    "def f(x_1):\n    return x**2 != [0]  # {y: 'z'}\n",
    "WORDS Words wordsWords snake_case-kebab/path.ext",
    "?!... --- «»“” <tag> $5 €6 a@b.c",
)


def difference(tokenizer: PreTrainedTokenizerFast, folder: Path) -> str | None:
    """What a tokenizer makes otherwise than its folder says.

    Args:
      tokenizer: as loaded.
      folder: its folder, of ``tokenizer_files.check``.

    Returns:
      What differs, in words; None where nothing does.

    Raises:
      UserError: a file of the folder is damaged.
    """
    told = _read(folder / "tokenizer_config.json")
    vocabulary = tokenizer.get_vocab()
    for number, entry in (told.get("added_tokens_decoder") or {}).items():
        token = entry["content"]
        if token in vocabulary and str(vocabulary[token]) != number:
            return f"{token!r} is {vocabulary[token]}, and {number} in tokenizer_config.json"
    if not (folder / "tokenizer.json").is_file():
        named = _read(folder / "vocab.json")
        token = next((one for one, number in named.items() if vocabulary.get(one) != number), None)
        return None if token is None else f"{token!r} is not what vocab.json says"
    try:
        own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises bare Exception for a malformed file
        raise UserError(folder / "tokenizer.json", f"is damaged ({error})", "copy it again") from (
            error
        )
    own.no_truncation()
    own.no_padding()
    ends_told = any(told.get(key) is not None for key in ("add_bos_token", "add_eos_token"))
    added = "".join(f"a {token.content} b" for token in own.get_added_tokens_decoder().values())
    for text in (*SAMPLE, added):
        bare = own.encode(text, add_special_tokens=False).ids
        whole = [own.encode(text).ids]
        if ends_told:  # by tokenizer_config.json too, which need not say what tokenizer.json does
            before = [tokenizer.bos_token_id] if told.get("add_bos_token") else []
            after = [tokenizer.eos_token_id] if told.get("add_eos_token") else []
            whole.append([*before, *bare, *after])
        found, found_whole = (
            tokenizer(text, add_special_tokens=special, verbose=False).input_ids
            for special in (False, True)
        )
        shown = tokenizer.decode(
            bare, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        same = shown == own.decode(bare, skip_special_tokens=False)
        if found != bare or found_whole not in whole or not same:
            return f"{text[:40]!r} is cut otherwise than tokenizer.json says"
    return None


def check_bytes(tokenizer: PreTrainedTokenizerFast, where: object, composes: bool) -> None:
    """Makes sure that a byte-level tokenizer loses no text.

    Args:
      tokenizer: as built.
      where: its file, for messages.
      composes: whether it composes characters first (NFC).

    Raises:
      UserError: a text does not come back from its tokens.
    """
    for text in SAMPLE:
        ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        back = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        if back != (unicodedata.normalize("NFC", text) if composes else text):
            raise UserError(
                where,
                f"its vocabulary loses text: {text[:40]!r} comes back as {back[:40]!r}",
                "convert it again",
            )


def _read(path: Path) -> dict[str, Any]:
    return read(path, "copy the model's own file again") if path.exists() else {}
