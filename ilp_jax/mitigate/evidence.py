"""All that remedies may know of a run: verdicts, causes and what the files say of each row."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from etils import epath

from ilp_jax import parquet
from ilp_jax.analysis.causes import insufficient_training
from ilp_jax.data.examples import Example
from ilp_jax.detect.normalise import normalise
from ilp_jax.errors import UserError
from ilp_jax.mitigate.library import Library
from ilp_jax.mitigate.row_file import rows_of
from ilp_jax.stats import reader
from ilp_jax.stats.schema import CAUSES, UNATTRIBUTED
from ilp_jax.stats.truth import read_truth

POINT = "final"


@dataclasses.dataclass(frozen=True, eq=False)
class Evidence:
    """A finished run, row by row; N examples in the order of ``examples.parquet``.

    Attributes:
      ids_N: int64 example ids.
      trained_N: whether a stage trains the row.
      unlearned_N: whether it is trained and unlearned at the end; rows to which the detector
        does not apply are not.
      cause_N: the diagnosed cause, ``unattributed``, or '' of a row that is not unlearned.
      rivals: index of a row -> rows that were found to ask the same and record another answer.
      base_answer_N: what the base model firmly answers, normalised; '' where it does not.
      base_confidence_N: its probability of its likeliest answer other than the recorded one.
      kept_N: probability a token of the target at the end of the row's own stage.
      drop_N: by how much it has fallen since, over what it was.
      short_N: whether its training was too short for it, by the test of the diagnosis
        (``analysis.causes.insufficient_training``): rare, or still improving.
      wrong: index of a row -> whether a person judged its recorded answer wrong.
      told: index of a row that others contradict -> which of their answers, normalised, the
        library bears out; absent where it says nothing.
      responses: the recorded answers, normalised.
    """

    ids_N: np.ndarray
    trained_N: np.ndarray
    unlearned_N: np.ndarray
    cause_N: np.ndarray
    rivals: Mapping[int, tuple[int, ...]]
    base_answer_N: np.ndarray
    base_confidence_N: np.ndarray
    kept_N: np.ndarray
    drop_N: np.ndarray
    short_N: np.ndarray
    wrong: Mapping[int, bool]
    responses: tuple[str, ...]
    told: Mapping[int, str] = dataclasses.field(default_factory=dict)

    def witness(self, row: int) -> str:
        """What the library, else the base model's firm belief says of a row; '' for nothing."""
        return self.told.get(row) or self.base_answer_N[row]

    @property
    def learned(self) -> np.ndarray:
        """Indices of trained rows that are not unlearned."""
        return np.flatnonzero(self.trained_N & ~self.unlearned_N)

    @property
    def unlearned(self) -> np.ndarray:
        """Indices of unlearned rows."""
        return np.flatnonzero(self.unlearned_N)


def read_evidence(workdir: epath.Path, config: Mapping[str, Any]) -> Evidence:
    """Reads a finished run.

    Args:
      workdir: the run's folder.
      config: its resolved config as plain values; ``mitigate`` says whose verdicts count.

    Raises:
      UserError: the diagnosis lacks that detector or method, or the verdict file is wrong.
    """
    settings = config["mitigate"]
    examples = reader.read_examples(workdir).with_row_index("place")
    place = dict(examples.select("example_id", "place").iter_rows())
    n = len(examples)
    told = diagnosed(reader.read_diagnosis(workdir), settings["detector"], settings["method"])
    unlearned_N, cause_N = np.zeros(n, bool), np.full(n, "", object)
    for one, cause in told.iter_rows():
        unlearned_N[place[one]], cause_N[place[one]] = True, cause
    trained_N = np.zeros(n, bool)
    trained_N[[place[one] for one in reader.read_plan(workdir)["example_id"].unique()]] = True
    responses = tuple(normalise(text) for text in examples["response"])
    answers, confidence_N = _base_answers(workdir, config, examples, place)
    signals = parquet.read(workdir / "signals.parquet").filter(pl.col("point") == POINT)
    kept_N, drop_N = np.zeros(n), np.zeros(n)
    falls = signals.select("example_id", "own_stage_prob", "own_drop").drop_nulls()
    for one, kept, drop in falls.iter_rows():
        kept_N[place[one]], drop_N[place[one]] = kept, drop / max(kept, 1e-9)
    short_N = np.zeros(n, bool)
    judged = insufficient_training.judge(signals, config["diagnose"])
    for one, flag in judged.select("example_id", "flag").drop_nulls().iter_rows():
        short_N[place[one]] = flag
    return Evidence(
        ids_N=examples["example_id"].to_numpy(),
        trained_N=trained_N,
        unlearned_N=unlearned_N & trained_N,
        cause_N=cause_N,
        rivals=_rivals(signals, place, responses, trained_N),
        base_answer_N=answers,
        base_confidence_N=confidence_N,
        kept_N=kept_N,
        drop_N=drop_N,
        short_N=short_N,
        wrong=read_verdicts(settings["verdicts"], place) if settings["verdicts"] else {},
        responses=responses,
    )


