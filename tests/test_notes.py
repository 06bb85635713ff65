"""Cautions that stand below the tables."""

import types

import pytest

from ilp_jax.notes import benchmark_note


@pytest.mark.parametrize(
    ("sources", "named"),
    [
        (("jeopardy", "own"), ""),
        (("jeopardy", "sciq", "mmlu"), "mmlu (test), sciq (validation)."),
        (("own",), ""),
    ],
)
def test_only_evaluation_splits_are_called_so(sources, named):
    data = types.SimpleNamespace(examples=[types.SimpleNamespace(source=s) for s in sources])
    notes = benchmark_note(data)
    assert len(notes) == bool(named)
    assert all(f"evaluation splits of benchmarks: {named}" in note for note in notes)
