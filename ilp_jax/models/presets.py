"""Shapes of published models, for planning and compiling without their weights.

Each was copied from the ``config.json`` that its authors publish at
``https://huggingface.co/{repository}/blob/main/config.json``. A run does not read them: a model
folder brings its own ``config.json``, and only that one describes its weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from ilp_jax.errors import UserError
from ilp_jax.fields import nearest
from ilp_jax.models.config import ModelConfig, RopeScaling


@dataclasses.dataclass(frozen=True)
class Preset:
    """A published model's shape.

    Attributes:
      repository: where its config.json stands, as OWNER/NAME on huggingface.co.
      config: the decoder; float32 and without remat, as every other default.
    """

    repository: str
    config: ModelConfig


_LLAMA3 = ModelConfig(
    vocab_size=128_256,
    d_model=4096,
    n_layers=32,
    n_heads=32,
    n_kv_heads=8,
    head_dim=128,
    d_ff=14_336,
    rope_theta=500_000.0,
    rope_scaling=RopeScaling(
        kind="llama3",
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position=8192,
    ),
    norm_eps=1e-5,
    max_position=131_072,
)
_QWEN2_5 = ModelConfig(
    vocab_size=152_064,
    d_model=3584,
    n_layers=28,
    n_heads=28,
    n_kv_heads=4,
    head_dim=128,
    d_ff=18_944,
    rope_theta=1_000_000.0,
    norm_eps=1e-6,
    qkv_bias=True,
    max_position=131_072,
)
_QWEN3 = ModelConfig(
    vocab_size=151_936,
    d_model=4096,
    n_layers=36,
    n_heads=32,
    n_kv_heads=8,
    head_dim=128,
    d_ff=12_288,
    rope_theta=1_000_000.0,
    norm_eps=1e-6,
    qk_norm="head",
    max_position=40_960,
)
_OLMO2 = ModelConfig(
    vocab_size=100_352,
    d_model=4096,
    n_layers=32,
    n_heads=32,
    n_kv_heads=32,
    head_dim=128,
    d_ff=11_008,
    rope_theta=500_000.0,
    norm_eps=1e-6,
    qk_norm="full",
    norm_position="post",
    max_position=4096,
)

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "llama3_1_8b": Preset("meta-llama/Llama-3.1-8B", _LLAMA3),
        "llama3_2_1b": Preset(
            "meta-llama/Llama-3.2-1B",
            dataclasses.replace(
                _LLAMA3,
                d_model=2048,
                n_layers=16,
                head_dim=64,
                d_ff=8192,
                rope_scaling=dataclasses.replace(_LLAMA3.rope_scaling, factor=32.0),
                tie_embeddings=True,
            ),
        ),
        "qwen2_5_0_5b": Preset(
            "Qwen/Qwen2.5-0.5B",
            dataclasses.replace(
                _QWEN2_5,
                vocab_size=151_936,
                d_model=896,
                n_layers=24,
                n_heads=14,
                n_kv_heads=2,
                head_dim=64,
                d_ff=4864,
                tie_embeddings=True,
                max_position=32_768,
            ),
        ),
        "qwen2_5_7b": Preset("Qwen/Qwen2.5-7B", _QWEN2_5),
        "qwen3_0_6b": Preset(
            "Qwen/Qwen3-0.6B",
            dataclasses.replace(
                _QWEN3,
                d_model=1024,
                n_layers=28,
                n_heads=16,
                d_ff=3072,
                tie_embeddings=True,
            ),
        ),
        "qwen3_8b": Preset("Qwen/Qwen3-8B", _QWEN3),
        "olmo2_1b": Preset(
            "allenai/OLMo-2-0425-1B",
            dataclasses.replace(
                _OLMO2, d_model=2048, n_layers=16, n_heads=16, n_kv_heads=16, d_ff=8192
            ),
        ),
        "olmo2_7b": Preset("allenai/OLMo-2-1124-7B", _OLMO2),
    }
)
"""By name: Llama 3.1 and 3.2, Qwen2.5, Qwen3 and OLMo 2, a small and a large one of each."""


def preset(name: str) -> ModelConfig:
    """The shape of a published model.

    Args:
      name: a key of ``PRESETS``.

    Returns:
      Its config.

    Raises:
      UserError: there is no preset of that name.
    """
    if name not in PRESETS:
        mend = nearest(name, PRESETS) or f"the presets are {', '.join(PRESETS)}"
        raise UserError(f"preset {name!r}", "unknown", mend)
    return PRESETS[name].config
