"""The configuration of a study: how a file and overrides set it, and how it is stored.

A config file is a Python file with ``get_config(**arguments)`` that starts from
``default_config()``, sets fields and returns the ConfigDict. No JAX here: a notebook on a
laptop may read a run's configuration.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import re
import runpy
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ml_collections import ConfigDict

from ilp_jax.errors import UserError, brief
from ilp_jax.fields import default_config, default_stage, leaves, nearest, validate

__all__ = [
    "apply_overrides",
    "call_in_file",
    "config_hash",
    "default_config",
    "default_stage",
    "for_tuned",
    "from_run",
    "load",
    "split_file",
    "split_pairs",
    "to_dict",
    "to_yaml",
    "validate",
]


# Fields that change when and where files are written, but no number in them; and groups of
# what reads a finished run's files, which is made again from them when they change.
_NO_RESULT = (
    "cache_dir",
    "checkpoint.every_steps",
    "checkpoint.every_minutes",
    "checkpoint.keep",
    "detect.rows_per_part",
    "diagnose",
    "influence",
    "mesh",
    "mitigate",
    "planted.scores",  # the rows planted by them are compared with those of the run
    "replay",
    "report",
)


def load(file_and_args: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Runs a config file, applies overrides and checks the result.

    Args:
      file_and_args: ``FILE.py`` or ``FILE.py:name=value,name=value``; the pairs are the
        arguments of the file's ``get_config``.
      overrides: ``--config.a.b=value`` or ``--config.a.b``, ``value``, as on the command line.

    Returns:
      The locked configuration.

    Raises:
      UserError: anything wrong in the file, its arguments or the overrides.
    """
    return validate(apply_overrides(_read_file(file_and_args), overrides))


def for_tuned(
    base: str | None,
    tuned: str | None,
    data: str | None,
    file_and_args: str | None = None,
    overrides: Sequence[str] = (),
) -> ConfigDict:
    """The configuration for a model that is tuned already: what ``ilp detect --tuned`` takes.

    Args:
      base: path of the base model; None = that of the file.
      tuned: path of the tuned model; None = that of the file.
      data: the JSONL file that it was tuned on; None = that of the file.
      file_and_args: as for `load`; None = the defaults, one stage named ``own``, and answers
        drawn at the end where the screen leaves doubt.
      overrides: as for `load`.

    Returns:
      The locked configuration, ``model.tuned`` set.

    Raises:
      UserError: one of the three is missing, or anything that `load` refuses.
    """
    if file_and_args:
        config = _read_file(file_and_args)
    else:
        config = default_config()
        config.stages.own = default_stage()
        config.sequence, config.detect.sampled_points = ("own",), ("final",)
        for flag, value in (("--base DIR", base), ("--data FILE.jsonl", data)):
            if value is None:
                raise UserError("ilp detect", f"needs {flag.split()[0]}", f"add {flag}")
    config.model.path = base or config.model.path
    config.model.tuned = tuned or config.model.tuned
    if not config.model.tuned:
        raise UserError(
            "ilp detect", "--base and --data need --tuned", "add --tuned DIR, the tuned model"
        )
    if data:
        names = [name for name in dict.fromkeys(config.sequence) if name in config.stages]
        if len(names) != 1:
            raise UserError(
                "--data",
                f"is one file, and {file_and_args} has the stages {', '.join(names) or 'none'}",
                "leave it out and give each stage its path, or name one stage in config.sequence",
            )
        config.stages[names[0]].source, config.stages[names[0]].path = "jsonl", data
    return validate(apply_overrides(config, overrides))


