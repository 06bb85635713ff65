"""From a row of a TensorFlow Datasets data set to an example's fields, as a stage names them."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from ilp_jax.errors import UserError

_FIELDS = (
    "prompt_field",
    "response_field",
    "options_field",
    "answer_index_field",
    "knowledge_field",
    "id_field",
)


class Reader:
    """Turns rows into the fields of Example, as a stage says."""

    def __init__(self, stage: ConfigDict, where: str, features: Mapping):
        """Checks the stage's fields against the data set's features.

        Args:
          stage: the stage's fields.
          where: how errors name the stage.
          features: the data set's ``FeaturesDict``.

        Raises:
          UserError: a field is missing in the data set or in the stage.
        """
        self._where, self._features = where, features
        self._options = [one.strip() for one in stage.options_field.split(",") if one.strip()]
        self._stage, self._kinds = stage, {}
        self._template = self._parsed(stage)
        chosen = bool(self._options and stage.answer_index_field)
        if chosen == bool(stage.response_field):
            what = "the response is given twice" if chosen else "no field gives the response"
            mend = "name response_field, or options_field and answer_index_field"
            raise UserError(f"{where}.response_field", what, mend)
        for field in _FIELDS:
            if stage[field]:
                for path in self._options if field == "options_field" else [stage[field]]:
                    self._find(field, path)
        for _, path in self._template:
            if path is not None:
                self._find("prompt_template" if stage.prompt_template else "prompt_field", path)

    def fields(self, row: Mapping) -> dict[str, Any]:
        """Prompt, response, options and what goes with them."""
        stage = self._stage
        options = self._option_texts(row)
        if stage.answer_index_field:
            answer = self._answer(row, options)
            responses = [options[answer]]
        else:
            responses = [text.strip() for text in self._texts("response_field", row)] or [""]
            options, answer = self._matched(options, responses[0])
        aliases = list(dict.fromkeys(text for text in responses[1:] if text != responses[0]))
        return {
            "prompt": "".join(
                literal if path is None else self._one(path, row)
                for literal, path in self._template
            ),
            "response": responses[0],
            "options": tuple(options),
            "answer_index": answer,
            "knowledge": tuple(t for t in self._texts("knowledge_field", row) if t.strip()),
            "marks": {"aliases": json.dumps(aliases, ensure_ascii=False)} if aliases else {},
        }

    def key(self, row: Mapping, fields: Mapping) -> str:
        """The row's own id, or a hash of its content."""
        if self._stage.id_field:
            return self._one(self._stage.id_field, row)
        content = json.dumps([fields[name] for name in ("prompt", "response", "options")])
        return hashlib.blake2b(content.encode("ascii"), digest_size=16).hexdigest()

    def _parsed(self, stage: ConfigDict) -> list[tuple[str, str | None]]:
        """The prompt as (text, None) and ('', field) parts."""
        if bool(stage.prompt_field) == bool(stage.prompt_template):
            what = "set as well as prompt_template" if stage.prompt_field else "is empty"
            mend = "give either prompt_field or prompt_template"
            raise UserError(f"{self._where}.prompt_field", what, mend)
        if stage.prompt_field:
            return [("", stage.prompt_field)]
        mend = "write {FIELD} where a field's text goes, and {{ for a brace"
        try:
            parts = list(string.Formatter().parse(stage.prompt_template))
        except ValueError as error:
            raise UserError(f"{self._where}.prompt_template", str(error), mend) from error
        if not any(path for _, path, _, _ in parts) or any(
            path == "" or spec or conversion for _, path, spec, conversion in parts
        ):
            raise UserError(f"{self._where}.prompt_template", "names no plain field", mend)
        return [
            part
            for literal, path, _, _ in parts
            for part in ([(literal, None)] if literal else []) + ([("", path)] if path else [])
        ]

    def _find(self, field: str, path: str) -> None:
        """Checks that a field is there, and remembers its feature."""
        feature = self._features
        for name in path.split("."):
            if not hasattr(feature, "keys") or name not in feature.keys():
                known = ", ".join(_paths(self._features))
                raise UserError(
                    f"{self._where}.{field}", f"no field {path!r}", f"the data set has {known}"
                )
            feature = feature[name]
        self._kinds[path] = feature

    def _option_texts(self, row: Mapping) -> list[str]:
        names = self._options
        kind = self._kinds[names[0]] if len(names) == 1 else None
        # A class label's options are its names.
        texts = _class_names(kind) or [text for name in names for text in self._at(name, row)]
        return [text.strip() for text in texts]

    def _answer(self, row: Mapping, options: list[str]) -> int:
        name = self._stage.answer_index_field
        value = _value(row, name)
        index = int(value) if np.issubdtype(np.asarray(value).dtype, np.integer) else -1
        if not 0 <= index < len(options):
            what = f"{value!r} is no index into {len(options)} options"
            raise UserError(
                f"{self._where}.answer_index_field", what, "name a field that counts from 0"
            )
        return index

    def _matched(self, options: list[str], response: str) -> tuple[list[str], int | None]:
        if not options or not response:
            return options, None
        if response not in options:
            what = f"the response {response[:40]!r} is not among the options"
            raise UserError(f"{self._where}.options_field", what, "mend the fields' names")
        return options, options.index(response)

    def _texts(self, field: str, row: Mapping) -> list[str]:
        path = self._stage[field]
        return self._at(path, row) if path else []

    def _one(self, path: str, row: Mapping) -> str:
        texts = self._at(path, row)
        if len(texts) != 1:
            what = f"field {path!r} holds {len(texts)} values in a row, not one"
            raise UserError(self._where, what, "name a field with one text")
        return texts[0]

    def _at(self, path: str, row: Mapping) -> list[str]:
        """The texts of a field: one, or those that it lists."""
        value = _value(row, path)
        values = value.ravel().tolist() if isinstance(value, np.ndarray) else value
        values = values if isinstance(values, list | tuple) else [values]
        return [self._text(path, one) for one in values]

    def _text(self, path: str, value: Any) -> str:
        names = _class_names(self._kinds[path])
        if isinstance(value, bytes):
            try:
                return value.decode("utf-8")
            except UnicodeDecodeError as error:
                what = f"field {path!r} is not UTF-8 text ({error.reason})"
                raise UserError(self._where, what, "name a field with text") from error
        if names:
            if not 0 <= int(value) < len(names):
                what = f"field {path!r} has the label {value}, which has no name"
                raise UserError(self._where, what, "choose a split with labels")
            return names[int(value)]
        if not isinstance(value, str | int | float | np.number):
            what = f"field {path!r} holds {type(value).__name__}, not text"
            raise UserError(self._where, what, "name a field with text")
        return str(value)


def _value(row: Mapping, path: str) -> Any:
    for name in path.split("."):
        row = row[name]
    return row


def _class_names(feature: Any) -> list[str]:
    """Names of a class label, or of a sequence of them; empty for other features."""
    names = getattr(feature, "names", None)
    return list(names) if names and hasattr(feature, "int2str") else []


def _paths(features: Any, prefix: str = "") -> list[str]:
    if not hasattr(features, "keys"):
        return [prefix]
    dot = f"{prefix}." if prefix else ""
    return [path for name in features.keys() for path in _paths(features[name], dot + name)]
