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


SHARES = (1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5)


def undone(shape, share, seed=0):
    """Inputs and cotangents whose tokens undo each other in pairs but for a share."""
    b, t, i, o = shape
    random = np.random.default_rng(seed)
    x = random.normal(size=(b, t // 2, i)).repeat(2, axis=1)
    g = random.normal(size=(b, t // 2, o)).repeat(2, axis=1) * np.tile([1.0, -1.0], t // 2)[:, None]
    return x.astype(np.float32), (g + share * random.normal(size=g.shape)).astype(np.float32)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("method", ["gram", "direct"])
def test_a_norm_of_what_is_left_where_tokens_cancel(method, share):
    shape = 3, 64, 96, 130
    x, g = undone(shape, share)
    x[2], g[2] = undone(shape, 1.0, seed=1)[0][2], 1.0  # one that is as it is among them
    probe, w = jnp.zeros(3), jnp.zeros(shape[2:])

    def loss(probe):
        return jnp.vdot(taps.dense(method, x, (w,), probe)[0], g)

    exact = np.einsum("bti,bto->bio", x.astype(np.float64), g.astype(np.float64))
    wanted = np.sqrt(np.square(exact).sum((1, 2)))
    np.testing.assert_allclose(np.sqrt(jax.grad(loss)(probe)), wanted, rtol=1e-6 + 1e-8 / share)


@pytest.mark.parametrize("share", SHARES)
def test_a_repeated_token_whose_cotangents_cancel(share):
    ids = np.array([[1, 1, 2, 2, 1, 1]], np.int32)
    g = undone((1, 6, 1, 50), share)[1]

    def loss(probe):
        return jnp.vdot(taps.embed(jnp.zeros((4, 50)), ids, probe)[0], g)

    exact = np.zeros((4, 50))
    np.add.at(exact, ids[0], g[0].astype(np.float64))
    norm = np.sqrt(float(jax.grad(loss)(jnp.zeros(1))[0]))
    assert norm == pytest.approx(np.linalg.norm(exact), rel=1e-6 + 1e-8 / share)


def test_a_method_is_resolved_or_refused():
    x, w, table = normal(0, 2, 4, 8), normal(1, 8, 8), normal(2, 5, 8)
    ids, probe = np.zeros((2, 4), np.int32), jnp.zeros(2)

    def squares(method):
        return jax.grad(lambda p: taps.dense(method, x, (w,), p)[0].sum())(probe)

    def tied(method):
        def logits(p):
            return taps.tied_head(method, x, table, ids, jnp.zeros((2, 4, 8)), p).sum()

        return jax.grad(logits)(probe)

    for of in (squares, tied):
        np.testing.assert_allclose(of("auto"), of("direct"), rtol=1e-5)
        assert (of("auto") > 0).all() and not of("off").any()
        for unknown in ("grm", "Gram", "", None):
            with pytest.raises(ValueError, match="'auto', 'gram', 'direct', 'off'"):
                of(unknown)


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
