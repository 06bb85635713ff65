"""How each example's training went: from the statistics of its visits, one row an example.

Every function takes rows of the statistics (``stats.schema.STATS_SCHEMA``) up to some moment
and knows nothing of later ones. An example counts as *correct* at a visit when every target
token, end token included, is the argmax.
"""

from __future__ import annotations

import polars as pl

from ilp_jax.stats.schema import GROUPS

COLUMNS = (
    "loss_sum",
    "n_tokens",
    "n_correct",
    "prob_mean",
    "entropy_mean",
    "grad_norm",
    *(f"grad_norm_{group}" for group in GROUPS),
)
"""What of the statistics is read, beside the key."""


def learning(rows: pl.DataFrame) -> pl.DataFrame:
    """Measures of an example's training visits.

    * ``presentations``: visits.
    * ``confidence``, ``variability``: mean and population standard deviation over visits of
      the mean probability of the target token; ``correctness``: visits at which it was correct.
      Dataset Cartography (Swayamdipta et al. 2020, arXiv:2009.10795), there over epochs.
    * ``forgetting_events``: times that it was correct at one visit and not at the next (Toneva
      et al. 2019, arXiv:1812.05159); ``first_learned``: the first visit at which it was correct,
      from 1, null for never; ``presentations_to_learn``: the last visit at which it was not, from
      1 (0: never; equal to ``presentations``: not learned for good so far), which is Toneva's
      index from 0 plus 1.
    * Over the last half of the visits (half rounded up, at least 2; null with fewer):
      ``slope_end`` and ``entropy_slope``, least-squares slopes of loss and entropy over the
      visit's number (nats a token a visit; below 0: still falling), and ``loss_fall_last``, the
      fall of the loss from the first of these visits to the last, relative to the first.
    * ``loss_last``: loss at the last visit (nats a token).

    Args:
      rows: statistics; only those of kind ``train`` are looked at.

    Returns:
      One row an example that has visits: ``example_id`` and the above.
    """
    count, place = pl.len().over("example_id"), pl.int_range(pl.len()).over("example_id")
    visits = (
        rows.filter(pl.col("kind") == "train")
        .sort("example_id", "visit")
        .select(
            "example_id",
            pl.col("visit").cast(pl.Float64),
            per_token("loss_sum").alias("loss"),
            pl.col("prob_mean", "entropy_mean").cast(pl.Float64),
            is_correct().alias("correct"),
            (place >= count - pl.max_horizontal(2, (count + 1) // 2)).alias("late"),
        )
    )
    correct, loss = pl.col("correct"), pl.col("loss")
    late = loss.filter("late")
    return visits.group_by("example_id", maintain_order=True).agg(
        pl.len().cast(pl.Int32).alias("presentations"),
        pl.col("prob_mean").mean().alias("confidence"),
        pl.col("prob_mean").std(ddof=0).alias("variability"),
        correct.sum().cast(pl.Int32).alias("correctness"),
        (correct.shift(1) & ~correct).sum().cast(pl.Int32).alias("forgetting_events"),
        pl.col("visit").filter(correct).min().cast(pl.Int32).alias("first_learned"),
        pl.col("visit")
        .filter(~correct)
        .max()
        .fill_null(0)
        .cast(pl.Int32)
        .alias("presentations_to_learn"),
        _slope("loss").alias("slope_end"),
        loss.last().alias("loss_last"),
        pl.when(pl.len() > 1, late.first() > 0)
        .then(1 - late.last() / late.first())
        .alias("loss_fall_last"),
        _slope("entropy_mean").alias("entropy_slope"),
    )


def events(rows: pl.DataFrame) -> pl.DataFrame:
    """Forgetting events and correct visits alone; see `learning`.

    Args:
      rows: statistics; only those of kind ``train`` are looked at.

    Returns:
      One row an example that has visits: ``example_id``, ``correctness``,
      ``forgetting_events``.
    """
    correct = pl.col("correct")
    return (
        rows.filter(pl.col("kind") == "train")
        .sort("example_id", "visit")
        .select("example_id", is_correct().alias("correct"))
        .group_by("example_id", maintain_order=True)
        .agg(
            correct.sum().cast(pl.Int32).alias("correctness"),
            (correct.shift(1) & ~correct).sum().cast(pl.Int32).alias("forgetting_events"),
        )
    )


def uncertainty(rows: pl.DataFrame) -> pl.DataFrame:
    """The prediction's entropy at the base and since.

    Args:
      rows: statistics; only those of kind ``probe`` are looked at.

    Returns:
      One row an example that was probed at the base: ``example_id``; ``base_entropy`` and
      ``entropy_now``, the mean entropy over target tokens at the base and at its last probe;
      ``entropy_change``, the second minus the first (nats).
    """
    probes = rows.filter(pl.col("kind") == "probe").sort("example_id", "step")
    entropy = pl.col("entropy_mean").cast(pl.Float64)
    found = probes.group_by("example_id", maintain_order=True).agg(
        entropy.filter(pl.col("step") == 0).first().alias("base_entropy"),
        entropy.last().alias("entropy_now"),
    )
    change = pl.col("entropy_now") - pl.col("base_entropy")
    return found.with_columns(change.alias("entropy_change")).drop_nulls("entropy_change")


def gradients(rows: pl.DataFrame) -> pl.DataFrame:
    """Gradient norms at the base and at the last moment at which one was taken.

    Args:
      rows: statistics of both kinds.

    Returns:
      One row an example with norms: ``example_id``; ``grad_norm_base``, ``grad_norm_end``,
      ``grad_norm_ratio`` (end over base); ``grad_share_{group}_end``, the group's part of the
      squared norm at the end (null for a group without parameters; the others sum to 1).
    """
    # A training row of a step is measured before the update, a probe after it.
    known = rows.filter(pl.col("grad_norm").is_not_null()).sort(
        "example_id", "step", pl.col("kind") == "probe", "visit"
    )
    norm = pl.col("grad_norm").cast(pl.Float64)
    squared = {group: pl.col(f"grad_norm_{group}").cast(pl.Float64).pow(2) for group in GROUPS}
    # The groups' own sum: their rounding is theirs, so the parts add up to 1.
    whole = pl.sum_horizontal(*squared.values())
    ends = known.group_by("example_id", maintain_order=True).agg(
        norm.filter(pl.col("step") == 0).first().alias("grad_norm_base"),
        norm.last().alias("grad_norm_end"),
        *(
            pl.when(whole > 0).then(part / whole).last().alias(f"grad_share_{group}_end")
            for group, part in squared.items()
        ),
    )
    base, end = pl.col("grad_norm_base"), pl.col("grad_norm_end")
    return ends.with_columns(pl.when(base > 0).then(end / base).alias("grad_norm_ratio"))


def per_token(column: str) -> pl.Expr:
    """Mean over target tokens of a column that is a sum over them, as float64."""
    return pl.col(column).cast(pl.Float64) / pl.col("n_tokens")


def is_correct() -> pl.Expr:
    """Whether every target token is the argmax."""
    return pl.col("n_correct") == pl.col("n_tokens")


def _slope(column: str) -> pl.Expr:
    """Least-squares slope over the late visits; null where there are fewer than two."""
    used = pl.col("late") & pl.col(column).is_not_null()
    y, x = pl.col(column).filter(used), pl.col("visit").filter(used)
    x = x - x.mean()
    return pl.when(used.sum() > 1).then((x * y).sum() / x.pow(2).sum())
