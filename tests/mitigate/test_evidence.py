"""What remedies read of a run, and verdicts that a person writes."""

import polars as pl
import pytest

from ilp_jax.errors import UserError
from ilp_jax.mitigate.evidence import diagnosed, read_verdicts

DIAGNOSIS = pl.DataFrame(
    [
        (1, "final", "exact_match", "rules", True, "base_conflict"),
        (1, "final", "choice", "rules", False, None),
        (2, "final", "exact_match", "rules", None, None),
        (2, "final", "choice", "rules", True, None),
        (3, "final", "exact_match", "rules", False, None),
        (3, "final", "choice", "rules", True, "data_conflict"),
        (3, "stage_1", "exact_match", "rules", True, "data_conflict"),
        (4, "final", "exact_law", "model", True, "data_conflict"),
    ],
    schema=["example_id", "point", "detector", "method", "unlearned", "cause"],
    orient="row",
)


def test_verdicts_of_the_default_are_those_of_the_first_that_applies():
    assert diagnosed(DIAGNOSIS, "default", "rules").rows() == [
        (1, "base_conflict"),
        (2, "unattributed"),
    ]
    assert diagnosed(DIAGNOSIS, "choice", "rules").rows() == [
        (2, "unattributed"),
        (3, "data_conflict"),
    ]


@pytest.mark.parametrize(
    "detector, method, what",
    [("default", "paper", "has: model, rules"), ("sampled", "rules", "has: choice, exact_match$")],
)
def test_verdicts_that_are_not_there_are_named(detector, method, what):
    with pytest.raises(UserError, match=what):
        diagnosed(DIAGNOSIS, detector, method)


def test_a_file_of_verdicts(tmp_path):
    path = tmp_path / "verdicts.jsonl"
    path.write_text('{"example_id": 5, "wrong": true}\n\n{"example_id": 6, "wrong": false}\n')
    assert read_verdicts(str(path), {5: 0, 6: 1}) == {0: True, 1: False}


@pytest.mark.parametrize(
    "line, what",
    [
        ("nonsense", "is no verdict"),
        ('{"wrong": true}', "is no verdict"),
        ('{"example_id": 5, "wrong": "yes"}', "neither true nor false"),
        ('{"example_id": 9, "wrong": true}', "names example 9"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, what):
    path = tmp_path / "verdicts.jsonl"
    path.write_text('{"example_id": 5, "wrong": true}\n' + line + "\n")
    with pytest.raises(UserError, match=f"verdicts.jsonl:2: .*{what}"):
        read_verdicts(str(path), {5: 0})
    with pytest.raises(UserError, match="no such file"):
        read_verdicts(str(tmp_path / "absent"), {})
