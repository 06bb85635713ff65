"""The command ``ilp plan``."""

from __future__ import annotations

from etils import epath
from ml_collections import ConfigDict
from rich.console import Group

from ilp_jax import chips, files
from ilp_jax.errors import UserError
from ilp_jax.planning import measure
from ilp_jax.planning.plan import counts_of, plan_of, to_dict
from ilp_jax.planning.subject import Assumption, Subject, open_subject
from ilp_jax.planning.table import render

CPU = "cpu"


def plan(
    config: ConfigDict,
    topology: str | None = None,
    device: str = CPU,
    mfu: float | None = None,
    assumed: tuple[int | None, int | None, int | None] = (None, None, None),
    out: epath.PathLike | None = None,
) -> Group:
    """What a study costs.

    Args:
      config: the resolved config.
      topology: a slice, see ``chips.topology``; None for one ``device``.
      device: a chip's name, or ``cpu``: this machine, measured for a second.
      mfu: share of the peak that matmuls reach; None for the chip's own assumption.
      assumed: rows a stage, tokens a row, trained tokens a row, in place of the config's data;
        rows and tokens None for these, trained tokens None for 16.
      out: a JSON file for the plan.

    Returns:
      Its tables.

    Raises:
      UserError: no such chip or slice, or model and data are not here.
    """
    # An unknown chip is told before anything is read.
    where = chips.topology(topology) if topology else None
    if where is None and device != CPU:
        where = chips.one_chip(device)
    subject = open_subject(config, _assumption(*assumed))
    n_chips = where.n_chips if where else 1
    counts = counts_of(subject.data, config, subject.asked, n_chips)
    where = where or measure.cpu(subject.model.config, _usual_tokens(subject))
    found = plan_of(subject.model, counts, config, where, mfu)
    if out is not None:
        files.write_json(out, to_dict(found))
    notes = [f"Assumed in place of the data: {subject.assumed}."] if subject.assumed else []
    notes += subject.data.long_rows
    return Group(render(found), *notes)


def _usual_tokens(subject: Subject) -> int:
    """Tokens of a usual batch of training."""
    lengths = [row.n_tokens for row in subject.data.tokens]
    batch = subject.config.train.batch_size // subject.config.train.microbatches
    return batch * sum(lengths) // len(lengths)


def _assumption(rows: int | None, tokens: int | None, targets: int | None) -> Assumption | None:
    if rows is None and tokens is None and targets is None:
        return None
    if rows is None or tokens is None:
        raise UserError("ilp plan", "--rows and --tokens belong together", "give both")
    return Assumption(rows, tokens) if targets is None else Assumption(rows, tokens, targets)
