"""How the unlearned were found: every detector's figures at every point, side by side.

All figures are over trained examples, with their n and a 95% interval (Wilson's for shares,
Student's for means, bootstrap for agreement), so over examples of one run, not over seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl

from ilp_jax.analysis import base_choices, choice_runs, stability
from ilp_jax.analysis.figures import chance_below, exact_mean, mean_of, share_of
from ilp_jax.analysis.overlap import overlap
from ilp_jax.analysis.shares import point_order
from ilp_jax.analysis.unlearned import (
    is_choice_as_trained,
    is_law,
    one_reply,
    rouge_scores,
    unlearned,
)
from ilp_jax.detect.normalise import normalise

ORDER = ("exact_match", "rouge_l", "exact_law", "sampled", "choice", "choice_runs")
"""Detectors as they are shown; ``choice_runs`` is the study's (``choice_runs.per_row``)."""
COLUMNS = (
    *("example_id", "step", "run", "mode", "prompt_variant", "temperature", "seed"),
    *("prediction", "confidence", "correct", "gold_logprob", "options", "option_logprob_mean"),
)
"""What of the answers is read, beside the point."""
_KEY = ("example_id", "point")


def summarise(
    inference: pl.DataFrame,
    examples: pl.DataFrame,
    plan: pl.DataFrame,
    config: dict[str, Any],
    probes: pl.DataFrame | None = None,
) -> dict[str, Any]:
    """The part ``detection`` of ``summary.json``.

    Args:
      inference: answers with a ``point`` column (``stats.reader.read_inference``).
      examples: ``examples.parquet``.
      plan: ``plan.parquet``.
      config: the resolved config as plain values.
      probes: statistics of probes (``example_id``, ``step``, ``n_correct``, ``n_tokens``), for
        the token accuracy of long responses; None leaves it out.

    Returns:
      ``settings`` (fields that the figures depend on), ``base`` (what the base model knows,
      ``base_choices.summarise``; None where it was not asked), ``stability`` (of the verdicts
      at ``final`` over draws and temperatures, ``stability.within``) and ``points``, in a
      run's order, each with ``point`` and, None where nothing was asked:

      * ``choice``: the question asked once, as trained: right answers, how many of them a
        uniform guesser has, and both by how the options came about;
      * ``choice_runs``: the study's detection, a list by prompt and origin of the options
        (``choice_runs.summarise``);
      * ``none_of_n``: expected share of 0 of N sampled answers right by the exact law, at
        ``temperature`` and at 1 (so with no temperature chosen), beside the share drawn;
      * ``greedy_text``: generated greedy answers that equal the response after ``normalise``,
        beside those that equal it token by token;
      * ``rouge_l``: mean ROUGE-L of summaries;
      * ``long``: token accuracy (teacher forcing) of responses too long for exact match;
      * ``side_by_side``: groups of rows to which the same detectors apply: each one's share,
        and for each pair Jaccard index and Cohen's kappa.
    """
    here = {point: pl.col("point") == point for point in inference["point"].unique()}
    turns = config.get("trained_turns", "all")
    of_trained = inference.join(plan, on="example_id", how="semi", maintain_order="left")
    found = unlearned(of_trained, examples, config["detect"], turns)
    return from_points(
        {point: lambda point=point: inference.filter(here[point]) for point in here},
        lambda point: found.filter(here[point]),
        examples,
        plan,
        config,
        probes,
    )


