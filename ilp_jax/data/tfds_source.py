"""Rows of a TensorFlow Datasets data set that is prepared on this machine.

Read through ``tfds``'s random-access data sources, which need no TensorFlow: the data set must
be prepared with ``file_format='array_record'`` (or ``'parquet'``). Nothing is downloaded.
Fields within fields are written with dots: ``answers.text``.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from ilp_jax.data.examples import Example, example_id
from ilp_jax.data.tfds_rows import Reader
from ilp_jax.errors import UserError

ELSEWHERE = (
    "prepare it where it can be, with file_format='array_record', and copy the folder into data_dir"
)
_CHUNK = 1024
_GROUPS = (
    *("question_answering", "ranking", "recommendation", "rlds.datasets", "structured"),
    *("summarization", "text", "text_simplification", "time_series", "translate", "video"),
    "vision_language",
)
# What the library raises for a name, version, split or file that it cannot make sense of.
_FAILURES = (AssertionError, ValueError, RuntimeError, OSError, ImportError, KeyError)


def load(stage: ConfigDict, where: str) -> tuple[tuple[Example, ...], dict[str, int]]:
    """The usable rows of a stage's data set, in its order.

    A row's key is its ``id_field``, or else a hash of what is asked and answered, so that ids
    do not depend on the slice of the split. A field that lists several responses gives its
    first; the others go to ``marks['aliases']`` as a JSON list.

    Args:
      stage: the stage's fields; see ``ilp_jax.fields.default_stage`` (those of ``'tfds'``).
      where: how errors name the stage, as ``config.stages.NAME``.

    Returns:
      The examples, and how many rows were left out for which reason: ``empty_response``, or
      ``bad_options`` (fewer than two, empty, or the same).

    Raises:
      UserError: tensorflow-datasets is not installed, the data set or split is not prepared
        here, a field is missing or of the wrong kind, or an answer is not among its options.
    """
    source, features, meta = _open(stage, where)
    read = Reader(stage, where, features)
    name = meta.pop("name")
    examples, dropped, ordinals = [], Counter(), Counter()
    for row in _rows(source):
        fields = read.fields(row)
        reason = _reason(fields)
        if reason:
            dropped[reason] += 1
            continue
        key = read.key(row, fields)
        ordinal = ordinals[key]
        ordinals[key] += 1
        if ordinal and stage.id_field:
            mend = "name a field that differs in every row, or leave it empty"
            raise UserError(f"{where}.id_field", f"two rows have the id {key!r}", mend)
        examples.append(
            Example(
                example_id(name, key, ordinal), source=name, source_key=key, meta=meta, **fields
            )
        )
    return tuple(examples), dict(dropped)


def _open(stage: ConfigDict, where: str) -> tuple[Sequence, Mapping, dict[str, str]]:
    """The data source, its features, and its name, version and split."""
    builder = builder_of(stage, where)
    source = source_of(builder, stage, where)
    config = builder.builder_config
    name = f"{builder.name}/{config.name}" if config else builder.name
    meta = {"name": name, "version": str(builder.version), "split": stage.tfds_split}
    return source, builder.info.features, meta


def builder_of(stage: ConfigDict, where: str, mend: str = "") -> Any:
    """The library's builder of a stage's data set, prepared or not.

    Args:
      stage: the stage's fields.
      where: how errors name the stage.
      mend: what to do about a name that is not known; by default, to prepare it.

    Returns:
      A ``tfds.core.DatasetBuilder``.

    Raises:
      UserError: tensorflow-datasets is not installed, or knows no such data set.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(
            f"{where}.source", f"'tfds' needs a package ({error})", "pip install 'ilp_jax[tfds]'"
        ) from error
    if not stage.tfds_name:
        raise UserError(f"{where}.tfds_name", "is empty", "give NAME, NAME:VERSION or NAME/CONFIG")
    folder = stage.data_dir or None
    try:
        # The library prints a banner about TensorFlow.
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                return tfds.builder(stage.tfds_name, data_dir=folder)
            except tfds.core.registered.DatasetNotFoundError:
                _register_all()
                return tfds.builder(stage.tfds_name, data_dir=folder)
    except ImportError as error:
        what = f"{stage.tfds_name!r} needs the package {package_of(error)}"
        raise UserError(f"{where}.tfds_name", what, ELSEWHERE) from error
    except _FAILURES as error:
        what = f"no data set {stage.tfds_name!r} ({first_line(error)})"
        raise UserError(f"{where}.tfds_name", what, mend or _mend(folder)) from error
    except Exception as error:  # whatever a hub of data sets raises that is asked for it
        what = f"{stage.tfds_name!r} cannot be looked up ({type(error).__name__}: "
        raise UserError(f"{where}.tfds_name", f"{what}{first_line(error)})", ELSEWHERE) from error


def _register_all() -> None:
    """Makes the library know its older data sets.

    It stops importing them at the first group that lacks a package (h5py for nearest_neighbors),
    and then says of all that come later that there are none.
    """
    for group in _GROUPS:
        with contextlib.suppress(ImportError):
            importlib.import_module(f"tensorflow_datasets.{group}")


def package_of(error: BaseException | None) -> str:
    """The package that an import error is about, by what it came from."""
    package = ""
    while error is not None:
        if isinstance(error, ImportError):
            named = re.search(r"No module named '([^']+)'|importing (\w+)", str(error))
            package = error.name or (named and (named[1] or named[2])) or package or str(error)
            if "tensorflow" in str(error).lower():
                package = "tensorflow"
        error = error.__cause__ or error.__context__
    return package.split(".")[0]


def source_of(builder: Any, stage: ConfigDict, where: str) -> Sequence:
    """A prepared data set's split, with random access.

    Args:
      builder: what ``builder_of`` returned for the stage.
      stage: the stage's fields.
      where: how errors name the stage.

    Returns:
      The rows, each a nested dict.

    Raises:
      UserError: it is not prepared here, is in a format without random access, or has no such
        split.
    """
    folder = stage.data_dir or None
    try:
        return builder.as_data_source(split=stage.tfds_split)
    except _FAILURES as error:
        if not builder.is_prepared():
            what = f"{stage.tfds_name!r} is not prepared on this machine"
            raise UserError(f"{where}.tfds_name", what, _mend(folder)) from error
        if isinstance(error, NotImplementedError):
            what = f"{stage.tfds_name!r} is prepared in a format without random access"
            raise UserError(
                f"{where}.tfds_name", what, f"set another data_dir, then {_mend(folder)}"
            ) from error
        splits = ", ".join(builder.info.splits)
        what = f"{stage.tfds_split!r} cannot be read ({first_line(error)})"
        raise UserError(f"{where}.tfds_split", what, f"the splits are {splits}") from error


def _mend(folder: str | None) -> str:
    argument = f", data_dir={folder!r}" if folder else ""
    return (
        "prepare it: `ilp prepare` with the same --config, or "
        f"tfds.builder(NAME{argument}, file_format='array_record').download_and_prepare()"
        + ("" if folder else ", or set data_dir")
    )


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _rows(source: Sequence) -> Iterator[Mapping]:
    """The rows in order, read in chunks."""
    for start in range(0, len(source), _CHUNK):
        yield from source.__getitems__(list(range(start, min(start + _CHUNK, len(source)))))


def _reason(fields: Mapping) -> str:
    """Why a row cannot be used, or ''."""
    options = fields["options"]
    if not fields["response"].strip():
        return "empty_response"
    if options and (len(set(options)) < max(len(options), 2) or not all(options)):
        return "bad_options"
    return ""
