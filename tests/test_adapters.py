"""A run with adapters, by the real command: resumed exactly, small checkpoints, merged export."""

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from ilp_jax.models import weights
from ilp_jax.stats.reader import read_diagnosis, read_inference, read_stats

LORA = (
    "--config.lora.rank=2",
    "--config.lora.targets=q,v,down",
    "--config.detect.sampled_points=final",
    "--config.stages.own.epochs=2",
)


@pytest.mark.slow
def test_a_run_with_adapters(tiny, tiny_arguments, ilp, same_run, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = ilp("run", *tiny_arguments(whole, *LORA))
    assert done.returncode == 0, done.stderr
    assert "LoRA adapters of rank 2 on q, v, down alone" in " ".join(done.stdout.split())
    stopped = ilp(
        "run", *tiny_arguments(killed, *LORA), killed_at=("ilp_jax.train.loop:record", 8, "")
    )
    assert stopped.returncode < 0
    done = ilp("run", *tiny_arguments(killed, *LORA))
    assert done.returncode == 0, done.stderr
    same_run(whole, killed)

    stats = read_stats(whole)
    for group in ("embed", "norm", "head"):
        assert stats[f"grad_norm_{group}"].is_null().all()
    norms = stats.drop_nulls("grad_norm")
    squares = norms["grad_norm_attn"] ** 2 + norms["grad_norm_mlp"] ** 2
    np.testing.assert_allclose(np.sqrt(squares), norms["grad_norm"], rtol=1e-5)
    file = next((whole / "stats").glob("*.parquet"))
    assert pq.read_schema(file).metadata[b"grad_norm_of"] == b"LoRA adapters"

    drawn = read_inference(whole, ["final"]).filter(
        pl.col("mode") == "sample", pl.col("seed").is_not_null()
    )
    assert (drawn.group_by("example_id").len()["len"] == 5).all()
    assert "sampled" in read_diagnosis(whole)["detector"].unique().to_list()

    done = ilp("export", "--workdir", whole, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    base, tuned = (weights.load(str(one)) for one in (tiny / "model", tmp_path / "out"))
    changed = {
        name: not np.array_equal(
            base.params["layers"][part][name]["kernel"],
            tuned.params["layers"][part][name]["kernel"],
        )
        for part, names in (("attn", "qkvo"), ("mlp", ("gate", "up", "down")))
        for name in names
    }
    assert {name for name, moved in changed.items() if moved} == {"q", "v", "down"}
    np.testing.assert_array_equal(
        base.params["embed"]["embedding"], tuned.params["embed"]["embedding"]
    )
