"""Sampled answers against transformers' greedy ones and against the exact law."""

import dataclasses
import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import chisquare

from ilp_jax.models import weights
from ilp_jax.models.config import ModelConfig
from ilp_jax.models.decoder import Decoder
from ilp_jax.models.sample import sample

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
FAMILIES = {
    "Llama": {"tie_word_embeddings": True},
    "Qwen2": {},
    "Qwen3": {"head_dim": 16},
    "Olmo2": {},
}
LENGTHS = (1, 3, 7, 12, 20, 33)  # The last one is of another bucket.
N_NEW = 11


def prompts_of(lengths, vocab_size, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(3, vocab_size, n).astype(np.int32) for n in lengths]


@pytest.mark.torch_parity
@pytest.mark.parametrize("n_ends", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_answers_are_those_of_transformers(family, n_ends, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SHAPE | FAMILIES[family])
    theirs = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.2)
    theirs.save_pretrained(tmp_path)
    ours = weights.load(str(tmp_path))
    prompts = prompts_of(LENGTHS, SHAPE["vocab_size"])

    def expected(end_id):  # a number or a list of several
        width = max(LENGTHS)
        ids = np.stack([np.pad(p, (width - len(p), 0)) for p in prompts])
        real = np.stack([np.arange(width) >= width - len(p) for p in prompts])
        out = theirs.generate(
            input_ids=torch.tensor(ids, dtype=torch.long),
            attention_mask=torch.tensor(real, dtype=torch.long),
            max_new_tokens=N_NEW,
            do_sample=False,
            eos_token_id=end_id,
            pad_token_id=0,
        )[:, width:].numpy()
        return np.pad(out, ((0, 0), (0, N_NEW - out.shape[1])))

    # End tokens that stand in the middle of some answers.
    endless = expected(SHAPE["vocab_size"] + 1)
    ends = [int(endless[3, 4]), int(endless[0, 2]), SHAPE["vocab_size"] + 2][:n_ends]
    found = sample(
        Decoder(ours.config),
        ours.params,
        prompts,
        example_ids=range(len(prompts)),
        max_new_tokens=N_NEW,
        temperature=0,
        seed=0,
        end_id=ends if n_ends > 1 else ends[0],
        batch_size=4,
    )
    answers = expected(ends)
    assert len({tuple(row) for row in answers}) > 2
    for row, length, ended, ours_row in zip(
        answers,
        found.lengths_ExN[:, 0],
        found.ended_ExN[:, 0],
        found.tokens_ExNxG[:, 0],
        strict=True,
    ):
        at = np.flatnonzero(np.isin(row, ends))
        assert length == (at[0] + 1 if at.size else N_NEW)
        assert ended == bool(at.size)
        assert ours_row.tolist() == row[:length].tolist() + [0] * (N_NEW - length)
    assert found.ended_ExN.any()


TINY = ModelConfig(
    vocab_size=6, d_model=16, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=8, d_ff=24
)
END = 5


@pytest.fixture(scope="module")
def tiny_decoder():
    decoder = Decoder(TINY)
    row = jnp.zeros((1, 2), jnp.int32)
    params = decoder.init(jax.random.key(0), row, row, row)["params"]
    rng = np.random.default_rng(0)
    return decoder, jax.tree.map(lambda a: rng.normal(0, 0.5, a.shape).astype(np.float32), params)


def drawn(tiny_decoder, prompts, example_ids=None, **settings):
    common = {"max_new_tokens": 2, "temperature": 0.7, "seed": 3, "end_id": END}
    ids = range(len(prompts)) if example_ids is None else example_ids
    return sample(*tiny_decoder, prompts, example_ids=ids, **common | settings)


def whole_rows(decoder, params, rows):
    """Logits of rows without padding, from one uncached forward pass."""
    positions = np.broadcast_to(np.arange(rows.shape[1], dtype=np.int32), rows.shape)
    apply = jax.jit(decoder.apply)
    return np.asarray(apply({"params": params}, rows, positions, np.zeros_like(rows)))


def law(tiny_decoder, prompt, temperature):
    """Probability of every answer of up to two tokens."""
    answers = list(itertools.product(range(TINY.vocab_size), repeat=2))
    rows = np.array([[*prompt, *answer] for answer in answers], np.int32)
    logits = whole_rows(*tiny_decoder, rows)[:, len(prompt) - 1 : -1].astype(np.float64)
    logprobs = log_softmax(logits / temperature, axis=-1)
    probabilities = {}
    for (first, second), logprob in zip(answers, logprobs, strict=True):
        if first == END:
            probabilities[(first,)] = float(np.exp(logprob[0, first]))
        else:
            both = logprob[0, first] + logprob[1, second]
            probabilities[first, second] = float(np.exp(both))
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
    return probabilities


