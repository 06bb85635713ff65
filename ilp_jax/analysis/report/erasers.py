"""What the report shows of who erased whom, where lost rows were followed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ilp_jax.analysis import influence
from ilp_jax.analysis.report.load import Run
from ilp_jax.analysis.report.text import cut
from ilp_jax.stats.influence import FILE, computed_with, read_influence

_PAIRS = 10
_TEXT = 300  # characters of a row's text; the list of rows has them whole


def erasers(run: Run, limits: Mapping[str, Any]) -> dict[str, Any] | None:
    """The section's table; None where no lost rows were followed (`ilp influence`).

    Args:
      run: the run.
      limits: the config's ``report`` group: ``max_text``, ``include_text``.

    Returns:
      ``pairs`` (dicts with ``score``, ``step``, ``lost`` and ``eraser``: prompt and response, or
      the id alone where texts are left out), ``followed``, ``lost`` and ``detector``.
    """
    if not (run.workdir / FILE).exists():
        return None
    settings, limit = computed_with(run.workdir), min(limits["max_text"], _TEXT)

    def told(pair: Mapping[str, Any], name: str, prefix: str) -> dict[str, Any]:
        if not limits["include_text"]:
            return {"id": pair[name]}
        texts = (cut(pair[f"{prefix}{part}"], limit) for part in ("prompt", "response"))
        short = [f"{one['t']}\u2026" if isinstance(one, dict) else one for one in texts]
        return {"id": pair[name], "prompt": short[0], "response": short[1]}

    pairs = influence.pairs(read_influence(run.workdir), run.examples, _PAIRS)
    return {
        "pairs": [
            {"score": pair["score"], "step": pair["step"]}
            | {"lost": told(pair, "example_id", ""), "eraser": told(pair, "eraser_id", "eraser_")}
            for pair in pairs
        ],
        "followed": settings["n_followed"],
        "lost": settings["n_lost"],
        "detector": settings["detector"],
    }
