"""How long a row may be, and the words for rows that are longer."""

from __future__ import annotations

from collections.abc import Sequence

from ml_collections import ConfigDict

_NAMED = 5  # rows that a sentence names before it counts the others


def fitted(config: ConfigDict, positions: int) -> ConfigDict:
    """The config with rows that a model has positions for.

    Args:
      config: the resolved config.
      positions: longest row in tokens that the model was made for, ``ModelConfig.max_position``.

    Returns:
      The config itself where ``max_length`` is no larger, else a copy with ``positions`` there.
    """
    if config.max_length <= positions:
        return config
    config = config.copy_and_resolve_references()
    config.max_length = positions
    return config


def about_long(stage: str, names: Sequence[str], limit: int, left_out: bool) -> str:
    """A sentence about the rows of a stage that are longer than a row may be.

    Args:
      stage: its name.
      names: of these rows.
      limit: tokens of the longest row.
      left_out: whether they are left out; else they are cut.
    """
    few, more = ", ".join(names[:_NAMED]), len(names) - _NAMED
    return (
        f"Stage {stage}: {len(names)} {'row is' if len(names) == 1 else 'rows are'} longer than "
        f"{limit} tokens (config.max_length, or the model's positions where they are fewer) and "
        f"{'left out' if left_out else 'cut there'}: {few}{f' and {more} more' * (more > 0)}."
    )
