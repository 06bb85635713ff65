"""What became of unlearned rows under remedies: read, compared, told; no JAX.

load -> matrix (cause by remedy), arms (whole trainings) -> compare -> words, tables
"""

from ilp_jax.analysis.remedies import tables, words
from ilp_jax.analysis.remedies.compare import compare
from ilp_jax.analysis.remedies.load import Tried, load

KEY = "remedies"
"""Of ``summary.json``."""

__all__ = ["KEY", "Tried", "compare", "load", "tables", "words"]
