"""Rules that split parameters, and meshes that do not fit."""

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from ilp_jax.errors import UserError
from ilp_jax.fields.mesh import AXES, RULES, mesh_fields
from ilp_jax.mesh.axes import make_mesh, mesh_shape
from ilp_jax.mesh.rules import parse, path_of, spec_of
from ilp_jax.models.decoder import Decoder
from ilp_jax.models.presets import PRESETS


def fields(**values):
    settings = mesh_fields()
    settings.update(values)
    return settings


@pytest.mark.parametrize(
    ("sizes", "n_devices", "shape"),
    [
        ({}, 1, (1, 1, 1)),
        ({}, 8, (1, 8, 1)),
        ({"tensor": 2}, 8, (1, 4, 2)),
        ({"data": -1, "fsdp": 1}, 8, (8, 1, 1)),
        ({"data": 2, "fsdp": 2, "tensor": 2}, 8, (2, 2, 2)),
    ],
)
def test_shapes(sizes, n_devices, shape):
    assert mesh_shape(fields(**sizes), n_devices) == shape


@pytest.mark.parametrize(
    ("sizes", "n_devices", "line"),
    [
        ({"data": -1}, 8, "is -1, and so is data"),
        ({"tensor": 3}, 8, "do not divide 8"),
        ({"tensor": 0}, 8, "config.mesh.tensor: is 0"),
    ],
)
def test_shapes_that_do_not_fit(sizes, n_devices, line):
    with pytest.raises(UserError, match=line):
        mesh_shape(fields(**sizes), n_devices)


def test_more_devices_than_there_are():
    with pytest.raises(UserError, match="asks for 4096 devices, and there are"):
        make_mesh(fields(fsdp=4096))


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ("attn/q/kernel: fsdp", "has no '='"),
        ("attn/( = fsdp", "no regular expression"),
        ("attn/q = fspd, -", "'fspd' is no axis -- the axes are data, fsdp, tensor"),
        ("attn/q = fsdp, fsdp", "'fsdp' stands twice"),
    ],
)
def test_bad_rules(rule, line):
    with pytest.raises(UserError, match=line.replace("(", r"\(")):
        parse([rule])


@pytest.mark.parametrize("preset", PRESETS)
def test_every_matrix_of_the_published_models_is_split(preset):
    decoder = Decoder(PRESETS[preset].config)
    row = jax.ShapeDtypeStruct((1, 1), np.int32)
    params = jax.eval_shape(decoder.init, jax.random.key(0), row, row, row)["params"]
    mesh, rules = AbstractMesh((1, 8, 2), AXES), parse(RULES)
    for keys, leaf in jax.tree_util.tree_leaves_with_path(params):
        path = path_of(keys)
        spec = spec_of(path, leaf.shape, rules, mesh)
        is_matrix = path.endswith(("kernel", "embedding"))
        assert (set(filter(None, spec)) == {"fsdp", "tensor"}) == is_matrix, (path, spec)
        # A moment's path ends with its parameter's.
        assert spec_of(f"opt_state/1/mu/{path}", leaf.shape, rules, mesh) == spec


def test_what_does_not_divide_stays_whole():
    mesh, rules = AbstractMesh((1, 8, 1), AXES), parse(["kernel = fsdp, data+tensor"])
    assert spec_of("a/kernel", (12, 16), rules, mesh) == PartitionSpec(None, None)
    assert spec_of("a/kernel", (16, 16), rules, mesh) == PartitionSpec("fsdp", None)
    assert spec_of("a/kernel", (16, 16, 16), rules, mesh) == PartitionSpec()
    assert spec_of("a/scale", (16,), rules, mesh) == PartitionSpec()
