import numpy as np
import pytest

from ilp_jax.stats.schema import KEY, STATS_SCHEMA


def _rows(ids, visit=0, seed=0, **others):
    ids = np.asarray(ids, np.int64)
    rng = np.random.default_rng([seed, visit, *ids.tolist()])
    columns = {}
    for field in STATS_SCHEMA:
        if field.name not in ("step", "grad_norm_head"):
            kind = field.type.to_pandas_dtype() if field.name != "kind" else None
            if kind is not None:
                columns[field.name] = rng.integers(1, 99, len(ids)).astype(kind)
    columns |= {"example_id": ids, "kind": "train", "stage": 1, "epoch": 1}
    columns |= {"visit": np.full(len(ids), visit, np.int32), **others}
    return columns


@pytest.fixture
def rows():
    """``rows(ids, visit)``: columns as the loop hands them over, values fixed by the key."""
    return _rows


@pytest.fixture
def keys():
    """``keys(table)``: the keys of a table, in its order."""
    return lambda table: table.select(KEY).rows()
