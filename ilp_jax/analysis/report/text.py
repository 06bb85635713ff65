"""Text of data sets, made safe to look at: cut, and with nothing in it that hides."""

from __future__ import annotations

import re
from typing import Any

# Control characters, and marks that turn the direction of what follows or show nothing at
# all. Joiners (U+200C, U+200D) stay: Persian, Indic scripts and emoji are written with them.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def visible(text: object) -> str:
    """The text with hidden characters written out, such as ``<U+202E>`` in angle marks.

    A right-to-left override would else show an answer as what it is not, and a control
    character is no valid XML. Tabs and line feeds stay.

    Args:
      text: any text; other values are made text.
    """
    return _HIDDEN.sub(lambda match: f"\u27e8U+{ord(match[0]):04X}\u27e9", str(text))


def cut(text: str | None, limit: int) -> str | dict[str, Any] | None:
    """A text as the report holds it.

    Args:
      text: the text; None stays None.
      limit: characters kept.

    Returns:
      The visible text; of a longer one ``{"t": its beginning, "n": its length}``.
    """
    if text is None:
        return None
    if len(text) <= limit:
        return visible(text)
    return {"t": visible(text[:limit]), "n": len(text)}
