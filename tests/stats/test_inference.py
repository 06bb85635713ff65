import os
import tempfile

import hypothesis.strategies as st
import polars as pl
import pytest
from hypothesis import given, settings

from ilp_jax import parquet
from ilp_jax.errors import UserError
from ilp_jax.stats import reader
from ilp_jax.stats.inference import discard_inference_after, put_inference
from ilp_jax.stats.schema import INFERENCE_SCHEMA


def answers(ids, step, run=0):
    n = len(ids)
    return pl.DataFrame(
        {
            "step": [step] * n,
            "example_id": ids,
            "stage": [1] * n,
            "epoch": [2] * n,
            "run": [run] * n,
            "mode": ["choice"] * n,
            "prompt_variant": [0] * n,
            "temperature": [0.0] * n,
            "seed": [None] * n,
            "prediction": ["é"] * n,
            "confidence": [0.5] * n,
            "correct": [None] * n,
            "gold_logprob": [-1.25] * n,
            "options": [["a", "b"]] * n,
            "option_logprob_sum": [[-1.0, -2.0]] * n,
            "option_logprob_mean": [[]] * n,
        }
    )


def test_points_gather_moments_and_replace_their_own(tmp_path):
    put_inference(tmp_path, "epoch_2", answers([1, 2], 10), 10)
    put_inference(tmp_path, "epoch_2", answers([3], 20), 20)
    put_inference(tmp_path, "epoch_2", answers([3, 4], 20), 20)
    put_inference(tmp_path, "base", answers([1], 0), 0)
    table = reader.read_inference(tmp_path)
    assert table.select("point", "example_id", "step").rows() == [
        ("base", 1, 0),
        ("epoch_2", 1, 10),
        ("epoch_2", 2, 10),
        ("epoch_2", 3, 20),
        ("epoch_2", 4, 20),
    ]
    assert table.columns == ["point", *INFERENCE_SCHEMA.names]
    assert table["options"].to_list()[0] == ["a", "b"]
    assert table["option_logprob_mean"].to_list()[0] == []
    assert table["seed"].null_count() == 5
    assert len(reader.read_inference(tmp_path, ["base"])) == 1
    with pytest.raises(UserError, match="final.parquet"):
        reader.read_inference(tmp_path, ["final"])
    path = tmp_path / "inference" / "epoch_2.parquet"
    assert parquet.read_arrow(path).schema.equals(INFERENCE_SCHEMA)


def test_wrong_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="step"):
        put_inference(tmp_path, "final", answers([1], 3), 4)
    with pytest.raises(ValueError, match="missing"):
        put_inference(tmp_path, "final", answers([1], 3).drop("mode"), 3)


def test_discard_keeps_base_and_metadata(tmp_path):
    put_inference(tmp_path, "base", answers([1], 0), 0, {"who": "me"})
    put_inference(tmp_path, "epoch_2", answers([1], 10), 10)
    put_inference(tmp_path, "epoch_2", answers([2], 20), 20, {"who": "me"})
    put_inference(tmp_path, "final", answers([1], 20), 20)
    discard_inference_after(tmp_path, 15, ["final"])
    assert sorted(os.listdir(tmp_path / "inference")) == ["base.parquet", "epoch_2.parquet"]
    assert len(reader.read_inference(tmp_path)) == 3
    discard_inference_after(tmp_path, 15)
    assert reader.read_inference(tmp_path)["example_id"].to_list() == [1, 1]
    assert parquet.read_metadata(tmp_path / "inference" / "epoch_2.parquet")["who"] == "me"
    discard_inference_after(tmp_path, -1)
    assert os.listdir(tmp_path / "inference") == ["base.parquet"]
    discard_inference_after(tmp_path / "none", -1)


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "put", "discard"]), st.integers(0, 6), st.integers(1, 3)),
        max_size=12,
    )
)
def test_any_history_equals_a_list(operations):
    with tempfile.TemporaryDirectory() as run:
        wanted = []
        for what, step, n in operations:
            if what == "put":
                put_inference(run, "converged", answers(list(range(n)), step, run=n), step)
                wanted = [r for r in wanted if r[0] < step] + [(step, i, n) for i in range(n)]
            else:
                discard_inference_after(run, step)
                wanted = [r for r in wanted if r[0] <= step]
            path = os.path.join(run, "inference", "converged.parquet")
            if os.path.exists(path):
                assert parquet.read(path).select("step", "example_id", "run").rows() == wanted
            else:
                assert not wanted
