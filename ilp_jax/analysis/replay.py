"""Replay: which rows are replayed, after how many updates they come back, and the table.

Replay sensitivity is named in the study as an indicator and not defined there; this is our
definition. A row *comes back* at the smallest k for which k updates on it alone give an exact
match, whichever detector called it unlearned; a row that does not within the largest k is
censored, which is no evidence that it never would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from rich.console import Group
from rich.text import Text

from ilp_jax.analysis.shares import interval
from ilp_jax.analysis.titled import titled
from ilp_jax.analysis.unlearned import DEFAULT, by_default
from ilp_jax.data.order import keyed_order
from ilp_jax.errors import UserError

POINT = "final"


def verdicts(diagnosis: pl.DataFrame, detector: str) -> pl.DataFrame:
    """A detector's verdicts at the end of the run.

    Args:
      diagnosis: ``diagnosis.parquet``.
      detector: its name, or ``default``.

    Returns:
      ``example_id`` and ``unlearned``, without the rows to which it does not apply.

    Raises:
      UserError: there is no such verdict.
    """
    columns = ("example_id", "point", "detector", "unlearned")
    at_end = diagnosis.filter(pl.col("point") == POINT).select(columns).unique()
    if detector == DEFAULT:
        found = by_default(at_end)
    else:
        found = at_end.filter(pl.col("detector") == detector)
    found = found.select("example_id", "unlearned").drop_nulls()
    if found.is_empty():
        told = at_end.drop_nulls("unlearned")["detector"].unique()
        names = ", ".join(sorted(told)) or "none: add 'final' to its points"
        raise UserError(
            "config.replay.detector",
            f"diagnosis.parquet has no verdict of {detector!r} at {POINT!r}",
            f"verdicts there: {names}",
        )
    return found.sort("example_id")


def choose(
    found: pl.DataFrame, n_targets: Mapping[int, int], settings: Mapping[str, Any], seed: int
) -> tuple[list[int], list[int]]:
    """The rows to replay, in order.

    Each row's place depends on the seed and its own id alone, so that a larger
    ``max_examples`` only adds rows.

    Args:
      found: see `verdicts`.
      n_targets: number of target tokens by example id.
      settings: the config's ``replay`` section.
      seed: the run's.

    Returns:
      Ids of unlearned rows, and of learned ones as controls: for one unlearned row after
      the other (and round again), the learned row not yet taken whose number of target
      tokens is nearest.
    """
    ids = {
        kind: found.filter(pl.col("unlearned") == kind)["example_id"].to_list()
        for kind in (True, False)
    }
    lost, known = (
        [ids[kind][i] for i in keyed_order(ids[kind], seed, "replay")] for kind in (True, False)
    )
    lost = lost[: settings["max_examples"] or None]
    lengths = np.array([n_targets[one] for one in known], np.int64)
    controls: list[int] = []
    free = np.ones(len(known), bool)
    for place in range(min(settings["controls"], len(known)) if lost else 0):
        wanted = n_targets[lost[place % len(lost)]]
        nearest = int(np.argmin(np.where(free, np.abs(lengths - wanted), np.iinfo(np.int64).max)))
        free[nearest] = False
        controls.append(known[nearest])
    return lost, controls


def came_back(rows: pl.DataFrame) -> pl.DataFrame:
    """After how many updates on itself alone each example is an exact match.

    Args:
      rows: ``replay.parquet``.

    Returns:
      ``example_id`` and ``replay_k``: the smallest such k (0: it was one before any update),
      null where it is censored: not within the largest k.
    """
    first = pl.col("k").filter(pl.col("correct")).min().alias("replay_k")
    return rows.group_by("example_id").agg(first).sort("example_id")


def figures(rows: pl.DataFrame, found: pl.DataFrame) -> list[dict[str, Any]]:
    """What the table shows.

    Args:
      rows: ``replay.parquet``.
      found: see `verdicts`.

    Returns:
      One dict a kind of row (``unlearned`` true, then false) and k: ``n``, ``back`` (rows
      that came back by k updates), its ``interval`` (Wilson's 95%), and the medians ``loss``
      (nats a token) and ``p_gold``. Kinds without rows are left out.
    """
    joined = rows.join(came_back(rows), on="example_id").join(found, on="example_id")
    cells = []
    for (unlearned, k), group in joined.group_by("unlearned", "k"):
        back = int((group["replay_k"] <= k).sum())
        cells.append(
            {
                "unlearned": unlearned,
                "k": k,
                "n": len(group),
                "back": back,
                "interval": list(interval(back, len(group))),
                "loss": group["loss"].median(),
                "p_gold": group["p_gold"].median(),
            }
        )
    return sorted(cells, key=lambda cell: (not cell["unlearned"], cell["k"]))


def render(cells: Sequence[Mapping[str, Any]], settings: Mapping[str, str], seed: int) -> Group:
    """The table that ``ilp replay`` ends with.

    Args:
      cells: see `figures`.
      settings: metadata of ``replay.parquet``.
      seed: the run's.
    """
    table = titled("Exact match after k updates on the row alone, with its 95% interval")
    for column in ("rows", "n", "k", "back", "share", "interval", "median loss", "median p"):
        table.add_column(column, justify="left" if column == "rows" else "right")
    for cell in cells:
        low, high = cell["interval"]
        table.add_row(
            "unlearned" if cell["unlearned"] else "learned (controls)",
            str(cell["n"]),
            str(cell["k"]),
            str(cell["back"]),
            f"{cell['back'] / cell['n']:.2f}",
            f"{low:.2f}-{high:.2f}",
            f"{cell['loss']:.3f}",
            f"{cell['p_gold']:.3g}",
        )
    note = (
        f"Unlearned at {POINT} by detector {settings['detector']}; fresh "
        f"{settings['optimizer']}, rate {settings['learning_rate']}. Seed {seed}; intervals "
        "(Wilson) are over examples. A row that is not back by the last k is censored."
    )
    if not cells:
        return Group(Text(f"No row is unlearned at {POINT}: nothing was replayed."), Text(note))
    return Group(table, Text(note))
