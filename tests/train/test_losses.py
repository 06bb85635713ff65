import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import entropy

from ilp_jax.train.losses import example_weights, target_statistics, token_statistics


@pytest.fixture
def batch():
    """Logits (2, 3 and 0 real slots of 4), targets, mask."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (3, 4, 7)).astype(np.float32)
    ids = rng.integers(0, 7, (3, 4)).astype(np.int32)
    logits[1, 0, ids[1, 0]] = 20.0  # one target that is surely the argmax
    logits[1, 1, (ids[1, 1] + 1) % 7] = logits[1, 1].max()
    logits[1, 1, ids[1, 1]] = logits[1, 1].max()  # a tie is no argmax
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]], np.float32)
    return logits, ids, mask


def test_against_scipy(batch):
    logits, ids, mask = batch
    stats = jax.jit(target_statistics)(*batch)
    for b, n in enumerate([2, 3, 0]):
        logprob = log_softmax(logits[b, :n].astype(np.float64), axis=-1)
        own = logprob[np.arange(n), ids[b, :n]]
        others = np.array(logits[b, :n])
        others[np.arange(n), ids[b, :n]] = -np.inf
        margin = logits[b, np.arange(n), ids[b, :n]] - others.max(-1, initial=-np.inf)
        wanted = {"loss_sum": -own.sum(), "n_tokens": n, "n_correct": (margin > 0).sum()}
        if n:
            wanted["prob_mean"] = np.exp(own).mean()
            wanted["entropy_mean"] = entropy(np.exp(logprob), axis=-1).mean()
            wanted["margin_mean"] = margin.mean()
        for name in stats:
            assert stats[name][b] == pytest.approx(wanted.get(name, 0), rel=1e-5, abs=1e-6), name
    assert stats["n_correct"].tolist()[1] >= 1
    assert stats["n_tokens"].dtype == stats["n_correct"].dtype == jnp.int32


def test_only_the_loss_carries_a_gradient(batch):
    logits, ids, mask = batch

    def total(name):
        return lambda x: jnp.sum(target_statistics(x, ids, mask)[name].astype(jnp.float32))

    for name in ("prob_mean", "entropy_mean", "margin_mean"):
        assert not np.any(jax.grad(total(name))(logits))
    # softmax minus one-hot at real slots, nothing at empty ones
    probs = np.exp(log_softmax(logits.astype(np.float64), axis=-1))
    wanted = (probs - np.eye(7)[ids]) * mask[..., None]
    assert np.allclose(jax.grad(total("loss_sum"))(logits), wanted, atol=1e-5)


@pytest.mark.parametrize("lead", [2, 10, 17, 20, 24, 27, 30])
def test_small_losses_are_as_right_as_large_ones(lead):
    """Losses of 4 down to 1e-9: the loss, its gradient and the entropy against float64."""
    logits = np.random.default_rng(0).normal(0, 1, (1, 1, 1000)).astype(np.float32)
    logits[0, 0, 7] = lead
    ids, mask = np.array([[7]], np.int32), np.ones((1, 1), np.float32)
    stats = target_statistics(logits, ids, mask)
    got = jax.grad(lambda x: jnp.sum(target_statistics(x, ids, mask)["loss_sum"]))(logits)[0, 0]

    exact = logits[0, 0].astype(np.float64)
    others = np.exp(np.delete(exact, 7) - exact[7]).sum()
    wanted = np.exp(exact - exact[7]) / (1 + others)
    entropy = np.log1p(others) + wanted @ (exact[7] - exact)
    wanted[7] = -others / (1 + others)
    assert float(stats["loss_sum"][0]) == pytest.approx(np.log1p(others), rel=1e-6)
    assert float(stats["entropy_mean"][0]) == pytest.approx(entropy, rel=1e-5)
    np.testing.assert_allclose(got, wanted, rtol=3e-6)


def test_a_token_that_is_surely_wrong(batch):
    logits, ids = np.zeros((1, 1, 5), np.float32), np.array([[1]], np.int32)
    logits[0, 0, 3] = 200.0
    stats = token_statistics(logits[0], ids[0])
    assert stats.loss == stats.entropy + 200.0 == -stats.margin == 200.0
    grad = jax.grad(lambda x: token_statistics(x, ids).loss.sum())(logits)
    assert grad[0, 0].tolist() == [0, -1, 0, 1, 0]


def test_one_derivative_forward_and_backward(batch):
    logits, ids, _ = batch
    direction = np.random.default_rng(1).normal(size=logits.shape).astype(np.float32)

    def total(x):
        return jnp.sum(token_statistics(x, ids).loss)

    _, forward = jax.jvp(total, (logits,), (direction,))
    assert float(forward) == pytest.approx(np.vdot(jax.grad(total)(logits), direction), rel=1e-5)


@pytest.mark.parametrize("normalization", ["token", "example"])
def test_weights_give_the_mean_that_they_name(batch, normalization):
    logits, ids, mask = batch
    stats = target_statistics(*batch)
    weights = example_weights(stats["n_tokens"], normalization)
    mean = stats["loss_sum"] / jnp.maximum(stats["n_tokens"], 1)
    losses = -np.take_along_axis(log_softmax(logits.astype(float), -1), ids[..., None], -1)[..., 0]
    if normalization == "token":
        wanted = losses[mask > 0].mean()
    else:
        wanted = np.mean([losses[b, :n].mean() for b, n in enumerate([2, 3])])
    assert float(jnp.sum(weights * mean)) == pytest.approx(wanted, rel=1e-5)
    assert weights[2] == 0 and float(weights.sum()) == pytest.approx(1)


def test_weights_of_nothing_and_of_an_unknown_kind():
    for normalization in ("token", "example"):
        assert example_weights(jnp.zeros(3, jnp.int32), normalization).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="'row'"):
        example_weights(jnp.ones(3, jnp.int32), "row")
