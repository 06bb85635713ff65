"""GGUF files (llama.cpp): metadata to ModelConfig, tensors dequantised to float32 params.

Layout and keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; dequantisation and
the table of tensor names are those of the ``gguf`` package.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.quants import dequantize

from ilp_jax.errors import UserError
from ilp_jax.models import names, rope
from ilp_jax.models.config import LIMITS, ROPE_LIMITS, ModelConfig, RopeScaling
from ilp_jax.models.stated import Stated

# Settings by which a family differs; biases and tying are read off the tensors present.
_FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"qk_norm": "head"},
    "olmo2": {"qk_norm": "full", "norm_position": "post"},
}
_AGAIN = "convert the model again"
_UNQUANTISED = {"F32", "F16", "BF16"}


class _Reader(gguf.GGUFReader):
    """The package's reader, with arrays of metadata read whole.

    The package makes an array object of every token and merge of the tokenizer: seconds and
    hundreds of MB for each of the times that a run opens the file.
    """

    def _get_field_parts(self, orig_offs: int, raw_type: int):
        start = orig_offs + 12
        if raw_type != gguf.GGUFValueType.ARRAY or self.byte_order != "I":
            return super()._get_field_parts(orig_offs, raw_type)
        kind = gguf.GGUFValueType(self._get(orig_offs, np.uint32)[0])
        count = int(self._get(orig_offs + 4, np.uint64)[0])
        types = [gguf.GGUFValueType.ARRAY, kind]
        if kind == gguf.GGUFValueType.STRING:
            texts, end = self._texts(start, count)
            return end - orig_offs, texts, list(range(count)), types
        if kind not in self.gguf_scalar_to_np:
            return super()._get_field_parts(orig_offs, raw_type)
        dtype = np.dtype(self.gguf_scalar_to_np[kind])
        if start + count * dtype.itemsize > len(self.data):
            raise ValueError(f"an array of {count} values ends past the file")
        return 12 + count * dtype.itemsize, [self._get(start, dtype, count)], [0], types

    def _texts(self, offset: int, count: int) -> tuple[list[memoryview], int]:
        """That many strings, each behind its length of 8 bytes, and the offset behind them."""
        data, texts = memoryview(self.data), []
        for _ in range(count):
            start = offset + 8
            offset = start + int.from_bytes(data[start - 8 : start], sys.byteorder)
            if offset > len(data) or start > len(data):
                raise ValueError(f"an array of {count} strings ends past the file")
            texts.append(data[start:offset])
        return texts, offset


def open_gguf(path: str | os.PathLike) -> gguf.GGUFReader:
    """Maps a GGUF file and checks that it is whole.

    Args:
      path: the file.

    Returns:
      The ``gguf`` package's reader: metadata fields, and tensors mapped but not read.

    Raises:
      UserError: no such file, not GGUF, truncated, big-endian, or one part of a split model.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(path, "no such file", "give the path of a .gguf file")
    with open(path, "rb") as file:
        if file.read(4) != b"GGUF":
            raise UserError(path, "is not a GGUF file", "give a .gguf file or a model folder")
    try:
        reader = _Reader(path)
    # The reader checks nothing: a cut file shows as whichever of these comes first.
    except (ValueError, IndexError, KeyError, TypeError, ArithmeticError, OSError) as error:
        raise UserError(
            path, f"is truncated or damaged ({error})", "copy or download the file again"
        ) from error
    size = path.stat().st_size
    end = 0
    for tensor in sorted(reader.tensors, key=lambda one: int(one.data_offset)):
        start, end_before = int(tensor.data_offset), end
        end = start + int(tensor.n_bytes)
        if end > size:
            raise UserError(
                path,
                f"is truncated: tensor {tensor.name} ends past the file's {size} bytes",
                "copy or download the file again",
            )
        if start < end_before:
            what = f"is damaged: tensor {tensor.name} begins within another"
            raise UserError(path, what, "copy or download the file again")
    if reader.byte_order != "I":
        raise UserError(path, "is big-endian", "convert it with gguf-convert-endian")
    if stated(reader, path).whole("split.count", (0, 2**31), 1) > 1:
        raise UserError(
            path, "is one part of a split model", "join the parts with llama-gguf-split --merge"
        )
    return reader


def stated(reader: gguf.GGUFReader, where: object, prefix: str = "") -> Stated:
    """The file's metadata, to be asked by kind and range; ``prefix`` stands before each key."""
    return Stated(lambda key: metadata(reader, prefix + key, where), where, _AGAIN, prefix)


