"""In which mini-batch each visit of an epoch stands, where rows of one group share none."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np


def kept_apart(
    row_V: np.ndarray,
    group_V: np.ndarray,
    batch_size: int,
    every: int = 0,
    shuffled: Callable[[int, int], np.ndarray] | None = None,
) -> np.ndarray:
    """An epoch's visits in an order in which no batch holds two different rows of one group.

    Every so many batches the visits that are left are shuffled and arranged anew. The whole epoch
    follows from the arguments, so that any batch of it is known without those before it.

    Where every visit in a group can have a batch of its own, the groups are apart for certain. Of
    rows visited more often than that, an arrangement is looked for and may be missed (to find one
    is as hard as packing bins); then as few rows as were found to must share a batch.

    Args:
      row_V: int [V], which row each visit is of, in the order that they would have.
      group_V: int [V], the group of each visit's row; -1 for none.
      batch_size: visits of a batch; the last may have fewer.
      every: batches between arrangements; 0: one for the epoch.
      shuffled: (k, n) -> the k-th order of n visits, for k from 1; needed where ``every`` is given.

    Returns:
      int64 [V], indices of the visits, batch after batch.
    """
    left = np.arange(len(row_V))
    size = every * batch_size or len(left)
    parts = []
    for k in itertools.count():
        anew = left[shuffled(k, len(left))] if k else left
        # The order so far keeps apart what it did, whatever becomes of the new one.
        orders = itertools.chain(_orders(anew, row_V, group_V, batch_size), [left] * bool(k))
        left = _fewest_clashes(orders, row_V, group_V, batch_size)
        parts.append(left[:size])
        left = left[size:]
        if not len(left):
            return np.concatenate(parts)


def _orders(
    visits: np.ndarray, row_V: np.ndarray, group_V: np.ndarray, batch_size: int
) -> Iterator[np.ndarray]:
    """Arrangements of some visits, the more random first."""
    rows, groups = row_V[visits], group_V[visits]
    for arrange in (_near, _spread):
        yield visits[arrange(rows, groups, batch_size)]


def _fewest_clashes(
    orders: Iterator[np.ndarray], row_V: np.ndarray, group_V: np.ndarray, batch_size: int
) -> np.ndarray:
    """The first order without a clash, else one with the fewest."""
    best, fewest = None, 0
    for order in orders:
        n = _clashes(row_V[order], group_V[order], batch_size)
        if best is None or n < fewest:
            best, fewest = order, n
        if not fewest:
            break
    return best


def _clashes(rows: np.ndarray, groups: np.ndarray, batch_size: int) -> int:
    """How many rows stand in a batch beside another row of their group."""
    batch = np.arange(len(rows)) // batch_size
    placed = np.stack([batch, groups, rows])[:, groups >= 0]
    return np.unique(placed, axis=1).shape[1] - np.unique(placed[:2], axis=1).shape[1]


def _near(rows: np.ndarray, groups: np.ndarray, batch_size: int) -> np.ndarray:
    """Each visit in the batch that it would have been in, or in the next that it may be in.

    The next after the last is the first; where no batch with room lacks other rows of its group,
    the next with room.
    """
    batches, room = _empty(len(rows), batch_size)
    n = len(room)
    held: list[dict[int, int]] = [{} for _ in room]  # group -> the row that stands for it
    for slot in np.flatnonzero(groups >= 0).tolist():
        row, group, first = int(rows[slot]), int(groups[slot]), slot // batch_size
        near = [range(first, n), range(first)]
        open_to = (k for k in itertools.chain(*near) if room[k] and held[k].get(group, row) == row)
        place = next(open_to, None)
        if place is None:
            place = next(k for k in itertools.chain(*near) if room[k])
        batches[place].append(slot)
        room[place] -= 1
        held[place].setdefault(group, row)
    return _filled(batches, room, groups)


def _spread(rows: np.ndarray, groups: np.ndarray, batch_size: int) -> np.ndarray:
    """Each group's visits in the batches with the most room.

    Where each visit can have a batch of its own this finds an arrangement whenever there is one
    (Ryser 1957: a matrix of zeros and ones with given sums).
    """
    batches, room = _empty(len(rows), batch_size)
    slots_of: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for slot in np.flatnonzero(groups >= 0).tolist():
        slots_of[int(groups[slot])][int(rows[slot])].append(slot)
    over = []
    for slots_of_row in slots_of.values():
        stacks = sorted(_stacks(list(slots_of_row.values()), len(room)), key=len, reverse=True)
        most_room = sorted(range(len(room)), key=room.__getitem__, reverse=True)
        for stack, k in itertools.zip_longest(stacks, most_room[: len(stacks)]):
            fitting = 0 if k is None else min(room[k], len(stack))
            if fitting:
                batches[k] += stack[:fitting]
                room[k] -= fitting
            over += stack[fitting:]
    for slot in over:
        k = max(range(len(room)), key=room.__getitem__)
        batches[k].append(slot)
        room[k] -= 1
    return _filled(batches, room, groups)


def _stacks(slots_of_row: Sequence[list[int]], n: int) -> list[list[int]]:
    """Visits of a group in stacks of one row each: single visits, unless n are too few."""
    counts = [len(slots) for slots in slots_of_row]
    parts = [1] * len(counts)
    for _ in range(min(n, sum(counts)) - len(counts)):
        highest = max(range(len(counts)), key=lambda i: counts[i] / parts[i])
        parts[highest] += 1
    pairs = zip(slots_of_row, parts, strict=True)
    return [slots[k::n_own] for slots, n_own in pairs for k in range(n_own)]


def _empty(n_visits: int, batch_size: int) -> tuple[list[list[int]], list[int]]:
    """No visit in any batch yet, and the room of each."""
    starts = range(0, n_visits, batch_size)
    return [[] for _ in starts], [min(batch_size, n_visits - start) for start in starts]


def _filled(batches: list[list[int]], room: Sequence[int], groups: np.ndarray) -> np.ndarray:
    """The batches in order, visits of no group in what room is left."""
    free = iter(np.flatnonzero(groups < 0).tolist())
    for batch, left in zip(batches, room, strict=True):
        batch += itertools.islice(free, left)
    return np.array([slot for batch in batches for slot in batch], np.int64)