def from_points(
    answers: Mapping[str, Callable[[], pl.DataFrame]],
    verdicts: Callable[[str], pl.DataFrame],
    examples: pl.DataFrame,
    plan: pl.DataFrame,
    config: dict[str, Any],
    probes: pl.DataFrame | None = None,
) -> dict[str, Any]:
    """As `summarise`, reading one point's answers at a time.

    Args:
      answers: by point, a function that reads its answers.
      verdicts: gives a point's verdicts (``unlearned.unlearned``).
      examples: ``examples.parquet``.
      plan: ``plan.parquet``.
      config: the resolved config as plain values.
      probes: see `summarise`.
    """
    detect, trained = config["detect"], plan.select("example_id").unique()
    examples = examples.join(trained, on="example_id", how="semi").sort("example_id")
    points, base, stable = [], None, None
    for point in sorted(answers, key=point_order):
        rows = answers[point]().join(trained, on="example_id", how="semi").sort(*_KEY)
        if rows.is_empty():
            continue
        of_runs = choice_runs.per_row(rows, examples, detect["pass_threshold"])
        found = verdicts(point)
        points.append(
            {
                "point": point,
                "choice": _choice(rows, examples),
                "choice_runs": _choice_runs(of_runs, detect),
                "none_of_n": _none_of_n(rows, detect),
                "greedy_text": _greedy_text(rows, examples),
                "rouge_l": mean_of(rouge_scores(rows, examples)["rouge_l"].drop_nulls()),
                "long": _long(rows, found, probes),
                "side_by_side": side_by_side(with_runs(found, of_runs), config["seed"]),
            }
        )
        if point == base_choices.BASE:
            base = base_choices.summarise(rows, examples, config)
        if point == "final":
            stable = stability.within(rows, detect, config["seed"])
    fields = ("temperature", "n_samples", "pass_threshold", "normalise", "rouge_l_threshold")
    return {
        "settings": {name: detect[name] for name in (*fields, "exact_match_max_tokens")},
        "base": base,
        "points": points,
        "stability": stable,
    }


def with_runs(found: pl.DataFrame, runs: pl.DataFrame) -> pl.DataFrame:
    """Adds the study's multiple-choice verdicts as the detector ``choice_runs``.

    Args:
      found: rows of ``unlearned.unlearned``.
      runs: rows of ``choice_runs.per_row``; of several prompts, the first is taken.
    """
    first = runs.sort("prompt_variant").unique(_KEY, keep="first", maintain_order=True)
    more = first.select(*_KEY, pl.lit("choice_runs").alias("detector"), "unlearned")
    return pl.concat([found.select(more.columns), more])


def side_by_side(found: pl.DataFrame, seed: int) -> list[dict[str, Any]]:
    """Detectors on the same rows.

    Args:
      found: verdicts at one point.
      seed: of the bootstrap.

    Returns:
      One dict a group of rows to which the same detectors apply, the largest first: ``n``,
      ``shares`` (``detector`` and the fields of ``figures.share_of``) and ``agreement``
      (``detectors``, a pair, and the fields of ``overlap.overlap``).
    """
    rank = {name: place for place, name in enumerate(ORDER)}
    wide = found.drop_nulls("unlearned").pivot(
        on="detector", index="example_id", values="unlearned"
    )
    if wide.is_empty():
        return []
    columns = sorted(wide.columns[1:], key=lambda name: (rank.get(name, len(rank)), name))
    groups = [
        ([name for name, there in zip(columns, applies, strict=True) if there], rows)
        for applies, rows in wide.group_by(pl.col(name).is_not_null() for name in columns)
    ]
    out = []
    for names, rows in sorted(groups, key=lambda group: (-len(group[1]), group[0])):
        sets = {name: rows[name].to_numpy() for name in names}
        pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
        out.append(
            {
                "n": len(rows),
                "shares": [
                    {"detector": name} | share_of(sets[name].sum(), len(rows)) for name in names
                ],
                "agreement": [
                    {"detectors": [a, b]} | overlap(sets[a], sets[b], seed) for a, b in pairs
                ],
            }
        )
    return out


