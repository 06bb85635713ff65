"""What the comparison of remedies says, in sentences; no stronger than its intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ilp_jax.analysis.remedies.arms import DIAGNOSED, NONE, UNIVERSAL

PROGRESSIVE = "progressive"
"""The arm that is trained for as long as it takes."""
NAMES = {
    "missing_knowledge": "missing knowledge",
    "base_conflict": "base conflict",
    "data_conflict": "data conflict",
    "left_side_forgetting": "left-side forgetting",
    "insufficient_training": "insufficient training",
}
_ONE_WORLD = " (one world: of groups alone, so they say nothing of other data)"
_ONE_SEED = "; one seed a run, so what another training changes is in them by its rows alone"
_SEEDS = ", crossed with the seeds of each run"
WHAT = {
    "missing_knowledge": "told what they rest on, before fine-tuning",
    "base_conflict": "told their answer in other words, before fine-tuning",
    "data_conflict": "their contradicting rows deleted",
    "left_side_forgetting": "replayed in later stages",
    "insufficient_training": "visited more often in their own stages",
}
"""What each remedy does to its rows, after 'rows ...'."""


def headline(found: Mapping[str, Any]) -> str:
    """The one sentence of the report's first screen.

    Args:
      found: of `compare.compare`.
    """
    arms = {one["arm"]: one for one in found["arms"]}
    if DIAGNOSED in arms and NONE in arms:
        own, none = arms[DIAGNOSED]["recovered"], arms[NONE]["recovered"]
        over, lost = arms[DIAGNOSED]["over_none"], arms[DIAGNOSED]["lost"]
        return (
            f"Treated by diagnosed cause, {_of(own)} unlearned rows with a "
            f"{'planted' if found['planted'] else 'diagnosed'} cause came back, "
            f"{_percent(none['share'])} without treatment at the same number of updates: "
            f"{_points(over)}; {_of(lost)} learned rows were lost "
            f"({_percent(arms[NONE]['lost']['share'])} without)."
        )
    told = [one for one in found["diagonal"] if one["over_none"]["value"] is not None]
    if not told:
        return "The arms that were trained compare no remedy with none."
    best = max(told, key=lambda one: one["over_none"]["value"])
    return (
        f"Of rows told {NAMES[best['cause']]} and {WHAT[best['cause']]}, "
        f"{_percent(best['share'])} of {best['n']} came back, "
        f"{_percent(best['none']['share'])} of those left alone: {_points(best['over_none'])}."
    )


def sentences(found: Mapping[str, Any]) -> list[str]:
    """What else is to be said, cause by cause and arm by arm.

    Args:
      found: of `compare.compare`.
    """
    told = [_of_cause(one) for one in found["diagonal"]]
    arms = {one["arm"]: one for one in found["arms"]}
    both = found["against_oracle"]
    if both:
        low_high = both["interval"] and " to ".join(_percent(bound) for bound in both["interval"])
        told.append(
            f"By diagnosed causes {both['diagnosed']} rows came back, by planted ones "
            f"{both['oracle']} in the same {both['trainings']} trainings: "
            f"{_percent(both['value'])} (95% interval {low_high or 'unknown'})."
        )
    return told + [
        _against(arms[name]) for name in UNIVERSAL if name in arms and arms[name]["diagnosed_over"]
    ]


def notes(found: Mapping[str, Any]) -> list[str]:
    """What the figures rest on.

    Args:
      found: of `compare.compare`.
    """
    alike = [one for one in found["arms"] if one["arm"] != PROGRESSIVE] or found["arms"]
    steps = sorted({round(one["steps"]) for one in alike})
    tokens = sorted(round(one["tokens"] / 1000) for one in alike)
    lines = [
        f"{found['runs']} run(s), {found['worlds']} world(s) or data set(s), {found['seeds']} "
        f"randomised training(s); verdicts by {' and '.join(found['detector'])}, causes by "
        f"{' and '.join(found['method'])}. Every arm begins at the base model, with a new data "
        f"order, and makes {_range(steps)} updates over {_range(tokens)} thousand tokens"
        + "".join(
            f"; {one['arm']} went on for {one['steps']:.0f} and {one['tokens'] / 1000:.0f}"
            for one in found["arms"]
            if one not in alike
        )
        + ".",
        "A remedy does nothing where it finds nothing to act on (a prerequisite that the base "
        "model lacks, a belief against the answer, a contradicting row, a fall since its stage, "
        "rarity): part of what sets remedies apart is so by design. Rows count under the remedy "
        "that they were dealt, whether or not anything was done.",
        f"{found['set_aside']} of {found['unlearned']} unlearned rows took no part: judged wrong, "
        "or without a cause.",
        "Intervals: 95%, "
        f"{found['resamples']} resamples of worlds, then of groups of rows that contradict each "
        "other"
        + (_ONE_WORLD if found["worlds"] == 1 else "")
        + (_SEEDS if found["seeds_a_run"] > 1 else _ONE_SEED)
        + "; those of differences of shares reach at least as far as Agresti and Min's or Agresti "
        "and Caffo's over rows; sham: the same rows under the remedy's sham in the training of the "
        "same seed, p by McNemar's exact test and Holm.",
    ]
    if found["planted"]:
        lines.append(
            "Planted study: shares of arms are of rows in which a cause was planted, whatever was "
            "diagnosed; fillers, such as planted wrong copies, are left out of matrix and losses "
            "unless all rows are named."
        )
    if found["documents"]["of_rows"]:
        told = found["documents"]
        lines.append(
            f"Of {told['of_rows']} documents told to treated rows {told['with_answer']} have the "
            "recorded answer in their text."
        )
    lines.append(
        "Rows that an arm deletes on purpose do not count as lost. A sham is another training, so "
        "what is over it holds all that the other rows' treatments do; what is over the rows left "
        "alone is the row's own treatment within one training."
    )
    return lines


def _of_cause(one: Mapping[str, Any]) -> str:
    name, over, sham = NAMES[one["cause"]], one["over_none"], one["over_sham"]
    start = f"Rows told {name}, {WHAT[one['cause']]}: {_percent(one['share'])} of {one['n']} back"
    if over["value"] is not None:
        start += f", {_percent(one['none']['share'])} of those left alone"
    if sham.get("sham") is not None:
        start += f", {_percent(sham['sham'])} under the sham"
    clear = sham if sham.get("sham") is not None else over
    if clear["interval"] is None or clear["interval"][0] <= 0 <= clear["interval"][1]:
        return f"{start}. The effect can't be told from none."
    other = one["best_other"]
    more = ""
    if not one["is_maximum"]:
        better = f"{_percent(other['share'])} of {other['n']}"
        more = f" The remedy of {NAMES[other['remedy']]} did better ({better})."
    return f"{start}.{more}"


def _against(arm: Mapping[str, Any]) -> str:
    """Both counts: which rows are left out may decide who is ahead."""
    counted, everything = arm["diagnosed_over"], arm["diagnosed_over_all"]
    return (
        f"Recovered less lost, a training, diagnosed causes against the arm "
        f"{arm['arm'].replace('_', ' ')} in the same runs: {_rows(counted)} of rows that count, "
        f"{_rows(everything)} of all trained rows."
    )


def _rows(over: Mapping[str, Any]) -> str:
    unclear = ""
    if over["interval"] is None or over["interval"][0] <= 0 <= over["interval"][1]:
        unclear = ", which can't be told from none"
    return f"{over['value']:+.0f} (95% interval {_pair(over['interval'])}{unclear})"


def _of(one: Mapping[str, Any]) -> str:
    return f"{one['count']} of {one['n']} ({_percent(one['share'])})"


def _points(over: Mapping[str, Any]) -> str:
    if over["interval"] is None:
        return "no difference can be told"
    low, high = (100 * bound for bound in over["interval"])
    unclear = " -- it can't be told from none" if low <= 0 <= high else ""
    return f"{100 * over['value']:+.0f} points (95% interval {low:+.0f} to {high:+.0f}){unclear}"


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.0f}%"


def _pair(interval: Sequence[float] | None) -> str:
    return "unknown" if interval is None else f"{interval[0]:.0f} to {interval[1]:.0f}"


def _range(values: Sequence[int]) -> str:
    return str(values[0]) if values[0] == values[-1] else f"{values[0]} to {values[-1]}"
