"""FLOPs and parameters, against what XLA counts in compiled programs and what Flax makes."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from ilp_jax.data.batches import RowBatch
from ilp_jax.models import presets
from ilp_jax.models.config import ModelConfig
from ilp_jax.models.decoder import Decoder
from ilp_jax.models.lora import COLLECTION, LoraConfig
from ilp_jax.norms import rules
from ilp_jax.planning import flops
from ilp_jax.train.step import gradients

# One layer: XLA counts the body of a loop once. Wide, so that matmuls outweigh all else.
WIDE = ModelConfig(512, 192, 1, 6, 3, 32, 384)
LENGTH, SLOTS = 96, 16


def compiled_flops(decoder, **kwargs):
    """What XLA counts in the gradients of one row."""
    row = np.zeros((1, LENGTH), np.int32)
    variables = jax.eval_shape(decoder.init, jax.random.key(0), row, row, row)
    params, base = variables["params"], None
    if decoder.lora is not None:
        params, base = variables[COLLECTION], params
    slots = np.zeros((1, 1, SLOTS), np.int32)
    rows = RowBatch(*3 * [row[None]], slots, slots, np.ones((1, 1, SLOTS), np.float32))

    def run(params, base, rows):
        return gradients(params, rows, base, decoder=decoder, normalization="example", **kwargs)

    return jax.jit(run).lower(params, base, rows).compile().cost_analysis()["flops"]


def planned_flops(model, norms, update):
    total = flops.forward(model, LENGTH, SLOTS)
    if norms or update:
        total += flops.backward(model, LENGTH, SLOTS, norms=norms, update=update)
    return total


@pytest.mark.parametrize(
    ("norms", "update", "method", "tied"),
    [
        (False, False, "auto", False),
        (True, True, "gram", True),
        (True, False, "gram", False),
        pytest.param(False, True, "auto", True, marks=pytest.mark.slow),
        pytest.param(True, True, "gram", False, marks=pytest.mark.slow),
        pytest.param(True, True, "direct", True, marks=pytest.mark.slow),
        pytest.param(True, False, "direct", False, marks=pytest.mark.slow),
    ],
)
def test_flops_of_a_row_are_those_of_the_compiled_program(norms, update, method, tied, monkeypatch):
    # XLA counts a loop's body once. This loop runs for rows whose tokens cancel, others not at all.
    monkeypatch.setattr(rules.lax, "while_loop", lambda goes_on, body, state: state)
    config = dataclasses.replace(WIDE, tie_embeddings=tied)
    counted = compiled_flops(
        Decoder(config, norm_method=method), with_norms=norms, with_gradient=update
    )
    planned = planned_flops(flops.Model(config, norm_method=method), norms, update)
    # Softmax, norms, activations and the direct form's squares are not planned.
    assert planned < counted < 1.08 * planned


@pytest.mark.slow
def test_flops_under_adapters():
    lora = LoraConfig(rank=8)
    counted = compiled_flops(Decoder(WIDE, lora=lora), with_norms=True, with_gradient=True)
    planned = planned_flops(flops.Model(WIDE, lora), True, True)
    # Of a single layer, nothing in front of q, k and v wants a gradient; of several, all but one.
    ends = 2.0 * LENGTH * 192 * (6 + 3 + 3) * 32 + 2.0 * LENGTH * 8 * 3 * 192
    assert planned - ends < counted < 1.08 * (planned - ends)


@pytest.mark.parametrize("name", presets.PRESETS)
def test_parameters_are_those_of_the_decoder(name):
    config, row = presets.preset(name), np.zeros((1, 1), np.int32)
    lora = LoraConfig(rank=4, targets=("q", "o", "up"))
    decoder = Decoder(config, lora=lora)
    made = jax.eval_shape(functools.partial(decoder.init), jax.random.key(0), row, row, row)

    def size(tree):
        return sum(leaf.size for leaf in jax.tree.leaves(tree))

    assert flops.n_params(config) == size(made["params"])
    assert flops.n_adapters(config, lora) == size(made[COLLECTION])
    assert flops.Model(config, lora).n_trained == size(made[COLLECTION])


def test_biases_count():
    config = dataclasses.replace(
        WIDE, qkv_bias=True, o_bias=True, mlp_bias=True, qk_norm="head", tie_embeddings=True
    )
    row = np.zeros((1, 1), np.int32)
    made = jax.eval_shape(Decoder(config).init, jax.random.key(0), row, row, row)["params"]
    assert flops.n_params(config) == sum(leaf.size for leaf in jax.tree.leaves(made))


def test_remat_adds_a_forward_pass_of_the_layers():
    plain = flops.Model(WIDE)
    again = flops.Model(dataclasses.replace(WIDE, remat="full"))
    pair = [
        flops.backward(model, LENGTH, SLOTS, norms=False, update=True) for model in (plain, again)
    ]
    assert pair[1] - pair[0] == flops.forward(plain, LENGTH, 0)


def test_tokens_behind_a_cache_cost_what_the_whole_row_does():
    # Written one after another, T tokens attend to 1, 2, ..., T keys: half of the square.
    model = flops.Model(WIDE)
    one_by_one = sum(flops.one_token(model, n) for n in range(1, LENGTH + 1))
    spared = 4.0 * 6 * 32 * (LENGTH**2 - LENGTH * (LENGTH + 1) / 2)
    assert one_by_one == flops.forward(model, LENGTH, LENGTH) - spared