def _choice(answers: pl.DataFrame, examples: pl.DataFrame) -> dict[str, Any] | None:
    rows = (
        answers.filter(is_choice_as_trained())
        .join(examples.select("example_id", choice_runs.made_by()), on="example_id")
        .with_columns((1 / pl.col("options").list.len()).alias("chance"))
    )
    if rows.is_empty():
        return None
    scores = choice_runs.corrected(rows["correct"].to_numpy(), rows["chance"].to_numpy())
    return {
        "correct": share_of(rows["correct"].sum(), len(rows)),
        "guesser": exact_mean(rows["chance"]),
        "chance_corrected": mean_of(scores[~np.isnan(scores)]),
        "by_options": [
            {"options": name, "guesser": exact_mean(part["chance"])}
            | share_of(part["correct"].sum(), len(part))
            for (name,), part in sorted(rows.group_by("made_by"), key=lambda item: item[0])
        ],
    }


def _choice_runs(runs: pl.DataFrame, detect: dict[str, Any]) -> list[dict[str, Any]] | None:
    out = []
    for (_,), of_prompt in sorted(runs.group_by("prompt_variant"), key=lambda item: item[0]):
        of_prompt = of_prompt.sort("example_id")
        out.append({"options": None} | choice_runs.summarise(of_prompt, detect))
        origins = sorted(of_prompt["options"].unique())
        if origins != [choice_runs.GIVEN]:
            out += [
                {"options": name}
                | choice_runs.summarise(of_prompt.filter(pl.col("options") == name), detect)
                for name in origins
            ]
    return out or None


def _none_of_n(answers: pl.DataFrame, detect: dict[str, Any]) -> dict[str, Any] | None:
    """Expected share of examples with too few right answers of N, and the share drawn."""
    law = answers.filter(is_law(detect["temperature"]))
    if law.is_empty():
        return None
    as_is = answers.filter(pl.col("mode") == "greedy").join(law, on="example_id", how="semi")
    drawn = (
        answers.filter(pl.col("mode") == "sample", pl.col("seed").is_not_null())
        .group_by("example_id")
        .agg((pl.col("correct").mean() < detect["pass_threshold"]).alias("unlearned"))
    )

    def expected(rows: pl.DataFrame) -> float:
        p = np.exp(np.minimum(rows["gold_logprob"].to_numpy(), 0))
        return exact_mean(chance_below(p, detect["pass_threshold"], detect["n_samples"]))

    return {
        "n": len(law),
        "n_samples": detect["n_samples"],
        "expected": expected(law),
        "expected_at_1": expected(as_is),
        "drawn": share_of(int(drawn["unlearned"].sum()), len(drawn)),
    }


def _greedy_text(answers: pl.DataFrame, examples: pl.DataFrame) -> dict[str, Any] | None:
    """Where greedy answers were generated, how many have the response's text.

    An answer that was cut before it ended counts by what is there.
    """
    drawn = answers.filter(pl.col("mode") == "sample", pl.col("seed").is_not_null())
    rows = (
        answers.filter(pl.col("mode") == "greedy")
        .join(drawn, on="example_id", how="semi")
        .join(examples.filter(one_reply()).select("example_id", "response"), on="example_id")
    )
    if rows.is_empty():
        return None
    pairs = rows.select("prediction", "response", "correct").iter_rows()
    same = [exact or normalise(given or "") == normalise(wanted) for given, wanted, exact in pairs]
    return {
        "normalised": share_of(sum(same), len(same)),
        "exact": share_of(int(rows["correct"].sum()), len(rows)),
    }


def _long(
    answers: pl.DataFrame, found: pl.DataFrame, probes: pl.DataFrame | None
) -> dict[str, Any] | None:
    """Token accuracy of the rows to which exact match does not apply."""
    long = found.filter(pl.col("detector") == "exact_match", pl.col("unlearned").is_null())
    if long.is_empty():
        return None
    if probes is None:
        return {"n": len(long), "token_accuracy": None}
    asked = answers.filter(pl.col("mode") == "greedy").join(long, on="example_id", how="semi")
    # A probe of the same step has the same parameters.
    rows = probes.unique(("example_id", "step"), keep="last", maintain_order=True)
    rows = asked.select("example_id", "step").join(rows, on=("example_id", "step"))
    accuracy = (rows["n_correct"] / rows["n_tokens"]).sort()
    return {"n": len(long), "token_accuracy": mean_of(accuracy)}
