"""Peak memory of a process that loads its part of a model's weights.

    python benchmarks/sharded_load.py --out /tmp/load [--preset llama3_2_1b] [--processes 1,2,4]

Writes a folder of random bfloat16 weights (1.24 billion parameters: 2.5 GB), then loads it with one
CPU device a process, parameters split over all of them, and prints for each number of processes
the largest growth of resident memory beside what a process keeps: its part in float32.

Expected (GiB, growth and part): 1: 5.6 and 4.6; 2: 2.9 and 2.3; 4: 1.5 and 1.2. Two minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from ilp_jax.config import default_config
from ilp_jax.mesh import local, processes
from ilp_jax.mesh.axes import make_mesh
from ilp_jax.mesh.layout import Layout
from ilp_jax.mesh.rules import parse
from ilp_jax.models import names, presets, weights

_GIB = 2**30
_FILE_BYTES = 500e6


def config_json(preset: str) -> dict:
    """A LLaMA folder's config.json for a preset."""
    c = presets.preset(preset)
    return {
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": c.vocab_size,
        "hidden_size": c.d_model,
        "num_hidden_layers": c.n_layers,
        "num_attention_heads": c.n_heads,
        "num_key_value_heads": c.n_kv_heads,
        "head_dim": c.head_dim,
        "intermediate_size": c.d_ff,
        "rms_norm_eps": c.norm_eps,
        "rope_theta": c.rope_theta,
        "tie_word_embeddings": c.tie_embeddings,
    }


def write(folder: Path, preset: str) -> None:
    """Random weights in files of about half a GB."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_json(preset)))
    rng = np.random.default_rng(0)
    shapes = names.tensor_shapes(presets.preset(preset))
    home, part, size, number = {}, {}, 0, 0

    def flush() -> None:
        name = f"model-{number:05d}.safetensors"
        save_file(part, folder / name, metadata={"format": "pt"})
        home.update(dict.fromkeys(part, name))

    for name, shape in shapes.items():
        part[name] = rng.standard_normal(shape, np.float32).astype(ml_dtypes.bfloat16)
        size += part[name].nbytes
        if size > _FILE_BYTES:
            flush()
            part, size, number = {}, 0, number + 1
    flush()
    index = {"metadata": {}, "weight_map": home}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def peak() -> float:
    """Largest resident memory of this process so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def load() -> None:
    """One process's part: prints its growth and what it keeps."""
    settings = default_config().mesh
    processes.join(settings)
    layout = Layout(make_mesh(settings), parse(settings.rules))
    before = peak()
    params = weights.load(os.environ["ILP_FOLDER"], layout.place).params
    grown = peak() - before
    kept = sum(s.data.nbytes for leaf in jax.tree.leaves(params) for s in leaf.addressable_shards)
    for one in processes.exchange({"grown": grown, "kept": kept}):
        if processes.is_first():
            print(json.dumps(one), flush=True)


def main() -> None:
    """Prints a line for each number of processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", default="llama3_2_1b")
    parser.add_argument("--processes", default="1,2,4")
    options = parser.parse_args()
    folder = options.out / "model"
    if not (folder / "model.safetensors.index.json").exists():
        subprocess.run(
            [sys.executable, __file__, "--write", str(folder), options.preset], check=True
        )
    os.environ["ILP_FOLDER"] = str(folder)
    os.environ["PYTHONPATH"] = f"{Path(__file__).parent}:{Path(__file__).parents[1]}"
    for n in map(int, options.processes.split(",")):
        print(f"{n} processes", flush=True)
        assert local.wait(local.start([], n, 1, "sharded_load"), grace=5.0) == 0


if __name__ == "__main__":
    if processes.COUNT in os.environ:
        load()
    elif "--write" in sys.argv:
        write(Path(sys.argv[2]), sys.argv[3])
    else:
        main()
