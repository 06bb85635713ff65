"""Arrays that a training step, a probe or the detection takes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ilp_jax.data.apart import kept_apart
from ilp_jax.data.order import permutation
from ilp_jax.data.study import Stage, StudyData, visit_order
from ilp_jax.data.tokens import TokenRow

TARGET_BUCKETS = (8, 16, *(2**k for k in range(5, 31)))
# 32, 48, 64, 96, ...: no row is padded by more than half, and shapes to compile stay few.
LENGTH_BUCKETS = tuple(size for k in range(5, 31) for size in (2**k, 3 * 2 ** (k - 1)))


class RowBatch(NamedTuple):
    """Rows of tokens with their targets; B rows, T tokens a row, R target slots a row.

    A token i attends to a token j iff j <= i, branch[j] != -1, and branch[j] is 0 or
    branch[i]. In training rows all real tokens are of branch 0. In packed rows branch 0 is the
    prompt, 1 the response with its end token, and 2 + k the k-th option. A row that only
    fills the batch has one token of branch 0, so that its softmax stays finite. Where earlier
    replies of a conversation are trained too, they stand in the prompt, and the row's first
    target slots are theirs.

    Attributes:
      tokens_BxT: int32 token ids; 0 where there is none.
      positions_BxT: int32 position of each token in its own sequence (prompt, then branch).
      branch_BxT: int32 branch of each token, -1 = padding.
      target_index_BxR: int32 index in the row of the token whose logits predict the target.
      target_ids_BxR: int32 the target's id.
      target_mask_BxR: float32 1 for a target, 0 for an empty slot.
    """

    tokens_BxT: np.ndarray
    positions_BxT: np.ndarray
    branch_BxT: np.ndarray
    target_index_BxR: np.ndarray
    target_ids_BxR: np.ndarray
    target_mask_BxR: np.ndarray


class BatchMeta(NamedTuple):
    """Which example each row of a batch is.

    Attributes:
      example_index_B: int32 index into ``StudyData.examples``, -1 for rows that only fill.
      example_id_B: int64 the example's id, -1 for rows that only fill.
      visit_B: int32 how often the run has visited the example, this visit included, from 1;
        0 for rows that only fill and in batches that do not train.
      n_real: rows that are examples; they come first.
    """

    example_index_B: np.ndarray
    example_id_B: np.ndarray
    visit_B: np.ndarray
    n_real: int


class OptionBatch(NamedTuple):
    """Packed rows: prompt, response with end token, and every option.

    Attributes:
      rows: the arrays, with a target slot for every token of every branch.
      meta: which example each row is.
      slot_branch_BxR: int32 branch that each target slot belongs to, -1 = empty slot. Slots
        of earlier replies have the response's branch, 1: the slots of branch 1 are all that
        is trained, the last reply last.
    """

    rows: RowBatch
    meta: BatchMeta
    slot_branch_BxR: np.ndarray


def length_buckets(buckets: Sequence[int], max_length: int) -> tuple[int, ...]:
    """The row lengths to pad to.

    Args:
      buckets: config.length_buckets; empty for 32, 48, 64, 96, 128, ...
      max_length: tokens of the longest possible row; no bucket exceeds it.

    Returns:
      Rising lengths, the last one ``max_length`` when ``buckets`` reaches it.
    """
    sizes = sorted(set(buckets)) or LENGTH_BUCKETS
    return tuple(sorted({min(size, max_length) for size in sizes}))


def n_batches(stage: Stage, batch_size: int) -> int:
    """Batches of one epoch of a stage; the last one may be filled up with empty rows."""
    return -(-stage.n_visits // batch_size)


def train_batch(
    data: StudyData,
    stage: Stage,
    seed: int,
    epoch: int,
    batch_index: int,
    batch_size: int,
    buckets: Sequence[int] = (),
) -> tuple[RowBatch, BatchMeta]:
    """One batch of training, whatever came before it.

    Args:
      data: the study.
      stage: one of its stages.
      seed: the run's seed.
      epoch: epoch of the stage, from 1.
      batch_index: batch of the epoch, from 0, below ``n_batches``.
      batch_size: B, over all hosts.
      buckets: row lengths, see ``length_buckets``; a longer row extends them.

    Returns:
      The rows and which examples they are.
    """
    if not 0 <= batch_index < n_batches(stage, batch_size):
        raise IndexError(f"batch {batch_index} of {n_batches(stage, batch_size)}")
    index, visit = epoch_visits(data, stage, seed, epoch, batch_size)
    part = slice(batch_index * batch_size, (batch_index + 1) * batch_size)
    visits = zip(index[part], visit[part], strict=True)
    rows = _pack([_plain(data.trained_tokens(i, n)) for i, n in visits], batch_size, buckets)[0]
    return rows, _meta(data, index[part], batch_size, visit[part])


def epoch_visits(
    data: StudyData, stage: Stage, seed: int, epoch: int, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which example each slot of an epoch's batches trains on, and the how-manieth visit that is.

    Args:
      data: the study.
      stage: one of its stages.
      seed: the run's seed.
      epoch: epoch of the stage, from 1.
      batch_size: B; matters where ``data.apart`` keeps rows out of one another's batches.

    Returns:
      int32 [n_visits] each, as ``visit_order``; every ``batch_size`` slots are a batch.
    """
    index, visit = visit_order(data, stage, seed, epoch)
    if not data.apart:
        return index, visit
    order = _kept_apart(data, stage, seed, epoch, batch_size)
    return index[order], visit[order]


