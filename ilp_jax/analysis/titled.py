"""The look that all tables in the terminal share."""

from __future__ import annotations

from rich import box
from rich.table import Table


def titled(title: str, *, narrow: bool = False) -> Table:
    """A table without columns.

    Args:
      title: stands above it, to the left.
      narrow: less space between columns, so that seven points leave room for the rows' names
        in 90 columns.
    """
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE,
        padding=(0, 1),
        collapse_padding=narrow,
        pad_edge=not narrow,
    )
