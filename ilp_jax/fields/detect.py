"""The fields of the group ``detect``: how it is told which examples are unlearned."""

from __future__ import annotations

import math

from ml_collections import ConfigDict

from ilp_jax.fields.limits import POINTS, TINY


def detect_fields() -> ConfigDict:
    """The group's fields with their defaults.

    Returns:
      A ConfigDict, not locked.
    """
    detect = ConfigDict(sort_keys=False)
    # Divides the logits when answers are sampled, and in the exact law of pass@N.
    detect.temperature = 0.7
    # N: sampled answers an example.
    detect.n_samples = 5
    # Text pass@N (share of N answers equal to the target) below this = unlearned.
    detect.pass_threshold = 0.2
    # Longest response in tokens for which exact match is the default detector.
    detect.exact_match_max_tokens = 16
    # Points in training at which to detect: 'base', 'epoch_K' (of the example's own
    # stage), 'stage' (the end of each) or 'stage_K', 'converged', 'final'.
    detect.points = ("base", "epoch_2", "stage", "converged", "final")
    # Those of the points at which n_samples answers an example are really drawn, and greedy
    # ones generated; elsewhere the exact law of pass@N needs no drawing.
    detect.sampled_points = ()
    # Wordings of the question in which the base model chooses among the options: 0 = as
    # trained (always asked), 1 and 2 = others, so that what the base knows (the study's Eq. 2)
    # does not hang on one prompt.
    detect.base_prompt_variants = (0, 1, 2)
    # Runs of multiple choice, each with the options listed in an order of its own and one of
    # them drawn at the temperature (the study: 5 runs, section 3.1.3); 0 = none.
    detect.choice_runs = 0
    # What the listed options are scored by: 'listed' = their text, 'letters' = their letter
    # (small models know letters badly: look at the base's answers).
    detect.choice_prompt = "listed"
    # Those of the points with such runs.
    detect.choice_run_points = ("base", "final")
    # Answers drawn of the base model for each row whose distractors are its wrong answers.
    detect.distractor_draws = 16
    # Tokens at which a generated answer is cut; the target's length where that is longer.
    detect.max_new_tokens = 32
    # A drawn answer counts as correct when its text equals the response but for case,
    # punctuation, articles and white space; False: when its tokens equal the target's.
    detect.normalise = False
    # A summary's greedy answer with a ROUGE-L (F1) below this = unlearned. Ours: just below
    # the means that the study reports for trained summaries (Table 11: .41 to .61); it gives
    # no threshold.
    detect.rouge_l_threshold = 0.4
    # K: the candidate set is the K unlearned rows with the most consistent errors (1000 in the
    # study, section 3.1.4).
    detect.top_k = 1000
    # Further temperatures of the exact law at 'final', for the stability of the verdicts: one
    # more forward pass over all rows each.
    detect.stability_temperatures = ()
    # Numbers of drawn answers for which the stability of the verdicts is worked out (nothing
    # is drawn).
    detect.stability_n_samples = (1, 5, 10, 25)
    # Where answers are drawn: a row is not drawn, and counts as learned there, when its greedy
    # answer is right and by the exact law drawing would call it unlearned with at most this
    # probability. 0 = every row is drawn. Ours: of a thousand rows left out at most one is
    # expected to be called otherwise (N = 5: those with p of at least 0.75).
    detect.screen_probability = 0.001
    # Examples in one detection batch, over all devices (made a multiple of their number).
    detect.batch_size = 8
    # Examples after which their answers are on disk, so that a killed detection goes on there.
    detect.rows_per_part = 2048
    # Row lengths in tokens that prompt and all options together are padded to; () = a
    # built-in ladder.
    detect.length_buckets = ()
    return detect


ALLOWED = {
    "detect.points": POINTS,
    "detect.sampled_points": POINTS,
    "detect.base_prompt_variants": ("0", "1", "2"),
    "detect.choice_prompt": ("listed", "letters"),
    "detect.choice_run_points": POINTS,
}
RANGE = {
    "detect.temperature": (TINY, math.inf),
    "detect.n_samples": (1, math.inf),
    "detect.pass_threshold": (TINY, 1),
    "detect.distractor_draws": (1, math.inf),
    "detect.max_new_tokens": (1, math.inf),
    "detect.rouge_l_threshold": (TINY, 1),
    "detect.top_k": (1, math.inf),
    "detect.screen_probability": (0, 1),
    "detect.batch_size": (1, math.inf),
    "detect.rows_per_part": (1, math.inf),
}
