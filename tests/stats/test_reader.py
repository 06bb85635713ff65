import threading

import polars as pl
import pytest

from ilp_jax import files
from ilp_jax.errors import UserError
from ilp_jax.stats import reader, schema, shards
from ilp_jax.stats.writer import StatsWriter, compact


def test_not_a_run(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        reader.read_stats(tmp_path / "none")
    with pytest.raises(UserError, match="not the folder of a run"):
        reader.read_stats(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match="plan.parquet: there is no such file"):
        reader.read_plan(tmp_path)
    assert len(reader.read_stats(tmp_path)) == len(reader.scan_stats(tmp_path).collect()) == 0
    assert reader.read_stats(tmp_path).columns == schema.STATS_SCHEMA.names
    assert reader.read_inference(tmp_path).columns == ["point", *schema.INFERENCE_SCHEMA.names]


def test_columns_and_kind(tmp_path, rows):
    with StatsWriter(tmp_path / "stats") as w:
        w.append(1, rows([1, 2]))
        w.append(1, rows([1], kind="probe"))
    table = reader.read_stats(tmp_path, ["loss_sum", "step"], kind="probe")
    assert table.columns == [*schema.KEY, "loss_sum"] and len(table) == 1


def test_duplicates_are_found(tmp_path, rows):
    with StatsWriter(tmp_path / "stats") as w:
        w.append(1, rows([1, 2]))
        w.append(1, rows([2]))
    with pytest.raises(ValueError, match="1 keys occur more than once.*2, 'train', 1, 1, 1, 0"):
        reader.check_unique(reader.read_stats(tmp_path))
    reader.check_unique(pl.DataFrame({"a": [1, 1], "b": [1, 2]}), ["a", "b"])


def test_damaged_shard_is_named(tmp_path, rows):
    with StatsWriter(tmp_path / "stats") as w:
        w.append(1, rows([1, 2]))
    (path,) = files.list_files(tmp_path / "stats")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=path.name):
        reader.read_stats(tmp_path)


def test_merged_file_hides_its_parts(tmp_path, rows, monkeypatch):
    """Between the merged file's birth and the parts' end, rows count once."""
    folder = tmp_path / "stats"
    with StatsWriter(folder) as w:
        for step in range(1, 5):
            w.append(step, rows([1, 2], visit=step))
            w.flush()
    before = reader.read_stats(tmp_path)
    monkeypatch.setattr(files, "remove", lambda path: None)
    compact(folder)
    monkeypatch.undo()
    assert len(files.list_files(folder)) == 5
    assert reader.read_stats(tmp_path).equals(before)
    assert len(reader.scan_stats(tmp_path).collect()) == len(before)
    shards.remove_replaced(folder)
    assert len(files.list_files(folder)) == 1
    assert reader.read_stats(tmp_path).equals(before)


def test_reading_while_the_run_goes_on(tmp_path, rows):
    """Every reading sees whole steps, each row once, and never fewer than before."""
    folder = tmp_path / "stats"
    (tmp_path / "run.json").write_text("{}")
    failures = []

    def run():
        try:
            for part in range(6):
                with StatsWriter(folder) as w:
                    for step in range(4 * part + 1, 4 * part + 5):
                        w.append(step, rows([1, 2, 3], visit=step))
                        w.flush()
                compact(folder)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    seen = 0
    while thread.is_alive():
        table = reader.read_stats(tmp_path)
        reader.check_unique(table)
        assert len(table) >= seen and len(table) % 3 == 0
        seen = len(table)
    thread.join()
    assert not failures
    assert len(reader.read_stats(tmp_path)) == 3 * 24


def test_diagnosis_round_trip(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    row = {name: None for name in schema.DIAGNOSIS_SCHEMA.names}
    row |= {"example_id": 1, "point": "final", "detector": "exact_match", "method": "rules"}
    row |= {"unlearned": True, "cause": "data_conflict", "related_ids": [4, 5]}
    row |= {f"score_{c}": 0.25 for c in schema.CAUSES} | {f"flag_{c}": True for c in schema.CAUSES}
    other = row | {"example_id": 2, "unlearned": None, "cause": None, "related_ids": None}
    reader.write_diagnosis(tmp_path, pl.DataFrame([row, other]))
    table = reader.read_diagnosis(tmp_path)
    assert table.rows(named=True) == [row, other]
    assert table.schema["unlearned"] == pl.Boolean
    assert table.schema["related_ids"] == pl.List(pl.Int64)
