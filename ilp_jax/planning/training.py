"""The batches of training and of the probes, from the data and the config alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from ilp_jax.data.batches import by_length, epoch_visits, padded_shape
from ilp_jax.data.study import Stage, StudyData
from ilp_jax.planning.work import Line, Passes
from ilp_jax.train.schedule import total_steps
from ilp_jax.world.corpus import corpus
from ilp_jax.world.study import make_world


class Lengths(NamedTuple):
    """Tokens of rows; each int64 [n].

    Attributes:
      tokens: prompt and target.
      targets: that are trained.
    """

    tokens: np.ndarray
    targets: np.ndarray


class Epoch(NamedTuple):
    """The end of an epoch.

    Attributes:
      stage: its stage.
      epoch: from 1.
      ends_stage: whether it is the stage's last.
    """

    stage: Stage
    epoch: int
    ends_stage: bool


def lengths_of(data: StudyData) -> Lengths:
    """Lengths of every example, as trained and probed.

    Args:
      data: the study.
    """
    rows = [(row.n_tokens, row.n_targets) for row in data.tokens]
    return Lengths(*np.array(rows, np.int64).reshape(-1, 2).T)


def epochs(data: StudyData) -> Iterator[Epoch]:
    """Every epoch of a run, in order.

    Args:
      data: the study.
    """
    for stage in data.stages:
        for epoch in range(1, stage.epochs + 1):
            yield Epoch(stage, epoch, epoch == stage.epochs)


def base_lines(config: ConfigDict) -> list[Line]:
    """The training of a planted world's base, where none is kept: at most one.

    Args:
      config: the resolved config.
    """
    if not config.world.family:
        return []
    world, how = make_world(config), config.world.pretraining
    documents = how.steps * how.batch_size
    rows = corpus(world.seed, world.facts, world.taught, documents, how.row_length)
    size = len(rows.tokens_NxT) // how.steps
    # Every token is a target, documents stand one behind another.
    shapes = {(how.row_length, how.row_length): how.steps}
    work = (Passes(shapes, size, backward=True, update=True),)
    tokens = int((rows.targets_NxT > 0).sum())
    what = "train the world's base"
    return [Line("probe", what, size * how.steps, tokens, work, at_most=True)]


def trained_lines(data: StudyData, config: ConfigDict) -> list[Line]:
    """A line a stage: its updates.

    Args:
      data: the study.
      config: the resolved config.
    """
    lengths, size = lengths_of(data), config.train.batch_size
    every, step, lines = config.train.norms_every, 0, []
    for stage in data.stages:
        shapes = {False: Counter(), True: Counter()}
        rows = tokens = updates = in_norms = 0
        for epoch in range(1, stage.epochs + 1):
            index, visit = epoch_visits(
                data, stage, config.seed + stage.config.seed_offset, epoch, size
            )
            of_epoch = _as_visited(data, lengths, index, visit)
            for start in range(0, len(index), size):
                step += 1
                with_norms = bool(every) and (step - 1) % every == 0
                part = slice(start, start + size)
                shapes[with_norms][_shape(of_epoch, part, config.length_buckets)] += 1
                updates += 1
                in_norms += with_norms * len(index[part])
            rows += len(index)
            tokens += int(of_epoch.tokens.sum())
        work = tuple(
            Passes(dict(found), size, True, norms, True, config.train.microbatches)
            for norms, found in shapes.items()
            if found
        )
        what = f"train stage {stage.index} {stage.name}"
        lines.append(Line("train", what, rows, tokens, work, updates, in_norms))
    assert step == total_steps(data, size)
    return lines


def probed_lines(data: StudyData, config: ConfigDict) -> list[Line]:
    """The probes: of the base model, its representations, and at the ends of epochs.

    Args:
      data: the study.
      config: the resolved config.
    """
    settings, everything = config.probe, np.arange(len(data.examples))
    lines = [
        _probe(data, config, everything, "probe", "probe every row", "base" in settings.norms_at)
    ]
    if settings.representations:
        prompts = np.array([len(row.prompt_ids) for row in data.tokens], np.int64)
        shapes = Counter()
        for part in by_length(data, everything, prompts, settings.batch_size):
            longest = int(prompts[part].max())
            shapes[padded_shape(longest, 1, config.length_buckets)[0], 0] += 1
        work = (Passes(dict(shapes), settings.batch_size),)
        lines.append(Line("probe", "represent prompts", len(everything), int(prompts.sum()), work))
    for one in probe_moments(data, config):
        at = "stage_end" if one.ends_stage else "epoch"
        rows = probed_rows(data, config, one)
        norms = at in settings.norms_at
        lines.append(_probe(data, config, rows, "train", "probe at ends of epochs", norms))
    return lines


def probe_moments(data: StudyData, config: ConfigDict) -> list[Epoch]:
    """Epochs at whose ends rows are probed; see ``train.milestones``.

    Args:
      data: the study.
      config: the resolved config.
    """
    settings = config.probe
    if settings.rows == "none":
        return []
    return [e for e in epochs(data) if e.epoch % settings.every_epochs == 0 or e.ends_stage]


def probed_rows(data: StudyData, config: ConfigDict, one: Epoch) -> np.ndarray:
    """Rows that are probed at an epoch's end: indices into ``data.examples``.

    Args:
      data: the study.
      config: the resolved config.
      one: the epoch.
    """
    stages = data.stages if one.ends_stage or config.probe.rows == "all" else (one.stage,)
    return np.unique(
        np.concatenate([*(s.rows for s in stages), *(s.held_out for s in data.stages)])
    ).astype(int)


def _probe(
    data: StudyData, config: ConfigDict, rows: Sequence[int], phase: str, what: str, norms: bool
) -> Line:
    lengths, size = lengths_of(data), config.probe.batch_size
    shapes = Counter(
        _shape(lengths, part, config.length_buckets)
        for part in by_length(data, rows, lengths.tokens[rows], size)
    )
    tokens = int(lengths.tokens[rows].sum())
    # Norms need a backward pass, but no gradient of the parameters.
    work = (Passes(dict(shapes), size, norms, norms),)
    return Line(phase, what, len(rows), tokens, work, rows_with_norms=len(rows) * norms)


def _as_visited(data: StudyData, lengths: Lengths, index: np.ndarray, visit: np.ndarray) -> Lengths:
    """Lengths of an epoch's slots; a planted fault trains another target at each visit."""
    found = Lengths(lengths.tokens[index], lengths.targets[index])
    if data.faults:
        for slot, (i, n) in enumerate(zip(index.tolist(), visit.tolist(), strict=True)):
            if i in data.faults:
                row = data.trained_tokens(i, n)
                found.tokens[slot], found.targets[slot] = row.n_tokens, row.n_targets
    return found


def _shape(lengths: Lengths, part, buckets: Sequence[int]) -> tuple[int, int]:
    return padded_shape(int(lengths.tokens[part].max()), int(lengths.targets[part].max()), buckets)