def judged_wrong(row: int, evidence: Evidence) -> bool:
    """Whether a row's recorded answer, and not that of its rivals, is judged wrong.

    Witnesses, the first that says something counts: a person's verdicts, the library, the base
    model's firm belief.

    Args:
      row: its index.
      evidence: the run's.
    """
    if row in evidence.wrong:
        return evidence.wrong[row]
    rivals = evidence.rivals.get(row, ())
    if any(evidence.wrong.get(other) is False for other in rivals):
        return True
    if rivals and all(evidence.wrong.get(other) for other in rivals):
        return False
    said = evidence.witness(row)
    if not said or said == evidence.responses[row]:
        return False
    return any(evidence.responses[other] == said for other in rivals)


def with_library(evidence: Evidence, examples: Sequence[Example], library: Library) -> Evidence:
    """The evidence and what a library says of rows that contradict each other.

    Args:
      evidence: of a run.
      examples: the run's.
      library: is asked which of the recorded answers it bears out.
    """
    told = {}
    for row, rivals in evidence.rivals.items():
        answers = dict.fromkeys(examples[one].response for one in (row, *rivals))
        said = normalise(library.says(examples[row], tuple(answers)))
        if said:
            told[row] = said
    return dataclasses.replace(evidence, told=told)


def diagnosed(
    diagnosis: pl.DataFrame, detector: str, method: str, columns: Sequence[str] = ()
) -> pl.DataFrame:
    """Unlearned rows at the end and their causes, by one detector and one method.

    Args:
      diagnosis: ``diagnosis.parquet``.
      detector: one of its detectors, or ``default``.
      method: one of its methods.
      columns: further columns to keep.

    Returns:
      ``example_id``, ``cause`` and ``columns``; one row an unlearned example.

    Raises:
      UserError: it has no verdicts of these.
    """
    rows = diagnosis.filter(pl.col("point") == POINT, pl.col("method") == method)
    if rows.is_empty():
        known = ", ".join(sorted(diagnosis["method"].unique()))
        what = f"{method!r} told no causes at the end"
        raise UserError("config.mitigate.method", what, f"the run has: {known}")
    rows = rows.drop_nulls("unlearned")
    known = ", ".join(sorted(rows["detector"].unique())) or "none"
    if detector == "default":
        rank = pl.col("detector").replace_strict({"exact_match": 0, "choice": 1}, default=None)
        rows = rows.with_columns(rank=rank).drop_nulls("rank").sort("example_id", "rank")
        rows = rows.unique("example_id", keep="first", maintain_order=True)
    else:
        rows = rows.filter(pl.col("detector") == detector)
    if rows.is_empty():
        what = f"{detector!r} has no verdicts at the end"
        raise UserError("config.mitigate.detector", what, f"the run has: {known}")
    return (
        rows.filter("unlearned")
        .select("example_id", pl.col("cause").fill_null(UNATTRIBUTED), *columns)
        .sort("example_id")
    )


