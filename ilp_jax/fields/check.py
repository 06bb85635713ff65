"""Checks of a study's configuration: choices, ranges, and what must hold between fields."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from ilp_jax.errors import UserError
from ilp_jax.fields import (
    defaults,
    detect,
    diagnose,
    influence,
    mesh,
    mitigate,
    model,
    planted,
    replay,
    report,
    stage,
    train,
    world,
)
from ilp_jax.fields.limits import BELOW_ONE, TINY
from ilp_jax.fields.names import leaves, nearest
from ilp_jax.storage import check_place

_ALLOWED = {
    **defaults.ALLOWED,
    **model.ALLOWED,
    **train.ALLOWED,
    **detect.ALLOWED,
    **diagnose.ALLOWED,
    **replay.ALLOWED,
    **influence.ALLOWED,
    **mitigate.ALLOWED,
    **stage.ALLOWED,
    **world.ALLOWED,
}
# Every other number is at least 0.
_RANGE = {
    **defaults.RANGE,
    **train.RANGE,
    **detect.RANGE,
    **diagnose.RANGE,
    **influence.RANGE,
    **mesh.RANGE,
    **mitigate.RANGE,
    **report.RANGE,
    **stage.RANGE,
    **world.RANGE,
    **planted.RANGE,
}


def validate(config: ConfigDict) -> ConfigDict:
    """Checks every field's choice or range, and what must hold between fields.

    Args:
      config: has the fields of default_config(), with their types.

    Returns:
      The same configuration, locked.

    Raises:
      UserError: names the first field at fault.
    """
    for name, value in leaves(config.to_dict()):
        rule = re.sub(r"^stages\.[^.]+", "stages.*", name)
        if rule in _ALLOWED:
            for item in value if isinstance(value, tuple) else (value,):
                _check_choice(name, item, _ALLOWED[rule])
        elif isinstance(value, int | float) and not isinstance(value, bool):
            _check_range(name, value, *_RANGE.get(rule, (0, math.inf)))
    _check_template(config)
    _check_training(config)
    _check_detection(config)
    methods = config.diagnose.methods
    _require(len(set(methods)) == len(methods), "diagnose.methods", "names one twice")
    steps = config.replay.steps
    _require(
        steps and _is_increasing(steps),
        "replay.steps",
        f"{steps} are not increasing whole numbers of updates, from 1",
        "give a list such as 1,2,4,8",
    )
    _require(config.model.path, "model.path", "is empty", "give a folder, a file or package:NAME")
    _require(config.sequence, "sequence", "no stage to train", "list names of config.stages")
    for name in config.sequence:
        _check_stage(config, name)
    _check_places(config)
    _check_world(config)
    _check_planted(config)
    _check_mitigate(config)
    return config.lock()


def _require(holds: object, field: str, what: str, mend: str = "") -> None:
    if not holds:
        raise UserError(f"config.{field}", what, mend)


def _check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    shown = ", ".join(re.sub(r"\[1-9\]\\d\*", "K", choice) for choice in allowed)
    _require(
        any(re.fullmatch(choice, str(value)) for choice in allowed),
        name,
        f"{value!r} is not allowed",
        f"give one of {shown}",
    )


def _check_range(name: str, value: float, low: float, high: float) -> None:
    span = "above 0" if low == TINY else f"at least {low}"
    if high < math.inf:
        span += " and below 1" if high == BELOW_ONE else f" and at most {high}"
    _require(
        math.isfinite(value) and low <= value <= high,
        name,
        f"{value} is not allowed",
        f"give a value {span}",
    )


def _check_template(config: ConfigDict) -> None:
    text = config.chat_template_kwargs
    try:
        fits = not text or isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        fits = False
    mend = """write '{"enable_thinking": false}'"""
    _require(fits, "chat_template_kwargs", f"{text!r} is no JSON object", mend)


def _check_training(config: ConfigDict) -> None:
    settings = config.train
    _require(
        settings.batch_size % settings.microbatches == 0,
        "train.microbatches",
        f"{settings.microbatches} does not divide batch_size={settings.batch_size}",
        "choose a divisor",
    )
    for field, buckets in (
        ("length_buckets", config.length_buckets),
        ("detect.length_buckets", config.detect.length_buckets),
    ):
        _require(
            _is_increasing(buckets),
            field,
            f"{buckets} are not increasing whole numbers of tokens",
        )


def _check_detection(config: ConfigDict) -> None:
    settings = config.detect
    run_points = settings.choice_run_points if settings.choice_runs else ()
    for field, points in (
        ("sampled_points", settings.sampled_points),
        ("choice_run_points", run_points),
    ):
        for point in points:
            of_each_stage = point.startswith("stage_") and "stage" in settings.points
            _require(
                point in settings.points or of_each_stage,
                f"detect.{field}",
                f"{point!r} is not among detect.points",
                "add it there",
            )
    for field, kinds in (("stability_temperatures", int | float), ("stability_n_samples", int)):
        values = settings[field]
        fit = all(isinstance(v, kinds) and v is not True and 0 < v < math.inf for v in values)
        _require(
            fit and len(set(values)) == len(values),
            f"detect.{field}",
            f"{values} are not different numbers above 0",
        )
    _require(
        settings.temperature not in settings.stability_temperatures,
        "detect.stability_temperatures",
        f"{settings.temperature} is detect.temperature, which is asked anyway",
        "leave it out",
    )


def _check_places(config: ConfigDict) -> None:
    for field in ("model.path", "model.tuned", "cache_dir"):
        group, _, name = field.rpartition(".")
        check_place((config[group] if group else config)[name], f"config.{field}", buckets=False)
    for field in ("library", "verdicts", "prerequisites"):
        check_place(config.mitigate[field], f"config.mitigate.{field}")
    for name in config.sequence:
        for field in ("path", "data_dir"):
            check_place(config.stages[name][field], f"config.stages.{name}.{field}")
    for source in config.planted.sources:
        check_place(source, "config.planted.sources")


def _check_world(config: ConfigDict) -> None:
    named = {"model.path": config.model.path}
    named |= {f"stages.{name}.source": config.stages[name].source for name in config.sequence}
    for field, value in named.items():
        _require(
            (value == world.SOURCE) == bool(config.world.family),
            field,
            f"is {value!r}, and world.family is {config.world.family!r}",
            "give 'world' for all of them and a family, or for none",
        )
    if config.world.family:
        n_stages = len(config.sequence)
        distinct = n_stages == len(set(config.sequence))
        _require(distinct and n_stages > 1, "sequence", "a world needs two stages or more")
        how = config.world.pretraining
        _require(
            how.warmup < how.steps,
            "world.pretraining.warmup",
            f"{how.warmup} updates leave none of {how.steps} to fall in",
            "give fewer",
        )


def _check_mitigate(config: ConfigDict) -> None:
    arms, budgets = config.mitigate.arms, config.mitigate.budgets
    _require(
        arms and len(set(arms)) == len(arms),
        "mitigate.arms",
        "names none" if not arms else "names one twice",
        "list arms, such as none,diagnosed",
    )
    fit = all(isinstance(b, int | float) and b is not True and 0 < b < math.inf for b in budgets)
    _require(
        fit and len(set(budgets)) == len(budgets),
        "mitigate.budgets",
        f"{budgets} are not different numbers above 0",
        "give a list such as 0.5,2",
    )


def _check_planted(config: ConfigDict) -> None:
    settings = config.planted
    fit = len(settings.duplicates) == 2 and all(type(n) is int for n in settings.duplicates)
    _require(
        fit and 1 <= settings.duplicates[0] <= settings.duplicates[1],
        "planted.duplicates",
        f"{settings.duplicates} are no two whole numbers, least and most, from 1",
        "give two such as 2,5",
    )
    for name in config.sequence:
        source = config.stages[name].source
        _require(
            (source == planted.SOURCE) == bool(settings.sources),
            f"stages.{name}.source",
            f"is {source!r}, and planted.sources is {settings.sources}",
            "give 'planted_real' for every stage and name sources, or neither",
        )
    if not settings.sources:
        return
    n_stages = len(config.sequence)
    distinct = n_stages == len(set(config.sequence))
    _require(distinct and n_stages > 1, "sequence", "planting needs two stages or more", "")
    _require(not config.model.tuned, "model.tuned", "planted rows are trained here", "leave it out")


def _check_stage(config: ConfigDict, name: Any) -> None:
    _require(
        isinstance(name, str) and name in config.stages,
        "sequence",
        f"{name!r} is no entry of config.stages",
        nearest(str(name), config.stages),
    )
    settings = config.stages[name]
    _require(settings.source, f"stages.{name}.source", "is empty", "name a data set or jsonl")
    _require(
        settings.source != "jsonl" or settings.path,
        f"stages.{name}.path",
        "is empty",
        "give the .jsonl file of this stage",
    )
    _require(
        settings.source != "tfds" or settings.tfds_name,
        f"stages.{name}.tfds_name",
        "is empty",
        "name the prepared data set of this stage",
    )
    _require(
        settings.task != "summary" or config.detect.sampled_points,
        f"stages.{name}.task",
        "is 'summary', which is judged by generated answers, and none are asked for",
        "name points in detect.sampled_points, such as final",
    )


def _is_increasing(values: Sequence[Any]) -> bool:
    """Whether they are increasing whole numbers, from 1; so is an empty list."""
    whole = all(type(value) is int and value > 0 for value in values)
    return whole and list(values) == sorted(set(values))
