"""Asks about every example at one point of a run, in parts: a killed process loses one part.

First the screen: one teacher-forced pass over all rows (``ask``), from which exact match, the
exact law and the choice follow. Then, where answers are drawn, those of the rows that the
screen leaves in doubt (``screen.candidates``). Then the point's other questions: other wordings
and permuted runs (``choices``), and the exact law at other temperatures (``tempered``). Every
``rows_per_part`` rows are a file in ``inference/.parts.{point}``; the whole becomes
``inference/{point}.parquet`` at the end.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
from etils import epath

from ilp_jax import files, parquet, progress
from ilp_jax.config import config_hash
from ilp_jax.detect.ask import ask
from ilp_jax.detect.choices import ask_choices, questions_at
from ilp_jax.detect.drawn import draw
from ilp_jax.detect.screen import candidates, is_sampled
from ilp_jax.detect.tempered import add_laws
from ilp_jax.errors import RunFailure
from ilp_jax.mesh import processes
from ilp_jax.mesh.rows import placement_of
from ilp_jax.stats.inference import put_inference
from ilp_jax.stats.reader import INFERENCE
from ilp_jax.stats.schema import INFERENCE_SCHEMA

if TYPE_CHECKING:
    from ilp_jax.workspace import Workspace

IDENTITY = "asked"
"""Metadata key: what the answers of a file depend on."""
_LABELS = {"ask": "ask", "draw": "draw", "choose": "ask choices", "heat": "ask temperatures"}


@dataclasses.dataclass(frozen=True)
class Point:
    """A moment at which every example is asked about.

    Attributes:
      name: the point's name, such as ``final``.
      stage: stage in which is asked; 0 for the base model.
      epoch: its epoch; 0 for the base model and for one tuned elsewhere.
      step: updates made here before.
      weights_hash: identity of the weights that the run began from, or that are asked.
    """

    name: str
    stage: int
    epoch: int
    step: int
    weights_hash: str

    @property
    def place(self) -> dict[str, int]:
        """The columns that every answer of the point has in common."""
        return {"stage": self.stage, "epoch": self.epoch, "step": self.step}


def is_asked(ws: Workspace, point: Point) -> bool:
    """Whether the point's file holds the answers of this config and these weights.

    Args:
      ws: the run's workspace.
      point: the point.
    """
    path = ws.workdir / INFERENCE / f"{point.name}.parquet"
    return path.exists() and parquet.read_metadata(path).get(IDENTITY) == _identity(ws, point)


def ask_point(ws: Workspace, params: Any, point: Point) -> None:
    """Writes ``inference/{point}.parquet``; goes on after the parts that are on disk.

    Args:
      ws: the run's workspace.
      params: parameters on the device.
      point: the point.

    Raises:
      RunFailure: a log-probability is not a number, or the disk is full.
    """
    folder = ws.workdir / INFERENCE / f".parts.{point.name}"
    identity = _identity(ws, point)

    def begin() -> bool:
        files.remove_temporaries(folder)
        return is_asked(ws, point)

    def end(answers: pa.Table | None) -> None:
        if answers is not None:
            put_inference(ws.workdir, point.name, answers, point.step, {IDENTITY: identity})
        if folder.exists():
            folder.rmtree()

    done = processes.on_first(begin)
    answers = None if done else _answers(ws, params, point, folder, identity)
    processes.exchange(None)  # all have read the parts that the first deletes now
    processes.on_first(lambda: end(answers))


def _answers(
    ws: Workspace, params: Any, point: Point, folder: epath.Path, identity: str
) -> pa.Table:
    """All answers at a point, by example in the order of ``ws.data``."""

    def screen(indices: np.ndarray, bar: progress.Bar) -> pa.Table:
        # All that is asked without drawing comes from here.
        table = ask(ws, params, indices.tolist(), bar=bar, **point.place)
        _require_numbers(table, point.name)
        return table

    def choose(indices: np.ndarray, bar: progress.Bar) -> pa.Table:
        questions = questions_at(ws, point.name, indices.tolist())
        table = ask_choices(ws, params, questions, bar=bar, **point.place)
        bar.advance(per_row * len(indices) - len(table))  # questions too long are not asked
        return table

    def heat(indices: np.ndarray, bar: progress.Bar) -> pa.Table:
        of_part = np.isin(asked["example_id"], ws.data.example_ids[indices])
        table = add_laws(ws, params, asked.filter(of_part), others, bar=bar)
        return table.filter(pa.compute.is_in(table["temperature"], pa.array(others, pa.float64())))

    def draw_again(indices: np.ndarray, bar: progress.Bar) -> pa.Table:
        of_part = np.isin(asked["example_id"], ws.data.example_ids[indices])
        return draw(ws, params, asked.filter(of_part), bar=bar)

    batch_size = placement_of(params).batch_size(ws.config.detect.batch_size)
    in_parts = _Parts(ws, folder, identity, batch_size)
    packed = np.array([row.n_packed_tokens for row in ws.data.tokens])
    asked = in_parts.run("ask", point.name, _by_length(ws, packed), screen)
    found = [asked]
    if is_sampled(ws.config.detect.sampled_points, point.name):
        chosen = candidates(pl.from_arrow(asked), ws.config.detect).to_numpy()
        prompts = np.array([len(row.prompt_ids) for row in ws.data.tokens])
        order = _by_length(ws, prompts)
        order = order[np.isin(ws.data.example_ids[order], chosen)]
        rest = asked.filter(~np.isin(asked["example_id"], chosen))
        found = [rest, in_parts.run("draw", point.name, order, draw_again)]
    with_options = [i for i in _by_length(ws, packed) if ws.data.examples[i].options]
    per_row = max((len(questions_at(ws, point.name, [i])) for i in with_options[:1]), default=0)
    if per_row:
        rows = np.array(with_options)
        found.append(in_parts.run("choose", point.name, rows, choose, per_row))
    others = ws.config.detect.stability_temperatures if point.name == "final" else ()
    if others:
        found.append(in_parts.run("heat", point.name, _by_length(ws, packed), heat, len(others)))
    return _sorted(ws, pa.concat_tables(found))


@dataclasses.dataclass(frozen=True)
class _Parts:
    """Runs a function over rows, part by part, each part's table a file."""

    ws: Workspace
    folder: epath.Path
    identity: str
    batch_size: int

    def run(
        self,
        verb: str,
        name: str,
        indices: np.ndarray,
        answer: Callable[[np.ndarray, progress.Bar], pa.Table],
        per_row: int = 1,
    ) -> pa.Table:
        """The function's tables, one after another; those on disk are not computed again.

        ``per_row`` is by how much it advances the bar for each row.
        """
        # Whole batches, so that a row meets the same others in however many parts.
        size = -(-self.ws.config.detect.rows_per_part // self.batch_size) * self.batch_size
        parts = [indices[start : start + size] for start in range(0, len(indices), size)]
        paths = [self.folder / f"{verb}-{number:06d}.parquet" for number in range(len(parts))]
        marks = [self._mark(verb, part) for part in parts]
        there = processes.on_first(
            lambda: [
                path.exists() and parquet.read_metadata(path).get(IDENTITY) == mark
                for path, mark in zip(paths, marks, strict=True)
            ]
        )
        done = sum(len(part) for part, is_there in zip(parts, there, strict=True) if is_there)
        total = per_row * len(indices)
        with progress.bar(f"{_LABELS[verb]} {name}", total=total, done=per_row * done) as bar:
            for path, part, mark, is_there in zip(paths, parts, marks, there, strict=True):
                if not is_there:
                    table = answer(part, bar)
                    if processes.is_first():
                        parquet.write(path, table, {IDENTITY: mark}, schema=INFERENCE_SCHEMA)
        processes.on_first(lambda: None)  # every part is on disk
        tables = [parquet.conform(parquet.read_arrow(path), INFERENCE_SCHEMA) for path in paths]
        return pa.concat_tables(tables) if tables else INFERENCE_SCHEMA.empty_table()

    def _mark(self, verb: str, part: np.ndarray) -> str:
        ids = self.ws.data.example_ids[part]
        return _digest(self.identity, verb, ids.tobytes().hex())


def _identity(ws: Workspace, point: Point) -> str:
    place = (f"{key}={value}" for key, value in point.place.items())
    return _digest(config_hash(ws.config), point.weights_hash, point.name, *place)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _by_length(ws: Workspace, lengths: Sequence[int]) -> np.ndarray:
    """Indices of all examples, shortest first, then by id: a part is padded by little."""
    return np.lexsort((ws.data.example_ids, lengths))


def _sorted(ws: Workspace, answers: pa.Table) -> pa.Table:
    place = {int(one): index for index, one in enumerate(ws.data.example_ids)}
    order = [place[one] for one in answers["example_id"].to_pylist()]
    return answers.take(np.argsort(order, kind="stable"))


def _require_numbers(answers: pa.Table, point: str) -> None:
    bad = pl.from_arrow(answers).filter(pl.col("gold_logprob").is_nan())
    if len(bad):
        raise RunFailure(
            f"point {point}",
            f"the log-probability of example {bad['example_id'][0]}'s response is not a number",
            "the weights hold values that are not finite, or overflow in this compute_dtype",
        )