@functools.lru_cache(maxsize=4)  # a step asks for the same epoch's order again and again
def _kept_apart(
    data: StudyData, stage: Stage, seed: int, epoch: int, batch_size: int
) -> np.ndarray:
    """The epoch's slots in an order in which no batch holds two rows of one group.

    A row's visits stay in their order. int64 [n_visits]
    """
    index, _ = visit_order(data, stage, seed, epoch)
    group_V = np.array([data.apart.get(row, -1) for row in index.tolist()], np.int64)

    def shuffled(time: int, n: int) -> np.ndarray:
        return permutation(n, seed, stage.index, epoch, time)

    order = kept_apart(index, group_V, batch_size, data.apart_every, shuffled)
    places = np.argsort(index[order], kind="stable")
    order[places] = np.argsort(index, kind="stable")
    return order


def probe_batches(
    data: StudyData, indices: Sequence[int], batch_size: int, buckets: Sequence[int] = ()
) -> Iterator[tuple[RowBatch, BatchMeta]]:
    """Batches over given examples in the layout of training, shortest rows first.

    Args:
      data: the study.
      indices: indices into ``data.examples``, in any order: it does not matter.
      batch_size: B.
      buckets: row lengths; a longer row extends them.

    Yields:
      The rows and which examples they are; ``visit_B`` is 0.
    """
    lengths = [data.tokens[i].n_tokens for i in indices]
    for part in by_length(data, indices, lengths, batch_size):
        rows = _pack([_plain(data.tokens[i]) for i in part], batch_size, buckets)[0]
        yield rows, _meta(data, part, batch_size)


def prompt_batches(
    data: StudyData, indices: Sequence[int], batch_size: int, buckets: Sequence[int] = ()
) -> Iterator[tuple[RowBatch, BatchMeta]]:
    """As ``probe_batches``, with the prompts alone: no response, no target."""
    nothing = np.zeros(0, np.int32)
    lengths = [len(data.tokens[i].prompt_ids) for i in indices]
    for part in by_length(data, indices, lengths, batch_size):
        prompts = [
            dataclasses.replace(data.tokens[i], target_ids=nothing, earlier_replies=())
            for i in part
        ]
        rows = _pack([_plain(prompt) for prompt in prompts], batch_size, buckets)[0]
        yield rows, _meta(data, part, batch_size)


def option_batches(
    data: StudyData, indices: Sequence[int], batch_size: int, buckets: Sequence[int] = ()
) -> Iterator[OptionBatch]:
    """Packed batches over given examples, so that one forward pass scores every option.

    Every branch goes on from the prompt: its positions start at the prompt's length, and its
    first target is predicted from the prompt's last token.

    Args:
      data: the study.
      indices: indices into ``data.examples``, in any order: it does not matter.
      batch_size: B.
      buckets: row lengths; a longer row extends them, none is cut.

    Yields:
      The batches, shortest rows first; ``visit_B`` is 0.
    """
    lengths = [data.tokens[i].n_packed_tokens for i in indices]
    for part in by_length(data, indices, lengths, batch_size):
        packed = [_Packed(data.tokens[i], data.tokens[i].option_ids, 1) for i in part]
        rows, slot_branch = _pack(packed, batch_size, buckets)
        yield OptionBatch(rows, _meta(data, part, batch_size), slot_branch)


def host_slice(arrays, process_index: int, process_count: int):
    """One host's rows of a batch.

    Args:
      arrays: a RowBatch, or any NamedTuple of arrays with the batch on the first axis.
      process_index: this host, from 0.
      process_count: hosts; divides the batch.

    Returns:
      The same NamedTuple with rows [process_index * B / process_count, ...).
    """
    size = len(arrays[0]) // process_count
    if size * process_count != len(arrays[0]):
        raise ValueError(f"{process_count} hosts do not divide a batch of {len(arrays[0])}")
    part = slice(process_index * size, (process_index + 1) * size)
    return type(arrays)(*(array[part] for array in arrays))


