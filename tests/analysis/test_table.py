"""The table shows every figure of the summary, and data-set text as text."""

from rich.console import Console

from ilp_jax.analysis.table import render


def cell(point, stage, source, share, detector="exact_match"):
    return {
        "point": point,
        "detector": detector,
        "stage": stage,
        "source": source,
        "n": 40,
        "unlearned": round(40 * share),
        "share": share,
        "interval": [share / 2, (1 + share) / 2],
    }


SUMMARY = {
    "shares": [
        cell(point, stage, source, share)
        for point, share in (("base", 1.0), ("final", 0.125))
        for stage, source in ((None, None), (1, None), (1, "[bold]x[/bold]"), (1, "planted_twin"))
    ],
    "learned_and_lost": [
        {
            "detector": "exact_match",
            "stage": 1,
            "source": None,
            "n": 40,
            "learned": 39,
            "lost": 17,
            "gained": 3,
            "learned_final": 25,
        }
    ],
    "expected_none_of_n": {"temperature": 0.7, "n_samples": 5, "share": {"final": 0.31}},
    "converged": {"1": 6},
    "n_examples": {"trained": 40, "held_out": 8, "planted_twins": 4},
    "loss_normalization": "example",
    "seed": 0,
    "weights": "a model, dequantised from GGUF Q4_1",
    "stages": [{"stage": 1, "name": "first", "dropped": {"long_prompt": 5}}],
}


def test_a_point_that_some_rows_did_not_reach_says_how_many_did():
    shares = [cell("base", None, None, 1.0), cell("converged", None, None, 0.5) | {"n": 26}]
    assert "of 26" in printed(SUMMARY | {"shares": shares})


def printed(summary=SUMMARY, width=120):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))
    console.print(render(summary), highlight=False)
    return console.export_text()


def test_every_figure_is_shown():
    text = printed()
    for figure in (".12", ".06-.56", "39", "17", "25", "0.31", "at epoch 6", "5 long prompt"):
        assert figure in text
    assert "dequantised from GGUF Q4_1" in text
    assert "planted_twin" in text and "at most one can be learned" in text


def test_markup_in_a_source_name_is_text():
    assert "[bold]x[/bold]" in printed()


def test_rows_that_were_not_drawn_are_counted():
    cell = {"point": "final", "n": 37, "probability": 0.001, "expected_unlearned": 0.0042}
    text = " ".join(printed(SUMMARY | {"screened": [cell]}).split())
    assert "At final 37 rows were not drawn" in text
    assert "probability 0.001 at most, and 0.0042 of them all in expectation" in text


def test_a_model_tuned_elsewhere_has_no_figures_of_training():
    absent = {"learned_and_lost": [], "absent": ["probes"], "loss_normalization": None}
    text = printed(SUMMARY | absent | {"converged": {}, "notes": ["Nothing was trained here."]})
    assert "Nothing was trained here." in text and "40 rows given as trained" in text
    for phrase in ("Convergence", "None", "normalised", "lost", "epoch_2"):
        assert phrase not in text
