"""Methods ``paper`` and ``paper_second``: the study's own tests, for comparison.

The study (arXiv:2604.10079, section 3.2) examines each unlearned sample "sequentially" under
tests that it presents in the order I to V; that the first hit decides is our reading, as no
rule for stopping is written. Two tests are given for some types, hence two methods.

=======================  =========================================================
``paper``                test as we read it
=======================  =========================================================
I   missing_knowledge    P_exist = 0: base accuracy over wordings not above 0.8 (Eq. 2)
II  base_conflict        D_JS(base, fine-tuned) > 0.3 (Eq. 3, Table 10), in nats
III data_conflict        a trained row of similar question exists (Algorithm 3, whose judge
                         of correctness cannot be asked here); as written, labels are not
                         compared
IV  left_side_forgetting the target's probability fell by more than 5% of itself since the
                         end of the row's own stage, or, for a row of the first tenth of the
                         sequence, since its best (the 5% is appendix D.1's, for the remedy;
                         none is given for the attribution)
V   insufficient_...     the rest
=======================  =========================================================

=======================  =========================================================
``paper_second``         test as we read it
=======================  =========================================================
I                        blind spot: pass@10 < 0.2 and accuracy of the best of 5 < 0.1
                         (Eq. 4, Algorithm 1), from the law of the base's probabilities
II                       the base gives a wrong answer probability > T_conf (Eq. 6)
III                      the same, and a response differs ("multiple positions", Table 10)
IV                       reproduced at the end of its own stage, unlearned now
V                        its loss still fell by more than delta = 0.01 (Eq. 7, there of
                         validation loss) over the last half of its visits
=======================  =========================================================

A test whose signal is null does not hit. ``paper`` leaves nothing unattributed, though the
study's own shares sum to 78% (Table 10). Scores are 1 for a hit and 0 else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from ilp_jax.analysis.cascade import KEY, attribute
from ilp_jax.analysis.causes.scale import known, number
from ilp_jax.stats.schema import CAUSES

FIRST, SECOND = "paper", "paper_second"

Test = tuple[pl.Expr, pl.Expr]
"""Whether a test hits (null: not known), and the text that shows it."""


def combine(
    found: pl.DataFrame,
    signals: pl.DataFrame,
    trained: pl.DataFrame,
    thresholds: Mapping[str, Any],
    method: str,
) -> pl.DataFrame:
    """Rows of ``diagnosis.parquet`` for ``paper`` or ``paper_second``.

    Args:
      found: ``example_id``, ``point``, ``detector``, ``unlearned`` of trained rows.
      signals: ``signals.parquet``.
      trained: what ``cascade.trained_by_then`` gave.
      thresholds: the config's group ``diagnose``.
      method: `FIRST` or `SECOND`.

    Returns:
      The columns of ``DIAGNOSIS_SCHEMA``, a row for each of ``found``.
    """
    rows = found.join(known(signals), on=KEY, how="left", maintain_order="left").join(
        trained, on=KEY, how="left", maintain_order="left"
    )
    tests = first_tests(thresholds) if method == FIRST else second_tests(thresholds)
    columns = []
    for cause, (hit, text) in tests.items():
        nobody = pl.lit(None, pl.List(pl.Int64))
        related = pl.col("near_ids") if cause == "data_conflict" else nobody
        columns += [
            hit.alias(f"flag_{cause}"),
            hit.cast(pl.Float64).alias(f"score_{cause}"),
            text.fill_null("not measured").alias(f"evidence_{cause}"),
            related.alias(f"related_{cause}"),
            pl.lit(True).alias(f"counts_{cause}"),
        ]
    rows = rows.with_columns(*columns, pl.col("trained").fill_null(True))
    return attribute(rows, CAUSES, method)


def first_tests(thresholds: Mapping[str, Any]) -> dict[str, Test]:
    """The five tests of ``paper``, by cause, in the study's order.

    Args:
      thresholds: ``paper_js``, ``paper_drop``.
    """
    drop = thresholds["paper_drop"]
    since_own = pl.col("own_drop") > drop * pl.col("own_stage_prob")
    since_best = pl.col("drop_from_best") > drop * pl.col("best_prob")
    left = pl.col("segment") == "first_10"
    tests = {
        "missing_knowledge": (
            pl.col("p_exist").not_(),
            pl.format("P_exist from a base accuracy of {}", number(pl.col("base_accuracy"))),
        ),
        "base_conflict": (
            pl.col("d_js") > thresholds["paper_js"],
            pl.format("D_JS {} nats", number(pl.col("d_js"), 3)),
        ),
        "data_conflict": _similar(),
        "left_side_forgetting": (
            since_own | (left & since_best),
            pl.format(
                "probability a token {} now, {} at the end of its own stage, {} at best",
                *(number(pl.col(name)) for name in ("prob", "own_stage_prob", "best_prob")),
            ),
        ),
    }
    hit = pl.any_horizontal(test.fill_null(False) for test, _ in tests.values())
    rest = pl.lit("none of the four tests before it hit")
    return tests | {"insufficient_training": (hit.not_(), rest)}


def second_tests(thresholds: Mapping[str, Any]) -> dict[str, Test]:
    """The five tests of ``paper_second``, by cause, in the study's order.

    The law behind I, for a base that answers right with probability p in one run: the
    expected share of right answers is p, and the most confident of N answers is right with
    (1 - q)^N - (1 - q - p)^N, q being the probability of answers more confident than the
    right one. Among options q is taken as that of the best wrong option where it leads, a
    lower bound (exact for the first two ranks), so that blindness is claimed too rarely
    rather than too often; without options p is that of the whole text and q = 0.

    Args:
      thresholds: ``paper_pass``, ``paper_best``, ``paper_best_of``, ``paper_confidence``,
        ``paper_fall``.
    """
    tokens = pl.col("response_tokens") + 1
    p = pl.coalesce("base_gold_prob", pl.col("base_prob").pow(tokens))
    led = pl.col("base_gold_prob").is_not_null() & (pl.col("base_gold_rank") > 1)
    q = pl.when(led).then(pl.col("base_wrong_confidence").fill_null(0.0)).otherwise(0.0)
    n = thresholds["paper_best_of"]
    best = (1 - q).pow(n) - (1 - q - p).clip(0.0, 1.0).pow(n)
    wrong = pl.coalesce("base_wrong_confidence", "base_greedy_confidence")
    similar, text = _similar()
    differ = pl.col("twin_disagreement")
    return {
        "missing_knowledge": (
            (p < thresholds["paper_pass"]) & (best < thresholds["paper_best"]),
            pl.format("base pass@10 {}, best of {} right {}", number(p, 3), n, number(best, 3)),
        ),
        "base_conflict": (
            wrong > thresholds["paper_confidence"],
            pl.format("base probability of a wrong answer {}", number(wrong)),
        ),
        "data_conflict": (
            similar & (differ > 0).fill_null(False),
            pl.format("{}, {} of which answer otherwise", text, number(differ)),
        ),
        "left_side_forgetting": (
            pl.col("learned_own_stage") & pl.col("unlearned"),
            pl.format(
                "reproduced at the end of its own stage: {}",
                pl.col("learned_own_stage").cast(pl.String),
            ),
        ),
        "insufficient_training": (
            pl.col("loss_fall_last") > thresholds["paper_fall"],
            pl.format(
                "loss fell by {} of itself over the last half of its visits",
                number(pl.col("loss_fall_last")),
            ),
        ),
    }


def _similar() -> Test:
    n = pl.col("near_duplicates")
    return n > 0, pl.format("{} trained rows with a similar question", n)
