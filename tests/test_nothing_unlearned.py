"""A run whose rows are all learned is a good result: one sentence and exit code 0, no error."""

import json
import shutil

import polars as pl
import pytest

from ilp_jax import cli
from ilp_jax.stats.reader import read_diagnosis, write_diagnosis


def all_learned(run, folder):
    """A copy of a run in which every verdict is that the row is learned."""
    shutil.copytree(run, folder)
    rows = read_diagnosis(folder)
    learned = pl.when(pl.col("unlearned").is_not_null()).then(pl.lit(False))
    write_diagnosis(folder, rows.with_columns(unlearned=learned, cause=pl.lit(None, pl.String)))
    return folder


@pytest.fixture(scope="module")
def learned(finished_run, tmp_path_factory):
    return all_learned(finished_run, tmp_path_factory.mktemp("learned") / "run")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("mitigate",), "no trained row is unlearned (detector default): nothing to mend"),
        (("mitigate", "--train-only"), "nothing to mend"),
        (("mitigate", "--apply", "--out", "OUT"), "nothing to mend, and nothing is written"),
        (("replay",), "No row is unlearned at final: nothing was replayed."),
        (("influence", "--config.influence.detector=exact_match"), "No later row raised"),
    ],
)
def test_commands_say_so_and_succeed(learned, tmp_path, capsys, command, says):
    words = [str(tmp_path / "out") if word == "OUT" else word for word in command]
    assert cli.main([*words, "--workdir", str(learned)]) == 0
    out, err = capsys.readouterr()
    assert says in out and "error" not in err
    assert not (tmp_path / "out").exists() and not (learned / "arms").exists()


def test_a_config_that_is_refused_does_not_become_the_runs(learned, refused):
    before = (learned / "run.json").read_text()
    assert "told no causes" in refused(
        *("mitigate", "--workdir", learned), "--config.mitigate.method=majority"
    )
    line = refused("mitigate", "--workdir", learned, "--config.mitigate.detector=sampled")
    assert "has no verdicts at the end -- the run has: " in line
    assert (learned / "run.json").read_text() == before


def test_a_planted_study_is_scored(planted_run, tmp_path, capsys):
    folder = all_learned(planted_run, tmp_path / "run")
    assert cli.main(["evaluate", "--workdir", str(folder)]) == 0
    assert capsys.readouterr().out
    assert json.loads((folder / "summary.json").read_text())["agreement"]
