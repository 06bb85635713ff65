"""The fields of the group ``report``: what the page shows."""

from __future__ import annotations

import math

from ml_collections import ConfigDict


def report_fields() -> ConfigDict:
    """The report; these may change in a finished run, whose report is then written again.

    Returns:
      A ConfigDict, not locked.
    """
    report = ConfigDict(sort_keys=False)
    # Unlearned rows that it lists one by one, those unlearned at the end first; ours: a browser
    # searches a few thousand at once, and all of them stand in diagnosis.parquet.
    report.max_rows = 2000
    # Characters kept of each prompt, response and answer in that list; ours.
    report.max_text = 2000
    # Visits kept of each row's trajectory: the first, the last and evenly spaced ones; ours.
    report.max_visits = 64
    # Whether texts of the data and answers are in it: prompts, responses, evidence.
    report.include_text = True
    return report


RANGE = {
    "report.max_rows": (1, math.inf),
    "report.max_text": (1, math.inf),
    "report.max_visits": (2, math.inf),
}
