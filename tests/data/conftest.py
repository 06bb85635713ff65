"""Small tokenizers, a study and a brute-force reading of a batch."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def _byte_tokenizer(chat_template=None, bos=False):
    """Bytes as tokens with a few merges; nothing is unknown to it."""
    vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = [("a", "n"), ("Ġ", "a"), ("o", "n"), ("Ġa", "n"), ("i", "n"), ("Ġ", "t"), ("Ġt", "h")]
    for left, right in merges:
        vocab[left + right] = len(vocab)
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<s>", "<|im_start|>", "<|im_end|>"])
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="<|im_end|>",
        chat_template=chat_template,
    )


def _space_tokenizer():
    """As LLaMA 2's: a space is put before every text, and shown as a block."""
    words = ["\u2581"] + [chr(c) for c in range(33, 127)] + ["\n", "\u2581blue", "\u2581sky"]
    vocab = [(word, -float(i > 0)) for i, word in enumerate(["<unk>", "</s>", *words])]
    backend = Tokenizer(models.Unigram(vocab, unk_id=0))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="session")
def plain_tokenizer():
    """Byte-level, without chat template or BOS."""
    return _byte_tokenizer()


@pytest.fixture(scope="session")
def chat_tokenizer():
    """Byte-level, with a ChatML template."""
    return _byte_tokenizer(CHATML)


@pytest.fixture
def write_jsonl(tmp_path):
    """Writes rows as a JSONL file and gives its path."""

    def write(rows, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write


def _questions(n, start=0):
    """Rows with five options each and lengths that differ."""
    return [
        {
            "id": i,
            "prompt": f"Question: what is {'very ' * (i % 4)}{i}?\nAnswer:",
            "response": f"an {i}",
            "options": [f"an {i}", f"not {i}", f"on {i + 1}", "in" * (1 + i % 3), f"the {i}"],
        }
        for i in range(start, start + n)
    ]


def _config(stages, sequence=None, **fields):
    """A config with the data fields alone."""
    base = {
        "seed": 0,
        "template": "plain",
        "separator": " ",
        "max_length": 512,
        "length_buckets": (),
        "sequence": tuple(sequence or stages),
        "stages": {name: {"source": "jsonl", **stage} for name, stage in stages.items()},
    }
    return ConfigDict({**base, **fields})


def _attends(rows, b):
    """Brute force: bool [T, T], whether token i of row b sees token j."""
    branch = rows.branch_BxT[b]
    size = len(branch)
    sees = np.zeros((size, size), bool)
    for i in range(size):
        for j in range(i + 1):
            sees[i, j] = branch[j] != -1 and (branch[j] == 0 or branch[j] == branch[i])
    return sees


@pytest.fixture(scope="session")
def byte_tokenizer():
    """Makes a byte-level tokenizer: (chat_template=None, bos=False)."""
    return _byte_tokenizer


@pytest.fixture(scope="session")
def space_tokenizer():
    """A tokenizer that puts a space before every text."""
    return _space_tokenizer()


@pytest.fixture(scope="session")
def questions():
    """Makes rows: (n, start=0)."""
    return _questions


@pytest.fixture(scope="session")
def config():
    """Makes a config: (stages, sequence=None, **fields)."""
    return _config


@pytest.fixture(scope="session")
def attends():
    """Which tokens see which: (rows, b)."""
    return _attends


@pytest.fixture(scope="session")
def chatml():
    """A ChatML template."""
    return CHATML
