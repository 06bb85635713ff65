"""``docs/statistics.md`` says what the schema says, and its queries run."""

import re
import sqlite3
from pathlib import Path

import polars as pl
import pyarrow as pa

from ilp_jax.stats import shards
from ilp_jax.stats.schema import KEY, STATS_SCHEMA

TEXT = (Path(__file__).parents[2] / "docs" / "statistics.md").read_text()
TYPES = {
    pa.int64(): ("INT64", "BIGINT"),
    pa.int32(): ("INT64", "INT"),
    pa.float64(): ("FLOAT64", "DOUBLE"),
    pa.float32(): ("FLOAT64", "FLOAT"),
    pa.string(): ("STRING", "STRING"),
}


def test_every_column_is_documented():
    table = [line for line in TEXT.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]
    assert [cell[0].strip("`") for cell in cells] == STATS_SCHEMA.names
    for (_, kind, bigquery, spark, null, unit, meaning), field in zip(
        cells, STATS_SCHEMA, strict=True
    ):
        assert (kind, (bigquery, spark)) == (str(field.type), TYPES[field.type]), field.name
        assert null == ("yes" if field.nullable else "no")
        stored = {key.decode(): value.decode() for key, value in field.metadata.items()}
        assert (unit, meaning) == (stored["unit"], stored["meaning"])


def test_the_key_and_the_names_are_those_of_the_code():
    assert f"`({', '.join(KEY)})`" in TEXT
    assert f"`{shards.REPLACES}`" in TEXT
    assert shards.parse("train.steps-000000001-000000006.host-0000.merged.parquet").merged


def queries():
    """The queries over ``stats`` by the line before them."""
    found = re.findall(r"\n([^\n]+):\n\n```sql\n((?:SELECT|WITH).*?);\n```", TEXT, re.DOTALL)
    return [query for _, query in found]


def run(query, rows):
    """A query in SQLite, over rows of the statistics."""
    with sqlite3.connect(":memory:") as base:
        base.execute(f"CREATE TABLE stats ({', '.join(rows.columns)})")
        marks = ", ".join("?" * len(rows.columns))
        base.executemany(f"INSERT INTO stats VALUES ({marks})", rows.rows())
        return base.execute(query).fetchall()


def visits(histories, kind, stage, first_step=1):
    """Rows of examples whose visits were right (1) or wrong (0)."""
    return [
        {"example_id": i, "kind": kind, "stage": stage, "epoch": v, "step": first_step + v - 1}
        | {"visit": v, "loss_sum": 3.0, "n_tokens": 2, "n_correct": 2 * right, "grad_norm": 1.0}
        for i, history in histories.items()
        for v, right in enumerate(map(int, history), 1)
    ]


def test_the_queries_say_what_they_promise():
    curve, forgotten, slowest = queries()
    rows = visits({1: "0111", 2: "0001", 3: "0011"}, "train", 1)
    rows += visits({4: "01"}, "train", 2, first_step=5)
    # At the end of stage 1 (step 4) and of stage 2 (step 6): 2 is lost, 3 was never right.
    rows += visits({1: "1", 2: "1", 3: "0", 4: "0"}, "probe", 1, first_step=4)
    rows += visits({1: "1", 2: "0", 3: "0", 4: "1"}, "probe", 2, first_step=6)
    table = pl.DataFrame(rows)
    assert run(forgotten, table) == [(1, 2, 1), (2, 1, 0)]
    found = run(curve.replace("5371878603517644575", "2"), table)
    assert [(r[0], r[1], r[6]) for r in found] == [
        (1, "train", 0), (2, "train", 0), (3, "train", 0), (4, "train", 1), (4, "probe", 1),
        (6, "probe", 0),
    ]  # fmt: skip
    assert {r[5] for r in found} == {1.5}
    many = pl.DataFrame(visits({i: "0" * (i % 7) + "1" for i in range(300)}, "train", 1))
    slow = dict(run(slowest, many))
    assert set(slow.values()) == {6} and set(slow) == {i for i in range(300) if i % 7 == 6}
