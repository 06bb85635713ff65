"""The fields of one entry of ``stages``: its rows and how they are trained."""

from __future__ import annotations

from ml_collections import ConfigDict

from ilp_jax.fields.limits import MOST_VISITS, TINY

TRAINING = (
    *("epochs", "copies", "learning_rate", "schedule", "warmup_steps"),
    *("final_learning_rate_fraction", "optimizer_state", "seed_offset"),
)
"""Fields that say how the rows are trained, not which they are."""


def default_stage() -> ConfigDict:
    """The fields of one entry of ``config.stages``, with their defaults.

    Returns:
      A locked ConfigDict.
    """
    stage = ConfigDict(sort_keys=False)
    # Where rows come from: 'jsonl', 'tfds', or the name of an installed data set.
    stage.source = "jsonl"
    # The file of a 'jsonl' source.
    stage.path = ""
    # A 'tfds' source: a TensorFlow Datasets data set that is prepared on this machine, as
    # NAME, NAME:VERSION, NAME/CONFIG or NAME/CONFIG:VERSION.
    stage.tfds_name = ""
    # Its split, or a slice of one, such as 'train[:1000]'.
    stage.tfds_split = "train"
    # Folder that it is prepared in; '' = the library's own default.
    stage.data_dir = ""
    # Its field with the prompt (fields within fields: 'a.b'), or else a text with fields in
    # braces, such as 'Question: {question}\nAnswer:'.
    stage.prompt_field = ""
    stage.prompt_template = ""
    # Its field with the response; of a list, the first is the response. A class label gives
    # its name.
    stage.response_field = ""
    # Its field with the list of options, or several fields with one option each, separated by
    # commas; a class label gives all its names; '' = no options.
    stage.options_field = ""
    # Its field with the response's place in the options, from 0, in place of response_field.
    stage.answer_index_field = ""
    # Its fields with passages that hold the answer, and with a key of its own; '' = none.
    stage.knowledge_field = ""
    stage.id_field = ""
    # Training rows taken, the first of a permutation by seed and stage name; 0 = all that
    # pass the limits below and are not held out.
    stage.n_rows = 0
    # Cut longer lists of options to this many and drop rows with fewer; 0 = as they are.
    stage.n_options = 0
    # Wrong answers that a row without options gets, so that choice applies to it; rows for
    # which fewer are found are counted and stay without; 0 = none.
    stage.n_distractors = 0
    # Where they come from: 'similar_questions' = responses of the same type to the most
    # similar prompts of all stages; 'base_answers' = wrong answers that the base model gives,
    # drawn in the phase probe; 'both' = the base's first, filled up with the others.
    stage.distractors = "similar_questions"
    # Prompts at least this similar (cosine of TF-IDF vectors of their words) may ask the same,
    # so their responses are no distractors. Ours: the study does not say how it makes them.
    stage.same_question_similarity = 0.9
    # Drop rows whose response or prompt has more tokens; 0 = no limit.
    stage.max_response_tokens = 0
    stage.max_prompt_tokens = 0
    # Further rows that are probed and detected but never trained.
    stage.held_out_rows = 0
    # Further training rows, each a trained row's prompt with another of its options as the
    # response: known data conflicts.
    stage.planted_twins = 0
    # What a response is: 'answer', or 'summary', which is judged by ROUGE-L.
    stage.task = "answer"
    # Passes over the stage's rows.
    stage.epochs = 2
    # Visits to each row within an epoch.
    stage.copies = 1
    # Peak learning rate, after warm-up.
    stage.learning_rate = 2e-5
    # Shape after warm-up: 'constant', 'linear' or 'cosine'.
    stage.schedule = "constant"
    # Optimiser steps of linear warm-up; the first has 1 / warmup_steps of the peak.
    stage.warmup_steps = 0
    # Learning rate at the stage's last step, as a fraction of its peak (not 'constant').
    stage.final_learning_rate_fraction = 0.0
    # The optimiser's moments at the stage's start: 'keep' those so far, or 'fresh'.
    stage.optimizer_state = "keep"
    # Added to seed for this stage's data order.
    stage.seed_offset = 0
    return stage.lock()


ALLOWED = {
    "stages.*.task": ("answer", "summary"),
    "stages.*.distractors": ("similar_questions", "base_answers", "both"),
    "stages.*.schedule": ("constant", "linear", "cosine"),
    "stages.*.optimizer_state": ("keep", "fresh"),
}
RANGE = {
    "stages.*.same_question_similarity": (TINY, 1),
    "stages.*.epochs": (1, MOST_VISITS),
    "stages.*.copies": (1, MOST_VISITS),
    "stages.*.final_learning_rate_fraction": (0, 1),
}
