"""What the terminal shows of the detectors: figures, and what they rest on."""

import numpy as np
import pytest
from rich.console import Console

from ilp_jax.analysis import detection_table
from ilp_jax.analysis.figures import share_of
from ilp_jax.analysis.overlap import overlap
from ilp_jax.analysis.table import render

EXACT, CHOICE = np.arange(40) < 19, np.arange(40) < 3
RUNS = {
    "options": None,
    "prompt": "listed",
    "n": 40,
    "n_runs": 5,
    "unlearned": share_of(6, 40),
    "guesser": 0.75**5,
    "chance_corrected": {"n": 40, "mean": 0.61, "interval": [0.5, 0.72]},
}
FINAL = {
    "point": "final",
    "choice": {
        "by_options": [
            {"options": "base_answers"} | share_of(4, 10),
            {"options": "given"} | share_of(27, 30),
        ]
    },
    "choice_runs": [RUNS],
    "none_of_n": {"drawn": share_of(17, 40), "expected": 0.44, "expected_at_1": 0.47},
    "greedy_text": {"normalised": share_of(25, 40), "exact": share_of(21, 40)},
    "rouge_l": {"n": 12, "mean": 0.523, "interval": [0.41, 0.63]},
    "long": {"n": 14, "token_accuracy": {"n": 14, "mean": 0.93, "interval": [0.9, 0.96]}},
    "side_by_side": [
        {
            "n": 40,
            "shares": [
                {"detector": "exact_match"} | share_of(19, 40),
                {"detector": "choice"} | share_of(3, 40),
            ],
            "agreement": [{"detectors": ["exact_match", "choice"]} | overlap(EXACT, CHOICE, 0)],
        },
        {"n": 5, "shares": [{"detector": "rouge_l"} | share_of(1, 5)], "agreement": []},
    ],
}
SETTINGS = {
    "normalise": False,
    "pass_threshold": 0.2,
    "n_samples": 5,
    "rouge_l_threshold": 0.4,
    "exact_match_max_tokens": 16,
}


def summary_of(final=FINAL, **settings):
    points = [{"point": "base", "choice_runs": None}, final]
    return {"detection": {"settings": SETTINGS | settings, "points": points}}


def printed(renderable, width=90):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))
    console.print(renderable, highlight=False)
    return console.export_text()


def test_detectors_stand_side_by_side():
    [table] = detection_table.side_by_side(summary_of())
    text = printed(table)
    # Rows 0-2 are unlearned by both, 3-18 by exact match alone: 3 / 19.
    for figure in ("exact match", "choice", ".47", ".07", ".16", "40"):
        assert figure in text
    # A group with one detector has nothing to compare.
    assert "ROUGE-L" not in text and "…" not in text


def test_notes_hold_the_figures():
    text = "\n".join(detection_table.notes(summary_of()))
    for part in (
        "5 runs an example, options listed and permuted): .15 (.07-.29) of 40 unlearned",
        "a uniform guesser would have .24",
        "Right beyond chance: .61 (.50-.72)",
        "Right by choice at the end: .40 (.17-.69) of 10 with options made by us (base_answers), "
        ".90 (.74-.97) of 30 with options given.",
        ".42 (.29-.58) of 40 rows have a share of right answers below 0.2 of 5",
        "expects 0.44, and 0.47 at temperature 1",
        "25 of 40 have the response's text but for case, punctuation, articles and white space, 21",
        "ROUGE-L of 12 summaries: mean .52 (.41-.63); unlearned below 0.4, a threshold of ours",
        "14 responses have more than 16 tokens",
        "0.93 of their tokens are right",
    ):
        assert part in text, part


def test_negative_figures_read_as_such():
    score = {"n": 40, "mean": -0.001, "interval": [-0.2, -0.1]}
    final = FINAL | {"choice_runs": [RUNS | {"chance_corrected": score}]}
    text = "\n".join(detection_table.notes(summary_of(final)))
    assert "Right beyond chance: .00 (-.20 to -.10)." in text


@pytest.mark.parametrize("flag", [True, False])
def test_normalisation_is_told_where_it_was_used(flag):
    text = "\n".join(detection_table.notes(summary_of(normalise=flag)))
    assert ("the exact laws count tokens" in text) is flag


def test_nothing_asked_nothing_told():
    empty = dict.fromkeys(FINAL) | {"point": "final", "side_by_side": []}
    assert detection_table.notes(summary_of(empty)) == []
    assert detection_table.side_by_side(summary_of(empty)) == []
    for summary in ({}, {"detection": {"settings": SETTINGS, "points": []}}):
        assert detection_table.notes(summary) == []
        assert detection_table.side_by_side(summary) == []


def test_the_run_ends_with_them():
    cells = [
        {"point": point, "detector": detector, "stage": None, "source": None}
        | {"n": 40, "unlearned": 4, "share": 0.1, "interval": [0.04, 0.23]}
        for point, detector in (
            ("base", "exact_match"),
            ("final", "exact_match"),
            ("final", "sampled"),
            ("final", "choice"),
        )
    ]
    lost = {"stage": 1, "source": None, "n": 40, "learned": 39, "lost": 17, "gained": 3}
    whole = summary_of() | {
        "shares": cells,
        "learned_and_lost": [
            lost | {"detector": name, "learned_final": 25} for name in ("exact_match", "choice")
        ],
        "expected_none_of_n": {"temperature": 0.7, "n_samples": 5, "share": {}},
        "converged": {},
        "n_examples": {"trained": 40, "held_out": 0, "planted_twins": 0},
        "loss_normalization": "example",
        "seed": 0,
    }
    text = " ".join(printed(render(whole)).split())  # A narrow table wraps its title.
    assert "Share unlearned by the answers drawn" in text
    assert "Detectors side by side" in text and "a uniform guesser" in text
    # Detectors that are not asked at a stage's end have no part in what was lost.
    assert text.count("of these lost by the end") == 1 and "…" not in text