def metadata(reader: gguf.GGUFReader, key: str, where: object, default: Any = None) -> Any:
    """One metadata value.

    Args:
      reader: the open file.
      key: e.g. ``general.architecture``.
      where: the file's path, for messages.
      default: what an absent key gives.

    Returns:
      A string, number, truth value or list of these.

    Raises:
      UserError: the value's bytes are no text.
    """
    field = reader.get_field(key)
    try:
        return default if field is None else field.contents()
    except (ValueError, IndexError, TypeError) as error:  # such as bytes that are no text
        raise UserError(where, f"{key} is damaged ({error})", "copy the file again") from error


def _shapes(reader: gguf.GGUFReader) -> dict[str, tuple[int, ...]]:
    return {t.name: tuple(int(n) for n in t.shape[::-1]) for t in reader.tensors}


def model_config(reader: gguf.GGUFReader, where: object) -> ModelConfig:
    """Describes the model in a GGUF file.

    Args:
      reader: the open file.
      where: its path, for messages.

    Returns:
      The config; vocab_size is the number of rows of the embedding.

    Raises:
      UserError: an architecture, rope scaling or variant that the decoder does not have, or a
        missing field.
    """
    shapes = _shapes(reader)
    told = stated(reader, where)
    arch = told.text("general.architecture", "none stated")
    if arch not in _FAMILIES:
        raise UserError(
            where,
            f"architecture {arch} is not supported",
            f"supported in GGUF: {', '.join(_FAMILIES)}",
        )

    def one(key: str) -> Any:
        """A value, or what all layers have; some converters write one a layer."""
        value = metadata(reader, f"{arch}.{key}", where)
        if isinstance(value, list) and value:
            if any(other != value[0] for other in value):
                raise UserError(where, f"{arch}.{key} differs by layer, which is not supported")
            value = value[0]
        return value

    hyper = Stated(one, where, _AGAIN, f"{arch}.")

    def size(key: str, field: str, **default: int) -> int:
        return hyper.whole(key, LIMITS[field], **default)

    d_model = size("embedding_length", "d_model")
    n_heads = size("attention.head_count", "n_heads")
    max_position = size("context_length", "max_position")
    head_dim = size("attention.key_length", "head_dim", default=d_model // n_heads)
    for key, wanted in (("attention.value_length", head_dim), ("rope.dimension_count", head_dim)):
        if (found := size(key, "head_dim", default=wanted)) != wanted:
            raise UserError(
                where, f"{arch}.{key}={found} differs from the head's width {wanted}: not supported"
            )
    if n_experts := hyper.whole("expert_count", (0, 2**31), 0):
        raise UserError(where, f"a mixture of {n_experts} experts is not supported")
    windows = metadata(reader, f"{arch}.attention.sliding_window", where, 0)
    for window in windows if isinstance(windows, list) else [windows]:
        of_layer = Stated({"sliding_window": window}.get, where, _AGAIN, f"{arch}.attention.")
        if not 0 < of_layer.whole("sliding_window", (0, 2**63), 0) < max_position:
            continue
        raise UserError(where, f"sliding-window attention ({window} tokens) is not supported")
    if "token_embd.weight" not in shapes:
        raise UserError(where, "missing tensor token_embd.weight", _AGAIN)

    try:
        theta = hyper.number("rope.freq_base", LIMITS["rope_theta"], 10_000.0)
        return ModelConfig(
            vocab_size=next(iter(shapes["token_embd.weight"]), 0),
            d_model=d_model,
            n_layers=size("block_count", "n_layers"),
            n_heads=n_heads,
            n_kv_heads=size("attention.head_count_kv", "n_kv_heads", default=n_heads),
            head_dim=head_dim,
            d_ff=size("feed_forward_length", "d_ff"),
            rope_theta=theta,
            rope_scaling=_rope_scaling(reader, hyper, head_dim, theta, where),
            norm_eps=float(
                np.float32(hyper.number("attention.layer_norm_rms_epsilon", LIMITS["norm_eps"]))
            ),
            tie_embeddings="output.weight" not in shapes,
            qkv_bias="blk.0.attn_q.bias" in shapes,
            o_bias="blk.0.attn_output.bias" in shapes,
            mlp_bias="blk.0.ffn_gate.bias" in shapes,
            max_position=max_position,
            **_FAMILIES[arch],
        )
    except ValueError as error:
        raise UserError(where, f"impossible shape: {error}", _AGAIN) from error


def _rope_scaling(
    reader: gguf.GGUFReader, hyper: Stated, head_dim: int, theta: float, where: object
) -> RopeScaling | None:
    kind = hyper.text("rope.scaling.type", "none")
    within = (0.0, ROPE_LIMITS["factor"][1])
    factor = hyper.number("rope.scale_linear", within, 0.0)
    factor = hyper.number("rope.scaling.factor", within, factor)
    if kind not in ("none", "linear"):
        raise UserError(
            where, f"rope scaling {kind} is not supported", "supported: none, linear, llama3"
        )
    # llama.cpp reads a factor without a type as linear, and a factor of 0 as no scaling.
    linear = factor not in (0.0, 1.0) and hyper.text("rope.scaling.type", "") != "none"
    freqs = next((t for t in reader.tensors if t.name == "rope_freqs.weight"), None)
    if freqs is None:
        return RopeScaling(kind="linear", factor=factor) if linear else None
    if linear:
        raise UserError(where, "rope_freqs together with linear rope scaling is not supported")
    factors = _dequantise(freqs, where).ravel()
    if len(factors) != head_dim // 2:
        raise UserError(
            where,
            f"rope_freqs.weight has {len(factors)} factors, not {head_dim // 2}",
            "convert the model again",
        )
    if not (np.isfinite(factors).all() and factors.min() > 0 and theta > 1):
        raise UserError(where, "rope_freqs.weight is damaged", "convert the model again")
    return rope.from_factors(factors, theta)


def load_params(
    reader: gguf.GGUFReader, config: ModelConfig, where: object, place: Any = None
) -> dict[str, Any]:
    """Reads a GGUF file's tensors into the parameter tree, dequantised.

    Args:
      reader: the open file.
      config: what ``model_config`` returned for it.
      where: its path, for messages.
      place: where each array goes, see ``names.build_params``.

    Returns:
      Nested dict of float32 arrays: kernels (in, out), layers stacked on axis 0.

    Raises:
      UserError: a missing, unknown or misshapen tensor, or a type that ``gguf`` cannot dequantise.
    """
    arch = metadata(reader, "general.architecture", where)
    table = gguf.get_tensor_name_map(
        next(a for a, n in gguf.MODEL_ARCH_NAMES.items() if n == arch), config.n_layers
    )
    tensors = {tensor.name: tensor for tensor in reader.tensors}

    def gguf_name(hf_name: str) -> str:
        stem, suffix = hf_name.rsplit(".", 1)
        return f"{table.get_name(stem)}.{suffix}"

    names.check_tensors(
        {gguf_name(name): shape for name, shape in names.tensor_shapes(config).items()},
        _shapes(reader),
        where,
    )

    def read(hf_name: str, part: names.Part) -> np.ndarray:
        # Whole: values are quantised in blocks, and rows of llama's queries and keys are mixed.
        array = _dequantise(tensors[gguf_name(hf_name)], where)
        if arch == "llama" and ".q_proj." in hf_name:
            array = _unpermute(array, config.n_heads)
        if arch == "llama" and ".k_proj." in hf_name:
            array = _unpermute(array, config.n_kv_heads)
        return array[part]

    return names.build_params(config, read, place)


def weight_type(reader: gguf.GGUFReader) -> tuple[str, bool]:
    """What a file's weights are stored as, e.g. ``('Q4_1', True)``.

    Args:
      reader: the open file.

    Returns:
      The file's stated type (or, where it states none, the type of most of its values), and
      whether any tensor is quantised, so that the params are dequantised approximations.
    """
    counts: Counter[str] = Counter()
    for tensor in reader.tensors:
        counts[tensor.tensor_type.name] += int(tensor.n_elements)
    quantised = bool(set(counts) - _UNQUANTISED)
    try:
        stated = gguf.LlamaFileType(metadata(reader, "general.file_type", "", 1024)).name
    except ValueError:
        stated = "GUESSED"
    if stated == "GUESSED":
        return counts.most_common(1)[0][0], quantised
    return stated.removeprefix("MOSTLY_").removeprefix("ALL_"), quantised


def _dequantise(tensor: gguf.ReaderTensor, where: object) -> np.ndarray:
    try:
        return np.asarray(dequantize(tensor.data, tensor.tensor_type), np.float32)
    except NotImplementedError as error:
        raise UserError(
            where,
            f"tensor {tensor.name} has type {tensor.tensor_type.name}, which cannot be dequantised",
            "convert the file to F16 or Q8_0",
        ) from error


def _unpermute(rows: np.ndarray, n_heads: int) -> np.ndarray:
    """Undoes llama.cpp's row order for its interleaved RoPE (LlamaModel.permute there).

    There the two halves of each head's rows alternate; rotate-half wants one after the other.
    """
    split = rows.reshape(n_heads, rows.shape[0] // n_heads // 2, 2, *rows.shape[1:])
    return split.swapaxes(1, 2).reshape(rows.shape)
