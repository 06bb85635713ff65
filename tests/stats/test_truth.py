"""``truth.parquet``: written, read, refused; and opened by one module alone."""

from pathlib import Path

import polars as pl
import pytest

import ilp_jax
from ilp_jax import files, parquet
from ilp_jax.errors import UserError
from ilp_jax.stats.schema import PLANTED, TRUTH_SCHEMA
from ilp_jax.stats.truth import FILE, has_truth, read_truth, write_truth

ROWS = pl.DataFrame(
    [
        {"example_id": i, "planted": planted, "group_id": i // 2, "related_ids": [i ^ 1]}
        | {"prerequisite_id": 5 if i == 0 else None, "detail": "withheld"}
        for i, planted in enumerate(PLANTED)
    ]
)


@pytest.fixture
def run(tmp_path):
    files.write_json(tmp_path / "run.json", {})
    return tmp_path


def test_what_is_written_is_read(run):
    assert not has_truth(run)
    write_truth(run, ROWS.select(reversed(ROWS.columns)))
    found = read_truth(run)
    assert has_truth(run) and found.columns == TRUTH_SCHEMA.names
    assert found.to_dicts() == ROWS.to_dicts()


def test_wrong_tables_are_refused(run, tmp_path):
    with pytest.raises(UserError, match=r"is no planted study \(it has no truth.parquet\)"):
        read_truth(run)
    with pytest.raises(UserError, match="there is no such folder"):
        read_truth(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="missing columns"):
        write_truth(run, ROWS.drop("detail"))
    wrong = {
        "names an example twice": pl.concat([ROWS, ROWS]),
        "plants 'luck', which is none of": ROWS.with_columns(planted=pl.lit("luck")),
        "has no column detail": ROWS.drop("detail"),
    }
    for line, table in wrong.items():
        parquet.write(run / FILE, table)
        with pytest.raises(UserError, match=line):
            read_truth(run)


def test_only_what_scores_a_diagnosis_opens_the_truth():
    root = Path(ilp_jax.__file__).parent
    names = ("read_truth", '"truth.parquet"')
    found = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if any(name in path.read_text() for name in names)
    }
    # Models are fitted, once and outside of any run, on worlds that serve nothing else.
    # What scores remedies reads it as well, and the arm that treats planted causes.
    scores = {"analysis/planted.py", "analysis/remedies/load.py", "mitigate/evidence.py"}
    assert found - {"analysis/fitted/worlds.py"} == {"stats/truth.py", *scores}
