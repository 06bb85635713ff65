"""The runs of a sweep, as ``get_sweep`` of a config file names them.

    def get_sweep(seeds: int = 3):
        for seed in range(seeds):
            yield f"seed_{seed}", {"config": {"seed": seed}}
        yield "longer", {"arguments": {"epochs": 12}}

It yields (or returns as a dict) pairs of a name and what is other in that run: ``arguments`` of
the file's ``get_config``, and fields of the ``config`` that this returns.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ilp_jax import config as config_lib
from ilp_jax import run_record
from ilp_jax.errors import UserError
from ilp_jax.fields import leaves, nearest

FUNCTION = "get_sweep"
_PARTS = ("arguments", "config")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
      name: its folder's name within the sweep's.
      overrides: ``arguments`` and ``config``, by name and dotted field, as plain values.
      words: what follows ``ilp run`` on the command line, but for ``--workdir``.
      config_hash: of its whole resolved configuration.
    """

    name: str
    overrides: Mapping[str, Mapping[str, Any]]
    words: tuple[str, ...]
    config_hash: str


def runs_of(file_and_args: str, overrides: Sequence[str] = ()) -> list[Run]:
    """Calls ``get_sweep`` of a config file and checks the configuration of every run.

    Args:
      file_and_args: ``FILE.py`` or ``FILE.py:name=value,...``; ``get_sweep`` gets the arguments
        that it takes, ``get_config`` of every run gets the others, over its own.
      overrides: ``--config.a.b=value`` items for every run, over its own.

    Returns:
      The runs, in order.

    Raises:
      UserError: anything wrong in the file, or with the configuration of a run; two runs have
        one name or one configuration; there are none.
    """
    path, pairs = config_lib.split_file(file_and_args)
    yielded, common = config_lib.call_in_file(path, FUNCTION, pairs, spare=True)
    where, runs = f"{path}:{FUNCTION}", {}
    for name, parts in _pairs(where, yielded):
        if name in runs:
            raise UserError(where, f"names two runs {name!r}", "give each run its own name")
        runs[name] = _run(where, name, parts, path, common, overrides)
        alike = [one.name for one in runs.values() if one.config_hash == runs[name].config_hash]
        if len(alike) > 1:
            what = f"the runs {alike[0]!r} and {name!r} have one configuration"
            raise UserError(where, what, "leave one out, or the override that makes them so")
    if not runs:
        raise UserError(where, "names no run", "yield (name, {'config': {'seed': 1}})")
    return list(runs.values())


def _pairs(where: str, yielded: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """What the function gave as pairs of a name and its overrides."""
    form = "yield (name, {'arguments': {...}, 'config': {...}})"
    items = list(yielded.items()) if isinstance(yielded, Mapping) else yielded
    if not isinstance(items, Sequence) or isinstance(items, str):
        raise UserError(where, f"gave {type(yielded).__name__}, no runs", form)
    for item in items:
        if not (isinstance(item, tuple | list) and len(item) == 2):
            raise UserError(where, f"gave {item!r}, no pair", form)
        name, parts = item
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            mend = "use letters, digits, '_', '-' and '.', a letter or digit first"
            raise UserError(where, f"the name {name!r} is no folder's", mend)
        if not isinstance(parts, Mapping):
            raise UserError(f"{where}: {name}", f"gave {type(parts).__name__}, no dict", form)
        for part, values in parts.items():
            if part not in _PARTS:
                mend = nearest(str(part), _PARTS) or f"the keys are {' and '.join(_PARTS)}"
                raise UserError(f"{where}: {name}", f"no such key {part!r}", mend)
            if not isinstance(values, Mapping):
                raise UserError(f"{where}: {name}", f"{part} is no dict", form)
    return [tuple(item) for item in items]


def _run(
    where: str,
    name: str,
    parts: Mapping[str, Any],
    path: Any,
    common: Sequence[str],
    overrides: Sequence[str],
) -> Run:
    arguments = dict(parts.get("arguments", {}))
    fields = dict(leaves(parts.get("config", {})))
    given = {key: f"{key}={_text(value)}" for key, value in arguments.items()}
    for key, pair in given.items():
        if len(config_lib.split_pairs(pair)) > 1:
            what = f"{pair} reads as two arguments on a command line"
            raise UserError(f"{where}: {name}", what, f"let get_config make that value of {key}")
    given |= {pair.partition("=")[0]: pair for pair in common}
    file = ":".join([str(path), ",".join(given.values())]).removesuffix(":")
    # The last of the same field counts.
    words = [*(f"--config.{field}={_text(value)}" for field, value in fields.items()), *overrides]
    try:
        resolved = config_lib.load(file, words)
    except UserError as error:
        raise UserError(f"{where}: {name}", str(error)) from error
    return Run(
        name=name,
        overrides={"arguments": arguments, "config": fields},
        words=("--config", file, *words),
        config_hash=run_record.hash_config(config_lib.to_dict(resolved)),
    )


def _text(value: Any) -> str:
    """A value as the command line takes it."""
    return value if isinstance(value, str) else repr(value)
