"""Shared by every test: JAX's strictness, Hypothesis profiles, markers, a tiny study to run."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import numpy as np
import pytest

# Programs here are tiny and run a few times: compiling them is most of the work. Set before
# JAX starts; processes that the tests start inherit it, so that bits can be compared. On an
# accelerator (ILP_DEVICE, as the scripts read it) programs are compiled as in a run.
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
if not os.environ.get("ILP_DEVICE"):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK}".strip()

# Runs tell of a commit that changed on the way: none is known here, so that files may be edited
# while tests run.
os.environ["GIT_DIR"] = os.devnull

hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(scope="session", autouse=True)
def strict_jax():
    """No silent broadcast between arrays of different rank, in any test."""
    import jax

    jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def run_on_devices():
    """``run_on_devices(n, code)`` runs Python code where JAX sees n CPU devices; its output.

    The number of devices is fixed when JAX starts, so tests marked ``multi_device`` need a
    process of their own.
    """

    def run(n_devices: int, code: str) -> str:
        flags = f"--xla_force_host_platform_device_count={n_devices}"
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip(),
        }
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


WORDS = ("what", "is", "the", "of", "?", "red", "blue", "green", "old", "new", "big", "small")
NAMES = tuple(f"name{i}" for i in range(24))
ANSWERS = tuple(f"answer{i}" for i in range(16))
TINY = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}


def write_tiny_model(folder, seed=0, **fields):
    """A Hugging Face folder of random weights and a word-level tokenizer, made without torch."""
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from ilp_jax.models import hf, names

    folder.mkdir(parents=True, exist_ok=True)
    config_json = {**TINY, **fields}
    (folder / "config.json").write_text(json.dumps(config_json))
    rng = np.random.default_rng(seed)
    shapes = names.tensor_shapes(hf.model_config(config_json, folder))
    tensors = {}
    for name, shape in shapes.items():
        values = rng.normal(0, 0.1, shape).astype(np.float32)
        tensors[name] = 1 + values if len(shape) == 1 else values
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    vocab = {word: i for i, word in enumerate(("<unk>", "<end>", *WORDS, *NAMES, *ANSWERS))}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unk>"
    )
    wrapped.save_pretrained(folder)
    return folder


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")  # numbers 256 to 258


def write_byte_model(
    folder, *, eos="<|endoftext|>", template=CHATML, extra=(), pre=None, told=None, seed=0, **fields
):
    """As ``write_tiny_model``, with bytes as tokens and a chat template: a base's folder.

    ``extra`` are further special tokens, ``pre`` another pre-tokenizer, ``told`` more of
    tokenizer_config.json.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    vocab = {c: i for i, c in enumerate(sorted(byte_level.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre or byte_level
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([*SPECIAL, *extra])
    shape = {"vocab_size": backend.get_vocab_size(), "max_position_embeddings": 256}
    write_tiny_model(folder, seed, **shape | fields)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos}
    settings |= {"chat_template": template} if template else {}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | (told or {})))
    return folder


def tiny_rows():
    """Questions of two stages, 12 each; one stands in both, two have no options."""
    rows = []
    for i in range(24):
        answers = [ANSWERS[(i * k) % 16] for k in (1, 3, 5)]
        rows.append(
            {
                "id": f"q{i}",
                "stage": 1 if i < 12 else 2,
                "prompt": f"what is the {WORDS[5 + i % 5]} {'big ' * (i % 3)}{NAMES[i]} ?",
                "response": " ".join(answers[: 1 + i % 2] + ["old"] * (i % 4 == 3)),
                "options": [f"{answers[0]} small", ANSWERS[(i + 7) % 16] + " new of"],
            }
        )
        rows[-1]["options"].insert(i % 3, rows[-1]["response"])
    del rows[4]["options"], rows[5]["options"]
    rows[7]["knowledge"] = ["name7 is new"]
    # The row that both stages train.
    rows[20:20] = [{**rows[3], "stage": 2}]
    del rows[13]
    return rows


