"""A world's questions in other words."""

from __future__ import annotations

from ilp_jax.world import facts as words


def wordings(prompt: str) -> list[str]:
    """The question with one of its words replaced by a synonym, or an opcode's other question.

    Args:
      prompt: a question of the world.

    Returns:
      Every such text, each asking for the same.
    """
    parts = prompt.split()
    families = [words.PROPERTY, *words.RELATIONS]
    found = [
        " ".join([*parts[:i], other, *parts[i + 1 :]])
        for i, part in enumerate(parts)
        for family in families
        if part in family
        for other in family
        if other != part
    ]
    ops = [part for part in parts if part.startswith("op_")]
    if found or not ops:
        return found
    who = next(part for part in parts if part.startswith("person_"))
    texts = [template.format(o=ops[0], e=who) for template in words.OPCODE]
    return [text for text in texts if text != prompt]
