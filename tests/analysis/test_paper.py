"""The study's cascades against a literal re-implementation, row by row."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from ilp_jax.analysis import paper
from ilp_jax.analysis.cascade import trained_by_then

SHARE = st.one_of(st.none(), st.floats(0, 1))
FLAG = st.sampled_from([True, False, None])
ROW = st.fixed_dictionaries(
    {
        "p_exist": FLAG,
        "d_js": SHARE,
        "near_duplicates": st.sampled_from([0, 0, 1, 3]),
        "own_drop": st.one_of(st.none(), st.floats(-0.2, 0.2)),
        "own_stage_prob": SHARE,
        "drop_from_best": SHARE,
        "best_prob": SHARE,
        "segment": st.sampled_from(["first_10", "middle", "last_10"]),
        "base_gold_prob": SHARE,
        "base_gold_rank": st.sampled_from([None, 1.0, 2.0, 3.5]),
        "base_wrong_confidence": SHARE,
        "base_greedy_confidence": SHARE,
        "base_prob": SHARE,
        "twin_disagreement": SHARE,
        "learned_own_stage": FLAG,
        "loss_fall_last": st.one_of(st.none(), st.floats(-0.5, 1)),
    }
)


def as_written(row):
    if row["p_exist"] is False:
        return "missing_knowledge"
    if (row["d_js"] or 0) > 0.3:
        return "base_conflict"
    if row["near_duplicates"] > 0:
        return "data_conflict"
    if None not in (row["own_drop"], row["own_stage_prob"]):
        if row["own_drop"] > 0.05 * row["own_stage_prob"]:
            return "left_side_forgetting"
    if row["segment"] == "first_10" and None not in (row["drop_from_best"], row["best_prob"]):
        if row["drop_from_best"] > 0.05 * row["best_prob"]:
            return "left_side_forgetting"
    return "insufficient_training"


def second(row):
    p, q = row["base_gold_prob"], 0.0
    if p is None and row["base_prob"] is not None:
        p = row["base_prob"] ** 3  # two tokens and the end token
    elif p is not None and (row["base_gold_rank"] or 0) > 1:
        q = row["base_wrong_confidence"] or 0.0
    if p is not None and p < 0.2 and (1 - q) ** 5 - max(0, 1 - q - p) ** 5 < 0.1:
        return "missing_knowledge"
    wrong = row["base_wrong_confidence"]
    if wrong is None:
        wrong = row["base_greedy_confidence"]
    if (wrong or 0) > 0.5:
        return "base_conflict"
    if row["near_duplicates"] > 0 and (row["twin_disagreement"] or 0) > 0:
        return "data_conflict"
    if row["learned_own_stage"]:
        return "left_side_forgetting"
    if (row["loss_fall_last"] or 0) > 0.01:
        return "insufficient_training"
    return "unattributed"


@given(st.lists(st.tuples(ROW, st.booleans()), min_size=1, max_size=8))
def test_against_the_text_read_literally(signals_of, thresholds, rows):
    signals = signals_of(*(row for row, _ in rows))
    found = signals.select("example_id", "point").with_columns(
        pl.lit("choice").alias("detector"), pl.Series("unlearned", [lost for _, lost in rows])
    )
    trained = trained_by_then(signals)
    for method, literal in (("paper", as_written), ("paper_second", second)):
        told = paper.combine(found, signals, trained, thresholds, method).to_dicts()
        for (row, lost), out in zip(rows, told, strict=True):
            assert out["cause"] == (literal(row) if lost else None)
            assert out["method"] == method
            assert (out["evidence"] is not None) is lost


def test_the_law_of_the_best_of_five_against_draws(signals_of, thresholds):
    import random

    draw = random.Random(0)
    for p, wrong, rank in ((0.15, 0.3, 2.0), (0.1, 0.2, 2.0), (0.19, 0.1, 1.0)):
        hit, _ = paper.second_tests(thresholds)["missing_knowledge"]
        # Three answers: a wrong one that leads (where rank is 2), the right one, the rest.
        n, right = 20000, 0
        leading = wrong if rank > 1 else 0.0
        for _ in range(n):
            drawn = [draw.random() for _ in range(5)]
            right += min(drawn) < leading + p and not min(drawn) < leading
        row = {"base_gold_prob": p, "base_wrong_confidence": wrong, "base_gold_rank": rank}
        law = (1 - leading) ** 5 - (1 - leading - p) ** 5
        assert abs(right / n - law) < 0.02
        assert signals_of(row).select(hit.alias("hit"))["hit"][0] is (law < 0.1)
