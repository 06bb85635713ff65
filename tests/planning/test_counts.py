"""Plans against finished runs: the same updates, rows and tokens, counted from their files."""

from collections import Counter

import numpy as np
import polars as pl
import pytest

from ilp_jax import config as config_lib
from ilp_jax import parquet
from ilp_jax.data.batches import option_batches, probe_batches, train_batch
from ilp_jax.planning.plan import counts_of
from ilp_jax.planning.subject import open_subject
from ilp_jax.planning.training import probe_moments, probed_rows
from ilp_jax.stats.reader import read_stats
from ilp_jax.train.schedule import places


def planned(run, n_chips=1):
    """Subject and counts of a finished run, from its config alone."""
    config = config_lib.from_run(str(run))
    subject = open_subject(config)
    return subject, counts_of(subject.data, config, subject.asked, n_chips)


@pytest.fixture(params=["finished_run", "planted_run"])
def run(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def counts(run):
    return planned(run)[1]


def test_updates_and_statistics_are_those_of_the_run(run, counts):
    stats = read_stats(run)
    assert counts.updates == stats["step"].max()
    assert counts.stats == len(stats)
    assert counts.stats_with_norms == stats["grad_norm"].is_not_null().sum()
    assert counts.n_examples == len(parquet.read(run / "examples.parquet"))


def test_rows_and_tokens_of_every_line_are_those_of_the_run(run, counts):
    examples = parquet.read(run / "examples.parquet")
    examples = examples.select("example_id", pl.col("n_prompt_tokens"))
    # Targets as the statistics have them: a fault trains others than the example's own.
    stats = read_stats(run).join(examples, on="example_id")
    stats = stats.with_columns(tokens=pl.col("n_prompt_tokens") + pl.col("n_tokens"))
    for line in counts.lines:
        if line.what.startswith("train stage"):
            stage = int(line.what.split()[2])
            found = stats.filter(pl.col("kind") == "train", pl.col("stage") == stage)
            assert line.updates == found["step"].n_unique()
        elif line.what.startswith("probe"):
            in_training = line.phase == "train"
            found = stats.filter(
                pl.col("kind") == "probe", (pl.col("step") > 0) == pl.lit(in_training)
            )
        else:
            continue
        assert (line.rows, line.tokens) == (len(found), found["tokens"].sum()), line.what
        norms = found["grad_norm"].is_not_null().sum()
        assert line.rows_with_norms == norms and line.padded_tokens >= line.tokens


def test_answers_are_those_of_the_run(run, counts):
    paths = {path.stem: path for path in (run / "inference").glob("*.parquet")}
    assert set(paths) <= set(counts.answered)
    for point, one in counts.answered.items():
        if point not in paths:
            assert one.at_most
            continue
        rows = pl.read_parquet(paths[point])
        drawn = rows.filter(pl.col("mode") == "sample", pl.col("seed").is_not_null())
        assert len(drawn) <= one.drawn
        if one.at_most:
            assert len(rows) - len(drawn) <= one.rows
        else:
            assert len(rows) - len(drawn) == one.rows, point


def test_shapes_are_those_of_the_real_batches(run):
    subject, counts = planned(run)
    data, config = subject.data, subject.config

    def shapes(batches):
        return Counter((one.tokens_BxT.shape[1], one.target_ids_BxR.shape[1]) for one in batches)

    def planned_shapes(start):
        found = Counter()
        for line in counts.lines:
            if line.what.startswith(start):
                for one in line.work:
                    found.update(one.shapes)
        return found

    trained = []
    for place in places(data, config.train.batch_size):
        seed = config.seed + place.stage.config.seed_offset
        where = (seed, place.epoch, place.batch_index, config.train.batch_size)
        trained.append(train_batch(data, place.stage, *where, config.length_buckets)[0])
    assert planned_shapes("train stage") == shapes(trained)

    everything = np.arange(len(data.examples))
    groups = [everything, *(probed_rows(data, config, e) for e in probe_moments(data, config))]
    size, buckets = config.probe.batch_size, config.length_buckets
    probed = [rows for group in groups for rows, _ in probe_batches(data, group, size, buckets)]
    assert planned_shapes("probe") == shapes(probed)

    size, buckets = config.detect.batch_size, config.detect.length_buckets
    asked = [one.rows for one in option_batches(data, everything, size, buckets)]
    assert planned_shapes("screen at final") == shapes(asked)


def test_detection_batches_are_a_multiple_of_the_chips(finished_run):
    _, counts = planned(finished_run, n_chips=6)
    (line,) = [line for line in counts.lines if line.what == "screen at final"]
    assert {one.batch_rows for one in line.work} == {12}
    assert all(line.rows for line in counts.lines)
