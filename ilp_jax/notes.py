"""What the results say of a run beside its figures: its stages, and cautions about its data."""

from __future__ import annotations

from typing import Any

from ilp_jax.data import distractors, own_text, packaged
from ilp_jax.data.study import StudyData
from ilp_jax.fields.planted import SOURCE
from ilp_jax.models.lora import LoraConfig


def about_stages(data: StudyData, trained_here: bool = True) -> list[dict[str, Any]]:
    """What the tables say of each stage.

    Args:
      data: the study.
      trained_here: False where a model was tuned elsewhere: how long and at which rate is then
        not known, whatever the config's fields are.
    """
    return [
        {
            "stage": stage.index,
            "name": stage.name,
            "rows": len(stage.rows),
            "held_out": len(stage.held_out),
            **(
                {"epochs": stage.epochs, "learning_rate": stage.config.learning_rate}
                if trained_here
                else {}
            ),
            "dropped": dict(data.dropped.get(stage.name, {})),
        }
        for stage in data.stages
    ]


def notes(data: StudyData, lora: LoraConfig | None) -> list[str]:
    """Sentences that stand below the tables.

    Args:
      data: the study, with all its options.
      lora: the adapters that are trained, None where all parameters are.
    """
    return [
        *_adapter_note(lora),
        *data_notes(data),
        *_planted_note(data),
        *_distractor_notes(data),
    ]


def data_notes(data: StudyData) -> list[str]:
    """What the results say of the rows, however a model came by them.

    Args:
      data: the study.
    """
    return [*benchmark_note(data), *data.long_rows, *own_text.told(data.examples)]


def benchmark_note(data: StudyData) -> list[str]:
    """A caution where rows of benchmarks' evaluation splits are trained on.

    Args:
      data: the study.
    """
    used = {example.source for example in data.examples} & set(packaged.FILES)
    splits = {source: packaged.FILES[source].split for source in sorted(used)}
    splits = [f"{source} ({split})" for source, split in splits.items() if split != "train"]
    if not splits:
        return []
    return [
        f"Trained on evaluation splits of benchmarks: {', '.join(splits)}. "
        "No benchmark score may be claimed from these weights."
    ]


def _adapter_note(lora: LoraConfig | None) -> list[str]:
    if lora is None:
        return []
    return [
        f"Trained: LoRA adapters of rank {lora.rank} on {', '.join(lora.targets)} alone; "
        "gradient norms are theirs."
    ]


def _planted_note(data: StudyData) -> list[str]:
    """A caution where causes are planted in real rows."""
    if not any(stage.config.get("source") == SOURCE for stage in data.stages):
        return []
    return [
        "Causes are planted in real rows: recorded answers swapped, contradicting rows added, "
        "visits set. The thresholds and fitted methods come from toy worlds; whether they hold "
        "here is what such a run asks."
    ]


def _distractor_notes(data: StudyData) -> list[str]:
    """Which rows' options are not their source's, and which rows have none."""
    kinds = {stage.name: stage.config.get("distractors") for stage in data.stages}
    return [
        f"Options of {made} rows of stage {name} are made by us (distractors: {kinds[name]}); "
        f"{without} of its rows are without options."
        for name, (made, without) in distractors.counts(data).items()
    ]
