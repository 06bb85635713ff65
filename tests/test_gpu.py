"""A short check on a GPU: norms, sampling, bfloat16 and memory, against this machine's CPU.

    ILP_DEVICE=gpu bash run_tests.sh -m gpu -s

Skipped, with the reason, where JAX sees no GPU. By default a GPU multiplies float32 in TF32 (10
bits of mantissa), so float32 is compared at JAX's precision ``highest``, and what TF32 changes is
measured beside it.
"""

import jax
import numpy as np
import pytest

from ilp_jax.config import default_config
from ilp_jax.models.config import ModelConfig, RopeScaling
from ilp_jax.models.decoder import Decoder
from ilp_jax.models.sample import sample
from ilp_jax.norms import check
from ilp_jax.norms.oracle import vmap_norms
from ilp_jax.train.optim import make_optimizer
from ilp_jax.train.step import in_microbatches, init_state
from ilp_jax.workspace import make_programs

pytestmark = pytest.mark.gpu

SMALL = {
    "vocab_size": 97,
    "d_model": 64,
    "n_layers": 3,
    "n_heads": 4,
    "n_kv_heads": 2,
    "head_dim": 32,
    "d_ff": 160,
    "tie_embeddings": True,
}
MODEL = ModelConfig(**SMALL, rope_scaling=RopeScaling("llama3", 4.0, 1.0, 3.0, 16), remat="full")
# Float32 sums in another order through three layers: measured in float32 elsewhere, 5e-7 to 1e-5.
CLOSE = 1e-4
# Ten bits of mantissa round by 2**-11 = 5e-4, bfloat16's seven by 2**-8 = 4e-3, many times over.
COARSE = {"float32": 2e-2, "bfloat16": 1e-1}


@pytest.fixture(scope="module")
def gpu():
    return jax.devices("gpu")[0]


@pytest.fixture(scope="module")
def rows():
    return check.random_rows(MODEL, n_rows=8, length=48)


@pytest.fixture(scope="module")
def params(rows):
    with jax.default_device(jax.devices("cpu")[0]):
        return jax.device_get(check.random_params(Decoder(MODEL), rows))


def one_step(device, params, rows, config=MODEL, precision="highest"):
    """(first moments of AdamW, statistics) of one update on a device, on the host."""
    with jax.default_device(device), jax.default_matmul_precision(precision):
        optimizer = make_optimizer(default_config().train)
        programs = make_programs(Decoder(config), optimizer, "example")
        state = init_state(jax.device_put(params), optimizer)
        state, stats = programs.train[True](state, in_microbatches(rows, 2), np.float32(1e-3))
        assert all(leaf.devices() == {device} for leaf in jax.tree.leaves(state.params))
        return jax.device_get((state.opt_state, stats))


def worst(found, expected):
    """Largest relative difference; against a tenth of the largest value where that is more.

    Margins and entropies of single examples can be small beside the logits they come from.
    """
    scale = np.maximum(np.abs(expected), 0.1 * np.abs(expected).max())
    return float(np.max(np.abs(found - expected) / np.where(scale == 0, 1, scale)))


def test_a_step_with_norms_equals_the_cpus_and_vmaps(gpu, params, rows):
    moments, stats = one_step(gpu, params, rows)
    cpu_moments, cpu_stats = one_step(jax.devices("cpu")[0], params, rows)
    with jax.default_device(jax.devices("cpu")[0]):
        reference = jax.device_get(vmap_norms(params, rows, decoder=Decoder(MODEL)))
    assert set(reference) < set(stats)
    for name in stats:
        assert worst(stats[name], cpu_stats[name]) < CLOSE, name
    for name in reference:
        assert worst(stats[name], reference[name]) < CLOSE, name
    leaves = zip(jax.tree.leaves(moments), jax.tree.leaves(cpu_moments), strict=True)
    for found, expected in leaves:
        assert np.linalg.norm(found - expected) <= CLOSE * np.linalg.norm(expected)

    _, tf32 = one_step(gpu, params, rows, precision="default")
    errors = {name: worst(tf32[name], stats[name]) for name in ("loss_sum", "grad_norm")}
    print(f"\n{gpu.device_kind}: default precision against highest, {errors}")
    assert max(errors.values()) < COARSE["float32"]


@pytest.mark.parametrize("method", ["gram", "direct"])
def test_norms_are_exact_on_the_gpu_itself(gpu, rows, method):
    with jax.default_device(gpu):
        errors = check.relative_errors(Decoder(MODEL, method), rows)
    print(f"\n{gpu.device_kind}: {method} against vmap, {max(errors.values()):.1e}")
    assert max(errors.values()) < check.TOLERANCE["float32"]


def test_sampling_equals_teacher_forcing(gpu, params):
    decoder, n_new, rng = Decoder(MODEL), 9, np.random.default_rng(0)
    prompts = [rng.integers(1, MODEL.vocab_size, n).astype(np.int32) for n in (3, 17, 30)]
    with jax.default_device(gpu), jax.default_matmul_precision("highest"):
        placed = jax.device_put(params)
        for temperature in (0, 1.0):
            found = sample(
                decoder,
                placed,
                prompts,
                example_ids=range(len(prompts)),
                max_new_tokens=n_new,
                temperature=temperature,
                seed=0,
                end_id=0,
            )
            for i, prompt in enumerate(prompts):
                n = int(found.lengths_ExN[i, 0])
                answer = found.tokens_ExNxG[i, 0, :n]
                row = np.concatenate([prompt, answer])[None]
                at = np.arange(row.shape[1], dtype=np.int32)[None]
                logits = decoder.apply({"params": placed}, row, at, np.zeros_like(row))
                logprobs = np.asarray(jax.nn.log_softmax(logits))[0, len(prompt) - 1 : -1]
                if temperature == 0:
                    assert answer.tolist() == logprobs.argmax(-1).tolist()
                total = logprobs[np.arange(n), answer].sum()
                np.testing.assert_allclose(found.logprobs_ExN[i, 0], total, rtol=CLOSE)


def test_a_bfloat16_step_runs_and_stays_near_float32(gpu, params, rows):
    half = ModelConfig(
        **SMALL, rope_scaling=MODEL.rope_scaling, remat="full", compute_dtype="bfloat16"
    )
    _, exact = one_step(gpu, params, rows)
    _, stats = one_step(gpu, params, rows, half, precision="default")
    for name in ("loss_sum", "grad_norm"):
        assert np.isfinite(stats[name]).all()
        real = exact["n_tokens"] > 0
        error = worst(stats[name][real], exact[name][real])
        print(f"\n{gpu.device_kind}: bfloat16 {name} off by up to {error:.1e}")
        assert error < COARSE["bfloat16"]
    memory = gpu.memory_stats() or {}
    print(f"peak memory {memory.get('peak_bytes_in_use', 0) / 2**20:.1f} MiB")
