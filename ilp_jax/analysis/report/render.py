"""From parts to one HTML file that opens offline and runs nothing but its own script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from ilp_jax import files
from ilp_jax.analysis.report import charts
from ilp_jax.analysis.report.text import visible
from ilp_jax.analysis.report.words import percent, with_interval

# In a script element these end it, start a comment, or (U+2028, U+2029) a line of JavaScript.
_UNSAFE = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def render(parts: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """The page.

    A content security policy forbids it every connection, and every script and style but its
    own two, which it names by their hashes; so no text of a data set can run, even if it came
    past the escaping.

    Args:
      parts: what the template shows: ``title``, ``runs`` (of ``page.page``), ``comparison``.
      data: what the script shows, as JSON has it.

    Returns:
      The HTML.
    """
    folder = resources.files(__package__) / "template"
    style, script = (
        (folder / name).read_text(encoding="utf-8") for name in ("report.css", "report.js")
    )
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "template"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "two": two_digits,
        "short": short_number,
        "interval": with_interval,
        "range": interval_text,
        "visible": visible,
        "spaced": lambda name: visible(name).replace("_", " "),
        "detector": lambda name: charts.DETECTORS.get(name, name),
        "fate": lambda name: charts.FATES.get(name, name),
    }
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return environment.get_template("report.html.j2").render(
        **parts,
        policy=policy,
        style=Markup(style),
        script=Markup(script),
        data=Markup(safe_json(data)),
    )


def safe_json(value: Any) -> str:
    """JSON that may stand in a script element, whatever texts it holds.

    Args:
      value: plain JSON values.
    """
    return files.to_json(value, separators=(",", ":")).translate(_UNSAFE)


def two_digits(share: float) -> str:
    """A share with two digits and no zero before the point, as in the terminal's table."""
    return f"{share:.2f}".removeprefix("0")


def short_number(value: float | None) -> str:
    """A measurement with three significant digits; a dash where there is none."""
    return "\u2013" if value is None else f"{value:.3g}"


def interval_text(interval: Sequence[float] | None) -> str:
    """Both ends of an interval; nothing where there is none."""
    return "" if interval is None else f"{short_number(interval[0])} to {short_number(interval[1])}"


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