class _Packed(NamedTuple):
    """A row before padding: the first branch is the target, the others are options."""

    tokens: TokenRow
    options: tuple[np.ndarray, ...]
    first_branch: int

    @property
    def branches(self) -> list[np.ndarray]:
        return [self.tokens.target_ids, *self.options]

    @property
    def n_tokens(self) -> int:
        return len(self.tokens.prompt_ids) + sum(map(len, self.branches))

    @property
    def n_targets(self) -> int:
        return self.tokens.n_targets + sum(map(len, self.options))


def _plain(tokens: TokenRow) -> _Packed:
    return _Packed(tokens, (), 0)


def _pack(
    packed: Sequence[_Packed], batch_size: int, buckets: Sequence[int]
) -> tuple[RowBatch, np.ndarray]:
    """Lays rows out in arrays of the smallest bucket that holds them all."""
    longest = max((row.n_tokens for row in packed), default=1)
    n_targets = max((row.n_targets for row in packed), default=1)
    length, slots = padded_shape(longest, n_targets, buckets)
    tokens, positions, target_index, target_ids = (
        np.zeros((batch_size, n), np.int32) for n in (length, length, slots, slots)
    )
    branch = np.full((batch_size, length), -1, np.int32)
    branch[len(packed) :, 0] = 0
    slot_branch = np.full((batch_size, slots), -1, np.int32)
    for b, row in enumerate(packed):
        n_prompt = len(row.tokens.prompt_ids)
        tokens[b, :n_prompt] = row.tokens.prompt_ids
        positions[b, :n_prompt] = np.arange(n_prompt)
        branch[b, :n_prompt] = 0
        at, slot = n_prompt, 0
        for start, stop in row.tokens.earlier_replies:
            n = stop - start
            target_ids[b, slot : slot + n] = row.tokens.prompt_ids[start:stop]
            target_index[b, slot : slot + n] = np.arange(start - 1, stop - 1)
            slot_branch[b, slot : slot + n] = row.first_branch
            slot += n
        for k, ids in enumerate(row.branches):
            n = len(ids)
            tokens[b, at : at + n] = ids
            positions[b, at : at + n] = np.arange(n_prompt, n_prompt + n)
            branch[b, at : at + n] = row.first_branch + k
            target_ids[b, slot : slot + n] = ids
            # Each token is predicted from the one before it, a branch's first from the prompt.
            target_index[b, slot : slot + n] = np.arange(at - 1, at + n - 1)
            target_index[b, slot : slot + min(n, 1)] = n_prompt - 1
            slot_branch[b, slot : slot + n] = row.first_branch + k
            at, slot = at + n, slot + n
    mask = (slot_branch >= 0).astype(np.float32)
    return RowBatch(tokens, positions, branch, target_index, target_ids, mask), slot_branch


def padded_shape(longest: int, most_targets: int, buckets: Sequence[int]) -> tuple[int, int]:
    """Tokens and target slots that every row of a batch is padded to.

    Args:
      longest: tokens of the batch's longest row.
      most_targets: targets of the row that has most.
      buckets: row lengths, see ``length_buckets``; a longer row extends them.

    Returns:
      T and R.
    """
    length = _bucket(longest, buckets or LENGTH_BUCKETS)
    return length, min(_bucket(most_targets, TARGET_BUCKETS), length)


def _bucket(size: int, buckets: Sequence[int]) -> int:
    """The smallest bucket that holds ``size``; past the largest, the default ones go on."""
    fitting = [bucket for bucket in buckets if bucket >= size]
    return min(fitting or [bucket for bucket in LENGTH_BUCKETS if bucket >= size])


def by_length(
    data: StudyData, indices: Sequence[int], lengths: Sequence[int], batch_size: int
) -> Iterator[np.ndarray]:
    """Indices in batches, sorted by length, then by example id.

    Args:
      data: the study.
      indices: indices into ``data.examples``.
      lengths: of each of them.
      batch_size: rows a batch; the last one may have fewer.

    Yields:
      int32 indices of one batch.
    """
    indices = np.asarray(indices, np.int32)
    order = np.lexsort((data.example_ids[indices], np.asarray(lengths)))
    for start in range(0, len(indices), batch_size):
        yield indices[order[start : start + batch_size]]


def _meta(data: StudyData, index: np.ndarray, batch_size: int, visit=0) -> BatchMeta:
    n_real = len(index)
    example_index = np.full(batch_size, -1, np.int32)
    example_id = np.full(batch_size, -1, np.int64)
    visits = np.zeros(batch_size, np.int32)
    example_index[:n_real] = index
    example_id[:n_real] = data.example_ids[index]
    visits[:n_real] = visit
    return BatchMeta(example_index, example_id, visits, n_real)