@pytest.fixture(scope="session")
def tiny_model():
    """``tiny_model(folder, seed=0, **config_fields)``: writes a tiny LLaMA folder."""
    return write_tiny_model


@pytest.fixture(scope="session")
def byte_model():
    """``byte_model(folder, **settings)``: writes a folder with bytes as tokens and ChatML."""
    return write_byte_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A folder with ``model/`` and ``rows.jsonl``; do not change it."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder / "model")
    text = "".join(json.dumps(row) + "\n" for row in tiny_rows())
    (folder / "rows.jsonl").write_text(text)
    return folder


@pytest.fixture(scope="session")
def tiny_arguments(tiny):
    """``tiny_arguments(workdir, *more)``: words after the command's name, for the tiny study.

    Two stages of 10 trained rows (one row in both) and 2 held out each, and 6 epochs of 3
    updates a stage; checkpoints are due at 5, 10, 15, 18, 20, 25, 30, 35 and 36.
    """
    own = Path(__file__).parent.parent / "configs" / "own.py"
    arguments = "epochs=6,learning_rate=0.01,batch_size=4,held_out=2"

    def words(workdir, *more, model=tiny / "model", data=tiny / "rows.jsonl"):
        return [
            "--config",
            f"{own}:model={model},data={data},{arguments}",
            "--workdir",
            str(workdir),
            "--config.checkpoint.every_steps=5",
            "--config.convergence.relative_fall=0.2",
            *more,
        ]

    return words


SMALL_WORLD = (
    "--config.world.sizes.n_asked=40",
    "--config.world.sizes.n_partial=8",
    "--config.world.sizes.n_told=60",
    "--config.world.sizes.n_unseen=4",
    "--config.world.sizes.n_spare=10",
    "--config.world.mix.group=6",
    "--config.world.mix.fill=6",
    "--config.world.mix.overwriters=4",
    "--config.world.mix.many_visits=2,3",
    "--config.world.mix.overwriter_visits=2",
    "--config.world.pretraining.steps=4",
    "--config.world.pretraining.batch_size=8",
    "--config.world.pretraining.warmup=1",
    "--config.diagnose.methods=rules,paper",
)


