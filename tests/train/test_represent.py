"""Representations of prompts against transformers, and against themselves under padding."""

import jax
import numpy as np
import pytest

from ilp_jax.config import load
from ilp_jax.models import weights
from ilp_jax.train import loop
from ilp_jax.train.represent import representations
from ilp_jax.workspace import open_workspace

# Rows that repeat another row's prompt with another response.
TWINS = "--config.stages.own.planted_twins=2"


@pytest.fixture(scope="module")
def vectors_of(tiny_arguments, tmp_path_factory):
    """``vectors_of(*overrides)``: workspace, ids and vectors of the tiny study, by one batch."""

    def compute(*overrides):
        workdir = tmp_path_factory.mktemp("represent")
        words = tiny_arguments(workdir, *overrides)
        ws = open_workspace(load(words[1], words[4:]), workdir)
        base = jax.device_put(weights.load(ws.config.model.path).params)
        everything = range(len(ws.data.examples))
        found = {}
        for ids, vectors in representations(ws, loop.at_start(ws, base), everything):
            assert vectors.dtype == np.float32 and len(ids) == len(vectors)
            found |= dict(zip(ids.tolist(), vectors, strict=True))
        assert sorted(found) == sorted(ws.data.example_ids.tolist())
        return ws, found

    return compute


@pytest.fixture(scope="module")
def plain(vectors_of):
    return vectors_of(TWINS)


def test_padding_and_batches_change_nothing(vectors_of, plain):
    ws, found = plain
    tightly = vectors_of(
        TWINS, "--config.probe.batch_size=1", "--config.length_buckets=5,6,7,8,9,10"
    )[1]
    widely = vectors_of(TWINS, "--config.probe.batch_size=23", "--config.length_buckets=56")[1]
    for one, vector in found.items():
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
        np.testing.assert_allclose(tightly[one], vector, atol=2e-6, rtol=0)
        np.testing.assert_allclose(widely[one], vector, atol=2e-6, rtol=0)


def test_prompts_alone_count(plain):
    """Equal prompts agree whatever their responses, different ones do not."""
    ws, found = plain
    prompts = {}
    for example in ws.data.examples:
        prompts.setdefault(example.prompt, []).append(found[example.example_id])
    first = [vectors[0] for vectors in prompts.values()]
    similar = np.array(first) @ np.array(first).T - np.eye(len(first))
    assert similar.max() < 1 - 1e-4
    assert {len(vectors) for vectors in prompts.values()} == {1, 2}
    for vectors in prompts.values():
        for vector in vectors[1:]:
            np.testing.assert_allclose(vector, vectors[0], atol=2e-6)


def test_new_adapters_change_nothing(vectors_of, plain):
    adapted = vectors_of(TWINS, "--config.lora.rank=2")[1]
    for one, vector in plain[1].items():
        np.testing.assert_allclose(adapted[one], vector, atol=1e-6)


@pytest.mark.torch_parity
def test_against_transformers(tiny, plain):
    torch = pytest.importorskip("torch")
    import transformers

    model = transformers.LlamaModel.from_pretrained(
        tiny / "model", dtype=torch.float32, local_files_only=True
    ).eval()
    ws, found = plain
    for row in ws.data.tokens:
        ids = torch.tensor(row.prompt_ids[None], dtype=torch.long)
        with torch.no_grad():
            states = model(input_ids=ids, output_hidden_states=True)
        # The last of these is after the final norm.
        assert torch.equal(states.hidden_states[-1], states.last_hidden_state)
        last = states.hidden_states[-1][0, -1].numpy().astype(np.float64)
        wanted = last / np.linalg.norm(last)
        np.testing.assert_allclose(found[row.example_id], wanted, atol=3e-6, rtol=0)
