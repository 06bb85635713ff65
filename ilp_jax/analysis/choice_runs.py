"""The study's detection by multiple choice (section 3.1): N runs with permuted options.

The study's pass@N is the share of N runs that choose the response, and an example is unlearned
where it is below a threshold; 0.2 under N = 5 is 0 of 5. With k options a uniform guesser is
flagged with probability (1 - 1/k)^5 alone (0.237 for k = 4): such a share measures guessing as
well as knowledge, so a score corrected for chance and a probability stand beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from ilp_jax.analysis.figures import chance_below, mean_of, share_of
from ilp_jax.analysis.unlearned import mark

GIVEN = "given"
"""Options that the data set brought along."""
PROMPTS = {3: "listed", 4: "letters"}
"""How a prompt variant asks: options listed, their texts scored; or their letters."""


def per_row(inference: pl.DataFrame, examples: pl.DataFrame, threshold: float) -> pl.DataFrame:
    """What the permuted runs say of each example.

    Args:
      inference: answers with a ``point`` column; rows of mode ``choice`` with a seed count.
      examples: ``examples.parquet``.
      threshold: ``detect.pass_threshold``.

    Returns:
      One row an example, point and prompt variant, sorted: ``n_runs``, ``n_correct``,
      ``n_options``, ``options`` (``given``, or how they were made), ``temperature``,
      ``pass_at_n`` (share of runs that chose the response), ``unlearned`` (below the
      threshold), ``best_of_n`` (whether the run with the highest confidence, the first of
      equals, is right), ``same_wrong`` (share of runs that chose the commonest wrong option),
      ``gold_probability`` (the response's softmax probability at temperature 1, mean over
      runs) and ``chance_unlearned`` (probability of that verdict over all draws, given each
      run's option probabilities: nothing drawn counts).
    """
    key = ["example_id", "point", "prompt_variant"]
    runs = (
        inference.filter(pl.col("mode") == "choice", pl.col("seed").is_not_null())
        .join(examples.select("example_id", "answer_index", made_by()), on="example_id")
        .sort(*key, "run")
    )
    at_one = probability(runs["option_logprob_mean"], runs["answer_index"], np.ones(len(runs)))
    drawn = probability(
        runs["option_logprob_mean"], runs["answer_index"], runs["temperature"].to_numpy()
    )
    runs = runs.with_columns(pl.Series("p_one", at_one), pl.Series("p_drawn", drawn))
    wrong = pl.col("prediction").filter(~pl.col("correct"))
    rows = runs.group_by(key, maintain_order=True).agg(
        pl.len().cast(pl.Int64).alias("n_runs"),
        pl.col("correct").sum().cast(pl.Int64).alias("n_correct"),
        pl.col("options").first().list.len().cast(pl.Int64).alias("n_options"),
        pl.col("made_by").first().alias("options"),
        pl.col("temperature").first(),
        pl.col("correct").mean().alias("pass_at_n"),
        pl.col("correct").get(pl.col("confidence").arg_max()).alias("best_of_n"),
        (wrong.unique_counts().max().fill_null(0) / pl.len()).alias("same_wrong"),
        pl.col("p_one").mean().alias("gold_probability"),
        pl.col("p_drawn"),
    )
    chance = _chance_unlearned(rows["p_drawn"], rows["n_runs"].to_numpy(), threshold)
    return rows.drop("p_drawn").with_columns(
        (pl.col("pass_at_n") < threshold).alias("unlearned"),
        pl.Series("chance_unlearned", chance, pl.Float64),
    )


def candidates(rows: pl.DataFrame, top_k: int) -> pl.DataFrame:
    """The candidate set: the top K unlearned rows by error consistency (section 3.1.4).

    The study does not define error consistency. Here: the fewest right runs first; among
    equals the largest share of runs on one and the same wrong option; then the lowest mean
    probability of the response; then the smallest ``example_id``.

    Args:
      rows: of ``per_row``, at one point and prompt variant.
      top_k: ``detect.top_k``.
    """
    order = ("pass_at_n", "same_wrong", "gold_probability", "example_id")
    worst = rows.filter("unlearned").sort(order, descending=[False, True, False, False])
    return worst.head(top_k)


def summarise(rows: pl.DataFrame, detect: Mapping[str, Any]) -> dict[str, Any] | None:
    """Figures of one point and prompt variant.

    Args:
      rows: of ``per_row``.
      detect: the config's ``detect`` section.

    Returns:
      ``n``, ``n_runs``, ``temperature``; ``unlearned`` (share with interval), ``exact``
      (its expectation over all draws) and ``guesser`` (the share of a uniform guesser);
      ``pass_at_n``, ``best_of_n``; ``chance_corrected`` and ``gold_probability``; and the
      ``candidates``: how many, and the lowest consistency among them. None without rows.
    """
    if rows.is_empty():
        return None
    chosen = candidates(rows, detect["top_k"])
    scores = corrected(rows["pass_at_n"].to_numpy(), 1 / rows["n_options"].to_numpy())
    return {
        "n": len(rows),
        "prompt": PROMPTS.get(rows["prompt_variant"][0], str(rows["prompt_variant"][0])),
        "n_runs": int(rows["n_runs"].max()),
        "temperature": rows["temperature"][0],
        "unlearned": share_of(rows["unlearned"].sum(), len(rows)),
        "exact": float(rows["chance_unlearned"].mean()),
        "guesser": guesser(rows["n_options"], rows["n_runs"], detect["pass_threshold"]),
        "pass_at_n": mean_of(rows["pass_at_n"]),
        "best_of_n": share_of(rows["best_of_n"].sum(), len(rows)),
        "chance_corrected": mean_of(scores[~np.isnan(scores)]),
        "gold_probability": mean_of(rows["gold_probability"]),
        "candidates": {
            "k": int(detect["top_k"]),
            "n": len(chosen),
            "least_same_wrong": chosen["same_wrong"][-1] if len(chosen) else None,
        },
    }


def corrected(accuracy: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Accuracy on a scale where a uniform guesser has 0: (acc - 1/k) / (1 - 1/k).

    Args:
      accuracy: float [n], a row's share of right answers.
      chance: float [n], 1/k for its k options; nan in the result where k is 1.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(chance < 1, (accuracy - chance) / (1 - chance), np.nan)


def guesser(n_options: pl.Series, n_runs: pl.Series, threshold: float) -> float:
    """Share flagged of a guesser who chooses among the options uniformly in every run."""
    pairs = pl.DataFrame({"k": n_options, "n": n_runs}).group_by("k", "n").len().sort("k", "n")
    total = sum(
        count * float(chance_below(np.array([1 / k]), threshold, n)[0])
        for k, n, count in pairs.iter_rows()
    )
    return total / len(n_options)


def made_by() -> pl.Expr:
    """How the options of ``examples.parquet`` came about: ``given``, or how they were made."""
    return mark("distractors").fill_null(GIVEN).alias("made_by")


def probability(logprobs: pl.Series, index: pl.Series, temperature: np.ndarray) -> np.ndarray:
    """Softmax probability of one option.

    Args:
      logprobs: lists of mean log-likelihoods a token, one an option.
      index: place of the option in its list.
      temperature: float [n], divides them; 0 chooses the likeliest (the first of equals).

    Returns:
      float64 [n].
    """
    scores, place = padded(logprobs), index.to_numpy()[:, None]
    heat = np.asarray(temperature, np.float64)[:, None]
    best = scores.max(axis=1, keepdims=True)
    shares = np.exp((scores - best) / np.where(heat == 0, 1.0, heat))
    shares /= shares.sum(axis=1, keepdims=True)
    likeliest = scores.argmax(axis=1)[:, None] == place
    return np.where(heat == 0, likeliest, np.take_along_axis(shares, place, axis=1))[:, 0]


def padded(lists: pl.Series) -> np.ndarray:
    """Lists of numbers as the rows of one array, short ones filled up with -inf. float64."""
    lengths = lists.list.len().to_numpy().astype(np.int64)
    out = np.full((len(lists), max(lengths, default=1)), -np.inf)
    out[np.arange(out.shape[1]) < lengths[:, None]] = lists.explode().drop_nulls().to_numpy()
    return out


def _chance_unlearned(p: pl.Series, n_runs: np.ndarray, threshold: float) -> np.ndarray:
    """P(share of right runs < threshold), runs being right with the probabilities of a list."""
    p_ExN = np.maximum(padded(p), 0)  # A run that there is not is never right.
    # The distribution of the number of right runs (Poisson binomial), run by run.
    counts_ExM = np.zeros((len(p_ExN), p_ExN.shape[1] + 1))
    counts_ExM[:, 0] = 1
    for run in range(p_ExN.shape[1]):
        right = counts_ExM * p_ExN[:, run, None]
        counts_ExM -= right
        counts_ExM[:, 1:] += right[:, :-1]
    few_ExM = np.arange(counts_ExM.shape[1]) / n_runs[:, None] < threshold
    return (counts_ExM * few_ExM).sum(axis=1)
