"""Ranks within the run, given answer length: signals on a scale that every run shares."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

LENGTH_BREAKS = (1, 3, 6, 12)
"""Bins of response tokens: 1, 2-3, 4-6, 7-12, 13 and more. Answer length goes with every signal
on real rows, so a rank over all lengths would mostly rank length."""
LEAST = 10
"""A bin with fewer rows is ranked together with its neighbours; ours."""


def length_bin(tokens: str = "response_tokens") -> pl.Expr:
    """The bin of a response's length, from 0."""
    return pl.sum_horizontal((pl.col(tokens) > top).cast(pl.Int32) for top in LENGTH_BREAKS)


def ranks(rows: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Mid-ranks of signals among rows of like response length, point by point.

    A row's rank is (average rank - 0.5) / n among the n rows of its bin that have the signal:
    below 1, above 0, 0.5 where all are equal. A bin with fewer than ``LEAST`` rows is widened by
    its neighbours on both sides until it has them or there are no more; the neighbours' own
    ranks do not change.

    Args:
      rows: ``example_id``, ``point``, ``response_tokens`` and the signals; trained rows.
      names: the signals.

    Returns:
      One row a row: ``example_id``, ``point`` and ``rank_{name}`` for each.
    """
    keys = ("example_id", "point")
    columns = [
        ((pl.col(name).rank("average") - 0.5) / pl.col(name).count()).alias(f"rank_{name}")
        for name in names
    ]
    nothing = rows.clear().select(*keys, *(column.cast(pl.Float64) for column in columns))
    found = [nothing]
    binned = rows.with_columns(length_bin().alias("bin"))
    for (_,), group in binned.group_by("point", maintain_order=True):
        sizes = dict(group.group_by("bin").len().iter_rows())
        for number in sorted(sizes):
            low, high = _widened(sizes, number)
            among = group.filter(pl.col("bin").is_between(low, high)).with_columns(columns)
            found.append(among.filter(pl.col("bin") == number).select(nothing.columns))
    return pl.concat(found)


def _widened(sizes: dict[int, int], number: int) -> tuple[int, int]:
    """The bins, first to last, that a bin's rows are ranked among."""
    low = high = number
    while sum(sizes.get(b, 0) for b in range(low, high + 1)) < LEAST:
        if low == 0 and high == len(LENGTH_BREAKS):
            break
        low, high = max(low - 1, 0), min(high + 1, len(LENGTH_BREAKS))
    return low, high
