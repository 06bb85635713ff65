"""Limits and choices that several groups of fields share."""

from __future__ import annotations

TINY = 1e-30
"""Least value of a number above 0."""
BELOW_ONE = 1 - 1e-9
"""Greatest value of a number below 1."""
MOST_VISITS = 10_000
"""Epochs of a stage, and copies of a row in one: visits of a row are counted in int32."""
POINTS = ("base", r"epoch_[1-9]\d*", "stage", r"stage_[1-9]\d*", "converged", "final")
"""Patterns of the points at which examples are asked about."""
