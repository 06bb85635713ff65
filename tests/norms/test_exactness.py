"""Tapped norms against vmap(grad): the claim that the project stands on."""

import itertools

import jax
import numpy as np
import pytest

from ilp_jax.models.config import ModelConfig
from ilp_jax.models.decoder import Decoder
from ilp_jax.norms import check, rules

FACTORS = {
    "qkv_bias": (False, True),
    "o_bias": (False, True),
    "qk_norm": ("none", "head", "full"),
    "norm_position": ("pre", "post"),
    "tie_embeddings": (False, True),
    "n_kv_heads": (4, 2, 1),
    "remat": ("none", "full"),
    "compute_dtype": ("float32", "bfloat16"),
    "method": ("gram", "direct"),
    "padding": (False, True),
    "n_microbatches": (1, 2),
    "normalization": ("example", "token"),
}
OF_MODEL = (
    "qkv_bias",
    "o_bias",
    "qk_norm",
    "norm_position",
    "tie_embeddings",
    "n_kv_heads",
    "remat",
    "compute_dtype",
)


def covering_array(factors, n_cases, seed=0):
    """Cases in which every pair of values of two factors occurs; greedy, then random filling."""
    rng = np.random.default_rng(seed)
    names = list(factors)
    pairs = {
        ((a, x), (b, y))
        for a, b in itertools.combinations(names, 2)
        for x in factors[a]
        for y in factors[b]
    }

    def random_case():
        return {name: values[rng.integers(len(values))] for name, values in factors.items()}

    def covered(case):
        return set(itertools.combinations(case.items(), 2))

    cases = []
    while pairs or len(cases) < n_cases:
        best = max((random_case() for _ in range(200)), key=lambda c: len(covered(c) & pairs))
        cases.append(best)
        pairs -= covered(best)
    return cases


def model(**variant):
    # V < T, so that tokens repeat within a row.
    return ModelConfig(
        vocab_size=17, d_model=48, n_layers=2, n_heads=4, head_dim=12, d_ff=80, **variant
    )


def rows_of(config, padding):
    rows = check.random_rows(config, n_rows=8, length=24)
    if padding:
        return rows
    return jax.tree.map(lambda x: x[:-1].repeat(2, 0)[:8], rows)._replace(
        branch_BxT=np.zeros_like(rows.branch_BxT)
    )


def errors_of(case):
    config = model(**{name: case[name] for name in OF_MODEL})
    return check.relative_errors(
        Decoder(config, case["method"]),
        rows_of(config, case["padding"]),
        case["normalization"],
        case["n_microbatches"],
    )


CASES = covering_array(FACTORS, n_cases=20)


def test_the_cases_cover_every_pair_of_values():
    seen = {pair for case in CASES for pair in itertools.combinations(case.items(), 2)}
    for a, b in itertools.combinations(FACTORS, 2):
        for x, y in itertools.product(FACTORS[a], FACTORS[b]):
            assert ((a, x), (b, y)) in seen


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_norms_equal_vmap_gradients(case):
    errors = errors_of(case)
    assert set(errors) == {
        "grad_norm",
        *(f"grad_norm_{g}" for g in ("embed", "attn", "mlp", "norm", "head")),
    }
    assert max(errors.values()) <= check.TOLERANCE[case["compute_dtype"]], errors


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant",
    [
        dict(zip(OF_MODEL, values, strict=True))
        for values in itertools.product(*(FACTORS[name] for name in OF_MODEL))
    ],
    ids=lambda variant: "-".join(map(str, variant.values())),
)
def test_norms_equal_vmap_gradients_on_the_full_grid(variant):
    rest = [name for name in FACTORS if name not in OF_MODEL]
    for values in itertools.product(*(FACTORS[name] for name in rest)):
        case = variant | dict(zip(rest, values, strict=True))
        errors = errors_of(case)
        assert max(errors.values()) <= check.TOLERANCE[case["compute_dtype"]], (case, errors)


BROKEN = {
    "tied cross term dropped": ("tied_cross_term", lambda g, rows: 0.0),
    "repeated tokens ignored": (
        "embedding_squares",
        lambda ids, g: rules.param_squares(g),
    ),
    "norm scales and biases dropped": (
        "param_squares",
        lambda grads: 0.0 * grads.sum(range(1, grads.ndim)),
    ),
    "output Gram without the input's": (
        "gram_squares",
        lambda x, gs: sum(rules.param_squares(g) for g in gs),
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_rule_fails_the_same_test(what, monkeypatch):
    name, broken = BROKEN[what]
    case = dict.fromkeys(FACTORS)
    case |= {
        "qkv_bias": True,
        "o_bias": False,
        "qk_norm": "head",
        "norm_position": "pre",
        "tie_embeddings": True,
        "n_kv_heads": 2,
        "remat": "none",
        "compute_dtype": "float32",
        "method": "gram",
        "padding": True,
        "n_microbatches": 1,
        "normalization": "example",
    }
    assert max(errors_of(case).values()) <= check.TOLERANCE["float32"]
    monkeypatch.setattr(rules, name, broken)
    assert errors_of(case)["grad_norm"] > 10 * check.TOLERANCE["float32"]


def test_the_group_squares_sum_to_the_total():
    config = model(n_kv_heads=2, qk_norm="head")
    rows = rows_of(config, padding=True)
    decoder = Decoder(config)
    from ilp_jax.train.step import probe_step

    stats = probe_step(
        check.random_params(decoder, rows),
        jax.tree.map(lambda x: x[None], rows),
        decoder=decoder,
        with_norms=True,
    )
    groups = sum(
        np.square(stats[f"grad_norm_{g}"]) for g in ("embed", "attn", "mlp", "norm", "head")
    )
    np.testing.assert_allclose(np.sqrt(groups), stats["grad_norm"], rtol=1e-6)
    assert stats["grad_norm"][-1] == 0.0, "a row without targets has no gradient"


def test_the_method_is_chosen_by_cost():
    # 2 T^2 (I + O) against 180 I O: the crossover at 512 x 512 lies at T of about 152.
    assert rules.choose("auto", 128, 512, 512) == "gram"
    assert rules.choose("auto", 160, 512, 512) == "direct"
    assert rules.choose("gram", 4096, 8, 8) == "gram"
