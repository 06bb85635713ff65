"""Every example is found again in the arrays; branches see what they may."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ilp_jax.data import batches
from ilp_jax.data.stages import build
from ilp_jax.data.study import visit_order


@pytest.fixture(scope="session")
def data(tmp_path_factory, questions, config, plain_tokenizer):
    """40 questions in a stage of two copies, and 12 without options in another."""
    import json

    folder = tmp_path_factory.mktemp("batches")
    one, two = folder / "one.jsonl", folder / "two.jsonl"
    one.write_text("".join(json.dumps(q) + "\n" for q in questions(40)))
    rows = [{"prompt": f"p{i}" * (i + 1), "response": "r" * (3 * i + 1)} for i in range(12)]
    two.write_text("".join(json.dumps(row) + "\n" for row in rows))
    stages = {
        "a": {"path": str(one), "copies": 2, "epochs": 2},
        "b": {"path": str(two), "epochs": 1},
    }
    return build(config(stages), plain_tokenizer)


def check_layout(rows, meta, batch_size):
    size, slots = rows.tokens_BxT.shape[1], rows.target_ids_BxR.shape[1]
    assert slots <= size
    for name, array in rows._asdict().items():
        assert array.shape == (batch_size, slots if name.startswith("target") else size)
        assert array.dtype == (np.float32 if "mask" in name else np.int32)
    fill = np.arange(batch_size) >= meta.n_real
    assert (meta.example_index_B[fill] == -1).all() and (meta.example_id_B[fill] == -1).all()
    assert (meta.visit_B[fill] == 0).all()
    assert (rows.target_mask_BxR[fill] == 0).all()
    assert (rows.branch_BxT[fill, 0] == 0).all() and (rows.branch_BxT[fill, 1:] == -1).all()
    assert (meta.example_id_B.dtype, meta.visit_B.dtype) == (np.int64, np.int32)


def check_row(rows, b, tokens):
    """A training row holds the prompt, then the target, all on branch 0."""
    n = tokens.n_tokens
    whole = [*tokens.prompt_ids, *tokens.target_ids]
    assert rows.tokens_BxT[b, :n].tolist() == whole
    assert rows.positions_BxT[b, :n].tolist() == list(range(n))
    assert (rows.branch_BxT[b, :n] == 0).all() and (rows.branch_BxT[b, n:] == -1).all()
    real = rows.target_mask_BxR[b] == 1
    assert rows.target_ids_BxR[b, real].tolist() == tokens.target_ids.tolist()
    # The target is the token after the one that predicts it.
    assert [whole[i + 1] for i in rows.target_index_BxR[b, real]] == tokens.target_ids.tolist()
    assert rows.target_index_BxR[b, 0] == len(tokens.prompt_ids) - 1


@settings(max_examples=15, deadline=None)
@given(
    batch_size=st.integers(1, 60),
    stage=st.integers(0, 1),
    epoch=st.integers(1, 2),
    buckets=st.sampled_from([(), (24, 40), (500,)]),
)
def test_an_epoch_of_training(data, batch_size, stage, epoch, buckets):
    stage = data.stages[stage]
    index, visit = [], []
    for k in range(batches.n_batches(stage, batch_size)):
        rows, meta = batches.train_batch(data, stage, 3, epoch, k, batch_size, buckets)
        check_layout(rows, meta, batch_size)
        for b in range(meta.n_real):
            check_row(rows, b, data.tokens[meta.example_index_B[b]])
        index += meta.example_index_B[: meta.n_real].tolist()
        visit += meta.visit_B[: meta.n_real].tolist()
        assert meta.example_id_B[0] == data.example_ids[meta.example_index_B[0]]
    assert (index, visit) == tuple(a.tolist() for a in visit_order(data, stage, 3, epoch))
    assert Counter(index) == {i: stage.copies for i in stage.rows.tolist()}
    with pytest.raises(IndexError):
        batches.train_batch(data, stage, 3, epoch, k + 1, batch_size, buckets)


def test_smallest_bucket_is_taken(data):
    for rows, meta in batches.probe_batches(data, range(52), 4, (24, 40, 100)):
        longest = max(data.tokens[i].n_tokens for i in meta.example_index_B[: meta.n_real])
        fitting = [b for b in (24, 40, 100) if b >= longest]
        assert rows.tokens_BxT.shape[1] == (fitting or [rows.tokens_BxT.shape[1]])[0]
        assert rows.tokens_BxT.shape[1] >= longest


def test_buckets():
    assert batches.length_buckets((), 100) == (32, 48, 64, 96, 100)
    assert batches.length_buckets((), 20) == (20,)
    assert batches.length_buckets((64, 16), 2048) == (16, 64)
    assert batches.LENGTH_BUCKETS[:8] == (32, 48, 64, 96, 128, 192, 256, 384)


@given(st.permutations(range(52)), st.integers(1, 9))
@settings(max_examples=10, deadline=None)
def test_probes_do_not_depend_on_the_order_asked(data, indices, batch_size):
    got = list(batches.probe_batches(data, indices, batch_size))
    expected = list(batches.probe_batches(data, range(52), batch_size))
    for (rows, meta), (rows2, meta2) in zip(got, expected, strict=True):
        check_layout(rows, meta, batch_size)
        assert all((a == b).all() for a, b in zip(rows, rows2, strict=True))
        assert (meta.example_index_B == meta2.example_index_B).all()
        assert (meta.visit_B == 0).all()
        for b in range(meta.n_real):
            check_row(rows, b, data.tokens[meta.example_index_B[b]])
    seen = np.concatenate([meta.example_index_B[: meta.n_real] for _, meta in got])
    assert sorted(seen.tolist()) == list(range(52))
    lengths = [data.tokens[i].n_tokens for i in seen]
    assert lengths == sorted(lengths)
    assert list(batches.probe_batches(data, [], 4)) == []


@pytest.mark.parametrize("buckets", [(), (8,), (256,)])
def test_packed_rows(data, attends, buckets):
    seen = []
    for rows, meta, slot_branch in batches.option_batches(data, range(52), 5, buckets):
        check_layout(rows, meta, 5)
        assert ((slot_branch >= 0) == (rows.target_mask_BxR == 1)).all()
        for b in range(meta.n_real):
            tokens = data.tokens[meta.example_index_B[b]]
            branches = {1: tokens.target_ids} | {
                2 + k: ids for k, ids in enumerate(tokens.option_ids)
            }
            assert set(slot_branch[b]) - {-1} == set(branches)
            sees = attends(rows, b)
            for k, ids in branches.items():
                # What the last token of a branch sees is the prompt and the branch, in order.
                last = np.flatnonzero(rows.branch_BxT[b] == k)[-1]
                context = np.flatnonzero(sees[last])
                alone = [*tokens.prompt_ids, *ids]
                assert rows.tokens_BxT[b, context].tolist() == alone
                assert rows.positions_BxT[b, context].tolist() == list(range(len(alone)))
                slots = np.flatnonzero(slot_branch[b] == k)
                assert rows.target_ids_BxR[b, slots].tolist() == ids.tolist()
                # Each target is predicted by the token that stands before it in that text.
                at = rows.target_index_BxR[b, slots]
                before = len(tokens.prompt_ids) - 1 + np.arange(len(ids))
                assert at.tolist() == context[before].tolist()
            assert (rows.branch_BxT[b] != -1).sum() == tokens.n_packed_tokens
            assert sees.any(axis=1).all()  # softmax of no token is empty, padding included
        seen += meta.example_index_B[: meta.n_real].tolist()
    assert sorted(seen) == list(range(52))


def test_host_slices_make_up_the_batch(data):
    rows, _ = batches.train_batch(data, data.stages[0], 0, 1, 0, 6)
    parts = [batches.host_slice(rows, i, 3) for i in range(3)]
    for name, array in rows._asdict().items():
        assert (np.concatenate([getattr(p, name) for p in parts]) == array).all()
    with pytest.raises(ValueError):
        batches.host_slice(rows, 0, 4)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(2, 7), st.integers(1, 3), st.integers(0, 9))
def test_rows_of_a_group_share_no_batch(data, seed, batch_size, per_group, every):
    stage = data.stages[0]
    members = stage.rows[: 2 * per_group].tolist()
    groups = {row: i % 2 for i, row in enumerate(members)}
    apart = dataclasses.replace(data, apart=groups, apart_every=every)
    seen = []
    n = batches.n_batches(stage, batch_size)
    for index in range(n):
        _, meta = batches.train_batch(apart, stage, seed, 1, index, batch_size)
        rows = meta.example_index_B[: meta.n_real].tolist()
        assert meta.n_real == batch_size or index == n - 1
        seen += zip(rows, meta.visit_B[: meta.n_real].tolist(), strict=True)
        if n >= 2 * per_group:  # batches enough
            for group in (0, 1):
                assert len({row for row in rows if groups.get(row) == group}) <= 1
    plain = zip(*(column.tolist() for column in visit_order(data, stage, seed, 1)), strict=True)
    assert sorted(seen) == sorted(plain)
    assert all([v for row, v in seen if row == one] == [1, 2] for one in stage.rows.tolist())


def test_any_batch_of_a_rearranged_epoch_is_known_without_the_others(data):
    stage = data.stages[0]
    groups = {row: i % 2 for i, row in enumerate(stage.rows[:8].tolist())}

    def order(every, indices):
        fresh = dataclasses.replace(data, apart=groups, apart_every=every)
        made = [batches.train_batch(fresh, stage, 3, 1, k, 7)[1] for k in indices]
        return [meta.example_index_B.tolist() for meta in made]

    whole = order(3, range(12))
    assert order(3, range(11, -1, -1)) == whole[::-1] and order(3, [9]) == [whole[9]]
    assert order(0, range(3)) == whole[:3] and order(0, range(12)) != whole
