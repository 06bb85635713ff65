"""Remedy of missing knowledge: documents that tell the prerequisites that the base model lacks.

The study's knowledge-enhanced continued pre-training (arXiv:2604.10079, section 4.1): facts in
blind spots (asked of the base model), told in documents among general text, then fine-tuning
again. Where all prerequisites are known there is nothing to tell, and nothing is done.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ilp_jax.mitigate.context import Context, Treated, others
from ilp_jax.mitigate.plan import Document, Plan


def treat(plan: Plan, rows: Sequence[int], context: Context, rng: np.random.Generator) -> Treated:
    """Documents about each row's blind prerequisites; see the module.

    Args:
      plan: the plan so far.
      rows: indices of the rows to treat.
      context: the run.
      rng: draws wordings.
    """
    found: list[Document] = []
    treated = set()
    for row in rows:
        blind = context.blind(row)
        if blind:
            treated.add(row)
            n = context.settings["documents_a_row"]
            found += [
                Document(context.library.tell(blind[i % len(blind)], rng), row) for i in range(n)
            ]
    return dataclasses.replace(plan, documents=plan.documents + tuple(found)), treated


def sham(plan: Plan, rows: Sequence[int], context: Context, rng: np.random.Generator) -> Treated:
    """As many documents, about what random learned rows rest on."""
    treated = [row for row in rows if context.blind(row)]
    found: list[Document] = []
    for row, other in zip(treated, others(context, len(treated), rng), strict=True):
        facts = context.facts.get(other) or context.library.facts(context.examples[other])
        for i in range(context.settings["documents_a_row"] if facts else 0):
            found.append(Document(context.library.tell(facts[i % len(facts)], rng), row))
    return dataclasses.replace(plan, documents=plan.documents + tuple(found)), set(treated)
