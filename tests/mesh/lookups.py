"""Run by test_lookup.py on 24 virtual devices: tables split in every way, beside a whole one."""

from __future__ import annotations

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ilp_jax.fields.mesh import AXES
from ilp_jax.norms.lookup import Lookup
from ilp_jax.norms.shards import Shards


def entries():
    """Every way to split two dimensions over some of the axes."""
    for owners in itertools.product((None, 0, 1), repeat=len(AXES)):
        split = [[axis for axis, dim in zip(AXES, owners, strict=True) if dim == d] for d in (0, 1)]
        for rows, columns in itertools.product(*map(itertools.permutations, split)):
            yield PartitionSpec(rows or None, columns or None)


def compare(table: PartitionSpec) -> dict:
    """Errors of rows and gradient."""
    mesh = Mesh(np.reshape(jax.devices(), (2, 3, 4)), AXES)
    shards = Shards(mesh, AXES[:2], AXES[2])
    lookup = Lookup(shards, table)
    random = np.random.default_rng(0)
    table_VxD = random.normal(size=(24, 48)).astype(np.float32)
    ids_BxT = random.integers(0, 24, (6, 5)).astype(np.int32)
    g_BxTxD = random.normal(size=(6, 5, 48)).astype(np.float32)

    def both(table_VxD, ids_BxT, g_BxTxD):
        rows_BxTxD, seen_BxT = lookup.rows(table_VxD, ids_BxT, jnp.float32)
        return rows_BxTxD, lookup.gradient(seen_BxT, g_BxTxD, len(table_VxD))

    def placed(array, spec):
        return jax.device_put(array, NamedSharding(mesh, spec))

    ids = placed(ids_BxT, shards.spec(2, False))
    cotangents = placed(g_BxTxD, shards.spec(3, False))
    rows_BxTxD, gradient_VxD = jax.jit(both)(placed(table_VxD, table), ids, cotangents)
    expected_VxD = np.zeros_like(table_VxD)
    np.add.at(expected_VxD, ids_BxT, g_BxTxD)
    return {
        "table": str(table),
        "rows": float(np.max(np.abs(rows_BxTxD - table_VxD[ids_BxT]))),
        "gradient": float(np.max(np.abs(gradient_VxD - expected_VxD))),
        "kept": gradient_VxD.sharding.is_equivalent_to(NamedSharding(mesh, table), 2),
    }


if __name__ == "__main__":
    for entry in entries():
        print(json.dumps(compare(entry)))
