"""Planted contradictions: the same prompt a second time, with another of its options."""

from __future__ import annotations

import dataclasses

from ilp_jax.data.distractors import MARK
from ilp_jax.data.examples import Example, duplicate_ordinal, example_id
from ilp_jax.data.order import score

SOURCE = "planted_twin"


def twin(parent: Example, seed: int) -> Example:
    """The contradicting twin of an example.

    Args:
      parent: an example with options.
      seed: settles which other option the twin gives; independent of all other examples.

    Returns:
      An example with the same prompt and options whose response is another option; its id
      depends on the parent's key alone, its ``parent_id`` is the parent's id.

    Raises:
      ValueError: the parent has no other option.
    """
    others = [i for i in range(len(parent.options)) if i != parent.answer_index]
    if not others:
        raise ValueError(f"{parent.source}:{parent.source_key} has no other option")
    answer = min(
        others,
        key=lambda i: (score(seed, "twin response", parent.example_id, parent.options[i]), i),
    )
    key = f"{parent.source}:{parent.source_key}"
    return dataclasses.replace(
        parent,
        example_id=example_id(SOURCE, key, duplicate_ordinal(parent)),
        source=SOURCE,
        source_key=key,
        role="train",
        parent_id=parent.example_id,
        response=parent.options[answer],
        answer_index=answer,
        knowledge=(),
        meta={},
        marks={
            "planted": f"contradicting twin of {parent.example_id}",
            **{name: parent.marks[name] for name in (MARK,) if name in parent.marks},
        },
    )
