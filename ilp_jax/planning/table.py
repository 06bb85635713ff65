"""A plan as tables in a terminal."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ilp_jax import progress
from ilp_jax.planning import flops
from ilp_jax.planning.cost import Cost
from ilp_jax.planning.plan import PHASES, Plan


def render(plan: Plan) -> Group:
    """The plan as tables: work, files, and what both rest on.

    Args:
      plan: the plan.
    """
    return Group(_work(plan), _files(plan), *(Text(note) for note in plan.notes))


def _work(plan: Plan) -> Table:
    c, trained = plan.counts, plan.model.n_trained
    title = (
        f"{c.n_examples:,} rows, {c.updates:,} updates of {_short(trained)} parameters"
        f" (of {_short(flops.n_params(plan.model.config))}) on {plan.chips}"
    )
    table = Table(title=title, title_justify="left", title_style="bold", pad_edge=False)
    table.add_column("phase")
    table.add_column("what")
    for name in ("rows", "tokens", "padding", "FLOPs", "bound by", "chip-hours", "wall time"):
        table.add_column(name, justify="right", no_wrap=True)
    for phase in PHASES:
        for line, spent in zip(c.lines, plan.costs, strict=True):
            if line.phase == phase:
                what = f"{line.what} (at most)" if line.at_most else line.what
                padding = 1 - line.tokens / line.padded_tokens
                counts = (f"{line.rows:,}", _short(line.tokens), f"{padding:.0%}")
                table.add_row(phase, what, *counts, *_cells(plan, spent))
    table.add_section()
    sums = [(phase, "", plan.total(phase)) for phase in PHASES]
    sums.append(("total", "", plan.total()))
    sums.append(("", "of it, what is at most", plan.total(at_most=True)))
    for phase, what, spent in sums:
        if spent.flops:
            table.add_row(phase, what, "", "", "", *_cells(plan, spent))
    return table


def _cells(plan: Plan, spent: Cost) -> tuple[str, ...]:
    hours = spent.seconds * plan.chips.n_chips / 3600
    return f"{spent.flops:.2e}", spent.bound, f"{hours:.3g}", progress.duration(spent.seconds)


def _files(plan: Plan) -> Table:
    c, files = plan.counts, plan.disk
    table = Table(title="On disk", title_justify="left", title_style="bold", pad_edge=False)
    table.add_column("files")
    table.add_column("rows", justify="right")
    table.add_column("GB", justify="right")
    table.add_row("stats/", f"{c.stats:,}", _gigabytes(files.statistics))
    for point, one in c.answered.items():
        # Only the bytes of all points together are worth a figure.
        rows = f"{'at most ' if one.at_most else ''}{one.rows:,}"
        rows += f" + at most {one.drawn:,} drawn" if one.drawn else ""
        table.add_row(f"inference/{point}", rows, "")
    table.add_row("inference/", "", _gigabytes(files.answers))
    if files.representations:
        rows = f"{c.n_examples:,}"
        table.add_row("projections/", rows, _gigabytes(files.representations))
    table.add_row("checkpoints/", "", _gigabytes(files.checkpoints))
    table.add_section()
    table.add_row("total", "", _gigabytes(files.total))
    table.add_row("beside it, while a checkpoint is saved", "", _gigabytes(files.while_saving))
    return table


def _gigabytes(n: float) -> str:
    return f"{n / 1e9:.3g}" if n >= 1e6 else f"{n / 1e9:.1g}"


def _short(n: float) -> str:
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if n >= size:
            return f"{n / size:.3g}{unit}"
    return str(int(n))
