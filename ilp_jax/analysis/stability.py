"""Would the same examples be called unlearned again? Over draws, temperatures and runs.

The study states that its unlearned set is stable over seeds and sampling runs, and gives no
number. Here each answer is Jaccard index and Cohen's kappa of two sets (``overlap``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from etils import epath

from ilp_jax import files, run_record
from ilp_jax.analysis.figures import below, chance_below, exact_mean, share_of
from ilp_jax.analysis.overlap import jaccard, kappa, overlap, spread
from ilp_jax.analysis.unlearned import by_default, none_of
from ilp_jax.errors import UserError
from ilp_jax.fields import leaves
from ilp_jax.stats.reader import read_diagnosis

REPETITIONS = 200
"""Pairs of sets that are drawn for each figure of one run."""


def within(answers: pl.DataFrame, detect: dict[str, Any], seed: int) -> dict[str, Any]:
    """Stability over draws and temperatures, within one run at one point.

    Args:
      answers: answers of trained examples at one point.
      detect: the config's ``detect`` section.
      seed: of the repetitions.

    Returns:
      * ``law``: for each temperature of the exact law and each number of answers N
        (``stability_n_samples``): two sets of N independent answers an example. The answers'
        probabilities are known, so none is generated; ``share`` is the expected share
        unlearned.
      * ``halves``: the answers really drawn (``sampled``) and the permuted runs
        (``choice_runs``), split at random into two sets of N // 2.
      * ``temperatures``: the verdicts of ``exact_law`` at two temperatures.

      ``law`` and ``halves`` hold ``jaccard`` and ``kappa`` as the mean over repetitions with
      the range of 95% of them; ``temperatures`` with a bootstrap interval over examples.
    """
    rng = np.random.default_rng(seed)
    answers = answers.sort("example_id", "prompt_variant", "temperature", "run")
    laws = answers.filter(pl.col("mode") == "sample", pl.col("seed").is_null())
    temperatures = sorted(laws["temperature"].unique())
    of = {t: laws.filter(pl.col("temperature") == t) for t in temperatures}
    law = [
        {"temperature": t, "n_samples": n, **_repeated(of[t], detect["pass_threshold"], n, rng)}
        for t in temperatures
        for n in detect["stability_n_samples"]
    ]
    drawn = answers.filter(pl.col("seed").is_not_null())
    halves = [
        {"detector": name} | found
        for name, mode in (("sampled", "sample"), ("choice_runs", "choice"))
        if (found := _halves(drawn.filter(pl.col("mode") == mode), detect["pass_threshold"], rng))
    ]
    verdict = none_of(pl.col("gold_logprob"), detect["n_samples"]) >= 0.5
    sets = {t: rows.select(verdict).to_series().to_numpy() for t, rows in of.items()}
    pairs = [(a, b) for i, a in enumerate(temperatures) for b in temperatures[i + 1 :]]
    return {
        "repetitions": REPETITIONS,
        "law": law,
        "halves": halves,
        "temperatures": [
            {"temperatures": [a, b]} | overlap(sets[a], sets[b], seed) for a, b in pairs
        ],
    }


def across(runs: Sequence[epath.PathLike], point: str = "final") -> dict[str, Any]:
    """Stability over finished runs, such as of several seeds.

    Args:
      runs: folders of finished runs.
      point: the point at which verdicts are compared.

    Returns:
      ``runs``, ``seeds``, ``differ`` (fields of the configs that are not the same in all: the
      seed alone, if this is to tell about seeds), ``point`` and ``detectors``: for each one
      ``n`` (examples with a verdict in every run) and ``n_any`` (in at least one), each run's
      share over the ``n`` (``shares``), ``unlearned_in`` (how many examples are unlearned in
      0, 1, ... of the runs), ``in_all`` (share with interval, and ``by_chance``, the product
      of the runs' shares), and for every pair of runs (places in ``runs``) their overlap
      (``pairs``).

    Raises:
      UserError: fewer than two different folders, or one that is not a finished run's.
    """
    folders = [files.as_path(run) for run in runs]
    if len(set(map(str, folders))) < max(len(folders), 2):
        what = "stability over runs needs two different folders or more"
        raise UserError(", ".join(map(str, folders)) or "runs", what, "give each run once")
    configs = [run_record.read(folder)["config"] for folder in folders]
    verdicts = [_verdicts(folder, point) for folder in folders]
    # Detectors in the order of the first run's.
    names = [name for name in verdicts[0] if all(name in one for one in verdicts)]
    seed = int(configs[0]["seed"])
    return {
        "runs": [str(folder) for folder in folders],
        "seeds": [config["seed"] for config in configs],
        "differ": _differ(configs),
        "point": point,
        "detectors": [
            {"detector": name} | _among([one[name] for one in verdicts], seed) for name in names
        ],
    }


def _repeated(
    law: pl.DataFrame, threshold: float, n_samples: int, rng: np.random.Generator
) -> dict[str, Any]:
    p = np.exp(np.minimum(law["gold_logprob"].to_numpy(), 0.0))
    unlearned = chance_below(p, threshold, n_samples)
    sets = (
        (rng.random(len(p)) < unlearned, rng.random(len(p)) < unlearned) for _ in range(REPETITIONS)
    )
    return {"n": len(p), "share": exact_mean(unlearned)} | _typical(sets)


def _halves(
    drawn: pl.DataFrame, threshold: float, rng: np.random.Generator
) -> dict[str, Any] | None:
    key = ["example_id", "prompt_variant"]
    counts = drawn.group_by(key).agg(
        pl.col("correct").sum().cast(pl.Int64).alias("right"), pl.len().alias("n")
    )
    # Of several prompts, the first; as the detector does.
    counts = counts.sort(key).unique("example_id", keep="first", maintain_order=True)
    if counts.is_empty() or (n := int(counts["n"].min())) < 2:
        return None
    counts = counts.filter(pl.col("n") == n)
    right, half = counts["right"].to_numpy(), n // 2
    flagged = below(threshold, half)
    shares = []

    def sets():
        for _ in range(REPETITIONS):
            # Which answers fall into a half is drawn without replacement.
            first = rng.hypergeometric(right, n - right, half)
            rest = right - first
            second = rng.hypergeometric(rest, n - half - rest, half)
            shares.append(flagged[first].mean())
            yield flagged[first], flagged[second]

    found = _typical(sets())
    return {"n": len(counts), "n_runs": half, "share": exact_mean(shares)} | found


def _typical(sets) -> dict[str, Any]:
    """Mean and range of Jaccard index and kappa over repeated pairs of sets."""
    tables = np.array(
        [[(a & b).sum(), (a & ~b).sum(), (~a & b).sum(), (~a & ~b).sum()] for a, b in sets]
    )
    found = {"jaccard": jaccard(tables), "kappa": kappa(tables)}
    return {
        name: spread(np.nan if np.isnan(values).all() else np.nanmean(values), values)
        for name, values in found.items()
    }


def _verdicts(folder: epath.Path, point: str) -> dict[str, pl.DataFrame]:
    """By detector: ``example_id`` and ``unlearned`` where it applies."""
    found = read_diagnosis(folder).filter(pl.col("point") == point)
    found = found.select("example_id", "point", "detector", "unlearned")
    found = found.unique(("example_id", "detector"), keep="first", maintain_order=True)
    found = pl.concat([by_default(found), found]).drop_nulls("unlearned")
    return {
        name: found.filter(pl.col("detector") == name).select("example_id", "unlearned")
        for name in found["detector"].unique(maintain_order=True)
    }


def _among(verdicts: Sequence[pl.DataFrame], seed: int) -> dict[str, Any]:
    joined = verdicts[0].rename({"unlearned": "0"})
    for place, one in enumerate(verdicts[1:], 1):
        joined = joined.join(one.rename({"unlearned": str(place)}), on="example_id")
    joined = joined.sort("example_id")
    sets = [joined[str(place)].to_numpy() for place in range(len(verdicts))]
    n, n_runs = len(joined), len(verdicts)
    n_any = pl.concat(verdicts)["example_id"].n_unique()
    if not n:
        return {"n": 0, "n_any": n_any, "shares": [], "unlearned_in": [], "pairs": []}
    times = np.sum(sets, axis=0)
    pairs = [(i, j) for i in range(n_runs) for j in range(i + 1, n_runs)]
    by_chance = float(np.prod([one.mean() for one in sets]))
    return {
        "n": n,
        "n_any": n_any,
        "shares": [share_of(one.sum(), n) for one in sets],
        "unlearned_in": np.bincount(times, minlength=n_runs + 1).tolist(),
        "in_all": share_of((times == n_runs).sum(), n) | {"by_chance": by_chance},
        "pairs": [{"runs": [i, j]} | overlap(sets[i], sets[j], seed) for i, j in pairs],
    }


def _differ(configs: Sequence[dict[str, Any]]) -> list[str]:
    flat = [dict(leaves(config)) for config in configs]
    names = dict.fromkeys(name for one in flat for name in one)
    return [name for name in names if any(one.get(name) != flat[0].get(name) for one in flat[1:])]
