"""A study's plan: lines of work with what each costs, files, and what was assumed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from ilp_jax.chips import MFU_SOURCE, Slice
from ilp_jax.data.study import StudyData
from ilp_jax.planning import disk as disk_of
from ilp_jax.planning import flops
from ilp_jax.planning.asking import Answered, Asked, detection
from ilp_jax.planning.cost import Cost, cost, padded_batch
from ilp_jax.planning.flops import Model
from ilp_jax.planning.training import base_lines, probed_lines, trained_lines
from ilp_jax.planning.work import Line, merged

PHASES = ("probe", "train", "detect")


@dataclasses.dataclass(frozen=True)
class Counts:
    """What a study runs and writes; no device is known here.

    Attributes:
      lines: in the order of a run.
      n_examples: examples, trained or held out.
      n_held_out: of these, those held out.
      n_stages: stages that are trained.
      updates: optimiser steps.
      stats: rows of the statistics.
      stats_with_norms: of these, those with gradient norms.
      answered: rows of the answers, by point.
      longest: positions of the longest row: its prompt and its response or longest option.
    """

    lines: tuple[Line, ...]
    n_examples: int
    n_held_out: int
    n_stages: int
    updates: int
    stats: int
    stats_with_norms: int
    answered: Mapping[str, Answered]
    longest: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """A study's cost on a slice.

    Attributes:
      counts: what is run and written.
      costs: of each of its lines, in order.
      disk: bytes of the files.
      model: what is trained.
      chips: where.
      mfu: assumed share of the peak.
      notes: what the figures rest on, and what is wrong with the set-up.
    """

    counts: Counts
    costs: tuple[Cost, ...]
    disk: disk_of.Disk
    model: Model
    chips: Slice
    mfu: float
    notes: tuple[str, ...]

    def total(self, phase: str | None = None, at_most: bool | None = None) -> Cost:
        """Cost of a phase, or of all.

        Args:
          phase: one of ``PHASES``; None for all.
          at_most: only lines of which the most is counted, or only others; None for both.
        """
        pairs = zip(self.counts.lines, self.costs, strict=True)
        of_phase = ((line, c) for line, c in pairs if phase in (None, line.phase))
        return sum((c for line, c in of_phase if at_most in (None, line.at_most)), Cost())


def counts_of(data: StudyData, config: ConfigDict, asked: Asked, n_chips: int = 1) -> Counts:
    """Counts of a study.

    Args:
      data: its rows.
      config: the resolved config.
      asked: questions about options, see ``asking.Asked``.
      n_chips: devices, of which detection's batches are a multiple.
    """
    tuned = bool(config.model.tuned)
    trained = [] if tuned else trained_lines(data, config)
    probed = [] if tuned else probed_lines(data, config)
    size = padded_batch(config.detect.batch_size, n_chips)
    found = detection(data, config, asked, size)
    lines = [*base_lines(config), *probed, *trained, *found.lines]
    lines = [line for phase in PHASES for line in lines if line.phase == phase]
    probes = [line for line in probed if line.what.startswith("probe")]
    return Counts(
        lines=tuple(merged(lines)),
        n_examples=len(data.examples),
        n_held_out=sum(example.role == "held_out" for example in data.examples),
        n_stages=0 if tuned else len(data.stages),
        updates=sum(line.updates for line in trained),
        stats=sum(line.rows for line in (*trained, *probes)),
        stats_with_norms=sum(line.rows_with_norms for line in (*trained, *probes)),
        answered=found.answered,
        longest=max(
            len(row.prompt_ids) + max(map(len, (row.target_ids, *row.option_ids)))
            for row in data.tokens
        ),
    )


def plan_of(
    model: Model, counts: Counts, config: ConfigDict, chips: Slice, mfu: float | None = None
) -> Plan:
    """The plan of a model and counts: nothing of data or weights is read.

    Args:
      model: what is trained or asked.
      counts: see ``counts_of``.
      config: the resolved config.
      chips: where.
      mfu: share of the peak that matmuls reach; None = the chip's own assumption.
    """
    share = mfu or chips.chip.mfu
    costs = tuple(cost(line, model, chips, share) for line in counts.lines)
    return Plan(
        counts=counts,
        costs=costs,
        disk=disk_of.disk(
            model,
            config,
            counts.n_examples,
            counts.n_held_out,
            counts.stats,
            counts.stats_with_norms,
            counts.answered,
            counts.n_stages,
        ),
        model=model,
        chips=chips,
        mfu=share,
        notes=_notes(model, counts, config, chips, share, mfu is None, costs),
    )


def to_dict(plan: Plan) -> dict[str, Any]:
    """The plan as JSON values: counts, FLOPs, seconds, bytes.

    Args:
      plan: the plan.
    """
    c = plan.counts
    return {
        "device": str(plan.chips),
        "chips": plan.chips.n_chips,
        "peak_flops": plan.chips.chip.peak(plan.model.config.compute_dtype),
        "mfu": plan.mfu,
        "source": plan.chips.chip.source,
        "parameters": flops.n_params(plan.model.config),
        "trained_parameters": plan.model.n_trained,
        "examples": c.n_examples,
        "updates": c.updates,
        "rows": {
            "stats": c.stats,
            "inference": {name: dataclasses.asdict(one) for name, one in c.answered.items()},
        },
        "bytes": dataclasses.asdict(plan.disk),
        "lines": [
            {
                "phase": line.phase,
                "what": line.what,
                "rows": line.rows,
                "tokens": line.tokens,
                "padded_tokens": line.padded_tokens,
                "batches": sum(sum(one.shapes.values()) for one in line.work),
                "updates": line.updates,
                "at_most": line.at_most,
                **dataclasses.asdict(spent),
                "bound": spent.bound,
            }
            for line, spent in zip(c.lines, plan.costs, strict=True)
        ],
        "phases": {phase: dataclasses.asdict(plan.total(phase)) for phase in PHASES},
        "total": dataclasses.asdict(plan.total()),
        "total_at_most": dataclasses.asdict(plan.total(at_most=True)),
        "notes": list(plan.notes),
    }


def _notes(
    model: Model,
    counts: Counts,
    config: ConfigDict,
    chips: Slice,
    mfu: float,
    assumed: bool,
    costs: Sequence[Cost],
) -> tuple[str, ...]:
    one, n = chips.chip, chips.n_chips
    peak = one.peak(model.config.compute_dtype) / 1e12
    notes = [
        f"{chips}: {n} x {peak:,.4g} TFLOP/s ({model.config.compute_dtype}), "
        f"{one.hbm_bandwidth / 1e9:,.4g} GB/s of memory; {one.source}.",
    ]
    if not assumed:
        notes.append(f"Matmuls are assumed to reach {mfu:g} of the peak, as given.")
    elif one.name == "cpu":
        notes.append(f"Whole passes are assumed to reach {mfu:g} of the matmul measured.")
    else:
        notes.append(f"Matmuls are assumed to reach {mfu:g} of the peak: {MFU_SOURCE}.")
    notes.append(
        "Left out: compiling, reading, writing, the diagnosis and the report. 'at most': every "
        "row is drawn to its longest answer, and every stage converges."
    )
    if config.train.batch_size // config.train.microbatches % n and counts.updates:
        notes.append(
            f"A batch of {config.train.batch_size} rows in {config.train.microbatches} parts "
            f"does not fill {n} chips: rows are never split, so some chips wait. Raise "
            f"train.batch_size to a multiple of {n}, or take fewer chips."
        )
    pairs = zip(counts.lines, costs, strict=True)
    if any(line.updates and spent.bound == "network" for line, spent in pairs):
        notes.append(
            f"Training waits for weights on their way between chips: {n} chips have too few tokens "
            "each. More rows a step, or fewer chips, take fewer chip-hours."
        )
    if counts.updates:
        share = disk_of.memory_of_training(model) / n / one.hbm_bytes
        if share > 0.9:
            notes.append(
                f"Parameters, gradients and moments alone take {share:.2f} of each chip's memory: "
                "it will not fit. Take more chips, or adapters (lora.rank)."
            )
    if counts.longest > model.config.max_position:
        notes.append(
            f"The longest row has {counts.longest} tokens, and the model was made for "
            f"{model.config.max_position}."
        )
    return tuple(notes)
