import pyarrow.parquet as pq

from ilp_jax import parquet
from ilp_jax.stats import schema

STATS = """example_id kind stage epoch step visit batch_index microbatch row segment learning_rate
loss_sum n_tokens n_correct prob_mean grad_norm grad_norm_embed grad_norm_attn grad_norm_mlp
grad_norm_norm grad_norm_head entropy_mean margin_mean"""
INFERENCE = """example_id stage epoch step run mode prompt_variant temperature seed prediction
confidence correct gold_logprob options option_logprob_sum option_logprob_mean"""


def test_columns_are_those_of_the_documented_tables():
    assert schema.STATS_SCHEMA.names == STATS.split()
    assert schema.INFERENCE_SCHEMA.names == INFERENCE.split()
    names = schema.DIAGNOSIS_SCHEMA.names
    assert names[:6] == ["example_id", "point", "detector", "method", "unlearned", "cause"]
    assert names[-3:] == ["runner_up", "related_ids", "evidence"]
    assert {f"score_{c}" for c in schema.CAUSES} | {f"flag_{c}" for c in schema.CAUSES} == set(
        names[6:-3]
    )
    assert set(schema.KEY) <= set(schema.STATS_SCHEMA.names)


def test_files_explain_their_columns(tmp_path):
    for table in (schema.STATS_SCHEMA, schema.INFERENCE_SCHEMA, schema.DIAGNOSIS_SCHEMA):
        parquet.write(tmp_path / "t.parquet", schema.empty(table), schema=table)
        stored = pq.read_schema(tmp_path / "t.parquet")
        assert stored.equals(table)
        assert all(field.metadata[b"meaning"] for field in stored)
    stored = pq.read_schema(tmp_path / "t.parquet")
    assert schema.STATS_SCHEMA.field("loss_sum").metadata[b"unit"] == b"nats"


def test_docstring_names_every_column():
    for name in schema.STATS_SCHEMA.names:
        group = name.removeprefix("grad_norm_")
        assert name in schema.__doc__ or (group in schema.GROUPS and "{group}" in schema.__doc__)
