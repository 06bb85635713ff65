"""A fitted classifier as plain numbers: applied with numpy, kept in JSON.

Probabilities are the mean over members, sharpened or flattened by one temperature:
p_k ~ (mean of the members' p_k) ** (1 / T).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from ilp_jax.analysis.fitted.members import KINDS, Linear, Trees, softmax

FORMAT = 1
DIGITS = 9
"""Significant digits that are kept of numbers that are added up. Those that are compared (a
threshold may be a row's very value) and those that rows are scaled with are kept exactly."""
_TYPES = ("int64", "float32", "float64")
_ADDED_UP = ("weights", "intercept", "values", "start")
_TINY = 1e-12


@dataclasses.dataclass(frozen=True, eq=False)
class Scale:
    """From inputs to standardised numbers without gaps.

    An input is clipped to [low, high]; where it is not known it takes the middle; then the
    mean is taken off and the rest divided by the spread. Inputs in ``told_missing`` also have
    a column that is 1 where they are not known, else 0.

    Attributes:
      names: the inputs, in order.
      low, high, middle, mean, spread: float64 [n_inputs].
      told_missing: names.
    """

    names: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray
    middle: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    told_missing: tuple[str, ...]

    def apply(self, values: pl.DataFrame) -> np.ndarray:
        """Standardised inputs.

        Args:
          values: a column for each of ``names``; an absent one counts as not known.

        Returns:
          float64 [n_rows, n_inputs + n_told_missing].
        """
        nothing = np.full(len(values), np.nan)
        columns = [
            values[name].cast(pl.Float64).to_numpy() if name in values.columns else nothing
            for name in self.names
        ]
        x_NxF = np.stack(columns, axis=1) if columns else np.zeros((len(values), 0))
        gaps_NxF = np.isnan(x_NxF)
        filled_NxF = np.where(gaps_NxF, self.middle, np.clip(x_NxF, self.low, self.high))
        places = [self.names.index(name) for name in self.told_missing]
        scaled_NxF = (filled_NxF - self.mean) / self.spread
        return np.concatenate([scaled_NxF, gaps_NxF[:, places].astype(np.float64)], axis=1)


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
    """See the module.

    Attributes:
      classes: names, in the order of the probabilities.
      scale: what its inputs go through.
      members: one or more of `KINDS`.
      temperature: above 0; above 1 flattens.
      about: what it was fitted on and with.
    """

    classes: tuple[str, ...]
    scale: Scale
    members: tuple[Linear | Trees, ...]
    temperature: float
    about: Mapping[str, Any]

    def probabilities(self, values: pl.DataFrame) -> np.ndarray:
        """Calibrated probabilities, float64 [n_rows, n_classes]; see `Scale.apply`."""
        return self.of_scaled(self.scale.apply(values))

    def of_scaled(self, x_NxD: np.ndarray) -> np.ndarray:
        """The same of what `Scale.apply` gave."""
        each = [member.of_raw(member.raw(x_NxD)) for member in self.members]
        return tempered(np.mean(each, axis=0), self.temperature)

    def without(
        self, x_NxD: np.ndarray, usual_D: np.ndarray, groups: Sequence[Sequence[int]]
    ) -> Iterator[np.ndarray]:
        """Probabilities where some columns take a usual value, for one group after another.

        Args:
          x_NxD: what `Scale.apply` gave.
          usual_D: the usual value of each column.
          groups: columns that take it together.

        Yields:
          float64 [n_rows, n_classes].
        """
        raw = [member.raw(x_NxD) for member in self.members]
        for columns in groups:
            to_NxD = x_NxD.copy()
            to_NxD[:, columns] = usual_D[columns]
            each = [
                member.of_raw(one + member.change(x_NxD, to_NxD, columns))
                for member, one in zip(self.members, raw, strict=True)
            ]
            yield tempered(np.mean(each, axis=0), self.temperature)

    def to_json(self) -> str:
        """One field a line; equal classifiers have equal texts."""
        members = [
            {"kind": next(name for name, kind in KINDS.items() if isinstance(member, kind))}
            | _plain(member)
            for member in self.members
        ]
        parts = {
            "format": FORMAT,
            "about": dict(self.about),
            "classes": list(self.classes),
            "temperature": self.temperature,
            "scale": _plain(self.scale),
            "members": members,
        }
        lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in parts.items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"


def from_json(parts: Mapping[str, Any]) -> Classifier:
    """The classifier that `Classifier.to_json` wrote.

    Args:
      parts: the file's content.

    Raises:
      ValueError: the content has another format, or something is missing or of another shape.
    """
    try:
        if parts["format"] != FORMAT:
            raise ValueError(f"format {parts['format']} is not {FORMAT}")
        scale = _arrays(Scale, parts["scale"])
        members = tuple(_arrays(KINDS[one["kind"]], one) for one in parts["members"])
        classes, temperature = tuple(parts["classes"]), float(parts["temperature"])
        classifier = Classifier(classes, scale, members, temperature, parts["about"])
        shape = classifier.probabilities(pl.DataFrame({scale.names[0]: [0.0]})).shape
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"not a fitted classifier ({error!r})") from error
    if shape != (1, len(classes)):
        raise ValueError(f"probabilities of {shape[1]} classes, {len(classes)} names")
    return classifier


def tempered(p_NxK: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities to the power 1 / temperature, normalised again (Guo et al. 2017)."""
    return softmax(np.log(np.maximum(p_NxK, _TINY)) / temperature)


def _plain(part: Any) -> dict[str, Any]:
    """A dataclass of arrays as lists of plain numbers."""
    out = {}
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if isinstance(value, np.ndarray):
            flat = value.ravel().tolist()
            if field.name in _ADDED_UP:
                flat = [float(f"{number:.{DIGITS}g}") for number in flat]
            elif value.dtype == np.float32:
                flat = [float(str(number)) for number in value.ravel()]  # the shortest
            value = {"type": value.dtype.name, "shape": list(value.shape), "values": flat}
        out[field.name] = list(value) if isinstance(value, tuple) else value
    return out


def _arrays(kind: type, parts: Mapping[str, Any]) -> Any:
    out = {}
    for field in dataclasses.fields(kind):
        value = parts[field.name]
        if isinstance(value, Mapping):
            if value["type"] not in _TYPES:
                raise ValueError(f"numbers of type {value['type']!r}")
            value = np.array(value["values"], value["type"]).reshape(value["shape"])
        out[field.name] = tuple(value) if isinstance(value, Sequence) else value
    return kind(**out)
