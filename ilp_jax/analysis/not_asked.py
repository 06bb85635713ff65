"""Questions with options that were not asked in other wordings, or with their options listed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from ilp_jax.detect.screen import is_sampled
from ilp_jax.detect.variants import AS_TRAINED, CHOICE_PROMPTS
from ilp_jax.stats.inference import BASE


def not_asked(inference: pl.DataFrame, detect: Mapping[str, Any]) -> dict[int, int]:
    """Examples left out of a prompt variant: too long in it, or of more options than letters.

    Args:
      inference: answers with a ``point`` column.
      detect: the config's ``detect`` section.

    Returns:
      By ``prompt_variant``, where there are any: how many examples were asked as trained at a
      point that calls for the variant, and not in it.
    """
    due = {(BASE, variant) for variant in detect.get("base_prompt_variants", ())}
    if detect.get("choice_runs", 0):
        variant = CHOICE_PROMPTS[detect["choice_prompt"]]
        points = inference["point"].unique()
        due |= {(one, variant) for one in points if is_sampled(detect["choice_run_points"], one)}
    asked = inference.filter(pl.col("mode") == "choice")
    as_trained = asked.filter(pl.col("prompt_variant") == AS_TRAINED)
    keys = ["example_id", "point", "prompt_variant"]
    schema = {name: inference.schema[name] for name in keys[1:]}
    left_out = (
        as_trained.select(keys[:2])
        .unique()
        .join(pl.DataFrame(sorted(due), schema=schema, orient="row"), on="point")
        .join(asked.select(keys), on=keys, how="anti")
        .unique(["example_id", "prompt_variant"])
    )
    return dict(left_out.group_by("prompt_variant").len().sort("prompt_variant").iter_rows())


def notes(left_out: Iterable[Mapping[int, int]]) -> list[str]:
    """A sentence for each variant of ``not_asked``, over all parts of the examples."""
    counts: Counter[int] = Counter()
    for part in left_out:
        counts.update(part)
    return [
        f"Not asked in prompt variant {variant}: {n} rows with options, longer than max_length "
        "in it or of more options than letters."
        for variant, n in sorted(counts.items())
    ]
