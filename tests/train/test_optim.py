import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilp_jax.config import default_config, default_stage
from ilp_jax.train.optim import learning_rate, make_optimizer, renewed

SCHEDULES = ("constant", "linear", "cosine")


def stage(**fields):
    config = default_stage()
    with config.unlocked():
        config.update(fields)
    return config


@given(
    st.sampled_from(SCHEDULES),
    st.integers(0, 12),
    st.integers(1, 30),
    st.floats(0, 1),
    st.floats(1e-8, 1.0),
)
def test_a_cycle(schedule, warmup, n_steps, floor, peak):
    config = stage(
        schedule=schedule,
        warmup_steps=warmup,
        learning_rate=peak,
        final_learning_rate_fraction=floor,
    )
    rates = [learning_rate(config, step, n_steps) for step in range(n_steps)]
    low = min(floor, 1 / warmup if warmup else 1) * peak
    assert all(low * (1 - 1e-9) - 1e-12 * peak <= rate <= peak * (1 + 1e-9) for rate in rates)
    warmup = min(warmup, n_steps)
    assert np.allclose(rates[:warmup], [peak * (i + 1) / warmup for i in range(warmup)])
    after = rates[warmup:]
    if not after:
        return
    assert after[0] == pytest.approx(peak)
    assert all(b <= a * (1 + 1e-12) for a, b in zip(after, after[1:], strict=False))
    if len(after) > 1:
        assert after[-1] == pytest.approx(
            peak * (1 if schedule == "constant" else floor), rel=1e-9, abs=1e-18
        )


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_decay_against_optax(schedule):
    config = stage(
        schedule=schedule, warmup_steps=3, learning_rate=2.0, final_learning_rate_fraction=0.25
    )
    n_steps = 14
    if schedule == "linear":
        wanted = optax.linear_schedule(2.0, 0.5, n_steps - 4)
    else:
        wanted = optax.cosine_decay_schedule(2.0, n_steps - 4, alpha=0.25)
    for step in range(3, n_steps):
        assert learning_rate(config, step, n_steps) == pytest.approx(float(wanted(step - 3)))


def test_an_unknown_schedule():
    with pytest.raises(ValueError, match="steps"):
        learning_rate(stage(schedule="steps"), 5, 9)


def tree(seed):
    rng = np.random.default_rng(seed)
    shapes = {
        "embed": {"embedding": (5, 3)},
        "layers": {"q": {"kernel": (2, 3, 4), "bias": (2, 4)}, "attn_norm": {"scale": (2, 3)}},
    }
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32),
        shapes,
        is_leaf=lambda leaf: isinstance(leaf, tuple),
    )


@pytest.mark.parametrize("clip", [0.0, 1.0, 100.0])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_equals_adamw_of_optax(clip, decay):
    train = default_config().train
    with train.unlocked():
        train.update(clip_norm=clip, weight_decay=decay, b1=0.8, b2=0.95, eps=1e-6)
    decayed = {
        "embed": {"embedding": True},
        "layers": {"q": {"kernel": True, "bias": False}, "attn_norm": {"scale": False}},
    }
    adamw = optax.adamw(0.01, b1=0.8, b2=0.95, eps=1e-6, weight_decay=decay, mask=decayed)
    reference = optax.chain(optax.clip_by_global_norm(clip), adamw) if clip else adamw
    optimizer = make_optimizer(train)
    ours = theirs = tree(0)
    our_state, their_state = optimizer.init(ours), reference.init(theirs)
    for step in range(1, 5):
        grads = tree(step)
        direction, our_state = optimizer.update(grads, our_state, ours)
        ours = jax.tree.map(lambda p, d: p - 0.01 * d, ours, direction)
        updates, their_state = reference.update(grads, their_state, theirs)
        theirs = optax.apply_updates(theirs, updates)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert np.allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("renews", [False, True])
def test_a_pull_to_the_start_is_weight_decay_of_the_way_gone(renews):
    """AdamW's decay, of parameters that are counted from where they began."""
    train = default_config().train
    with train.unlocked():
        train.update(clip_norm=1.0, weight_decay=0.0)
    start = tree(0)
    adamw = optax.adamw(0.01, b1=train.b1, b2=train.b2, eps=train.eps, weight_decay=0.3)
    reference = optax.chain(optax.clip_by_global_norm(1.0), adamw)
    optimizer = make_optimizer(train, 0.3)
    ours, gone = start, jax.tree.map(jnp.zeros_like, start)
    our_state, their_state = optimizer.init(ours), reference.init(gone)
    for step in range(1, 7):
        if renews and step == 4:
            our_state = jax.jit(renewed, static_argnums=0)(optimizer, our_state, ours)
            their_state = reference.init(gone)
        grads = tree(step)
        direction, our_state = optimizer.update(grads, our_state, ours)
        ours = jax.tree.map(lambda p, d: p - 0.01 * d, ours, direction)
        updates, their_state = reference.update(grads, their_state, gone)
        gone = optax.apply_updates(gone, updates)
    expected = jax.tree.map(jnp.add, start, gone)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        assert np.allclose(a, b, rtol=1e-5, atol=1e-6)
