"""One table from the parameter tree to Hugging Face tensor names, read in both directions."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding

from ilp_jax.errors import UserError
from ilp_jax.models.config import ModelConfig

# Buffers that older files carry: they follow from the config, so nothing is lost without them.
_BUFFERS = re.compile(r"(rotary_emb\.inv_freq|rope_freqs|attn_rot_embd|\.attn\.(masked_)?bias)")


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One array of the parameter tree and the tensors that it is made of.

    Attributes:
      path: keys from the root of the tree.
      name: Hugging Face tensor name, with ``{layer}`` where layers are stacked on axis 0.
      shape: shape in the tree, without the layer axis.
    """

    path: tuple[str, ...]
    name: str
    shape: tuple[int, ...]

    @property
    def stacked(self) -> bool:
        """Whether the array has a layer axis."""
        return "{layer}" in self.name

    @property
    def hf_shape(self) -> tuple[int, ...]:
        """Shape of each tensor in a file: torch stores a linear map as (out, in)."""
        return self.shape[::-1] if self.path[-1] == "kernel" else self.shape


def leaves(config: ModelConfig) -> tuple[Leaf, ...]:
    """Every array of a model's parameter tree.

    Args:
      config: shape and variant of the decoder.

    Returns:
      One ``Leaf`` an array, in the order of the forward pass.
    """
    D, F, N, V = config.d_model, config.d_ff, config.head_dim, config.vocab_size
    q_width, kv_width = config.n_heads * N, config.n_kv_heads * N
    attn_norm, mlp_norm = {
        "pre": ("input_layernorm", "post_attention_layernorm"),
        "post": ("post_attention_layernorm", "post_feedforward_layernorm"),
    }[config.norm_position]

    table: list[Leaf] = []

    def add(path: str, name: str, *shape: int) -> None:
        table.append(Leaf(tuple(path.split(".")), name, shape))

    def linear(path: str, name: str, n_in: int, n_out: int, bias: bool) -> None:
        add(f"layers.{path}.kernel", f"model.layers.{{layer}}.{name}.weight", n_in, n_out)
        if bias:
            add(f"layers.{path}.bias", f"model.layers.{{layer}}.{name}.bias", n_out)

    def norm(path: str, name: str, width: int) -> None:
        add(f"layers.{path}.scale", f"model.layers.{{layer}}.{name}.weight", width)

    add("embed.embedding", "model.embed_tokens.weight", V, D)
    norm("attn_norm", attn_norm, D)
    linear("attn.q", "self_attn.q_proj", D, q_width, config.qkv_bias)
    linear("attn.k", "self_attn.k_proj", D, kv_width, config.qkv_bias)
    linear("attn.v", "self_attn.v_proj", D, kv_width, config.qkv_bias)
    linear("attn.o", "self_attn.o_proj", q_width, D, config.o_bias)
    if config.qk_norm != "none":
        full = config.qk_norm == "full"
        norm("attn.q_norm", "self_attn.q_norm", q_width if full else N)
        norm("attn.k_norm", "self_attn.k_norm", kv_width if full else N)
    norm("mlp_norm", mlp_norm, D)
    linear("mlp.gate", "mlp.gate_proj", D, F, config.mlp_bias)
    linear("mlp.up", "mlp.up_proj", D, F, config.mlp_bias)
    linear("mlp.down", "mlp.down_proj", F, D, config.mlp_bias)
    add("final_norm.scale", "model.norm.weight", D)
    if not config.tie_embeddings:
        add("head.kernel", "lm_head.weight", D, V)
    return tuple(table)


def hf_names(config: ModelConfig) -> dict[tuple[str, ...], str]:
    """Tree path to Hugging Face tensor name (``{layer}`` where layers are stacked)."""
    return {leaf.path: leaf.name for leaf in leaves(config)}


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every Hugging Face tensor of a model, one a layer where layers are stacked: its shape."""
    return {
        leaf.name.format(layer=layer): leaf.hf_shape
        for leaf in leaves(config)
        for layer in range(config.n_layers if leaf.stacked else 1)
    }


def check_tensors(
    expected: Mapping[str, tuple[int, ...]], present: Mapping[str, tuple[int, ...]], where: object
) -> None:
    """Holds a file's tensors against those that its config calls for, before any is read.

    Args:
      expected: tensor name to shape, for every tensor that the model needs.
      present: the same for every tensor in the file; rotary buffers are let pass.
      where: the file or folder, for the message.

    Raises:
      UserError: a tensor is missing or of another shape, or the model has no place for it.
    """
    missing = sorted(set(expected) - set(present))
    extra = sorted(n for n in set(present) - set(expected) if not _BUFFERS.search(n))
    for found, problem, mend in (
        (missing, "missing", "the file is incomplete or its config describes another model"),
        (extra, "unknown", "the model has no place for it: load a plain, merged checkpoint"),
    ):
        if found:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            raise UserError(where, f"{problem} tensor {found[0]}{more}", mend)
    for name, shape in expected.items():
        if present[name] != shape:
            raise UserError(
                where,
                f"tensor {name} has shape {present[name]}, the config calls for {shape}",
                "the weights and the config are of different models",
            )


Part = tuple[slice, ...]
"""What is read of a tensor: a slice of every axis, in the file's layout."""


