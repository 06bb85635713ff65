"""When a stage counts as converged; no JAX."""

from __future__ import annotations

from collections.abc import Mapping

from ml_collections import ConfigDict


def converged_epoch(
    start_loss: float,
    losses: Mapping[int, float],
    learning_rates: Mapping[int, float],
    peak: float,
    settings: ConfigDict,
) -> int | None:
    """The epoch at whose end a stage has converged, or None for not reached.

    It is the last of ``consecutive_epochs`` probed epochs running in which the mean probe
    loss of the stage's rows falls by less than ``relative_fall`` of its value at the stage's
    start (a rise is no fall) while the learning rate is at least
    ``min_learning_rate_fraction`` of its peak: a loss that is flat because the learning rate
    has decayed has not converged. The study states no criterion; this one is ours.

    Args:
      start_loss: mean probe loss in nats a token at the stage's start.
      losses: mean probe loss after each probed epoch of the stage.
      learning_rates: learning rate of each epoch's last update.
      peak: the stage's peak learning rate.
      settings: the config's ``convergence`` section.
    """
    before, running = start_loss, 0
    for epoch in sorted(losses):
        falls = before - losses[epoch]
        flat = falls < settings.relative_fall * start_loss
        trained = learning_rates[epoch] >= settings.min_learning_rate_fraction * peak
        running = running + 1 if flat and trained else 0
        if running == settings.consecutive_epochs:
            return epoch
        before = losses[epoch]
    return None
