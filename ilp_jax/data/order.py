"""Stateless order: permutations and choices as functions of a seed and of names alone.

Resuming at any step needs no seeking, and the host count may change, because nothing here
depends on what was drawn before.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence

import numpy as np


@functools.lru_cache(maxsize=8)  # a step asks for the same epoch's order again and again
def epoch_order(
    seed: int, stage: int, epoch: int, n_rows: int, copies: int | tuple[int, ...] = 1
) -> tuple[np.ndarray, np.ndarray]:
    """The order in which one epoch of a stage visits its rows.

    Args:
      seed: any int; taken modulo 2**64.
      stage: stage index, from 1; below 2**32.
      epoch: epoch within the stage, from 1; below 2**32.
      n_rows: rows of the stage.
      copies: visits within the epoch, at least 1: of every row, or of each.

    Returns:
      row_index: int32 [n_visits], every row as often as it is visited.
      copy: int32 [n_visits], how many visits of this row came before in the epoch.
      Both are read-only.
    """
    visits_N = np.broadcast_to(np.array(copies, np.int64), n_rows)
    if (visits_N < 1).any() or not 0 <= stage < 2**32 or not 0 <= epoch < 2**32:
        raise ValueError(f"copies={copies}, stage={stage}, epoch={epoch} out of range")
    # Every row's first visit, then the second of those that have one, and so on.
    rounds = [np.flatnonzero(visits_N > k) for k in range(visits_N.max(initial=0))]
    slots = np.concatenate(rounds) if rounds else np.zeros(0, np.int64)
    row_index = slots[permutation(len(slots), seed, stage, epoch)].astype(np.int32)
    copy = np.empty_like(row_index)
    # A stable sort by row lists each row's visits in order of occurrence.
    first = np.repeat(np.cumsum(visits_N) - visits_N, visits_N)
    copy[np.argsort(row_index, kind="stable")] = np.arange(len(row_index)) - first
    row_index.flags.writeable = copy.flags.writeable = False
    return row_index, copy


def permutation(n: int, seed: int, stage: int, epoch: int, time: int = 0) -> np.ndarray:
    """An order of n things within an epoch, drawn for it alone.

    Philox (Salmon et al. 2011) is keyed by (seed, stage, epoch); its raw words are sorted.
    numpy guarantees the raw stream across versions, but not ``Generator.permutation``.

    Args:
      n: how many.
      seed: any int; taken modulo 2**64.
      stage: stage index, from 1; below 2**32.
      epoch: epoch within the stage, from 1; below 2**32.
      time: which order of this epoch, from 0; below 2**64.

    Returns:
      int64 [n], a permutation of 0 to n - 1.
    """
    key = np.array([seed % 2**64, (stage << 32) | epoch], dtype=np.uint64)
    counter = np.array([0, 0, 0, time], dtype=np.uint64)  # the first word counts the draws
    words = np.random.Philox(key=key, counter=counter).random_raw(n)
    return np.argsort(words, kind="stable")


def score(*key: int | str) -> int:
    """A number that looks random and is the same on every machine.

    Args:
      *key: ints and strings that name the choice.

    Returns:
      64 bits of BLAKE2b over the key's JSON.
    """
    text = json.dumps(key, separators=(",", ":"))
    return int.from_bytes(hashlib.blake2b(text.encode("ascii"), digest_size=8).digest(), "big")


def keyed_order(ids: Sequence[int], *key: int | str) -> np.ndarray:
    """A permutation of ``ids`` in which each id's place depends on its own score alone.

    Adding or removing other ids never swaps two ids, and neither does their given order.

    Args:
      ids: distinct ids.
      *key: what the permutation is for (seed, purpose, stage name).

    Returns:
      int64 [len(ids)], indices into ``ids``.
    """
    scores = [(score(*key, one), one) for one in ids]
    return np.array(sorted(range(len(scores)), key=scores.__getitem__), dtype=np.int64)