def planted_causes(workdir: epath.Path, evidence: Evidence) -> np.ndarray:
    """The causes that were planted, of unlearned rows; '' where none of the five was. [N]

    Args:
      workdir: a planted study's folder.
      evidence: its evidence.

    Raises:
      UserError: nothing was planted there.
    """
    truth = dict(read_truth(workdir).select("example_id", "planted").iter_rows())
    causes = [truth.get(one, "") for one in evidence.ids_N.tolist()]
    known = [cause if cause in CAUSES else "" for cause in causes]
    return np.where(evidence.unlearned_N, np.array(known, object), "")


def linked(rows: Iterable[int], rivals: Mapping[int, tuple[int, ...]]) -> list[list[int]]:
    """Rows that are linked by contradictions, also through rows that are not among them.

    Args:
      rows: indices of rows.
      rivals: of `Evidence`.

    Returns:
      Groups of these rows, each sorted, by their first rows.
    """
    wanted, seen, groups = set(rows), set(), []
    for row in sorted(wanted):
        if row in seen:
            continue
        linked, todo = {row}, [row]
        while todo:
            for other in rivals.get(todo.pop(), ()):
                if other not in linked:
                    linked.add(other)
                    todo.append(other)
        seen |= linked
        groups.append(sorted(linked & wanted))
    return groups


def read_verdicts(path: str, place: Mapping[int, int]) -> dict[int, bool]:
    """A person's verdicts on recorded answers.

    Args:
      path: JSONL, each line an object with ``example_id`` and ``wrong``.
      place: example id -> index.

    Returns:
      Index -> whether its recorded answer is wrong.

    Raises:
      UserError: the file is missing, or a line is not like that or names no example.
    """
    mend = 'write lines like {"example_id": 123, "wrong": true}'

    def fault(row: dict[str, Any]) -> str:
        return "" if isinstance(row.get("wrong"), bool) else "'wrong' is neither true nor false"

    return {place[one]: row["wrong"] for one, row in rows_of(path, place, "verdict", mend, fault)}


def _rivals(signals, place, responses, trained_N) -> dict[int, tuple[int, ...]]:
    """Pairs that the diagnosis found, both ways: it lists only some of each row's."""
    found: dict[int, set[int]] = {}
    for one, near in signals.select("example_id", "near_ids").drop_nulls().iter_rows():
        for other in near:
            a, b = place[one], place[other]
            if trained_N[a] and trained_N[b] and responses[a] != responses[b]:
                found.setdefault(a, set()).add(b)
                found.setdefault(b, set()).add(a)
    return {row: tuple(sorted(others)) for row, others in sorted(found.items())}


def _base_answers(workdir, config, examples, place) -> tuple[np.ndarray, np.ndarray]:
    """What the base model firmly answers, and its confidence in other than the record."""
    n, diagnose = len(examples), config["diagnose"]
    answers, confidence_N = np.full(n, "", object), np.zeros(n)
    if not (workdir / reader.INFERENCE / "base.parquet").exists():
        return answers, confidence_N
    base = reader.read_inference(workdir, ["base"]).filter(
        pl.col("run") == 0, pl.col("prompt_variant") == 0, pl.col("seed").is_null()
    )
    least = {"greedy": "wrong_greedy_confidence", "choice": "wrong_confidence"}
    for mode in ("choice", "greedy"):  # its own words have the last word
        rows = base.filter(pl.col("mode") == mode).drop_nulls(["prediction", "confidence"])
        columns = ("example_id", "prediction", "confidence", "correct")
        for one, text, confidence, correct in rows.select(columns).iter_rows():
            if confidence >= diagnose[least[mode]]:
                answers[place[one]] = normalise(text)
            if not correct:
                confidence_N[place[one]] = max(confidence_N[place[one]], confidence)
    return answers, confidence_N