def from_run(workdir: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Restores the resolved configuration that a run stored.

    Args:
      workdir: the run's folder, local or gs://.
      overrides: as for `load`.

    Returns:
      The locked configuration; fields that did not exist yet have their defaults.

    Raises:
      UserError: no readable run.json there, or one of another layout.
    """
    from ilp_jax import files  # slow to import, and only needed here

    path = files.as_path(workdir) / "run.json"
    if not path.exists():
        raise UserError(path, "does not exist", "name the study's file with --config")
    stored = files.read_json(path).get("config")
    stages = stored.get("stages") if isinstance(stored, dict) else None
    if not isinstance(stages, dict):
        raise UserError(path, "holds no configuration", "restore it from a copy")
    stored = {**stored, "stages": stages}
    return validate(apply_overrides(_like_default(stored, str(path)), overrides))


def to_dict(config: ConfigDict) -> dict[str, Any]:
    """The configuration as plain JSON values, in the documented order; tuples become lists."""
    return json.loads(json.dumps(config.to_dict()))


def to_yaml(config: ConfigDict) -> str:
    """The configuration as YAML text in the documented order, one field a line."""

    class Dumper(yaml.SafeDumper):
        def represent_sequence(self, tag, sequence, flow_style=None):
            return super().represent_sequence(tag, sequence, flow_style=True)

    return yaml.dump(to_dict(config), Dumper=Dumper, sort_keys=False, allow_unicode=True)


def config_hash(config: ConfigDict, leave_out: Sequence[str] = ()) -> str:
    """Identifies the results that a configuration leads to.

    Args:
      config: any configuration.
      leave_out: further dotted fields or groups not to count, such as ``detect`` for the
        identity of the training.

    Returns:
      16 hex digits of SHA-256. Stages outside ``sequence``, ``world`` and ``planted`` where
      nothing is planted, ``cache_dir``, the rhythm of checkpoints and the groups ``diagnose``,
      ``influence``, ``replay`` and ``report`` do not count.
    """
    unused = () if config.world.family else ("world",)
    unused += () if config.planted.sources else ("planted",)
    counted = {
        name: value
        for name, value in leaves(to_dict(config))
        if not any((name + ".").startswith(out + ".") for out in (*_NO_RESULT, *unused, *leave_out))
        and (not name.startswith("stages.") or name.split(".")[1] in config.sequence)
    }
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:16]


def apply_overrides(config: ConfigDict, overrides: Sequence[str]) -> ConfigDict:
    """Sets fields from ``--config.a.b=value`` or ``--config.a.b``, ``value`` items.

    Args:
      config: changed in place.
      overrides: command-line items, in order; the last of the same field counts.

    Returns:
      The same configuration.

    Raises:
      UserError: unknown field, a group in place of a field, no value, or a wrong type.
    """
    items = iter(overrides)
    for item in items:
        flag, equals, text = item.partition("=")
        if not flag.startswith("--config."):
            raise UserError(item, "is no override", "write --config.field=value")
        if not equals:
            text = next(items, None)
            if text is None or text.startswith("--"):
                raise UserError(flag, "has no value", f"write {flag}=value")
        group, names = config, flag.removeprefix("--config.").split(".")
        for depth, name in enumerate(names):
            if not isinstance(group, ConfigDict) or name not in group:
                known = [field for field, _ in leaves(config.to_dict())]
                dotted = ".".join(names)
                raise UserError(flag, f"no field {name!r}", nearest(dotted, known, "config."))
            if depth < len(names) - 1:
                group = group[name]
        if isinstance(group[names[-1]], ConfigDict):
            known = ", ".join(group[names[-1]]) or "none yet"
            raise UserError(flag, "is a group of fields", f"name one of them: {known}")
        group[names[-1]] = _parse(flag, text, group[names[-1]])
    return config


def split_file(file_and_args: str) -> tuple[Path, list[str]]:
    """``FILE.py:name=value,name=value`` as the file and its ``name=value`` pairs.

    Args:
      file_and_args: as for `load`.

    Raises:
      UserError: no such file, or not of that form.
    """
    match = re.match(r"(.*?\.py)(?::(.*))?$", file_and_args, re.DOTALL)
    if not match:
        raise UserError(f"--config {file_and_args}", "is not FILE.py", "give FILE.py[:name=value]")
    path = Path(match[1])
    if not path.is_file():
        beside = [str(p) for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise UserError(path, "no such config file", nearest(str(path), beside))
    return path, split_pairs(match[2]) if match[2] else []


def split_pairs(text: str) -> list[str]:
    """``name=value,name=value`` as the pairs.

    Only a comma before another ``name=`` separates: values may hold commas themselves.
    """
    return re.split(r",(?=[A-Za-z_]\w*=)", text)


def call_in_file(
    path: Path, function: str, pairs: Sequence[str], spare: bool = False
) -> tuple[Any, list[str]]:
    """Calls a function of a config file with arguments from the command line.

    Args:
      path: the config file.
      function: its name, such as ``get_config``.
      pairs: the arguments, as ``name=value`` texts; values take the type of the default.
      spare: pass over pairs that the function does not take.

    Returns:
      What the function returns (all that it yields as a list, if it is a generator), and the
      pairs passed over.

    Raises:
      UserError: no such function or argument, or anything that the file raises.
    """
    try:
        called = runpy.run_path(str(path)).get(function)
        if not callable(called):
            raise UserError(path, f"has no function {function}", f"define {function}()")
        parameters = inspect.signature(called).parameters
        values, passed_over = {}, []
        for pair in pairs:
            name, equals, text = pair.partition("=")
            if name not in parameters and spare:
                passed_over.append(pair)
                continue
            if name not in parameters:
                takes = ", ".join(parameters) or "no arguments"
                mend = nearest(name, parameters) or f"{function} takes {takes}"
                raise UserError(f"{path}:{name}", "no such argument", mend)
            if not equals:
                raise UserError(f"{path}:{name}", "has no value", f"write {name}=value")
            default, note = parameters[name].default, parameters[name].annotation
            # A required argument has no default to take the type from: text, unless annotated.
            examples = {"int": 0, "float": 0.0, "bool": False, "tuple": (), "str": ""}
            note = getattr(note, "__name__", str(note)).split("[")[0].split(" ")[0]
            example = examples.get(note, "") if default in (inspect._empty, None) else default
            values[name] = _parse(f"{path}:{name}", text, example)
        missing = [
            p.name
            for p in parameters.values()
            if p.default is p.empty and p.kind < p.VAR_POSITIONAL and p.name not in values
        ]
        if missing:
            mend = f"write --config {path}:" + ",".join(f"{name}=VALUE" for name in missing)
            raise UserError(path, f"needs {' and '.join(missing)}", mend)
        value = called(**values)
        return list(value) if inspect.isgenerator(value) else value, passed_over
    except UserError:
        raise
    except SyntaxError as error:
        raise UserError(f"{error.filename}:{error.lineno}", f"syntax error: {error.msg}") from None
    except Exception as error:  # anything that the user's own Python file may raise
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f.lineno for f in frames if Path(f.filename) == path] or ["?"]
        where, unknown = f"{path}:{lines[-1]}", re.search(r'Key "(\w+)" does not exist', str(error))
        if unknown:  # a field set on the locked configuration
            known = [field.split(".")[-1] for field, _ in leaves(default_config().to_dict())]
            mend = nearest(unknown[1], [*known, *default_config(), *default_stage()])
            raise UserError(where, f"no field {unknown[1]!r}", mend) from error
        raise UserError(where, f"{type(error).__name__}: {error}") from error


def _read_file(file_and_args: str) -> ConfigDict:
    """The file's configuration on top of the defaults, not yet checked."""
    path, pairs = split_file(file_and_args)
    config, _ = call_in_file(path, "get_config", pairs)
    if not isinstance(config, ConfigDict):
        raise UserError(path, f"get_config returned {type(config).__name__}", "return the config")
    return _like_default(config, str(path))


def _like_default(stored: ConfigDict | Mapping[str, Any], where: str) -> ConfigDict:
    """Copies fields onto the defaults, so that names and types are known to be right."""
    config = default_config()
    if isinstance(stored, ConfigDict):
        stored = stored.to_dict()
    for name in stored.get("stages", {}):
        config.stages[name] = default_stage()
    for name, value in leaves(stored):
        *groups, last = name.split(".")
        group = config
        for part in groups:
            group = group[part] if isinstance(group, ConfigDict) and part in group else None
        if not isinstance(group, ConfigDict) or last not in group:
            known = [field for field, _ in leaves(config.to_dict())]
            raise UserError(where, f"no field config.{name}", nearest(name, known, "config."))
        group[last] = _cast(f"{where}: config.{name}", value, group[last])
    return config


def _parse(where: str, text: str, example: Any) -> Any:
    """Text of the command line as a value of the example's type."""
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = text
    if isinstance(example, bool):
        value = {"true": True, "false": False}.get(text.strip().lower(), text)
    elif isinstance(example, str):
        value = value if isinstance(value, str) else text
    elif isinstance(example, tuple) and not isinstance(value, tuple | list):
        parts = [part.strip() for part in text.split(",") if part.strip()]
        value = (value,) if not isinstance(value, str) else tuple(parts)
    return _cast(where, value, example)


def _cast(where: str, value: Any, example: Any) -> Any:
    """The value as the example's type; only int to float and list to tuple are converted."""
    if not _is_plain(value):
        mend = "give text in UTF-8, true or false, or a number of at most 64 bits"
        raise UserError(where, f"{brief(value)} cannot be", mend)
    if isinstance(example, tuple) and isinstance(value, list):
        value = tuple(value)
    if isinstance(example, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(example):
        wanted = {int: "a whole number", float: "a number", bool: "true or false"}
        wanted |= {str: "text", tuple: "a list such as a,b,c", ConfigDict: "a group of fields"}
        raise UserError(
            where, f"{brief(value)} is of the wrong type", f"give {wanted[type(example)]}"
        )
    return value


def _is_plain(value: Any) -> bool:
    """Whether JSON and the tables of a run can hold a value, as every field's must be held."""
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    if isinstance(value, Mapping | ConfigDict):
        return all(map(_is_plain, value.values()))
    if type(value) is int:
        return -(2**63) <= value < 2**63
    if isinstance(value, str):
        return not re.search(r"[\0\ud800-\udfff]", value)  # as no file and no path can
    return value is None or isinstance(value, bool | float)