@pytest.mark.parametrize("temperature", [0.7, 1.5])
def test_answers_are_drawn_with_their_exact_probability(tiny_decoder, temperature, record_property):
    n = 5_000
    prompts = prompts_of((3, 9), TINY.vocab_size - 1)
    found = drawn(tiny_decoder, prompts, n_samples=n, batch_size=2, temperature=temperature)
    for i, prompt in enumerate(prompts):
        expected = law(tiny_decoder, prompt, temperature)
        lengths, tokens = found.lengths_ExN[i], found.tokens_ExNxG[i]
        answers = [tuple(t[:k].tolist()) for t, k in zip(tokens, lengths, strict=True)]
        counts = Counter(answers)
        assert set(counts) <= set(expected)
        assert {len(answer) for answer in counts} == {1, 2}
        # Answers too rare for the chi-square count together.
        common = [answer for answer in expected if n * expected[answer] >= 5]
        observed = [counts[answer] for answer in common]
        wanted = [n * expected[answer] for answer in common]
        if len(common) < len(expected):
            observed.append(n - sum(observed))
            wanted.append(n - sum(wanted))
        wanted = np.array(wanted) / sum(wanted) * n
        p_value = chisquare(observed, wanted).pvalue
        record_property("p_value", float(p_value))
        print(f"{len(observed)} outcomes, chi-square p = {p_value:.3f}")
        assert p_value > 1e-3
        logprobs = np.log([expected[answer] for answer in answers])
        np.testing.assert_allclose(found.logprobs_ExN[i], logprobs, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(found.ended_ExN[i], [answer[-1] == END for answer in answers])


def test_an_answer_does_not_depend_on_its_batch(tiny_decoder):
    prompts = prompts_of((1, 30, 5, 31, 20, 2, 7), TINY.vocab_size - 1)
    ids = [0, 2**63 - 1, 7, 2**32 + 7, 5, 2**40, 1]
    limits = [6, 6, 6, 3, 6, 8, 1]

    def answers(order, **settings):
        return drawn(
            tiny_decoder,
            [prompts[i] for i in order],
            [ids[i] for i in order],
            max_new_tokens=[limits[i] for i in order],
            **settings,
        )

    whole = answers(range(7), n_samples=5, batch_size=3)
    assert len(np.unique(whole.tokens_ExNxG.reshape(-1, 8), axis=0)) > 15
    assert not any(whole.tokens_ExNxG[i, :, limit:].any() for i, limit in enumerate(limits))
    order = [4, 0, 6, 3, 5, 1, 2]
    other = answers(order, n_samples=5, batch_size=4)
    for one, two in zip(whole[:3], other[:3], strict=True):
        np.testing.assert_array_equal(one[order], two)
    for i in (0, 1, 3, 6):
        alone = answers([i], n_samples=2, batch_size=1)
        np.testing.assert_array_equal(alone.tokens_ExNxG[0], whole.tokens_ExNxG[i, :2, : limits[i]])
        np.testing.assert_array_equal(alone.lengths_ExN[0], whole.lengths_ExN[i, :2])


def test_seed_example_and_number_each_change_the_answers(tiny_decoder):
    prompt = prompts_of((4,), TINY.vocab_size - 1) * 3
    settings = {"n_samples": 8, "max_new_tokens": 8, "temperature": 3.0, "end_id": 99}
    ids = [1, 2**32, 2**32 + 1]  # The same halves, placed otherwise.
    found = drawn(tiny_decoder, prompt, ids, **settings).tokens_ExNxG
    again = drawn(tiny_decoder, prompt, ids, **settings | {"seed": 2**32 - 1}).tokens_ExNxG
    rows = np.concatenate([found.reshape(-1, 8), again.reshape(-1, 8)])
    assert len(np.unique(rows, axis=0)) == 2 * 3 * 8


def test_one_program_a_bucket(tiny_decoder, monkeypatch):
    traced = []
    apply = Decoder.apply

    def counted(self, *args, **kwargs):
        traced.append(args[1].shape)
        return apply(self, *args, **kwargs)

    monkeypatch.setattr(Decoder, "apply", counted)
    jax.clear_caches()
    for lengths, limit in (((1, 2), 1), ((9, 31, 32), 8), ((5,), 7)):
        drawn(tiny_decoder, prompts_of(lengths, 5), max_new_tokens=limit, batch_size=2)
    assert traced == [(2, 32), (2, 1)]
    drawn(tiny_decoder, prompts_of((33,), 5), max_new_tokens=9, batch_size=2, temperature=0.1)
    assert traced[2:] == [(2, 48), (2, 1)]


def test_a_bfloat16_cache_gives_the_answers_of_whole_rows():
    """Greedy answers again, this time from an uncached pass over each growing row."""
    config = dataclasses.replace(TINY, vocab_size=31, compute_dtype="bfloat16")
    decoder = Decoder(config)
    row = jnp.zeros((1, 2), jnp.int32)
    params = decoder.init(jax.random.key(1), row, row, row)["params"]
    params = jax.tree.map(lambda a: a * 8 if a.ndim > 2 else a, params)
    prompts = prompts_of((5, 5), 31)
    found = sample(
        decoder,
        params,
        prompts,
        example_ids=(0, 1),
        max_new_tokens=4,
        temperature=0,
        seed=0,
        end_id=99,
    )
    for prompt, answer in zip(prompts, found.tokens_ExNxG[:, 0], strict=True):
        logits = whole_rows(decoder, params, np.concatenate([prompt, answer])[None])
        logits = logits[0, len(prompt) - 1 : -1]
        # Rounding may turn a tie: the token drawn is the likeliest but for bfloat16's error.
        best, taken = logits.max(-1), np.take_along_axis(logits, answer[:, None], -1)
        np.testing.assert_allclose(taken[:, 0], best, atol=0.05 * float(np.abs(logits).max()))


def test_wrong_arguments(tiny_decoder):
    prompt = [np.array([1])]
    for wrong in ({"max_new_tokens": 0}, {"n_samples": 0}, {"temperature": 0, "n_samples": 2}):
        with pytest.raises(ValueError):
            drawn(tiny_decoder, prompt, **wrong)
    with pytest.raises(ValueError):
        drawn(tiny_decoder, [np.array([], np.int32)])
    assert drawn(tiny_decoder, []).tokens_ExNxG.shape == (0, 1, 0)
