"""The sentences of a report: what was found, by which definitions, with which caution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ilp_jax.analysis import no_verdict
from ilp_jax.analysis.report.charts import DETECTORS


def percent(share: float) -> str:
    """A share as a whole percentage; not 0% or 100% where it is not quite."""
    if 0 < share < 0.005:
        return "<1%"
    if 0.995 <= share < 1:
        return ">99%"
    return f"{100 * share:.0f}%"


def with_interval(figures: Mapping[str, Any]) -> str:
    """`48%, 95% interval 40% to 57%` of a share's figures."""
    low, high = figures["interval"]
    return f"{percent(figures['share'])}, 95% interval {percent(low)} to {percent(high)}"


def headline(verdict: Mapping[str, Any], unknown: str = "") -> str:
    """The verdict in one sentence, and a second one where it is not of all trained rows.

    Args:
      verdict: of ``figures.figures``.
      unknown: of ``no_verdict.sentence``.
    """
    found = verdict["default"]
    if found is None:
        return unknown or "Whether any trained row stayed unlearned is not known by default."
    by = [DETECTORS.get(name, name) for name in verdict["decided_by"]]
    how = by[0] if len(by) == 1 else f"{', '.join(by[:-1])} or {by[-1]}, whichever applies"
    rows = "is" if found["unlearned"] == 1 else "are"
    told = (
        f"{found['unlearned']} of {found['n']} trained rows ({with_interval(found)}) {rows} "
        f"unlearned {no_verdict.when(verdict['point'])}, by {how}."
    )
    return f"{told} {unknown}".strip()


def fates_sentence(fates: Mapping[str, int]) -> str:
    """What became of the unlearned rows, empty where nothing is known."""
    if not fates.get("lost") and not fates.get("never"):
        return ""
    lost, never = fates.get("lost", 0), fates.get("never", 0)
    return (
        f"{lost} of them had been learned at the end of their own stage and {_were(lost)} lost "
        f"since; {never} {_were(never)} not learned there either."
    )


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def definitions(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How each detector decides, with the thresholds of the run.

    Args:
      config: the resolved config.

    Returns:
      Name and definition of each detector.
    """
    detect = config["detect"]
    n, temperature = detect["n_samples"], detect["temperature"]
    longest = detect["exact_match_max_tokens"]
    told = {
        "exact_match": "unlearned unless every target token and the end token is the likeliest "
        f"given the target so far, as greedy generation needs. For responses of up to {longest} "
        "tokens (of longer ones it would measure length; the limit is this project's).",
        "exact_law": f"unlearned if none of {n} answers sampled at temperature {temperature} would "
        f"be the response with probability (1 - p)^{n} of at least 0.5 (this project's limit); "
        "p is exact, nothing is drawn.",
        "sampled": f"unlearned if less than {detect['pass_threshold']} of {n} answers drawn at "
        f"temperature {temperature} are the response (the study's threshold, its answers being "
        "options).",
        "choice": "unlearned unless the response is the likeliest of its options, by "
        "log-likelihood a token. Being right by choice does not need the answer to be known.",
    }
    if "rouge_l_threshold" in detect:
        told["rouge_l"] = (
            "of summaries: unlearned if ROUGE-L (F1) of the generated answer against the "
            f"response is below {detect['rouge_l_threshold']}."
        )
    return [(DETECTORS[name], text) for name, text in told.items()]


def point_words(config: Mapping[str, Any], points: Sequence[str]) -> str:
    """What the points of a run mean, and by which thresholds a stage counts as converged.

    Args:
      config: the resolved config.
      points: those with verdicts.
    """
    how = config["convergence"]
    tuned = config["model"].get("tuned")
    told = {
        "base": "base: the base model." if tuned else "base: before training.",
        "epoch": "epoch_K: the end of epoch K of each row's own stage.",
        "stage": "stage_K: the end of stage K, all rows.",
        "converged": "converged: where each row's own stage converged, that is "
        f"{how['consecutive_epochs']} epochs running in which the mean probe loss fell by less "
        f"than {how['relative_fall']:.0%} of its value at the stage's start, at a learning rate "
        f"of at least {how['min_learning_rate_fraction']:.0%} of its peak (this project's "
        "definition); rows of other stages are not in it.",
        "final": "final: the model that was tuned elsewhere." if tuned
        else "final: after the last update.",
    }  # fmt: skip
    kinds = {point.split("_")[0] for point in points}
    return " ".join(text for kind, text in told.items() if kind in kinds) or "No point was asked."