def build_params(
    config: ModelConfig,
    read: Callable[[str, Part], np.ndarray],
    place: Callable[[Sequence[str], Sequence[int]], Sharding] | None = None,
) -> dict[str, Any]:
    """Fills the parameter tree tensor by tensor (peak memory: the tree and one tensor).

    Args:
      config: shape and variant of the decoder.
      read: Hugging Face tensor name and part to that part of the tensor, whose shape is what
        ``tensor_shapes`` gives, in any float dtype.
      place: path and shape of an array to its sharding; None leaves all on the host. With it
        the host holds no more than its devices' parts of one array, and reads no more than its
        devices' parts of all.

    Returns:
      Nested dict of float32 arrays: kernels (in, out), layers stacked on axis 0.
    """
    tree: dict[str, Any] = {}
    for leaf in leaves(config):
        shape = ((config.n_layers,) if leaf.stacked else ()) + leaf.shape
        if place is None:
            array = _read_part(leaf, read, tuple(slice(0, size) for size in shape))
        else:
            array = _in_parts(leaf, read, shape, place(leaf.path, shape))
        node = tree
        for key in leaf.path[:-1]:
            node = node.setdefault(key, {})
        node[leaf.path[-1]] = array
    return tree


def _read_part(leaf: Leaf, read: Callable[[str, Part], np.ndarray], part: Part) -> np.ndarray:
    """A part of an array, given in the tree's layout; float32."""
    of_tensor = part[1:] if leaf.stacked else part
    turned = leaf.path[-1] == "kernel"
    of_file = of_tensor[::-1] if turned else of_tensor
    array = np.empty([one.stop - one.start for one in part], np.float32)
    layers = range(part[0].start, part[0].stop) if leaf.stacked else (0,)
    for place, layer in enumerate(layers):
        tensor = read(leaf.name.format(layer=layer), of_file)
        target = array[place] if leaf.stacked else array
        target[...] = tensor.T if turned else tensor
    return array


def _in_parts(
    leaf: Leaf, read: Callable[[str, Part], np.ndarray], shape: tuple[int, ...], sharding: Sharding
) -> jax.Array:
    """An array whose parts go to their devices as they are read."""
    devices: dict[tuple[tuple[int, int], ...], list[jax.Device]] = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        ends = tuple(one.indices(n)[:2] for one, n in zip(index, shape, strict=True))
        devices.setdefault(ends, []).append(device)
    parts = []
    for ends, holders in devices.items():
        part = _read_part(leaf, read, tuple(slice(*one) for one in ends))
        # Never the host's own memory, which several devices would then share.
        parts += [jax.device_put(part, device, may_alias=False) for device in holders]
        jax.block_until_ready(parts[-len(holders) :])
    return jax.make_array_from_single_device_arrays(shape, sharding, parts)


def hf_tensors(config: ModelConfig, params: Any) -> Iterator[tuple[str, np.ndarray]]:
    """The reverse of ``build_params``: a parameter tree as Hugging Face tensors.

    Args:
      config: shape and variant of the decoder.
      params: nested dict of arrays, as ``build_params`` returns.

    Yields:
      (tensor name, contiguous array in the file's layout, dtype unchanged), one at a time.
    """
    for leaf in leaves(config):
        array = params
        for key in leaf.path:
            array = array[key]
        for layer in range(config.n_layers if leaf.stacked else 1):
            tensor = np.asarray(array[layer] if leaf.stacked else array)
            tensor = tensor.T if leaf.path[-1] == "kernel" else tensor
            yield leaf.name.format(layer=layer), np.ascontiguousarray(tensor)
