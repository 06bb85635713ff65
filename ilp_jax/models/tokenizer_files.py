"""What a folder's tokenizer files state, checked before any of them is loaded."""

from __future__ import annotations

from pathlib import Path

from ilp_jax.errors import UserError
from ilp_jax.models.stated import Stated, check_plain, read

_MEND = "save the tokenizer with save_pretrained, or copy the model's own file again"
_READ = (".json", ".jinja", ".txt", ".model")
_FLAGS = ("add_bos_token", "add_eos_token", "add_prefix_space", "clean_up_tokenization_spaces")
_TOKENS = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "pad", "sep", "cls", "mask"))
_LONGEST = (1, 1e40)  # transformers writes 1e30 for "no limit"


def check(folder: Path) -> None:
    """Checks what transformers takes unchecked from a folder's tokenizer files.

    Args:
      folder: the model folder.

    Raises:
      UserError: something other than a file where one should be, a file that is no JSON object,
        or a value that cannot be.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix in _READ:
            check_plain(path, _MEND)
    if (path := folder / "special_tokens_map.json").exists():
        _check_tokens(Stated(read(path, _MEND).get, path, _MEND))
    if not (path := folder / "tokenizer_config.json").exists():
        return
    told = Stated(read(path, _MEND).get, path, _MEND)
    _check_tokens(told)
    told.text("tokenizer_class", None)
    told.number("model_max_length", _LONGEST, None)
    for key in _FLAGS:
        told.flag(key, None)
    added = told.within("added_tokens_decoder")
    for number in told.group("added_tokens_decoder"):
        if not (number.isdecimal() and len(number) < 10):
            raise UserError(path, f"added_tokens_decoder.{number} is no token's number", _MEND)
        added.within(number).text("content")
    check_template(told, "chat_template")


def check_template(told: Stated, key: str) -> None:
    """Raises UserError where a chat template is no text, and no list of named ones."""
    value = told.value(key)
    if value is None or isinstance(value, str):
        return
    wrong = told.wrong(key, value, "no template, and no list of templates with name and template")
    if not isinstance(value, list):
        raise wrong
    for one in value:
        if not (isinstance(one, dict) and isinstance(one.get("name"), str)):
            raise wrong
        if not isinstance(one.get("template"), str):
            raise wrong


def _check_tokens(told: Stated) -> None:
    for key in _TOKENS:
        if isinstance(told.value(key), dict):
            told.within(key).text("content")
        else:
            told.text(key, None)
