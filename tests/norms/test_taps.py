"""Each tap against plain operations under JAX's own differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ilp_jax.norms import taps

SIZES = st.integers(1, 5)


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def of_each_example(fun, batch_size):
    """Squared norm of the gradient of one example's share, by differentiating it alone."""
    return np.array([sum(np.sum(np.square(g)) for g in fun(b)) for b in range(batch_size)])


@settings(max_examples=10)
@given(b=SIZES, t=SIZES, i=SIZES, o=SIZES, n_kernels=st.integers(1, 3))
@pytest.mark.parametrize("method", ["gram", "direct", "off"])
def test_dense(method, b, t, i, o, n_kernels):
    x = normal(0, b, t, i)
    kernels = tuple(normal(1 + k, i, o + k) for k in range(n_kernels))
    cotangents = tuple(normal(9 + k, b, t, o + k) for k in range(n_kernels))

    def tapped(x, kernels, probe):
        outs = taps.dense(method, x, kernels, probe)
        return sum(jnp.vdot(y, c) for y, c in zip(outs, cotangents, strict=True))

    def plain(x, kernels, only=slice(None)):
        return sum(
            jnp.vdot((x @ w)[only], c[only]) for w, c in zip(kernels, cotangents, strict=True)
        )

    zeros = jnp.zeros(b)
    np.testing.assert_allclose(tapped(x, kernels, zeros), plain(x, kernels), rtol=1e-4, atol=1e-5)
    dx, dkernels, squares = jax.grad(tapped, argnums=(0, 1, 2))(x, kernels, zeros)
    expected_dx, expected_dkernels = jax.grad(plain, argnums=(0, 1))(x, kernels)
    np.testing.assert_allclose(dx, expected_dx, rtol=1e-4, atol=1e-4)
    for got, expected in zip(dkernels, expected_dkernels, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    if method != "off":
        expected = of_each_example(lambda e: jax.grad(plain, argnums=1)(x, kernels, e), b)
        np.testing.assert_allclose(squares, expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=10)
@given(b=SIZES, t=SIZES, d=SIZES, v=st.integers(1, 4), data=st.data())
@pytest.mark.parametrize("method", ["gram", "direct"])
def test_a_tied_table_is_one_parameter(method, b, t, d, v, data):
    ids = np.array(data.draw(st.lists(st.integers(0, v - 1), min_size=b * t, max_size=b * t)))
    ids = ids.reshape(b, t).astype(np.int32)
    table, mix = normal(0, v, d), normal(1, d, d)
    cotangent = normal(2, b, t, v)

    def tapped(table, probe):
        x, link = taps.embed(table, ids, probe)
        h = jnp.tanh(x @ mix)
        return jnp.vdot(taps.tied_head(method, h, table, ids, link, probe), cotangent)

    def plain(table, only=slice(None)):
        logits = jnp.tanh(table[ids] @ mix) @ table.T
        return jnp.vdot(logits[only], cotangent[only])

    grad, squares = jax.grad(tapped, argnums=(0, 1))(table, jnp.zeros(b))
    np.testing.assert_allclose(grad, jax.grad(plain)(table), rtol=1e-4, atol=1e-4)
    expected = of_each_example(lambda e: [jax.grad(plain)(table, e)], b)
    np.testing.assert_allclose(squares, expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=10)
@given(b=SIZES, t=SIZES, d=SIZES)
def test_small_parameters(b, t, d):
    x, scale, cotangent = normal(0, b, t, d), normal(1, d), normal(2, b, t, d)

    def tapped(scale, probe):
        return jnp.vdot(x * taps.per_example(scale, probe)[:, None, :], cotangent)

    grad, squares = jax.grad(tapped, argnums=(0, 1))(scale, jnp.zeros(b))
    each = jnp.sum(x * cotangent, axis=1)
    np.testing.assert_allclose(grad, each.sum(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(squares, jnp.square(each).sum(1), rtol=1e-4, atol=1e-4)


def test_norm_work_is_dead_code_when_probes_are_not_differentiated():
    x, w = jnp.ones((2, 64, 8)), jnp.ones((8, 8))

    def loss(w, probe, method):
        return jnp.sum(taps.dense(method, x, (w,), probe)[0] ** 2)

    def flops(fun, *args):
        return jax.jit(fun).lower(*args).compile().cost_analysis()["flops"]

    probe = jnp.zeros(2)
    off = flops(lambda w: jax.grad(loss)(w, probe, "off"), w)
    unused = flops(lambda w: jax.grad(loss)(w, probe, "gram"), w)
    used = flops(lambda w, p: jax.grad(loss, (0, 1))(w, p, "gram"), w, probe)
    assert unused == off < used
