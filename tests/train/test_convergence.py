from hypothesis import example, given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from ilp_jax.train.convergence import converged_epoch

SETTINGS = ConfigDict(
    {"relative_fall": 0.03, "consecutive_epochs": 2, "min_learning_rate_fraction": 0.1}
)


def by_the_sentence(start, losses, rates, peak):
    """The second consecutive epoch in which the loss falls by less than 3% of its value at the
    stage's start while the learning rate is at least 10% of its peak."""
    all_losses = [start, *losses]
    for epoch in range(2, len(losses) + 1):
        if all(
            all_losses[e - 1] - all_losses[e] < 0.03 * start and rates[e - 1] >= 0.1 * peak
            for e in (epoch - 1, epoch)
        ):
            return epoch
    return None


@given(
    st.floats(0.5, 5),
    st.lists(st.tuples(st.floats(-0.1, 0.2), st.sampled_from([0.05, 0.1, 1.0])), max_size=9),
)
@example(1.0, [(0.0, 1.0), (0.0, 1.0)])
@example(1.0, [(0.0, 1.0), (0.0, 0.05), (0.0, 1.0), (0.0, 1.0)])
def test_is_what_the_sentence_says(start, falls):
    losses, now = [], start
    for fall, _ in falls:
        now -= fall * start
        losses.append(now)
    rates = [fraction * 2e-5 for _, fraction in falls]
    found = converged_epoch(
        start, dict(enumerate(losses, 1)), dict(enumerate(rates, 1)), 2e-5, SETTINGS
    )
    assert found == by_the_sentence(start, losses, rates, 2e-5)


def test_only_probed_epochs_count():
    losses = {2: 1.0, 4: 0.5, 6: 0.49, 8: 0.48, 9: 0.47}
    rates = dict.fromkeys(losses, 1.0)
    assert converged_epoch(2.0, losses, rates, 1.0, SETTINGS) == 8
    assert converged_epoch(2.0, {2: 1.0, 4: 0.5, 6: 0.49}, rates, 1.0, SETTINGS) is None
