"""Labels by belief, row by row."""

import polars as pl
import pytest

from ilp_jax.analysis.belief import belief_labels

# planted, then (prediction, confidence) of each paraphrase, whose response is "red"; expected.
CASES = [
    ("base_conflict", [("blue", 0.9), ("blue", 0.1)], "base_conflict"),
    ("base_conflict", [("blue", 0.9), ("blue", 0.05)], "missing_knowledge"),
    ("base_conflict", [(" red ", 0.99)], "missing_knowledge"),
    ("missing_knowledge", [("blue", 0.8)], "base_conflict"),
    ("missing_knowledge", [("blue", 0.4)], "missing_knowledge"),
    ("missing_knowledge", [("blue", 1.0), ("red", 0.9), ("blue", 0.4)], "missing_knowledge"),
    ("base_conflict", [], "base_conflict"),
    ("missing_knowledge", [(None, None)], "missing_knowledge"),
    ("data_conflict", [("blue", 0.9)], "data_conflict"),
    ("control", [("blue", 0.9)], "control"),
]


def frames():
    truth, examples, base = [], [], []
    for i, (planted, answers, _) in enumerate(CASES):
        truth.append({"example_id": 10 * i, "planted": planted})
        examples.append({"example_id": 10 * i, "role": "train", "parent_id": None})
        # What the trained wording itself is answered with must not count, nor other modes.
        said = [(10 * i, "blue", 1.0, "greedy", 0)]
        for k, (prediction, confidence) in enumerate(answers, start=1):
            examples.append({"example_id": 10 * i + k, "role": "paraphrase", "parent_id": 10 * i})
            said.append((10 * i + k, prediction, confidence, "greedy", 0))
            said += [(10 * i + k, "blue", 1.0, *other) for other in (("choice", 0), ("greedy", 1))]
        base += said
    names = ("example_id", "prediction", "confidence", "mode", "prompt_variant")
    examples = pl.DataFrame(examples).with_columns(response=pl.lit("red"))
    return pl.DataFrame(truth), examples, pl.DataFrame(base, schema=names, orient="row")


def test_belief_of_the_base_model_decides_between_two_causes():
    truth, examples, base = frames()
    labels, counts = belief_labels(truth, examples, base)
    assert labels["example_id"].to_list() == truth["example_id"].to_list()
    assert labels["belief"].to_list() == [expected for *_, expected in CASES]
    assert counts == {"asked": 7, "became_missing_knowledge": 2, "became_base_conflict": 1}


@pytest.mark.parametrize("kind", ["paraphrases", "answers"])
def test_without_paraphrases_or_answers_labels_stay(kind):
    truth, examples, base = frames()
    if kind == "paraphrases":
        examples = examples.filter(pl.col("role") == "train")
    else:
        base = base.clear()
    labels, counts = belief_labels(truth, examples, base)
    assert labels["belief"].to_list() == truth["planted"].to_list()
    assert set(counts.values()) == {0}
