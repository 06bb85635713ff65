"""Log-probabilities of what is known for sure, against float64."""

import jax
import numpy as np
import pytest
from scipy.special import log_softmax

from ilp_jax.data.batches import RowBatch
from ilp_jax.detect.score import score_step


class Fixed:
    """Stands for a decoder: its parameters are the logits."""

    def apply(self, variables, *row):
        return variables["params"]


@pytest.mark.parametrize("lead", [1, 8, 14, 20])
def test_small_and_large(lead):
    logits = np.random.default_rng(0).normal(0, 1, (1, 2, 400)).astype(np.float32)
    logits[0, :, 5] = lead
    ids = np.array([[5, 9]], np.int32)
    rows = RowBatch(*[ids] * 6)
    score = jax.jit(lambda x, heat: score_step(x, rows, heat, decoder=Fixed()))
    scores = score(logits, np.float32(0.7))
    for name, heat in (("logprob", 1.0), ("logprob_tempered", 0.7)):
        exact = logits[0].astype(np.float64) / heat
        others = np.exp(np.delete(exact[0], 5) - exact[0, 5]).sum()
        wanted = [-np.log1p(others), log_softmax(exact[1])[9]]
        assert scores[name][0].tolist() == pytest.approx(wanted, rel=1e-5), name
    likeliest = np.argmax(logits[0], axis=-1)
    assert scores["argmax"][0].tolist() == likeliest.tolist()
    wanted = log_softmax(logits[0].astype(np.float64), axis=-1)[[0, 1], likeliest]
    np.testing.assert_allclose(scores["argmax_logprob"][0], wanted, rtol=1e-5)
    assert scores["correct"][0].tolist() == [bool(likeliest[0] == 5), False]
