"""The part ``detection`` of the summary in a terminal: detectors side by side, and notes."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from ilp_jax.analysis.choice_runs import GIVEN
from ilp_jax.analysis.titled import titled

NAMES = {
    "exact_match": "exact match",
    "rouge_l": "ROUGE-L",
    "exact_law": "exact law",
    "sampled": "sampled",
    "choice": "choice",
    "choice_runs": "choice, permuted runs",
}


def side_by_side(summary: dict[str, Any]) -> list[Table]:
    """A table of the detectors at ``final``, on groups of rows to which the same ones apply.

    Args:
      summary: ``summary.json``.

    Returns:
      One table, or none where there is nothing to compare.
    """
    groups = (_at(summary, "final") or {}).get("side_by_side") or []
    groups = [group for group in groups if len(group["shares"]) > 1]
    if not groups:
        return []
    table = titled("Detectors side by side at final, each group on the same rows", narrow=True)
    table.add_column("unlearned by")
    for column in ("n", "share", "agrees with", "Jaccard", "kappa"):
        table.add_column(column, justify="right", no_wrap=True)
    for group in groups:
        first, *_ = (one["detector"] for one in group["shares"])
        pairs = {tuple(pair["detectors"]): pair for pair in group["agreement"]}
        for one in group["shares"]:
            pair = pairs.get((first, one["detector"]))
            table.add_row(
                NAMES.get(one["detector"], one["detector"]),
                str(one["n"]),
                _with_interval(one["share"], one["interval"]),
                NAMES.get(first, first) if pair else "",
                *(_with_interval(**pair[key]) if pair else "" for key in ("jaccard", "kappa")),
            )
        table.add_section()
    return [table]


def notes(summary: dict[str, Any]) -> list[str]:
    """Lines on what the detectors' figures rest on.

    Args:
      summary: ``summary.json``.
    """
    detection = summary.get("detection")
    if not detection:
        return []
    settings, final = detection["settings"], _at(summary, "final") or {}
    lines = []
    for point in ("base", "final"):
        # By the options' origin they stand in the summary.
        found = (_at(summary, point) or {}).get("choice_runs") or []
        lines += [_runs(point, runs) for runs in found if runs["options"] is None]
    by_options = (final.get("choice") or {}).get("by_options", [])
    if any(one["options"] != GIVEN for one in by_options):
        parts = [
            f"{_with_interval(one['share'], one['interval'])} of {one['n']} with options "
            + ("given" if one["options"] == GIVEN else f"made by us ({one['options']})")
            for one in by_options
        ]
        lines.append(f"Right by choice at the end: {', '.join(parts)}.")
    drawn = (final.get("none_of_n") or {}).get("drawn")
    if drawn:
        lines.append(
            f"Drawn at the end: {_with_interval(drawn['share'], drawn['interval'])} of "
            f"{drawn['n']} rows have a share of right answers below "
            f"{settings['pass_threshold']:g} of {settings['n_samples']}; the exact law expects "
            f"{final['none_of_n']['expected']:.2f}, and {final['none_of_n']['expected_at_1']:.2f} "
            "at temperature 1."
        )
    if settings["normalise"] and drawn:
        lines.append(
            "Drawn answers count as right when their text is the response's but for case, "
            "punctuation, articles and white space; the exact laws count tokens."
        )
    greedy = final.get("greedy_text")
    if greedy:
        lines.append(
            f"Greedy answers generated: {greedy['normalised']['count']} of "
            f"{greedy['normalised']['n']} have the response's text but for case, "
            f"punctuation, articles and white space, {greedy['exact']['count']} its tokens."
        )
    if final.get("rouge_l"):
        mean = final["rouge_l"]
        lines.append(
            f"ROUGE-L of {mean['n']} summaries: mean "
            f"{_with_interval(mean['mean'], mean['interval'])}; unlearned below "
            f"{settings['rouge_l_threshold']:g}, a threshold of ours."
        )
    if final.get("long"):
        accuracy = final["long"]["token_accuracy"]
        lines.append(
            f"{final['long']['n']} responses have more than {settings['exact_match_max_tokens']} "
            "tokens: exact match does not apply to them"
            + (f", and {accuracy['mean']:.2f} of their tokens are right." if accuracy else ".")
        )
    return lines


def _runs(point: str, runs: dict[str, Any]) -> str:
    unlearned, score = runs["unlearned"], runs["chance_corrected"]
    return (
        f"Multiple choice as in the study at {point} ({runs['n_runs']} runs an example, options "
        f"{runs['prompt']} and permuted): "
        f"{_with_interval(unlearned['share'], unlearned['interval'])} of {runs['n']} unlearned; "
        f"a uniform guesser would have {_two_digits(runs['guesser'])}. Right beyond chance: "
        f"{_with_interval(score['mean'], score['interval'])}."
    )


def _at(summary: dict[str, Any], point: str) -> dict[str, Any] | None:
    points = summary.get("detection", {}).get("points", [])
    return next((one for one in points if one["point"] == point), None)


def _with_interval(value: float | None, interval: list[float] | None) -> str:
    if value is None:
        return "-"
    if interval is None:
        return _two_digits(value)
    low, high = map(_two_digits, interval)
    return f"{_two_digits(value)} ({low}{' to ' if '-' in low + high else '-'}{high})"


def _two_digits(value: float) -> str:
    text = f"{value:.2f}"
    text = text.replace("0.", ".", 1) if abs(value) < 1 else text
    return ".00" if text == "-.00" else text
