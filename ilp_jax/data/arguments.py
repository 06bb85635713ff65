"""Further arguments of a chat template, such as ``enable_thinking``: of the config or of a row."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict
from transformers import PreTrainedTokenizerFast

from ilp_jax.errors import UserError

# Names that transformers gives a template, or takes for itself.
_OURS = {
    "messages",
    "conversations",
    *inspect.signature(PreTrainedTokenizerFast.apply_chat_template).parameters,
}


def of_config(config: ConfigDict) -> dict[str, Any]:
    """The arguments that a checked config gives for every row."""
    return json.loads(config.get("chat_template_kwargs", "") or "{}")


def check_ours(where: str, names: Iterable[str]) -> None:
    """Refuses arguments that would stand in for what we give a template.

    Args:
      where: for the message.
      names: of the arguments.

    Raises:
      UserError: one of them is ours.
    """
    for name in names:
        if name in _OURS:
            raise UserError(where, f"{name!r} is no argument of a template", "leave it out")


def unread(names: Iterable[str], templates: Iterable[str]) -> list[str]:
    """Names that stand in none of the templates as a word: none of them can read those."""
    known = words(templates)
    return [name for name in names if name not in known]


def words(templates: Iterable[str]) -> set[str]:
    """All words of some templates, the names of variables among them."""
    return {word for one in templates for word in re.findall(r"[^\W\d]\w*", one)}
