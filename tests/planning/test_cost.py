"""Seconds of a plan, against arithmetic by hand and against what must hold on any slice."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilp_jax import chips
from ilp_jax.models.config import ModelConfig
from ilp_jax.models.presets import preset
from ilp_jax.planning import flops
from ilp_jax.planning.cost import UPDATE_BYTES, cost, padded_batch
from ilp_jax.planning.work import Answers, Line, Passes, merged

SMALL = flops.Model(ModelConfig(1000, 64, 2, 4, 2, 16, 128, compute_dtype="bfloat16"))
LARGE = flops.Model(dataclasses.replace(preset("llama3_1_8b"), compute_dtype="bfloat16"))


def line(work):
    return Line("train", "x", 1, 1, (work,))


def update(rows, length=512, microbatches=1):
    return line(Passes({(length, 8): 1}, rows, True, False, True, microbatches))


def test_a_large_step_on_one_chip_takes_its_flops_at_the_assumed_share():
    chip = chips.one_chip("v5p")
    found = cost(update(256), LARGE, chip, mfu=0.5)
    rows = flops.forward(LARGE, 512, 8) + flops.backward(LARGE, 512, 8, norms=False, update=True)
    assert found.flops == pytest.approx(256 * rows)
    # Six FLOPs a parameter and token, but for the embedding, and the head at 8 of 512 tokens.
    body = flops.n_params(LARGE.config) - 2 * 128_256 * 4096
    assert found.flops == pytest.approx(6 * body * 256 * 512, rel=0.05)
    assert found.compute == pytest.approx(found.flops / (459e12 * 0.5))
    moments = UPDATE_BYTES * flops.n_params(LARGE.config) / 2765e9
    assert (found.bound, found.network) == ("compute", 0)
    assert found.seconds == pytest.approx(found.compute + moments)


def test_rows_are_not_split_over_chips():
    wide, narrow = chips.topology("v5e:16x16"), chips.topology("v5e:2x4")
    of_8 = cost(update(8), SMALL, narrow, 0.4)
    on_256 = cost(update(8), SMALL, wide, 0.4)
    assert on_256.compute == of_8.compute and on_256.flops == of_8.flops
    assert cost(update(9), SMALL, narrow, 0.4).compute == pytest.approx(2 * of_8.compute)
    # Each of 4 parts of 16 rows leaves half of 8 chips idle.
    parts = cost(update(16, microbatches=4), SMALL, narrow, 0.4)
    assert parts.compute == pytest.approx(4 * of_8.compute)


def test_few_tokens_a_chip_wait_for_weights():
    found = cost(update(256, length=128), LARGE, chips.topology("v5e:16x16"), 0.4)
    assert found.bound == "network"
    # bfloat16 weights for two passes, float32 gradients back, over 200 GB/s one way.
    assert found.network == pytest.approx((2 * 2 + 4) * flops.n_params(LARGE.config) / 200e9)
    assert cost(update(4096), LARGE, chips.topology("v5e:16x16"), 0.4).bound == "compute"


def test_norms_by_the_direct_form_move_every_examples_gradient():
    chip = chips.one_chip("h200")
    direct = dataclasses.replace(SMALL, norm_method="direct")
    with_norms = line(Passes({(512, 8): 1}, 4, True, True, True))
    without = cost(update(4), direct, chip, 0.4)
    found = cost(with_norms, direct, chip, 0.4)
    weights = flops.n_params(SMALL.config) - 1000 * 64 - 64 * (2 * 2 + 1)
    assert found.memory - without.memory == pytest.approx(4 * 16 * weights / 4800e9)


def test_generated_tokens_wait_for_memory():
    chip = chips.one_chip("h200")
    one = line(Answers({(64, 33): 1}, 1, 1))
    found = cost(one, LARGE, chip, 0.4)
    assert found.bound == "memory"
    prompt = cost(line(Passes({(64, 1): 1}, 1)), LARGE, chip, 0.4)
    weights = 2 * flops.n_params(LARGE.config) / 4800e9
    assert found.seconds - prompt.seconds == pytest.approx(32 * weights, rel=0.01)
    # The weights are read for all answers together.
    many = cost(line(Answers({(64, 33): 1}, 8, 1)), LARGE, chip, 0.4)
    assert many.seconds < 1.5 * found.seconds
    # An 8B model does not fit a v5e, so its weights travel for every token.
    split = cost(one, LARGE, chips.topology("v5e:4x4"), 0.4)
    assert split.bound == "network"


works = st.builds(
    Passes,
    st.dictionaries(
        st.tuples(st.sampled_from([32, 64, 256]), st.sampled_from([8, 16])), st.integers(1, 5)
    ),
    st.integers(1, 600),
    st.booleans(),
    st.booleans(),
)


@given(works, st.sampled_from([("v5e:1x1", "v5e:4x4"), ("v5p:2x2x1", "v5p:4x4x4")]))
def test_more_chips_take_no_longer_and_all_parts_fit(work, pair):
    few, many = (cost(line(work), SMALL, chips.topology(text), 0.4) for text in pair)
    assert many.flops == few.flops
    assert many.compute <= few.compute and many.seconds <= few.seconds * 1.000001
    for found in (few, many):
        assert max(found.compute, found.network) <= found.seconds * 1.000001
        assert found.seconds <= (found.compute + found.memory + found.network) * 1.000001


@given(st.integers(1, 1000), st.integers(1, 300))
def test_detections_batch_is_the_next_multiple_of_the_chips(size, n_chips):
    found = padded_batch(size, n_chips)
    assert found % n_chips == 0 and size <= found < size + n_chips


def test_lines_of_one_name_are_added_up():
    one = Line("train", "x", 3, 30, (Passes({(32, 8): 1}, 4),), 1, 3)
    other = Line("train", "x", 2, 20, (Passes({(32, 8): 2, (64, 8): 1}, 4),), 2, 0, True)
    apart = Line("detect", "x", 1, 10, (Passes({(32, 8): 1}, 8),))
    both, last = merged([one, other, apart, Line("train", "nothing", 0, 0, ())])
    assert (both.rows, both.tokens, both.updates, both.rows_with_norms) == (5, 50, 3, 3)
    assert both.at_most and last == apart
    assert both.work == (Passes({(32, 8): 3, (64, 8): 1}, 4),)
    assert both.padded_tokens == 4 * (3 * 32 + 64)
