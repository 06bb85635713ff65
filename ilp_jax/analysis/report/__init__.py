"""``report.html``: a finished run, or several, as one file that opens offline. No JAX.

    files of a run -> load -> figures, examples (plain data) -> charts (SVG) -> render (HTML)

Charts are drawn when the report is made, so the page needs no library in the browser.
"""

from ilp_jax.analysis.report.phase import REPORT, compare, report

__all__ = ["REPORT", "compare", "report"]