@pytest.fixture(scope="session")
def ilp(tmp_path_factory):
    """``ilp(command, *words)`` runs the real command; gives the finished process.

    With ``killed_at=(function, n, text)`` it gets SIGKILL at the n-th call of that function
    ("module:name") with the text in its arguments' repr. ``start=True`` gives the Popen.
    """
    cache = {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }

    def run(*words, killed_at=None, start=False, **kwargs):
        front = ["-m", "ilp_jax"]
        env = {**os.environ, **cache}
        if killed_at is not None:
            front = [str(Path(__file__).with_name("fatal_run.py"))]
            env["FATAL_CALL"] = json.dumps(killed_at)
        command = [sys.executable, *front, *map(str, words)]
        kwargs = {"text": True, "env": env, **kwargs}
        if start:
            return subprocess.Popen(command, **kwargs)
        return subprocess.run(command, capture_output=True, **kwargs)

    return run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, tiny_arguments, ilp):
    """The folder of the tiny study, run by the real command without interruption."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    done = ilp("run", *tiny_arguments(workdir))
    assert done.returncode == 0, done.stderr
    (workdir.parent / "stdout").write_text(done.stdout)
    (workdir.parent / "stderr").write_text(done.stderr)
    return workdir


@pytest.fixture(scope="session")
def planted_arguments(tmp_path_factory):
    """Words of the command line for a small study of world 3 and a family."""
    cache = tmp_path_factory.mktemp("cache")

    def words(workdir, family="qwen2"):
        own = Path(__file__).parents[1] / "configs" / "controlled.py"
        config = f"{own}:family={family},world=-3,epochs=1"
        workdir = ["--workdir", str(workdir)]
        return ["--config", config, *workdir, *SMALL_WORLD, f"--config.cache_dir={cache}"]

    return words


@pytest.fixture(scope="session")
def planted_run(planted_arguments, ilp, tmp_path_factory):
    """The folder of the small planted study; whoever changes it puts back what it was."""
    folder = tmp_path_factory.mktemp("planted") / "run"
    done = ilp("run", *planted_arguments(folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def same_run():
    """``same_run(a, b)``: the tables and figures of two runs, bit for bit, clocks aside."""
    from ilp_jax import parquet
    from ilp_jax.stats import reader
    from ilp_jax.stats.schema import KEY
    from ilp_jax.train.metrics import read_metrics

    def bits(rows):
        out = {}
        for name, column in rows.to_dict().items():
            if column.dtype.is_nested():
                out[f"{name}.lengths"] = column.list.len().to_list()
                column = column.explode()
            out[f"{name}.null"] = column.is_null().to_list()
            values = column.drop_nulls()
            floats = column.dtype.is_float()
            out[name] = values.to_numpy().tobytes() if floats else values.to_list()
        return out

    def check(a, b):
        pairs = {"stats": [reader.read_stats(run).sort(KEY) for run in (a, b)]}
        points = [sorted(p.name for p in (run / "inference").iterdir()) for run in (a, b)]
        assert points[0] == points[1]
        for name in [
            "examples.parquet",
            "plan.parquet",
            "signals.parquet",
            "diagnosis.parquet",
            "projections/representations.parquet",
            *(f"inference/{point}" for point in points[0]),
        ]:
            pairs[name] = [parquet.read(run / name) for run in (a, b)]
        for name, (one, other) in pairs.items():
            assert one.schema == other.schema, name
            one, other = bits(one), bits(other)
            differ = [column for column in one if one[column] != other[column]]
            assert not differ, (name, differ)
        logs = [[{**line, "time": 0} for line in read_metrics(run)] for run in (a, b)]
        assert logs[0] == logs[1]
        assert (a / "summary.json").read_bytes() == (b / "summary.json").read_bytes()
        for kind in ("state", "best"):
            names = [
                sorted(p.name for p in (run / "checkpoints" / kind).iterdir()) for run in (a, b)
            ]
            assert names[0] == names[1]
        assert not [p for p in b.rglob("*") if "tmp" in p.name]

    return check


def pytest_runtest_setup(item):
    if item.get_closest_marker("torch_parity") and not importlib.util.find_spec("torch"):
        pytest.skip("torch is not installed")
    if item.get_closest_marker("gpu") and (reason := _no_gpu()):
        pytest.skip(reason)


def _no_gpu():
    """Why tests on a GPU cannot run here, or nothing."""
    import jax

    try:
        jax.devices("gpu"), jax.devices("cpu")
    except RuntimeError as error:
        return f"JAX sees no GPU beside the CPU: {str(error).splitlines()[0]}"


@pytest.fixture
def refused(capsys):
    """Runs a command in this process; its one line on standard error, after exit code 2."""

    from ilp_jax import cli

    def run(*words):
        code = cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert (code, out) == (2, ""), (code, out, err)
        assert err.startswith("ilp: error: ") and err.count("\n") == 1, err
        return err

    return run


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A folder of this machine that ``gs://NAME/...`` means, as ``FOLDER/NAME/...``, in epath."""
    from etils.epath import backend
    from fsspec.implementations.local import LocalFileSystem

    folder = tmp_path / "buckets"

    class Bucket(LocalFileSystem):
        cachable = False

        @classmethod
        def _strip_protocol(cls, path):
            path = str(path)
            if path.startswith("gs://"):
                path = f"{folder}/{path.removeprefix('gs://')}"
            return LocalFileSystem._strip_protocol(path)

    files = Bucket(auto_mkdir=True)
    monkeypatch.setattr(backend._FileSystemSpecBackend, "fs", lambda self, path: files)
    folder.mkdir()
    return folder
