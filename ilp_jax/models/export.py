"""Writes a model as a Hugging Face folder that transformers loads with the same logits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from etils import epath
from safetensors.numpy import save
from transformers import PreTrainedTokenizerFast

from ilp_jax import files
from ilp_jax.errors import UserError
from ilp_jax.models import ends, names
from ilp_jax.models.config import ModelConfig

SHARD_BYTES = 5 * 10**9


def export(
    config: ModelConfig,
    params: Any,
    tokenizer: PreTrainedTokenizerFast,
    folder: epath.PathLike,
    shard_bytes: int = SHARD_BYTES,
    trained_ends: Iterable[int] = (),
) -> list[epath.Path]:
    """Writes config.json, generation_config.json, safetensors in float32 and the tokenizer's files.

    What generates from the folder stops at every end of ``ends.end_ids``. config.json comes last:
    a folder without it is an export that did not finish.

    Args:
      config: shape and variant of the decoder.
      params: nested dict of arrays, adapters merged.
      tokenizer: the model's tokenizer, of ``load_tokenizer`` where the source's own
        generation_config.json is to be kept.
      folder: an empty folder, or one that does not exist yet.
      shard_bytes: largest size of one weights file, unless a single tensor is larger.
      trained_ends: tokens that training taught to end an answer.

    Returns:
      The weights files.

    Raises:
      UserError: the folder is not empty, or no Hugging Face family has this variant.
      RunFailure: the disk is full.
    """
    folder = files.as_path(folder)
    end_ids = ends.end_ids(tokenizer, trained_ends)
    description = hf_config(config, tokenizer, end_ids)
    if folder.exists() and any(folder.iterdir()):
        raise UserError(folder, "is not empty", "give a new folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(str(folder))
    shards = list(_shards(config, shard_bytes))
    index: dict[str, str] = {}
    tensors = names.hf_tensors(config, params)
    written = []
    for number, of_shard in enumerate(shards, 1):
        name = (
            "model.safetensors"
            if len(shards) == 1
            else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        )
        block = dict(next(tensors) for _ in of_shard)
        files.write_bytes(folder / name, save(block, metadata={"format": "pt"}))
        index |= dict.fromkeys(block, name)
        written.append(folder / name)
    if len(shards) > 1:
        total = sum(4 * int(np.prod(shape)) for shape in names.tensor_shapes(config).values())
        files.write_json(
            folder / "model.safetensors.index.json",
            {"metadata": {"total_size": total}, "weight_map": index},
        )
    generation = ends.generation_config(tokenizer, end_ids)
    files.write_text(folder / ends.GENERATION, json.dumps(generation, indent=2) + "\n")
    files.write_text(folder / "config.json", json.dumps(description, indent=2) + "\n")
    return written


def hf_config(
    config: ModelConfig,
    tokenizer: PreTrainedTokenizerFast | None = None,
    end_ids: tuple[int, ...] | None = None,
) -> dict:
    """The config.json of a decoder: the reverse of ``hf.model_config``.

    Args:
      config: shape and variant of the decoder.
      tokenizer: gives the ids of special tokens.
      end_ids: tokens that end an answer; None for the tokenizer's.

    Raises:
      UserError: no Hugging Face family has this variant.
    """
    architecture, model_type = family(config)
    out: dict[str, Any] = {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_position,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "rope_theta": config.rope_theta,
        "rope_scaling": _rope_scaling(config),
        "torch_dtype": "float32",
    }
    if architecture == "Qwen2ForCausalLM":
        out["use_sliding_window"] = False
    else:
        out["attention_bias"] = config.o_bias
    if architecture == "LlamaForCausalLM":
        out["mlp_bias"] = config.mlp_bias
    if tokenizer is not None:
        for key in ("bos_token_id", "pad_token_id"):
            out[key] = getattr(tokenizer, key)
        out["eos_token_id"] = ends.written(ends.end_ids(tokenizer) if end_ids is None else end_ids)
    return out


def family(config: ModelConfig) -> tuple[str, str]:
    """Architecture and model type whose transformers class computes the same function.

    Raises:
      UserError: none does.
    """
    variant = (config.qk_norm, config.norm_position, config.qkv_bias, config.o_bias)
    match variant:
        case ("none", "pre", True, False) if not config.mlp_bias:
            return "Qwen2ForCausalLM", "qwen2"
        case ("none", "pre", qkv, o) if qkv == o:
            return "LlamaForCausalLM", "llama"
        case ("head", "pre", qkv, o) if qkv == o and not config.mlp_bias:
            return "Qwen3ForCausalLM", "qwen3"
        case ("full", "post", qkv, o) if qkv == o and not config.mlp_bias:
            return "Olmo2ForCausalLM", "olmo2"
    raise UserError(
        "export",
        "no Hugging Face family has this variant "
        f"(qk_norm={config.qk_norm}, norm_position={config.norm_position}, "
        f"qkv_bias={config.qkv_bias}, o_bias={config.o_bias}, mlp_bias={config.mlp_bias})",
        "llama, qwen2, qwen3 and olmo2 can be written",
    )


def _rope_scaling(config: ModelConfig) -> dict[str, Any] | None:
    scaling = config.rope_scaling
    if scaling is None:
        return None
    if scaling.kind == "linear":
        return {"rope_type": "linear", "factor": scaling.factor}
    if scaling.kind == "llama3":
        return {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_position,
        }
    # The one type of Hugging Face's with a factor for each frequency; it has two lists, for rows
    # shorter and longer than ``original_max_position_embeddings``.
    return {
        "rope_type": "longrope",
        "factor": 1.0,
        "attention_factor": 1.0,
        "short_factor": list(scaling.factors),
        "long_factor": list(scaling.factors),
        "original_max_position_embeddings": config.max_position,
    }


def _shards(config: ModelConfig, limit: int) -> Iterator[list[str]]:
    """Tensor names a file, in the order in which ``names.hf_tensors`` yields them."""
    shard: list[str] = []
    size = 0
    shapes = names.tensor_shapes(config)
    for leaf in names.leaves(config):
        for layer in range(config.n_layers if leaf.stacked else 1):
            name = leaf.name.format(layer=layer)
            n_bytes = 4 * int(np.prod(shapes[name]))
            if shard and size + n_bytes > limit:
                yield shard
                shard, size = [], 0
            shard.append(name)
            size += n_bytes
    yield shard
