"""The base model of a world: a tiny decoder of any family, pre-trained and kept as a folder."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ilp_jax import progress
from ilp_jax.models.config import ModelConfig
from ilp_jax.models.decoder import Decoder
from ilp_jax.models.export import export
from ilp_jax.world import facts as words
from ilp_jax.world.asked import with_scores
from ilp_jax.world.corpus import Pretraining, Rows, corpus
from ilp_jax.world.study import make_world

FAMILIES = {
    "llama": {},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": "head"},
    "olmo2": {"qk_norm": "full", "norm_position": "post"},
}
"""What sets each family's decoder apart, as fields of ``ModelConfig``."""
LAYOUT = 1
"""Counts changes of how a base is trained that its rows and config do not show."""

_INPUT_SCALE = 8.0
_EMBEDDING_STD = 0.125
_KERNEL_STD = 0.08


def located(config: ConfigDict) -> ConfigDict:
    """A config whose ``model.path`` is a folder: the trained base of its world.

    The base is trained where the cache has none. Of planted real rows, the same is done with
    the answers of the base, see ``asked.with_scores``.

    Args:
      config: a resolved config.

    Returns:
      The same config where nothing is planted.

    Raises:
      UserError: the world is too small for its mix, or too few real rows fit.
    """
    if config.planted.sources:
        return with_scores(config, cache_folder(config.cache_dir).with_name("planted"))
    if not config.world.family:
        return config
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.model.path = str(_cached(config))
    return config


def model_config(family: str, sizes: words.Sizes) -> ModelConfig:
    """The shape of a world's base model: 4 layers, width 128, about 1.1 million parameters.

    Args:
      family: a key of ``FAMILIES``.
      sizes: the world's sizes, for its vocabulary.
    """
    return ModelConfig(
        vocab_size=len(words.vocabulary(sizes)),
        d_model=128,
        n_layers=4,
        n_heads=4,
        n_kv_heads=4,
        head_dim=32,
        d_ff=384,
        tie_embeddings=False,
        max_position=64,
        **FAMILIES[family],
    )


def word_tokenizer(sizes: words.Sizes) -> PreTrainedTokenizerFast:
    """A tokenizer with a word of the world a token.

    Args:
      sizes: the world's sizes.
    """
    vocabulary = {word: i for i, word in enumerate(words.vocabulary(sizes))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=words.PAD))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=words.END, pad_token=words.PAD
    )


def pretrain(
    config: ModelConfig, rows: Rows, how: Pretraining, seed: int, bar: Any = None
) -> dict[str, Any]:
    """Trains a decoder on documents, every token a target.

    Input and head share one table while this lasts, and the input is ``_INPUT_SCALE`` times
    as large: entities are learned several times faster so. The decoder that comes out has two
    matrices of its own, as any of the families may.

    Args:
      config: its shape, embeddings not tied.
      rows: the documents; each update takes the same number of rows.
      how: steps and rate.
      seed: of the first parameters.
      bar: a progress bar to advance by one an update, or None.

    Returns:
      The parameters on the device.
    """
    decoder = Decoder(config)
    rate = optax.warmup_cosine_decay_schedule(0.0, how.peak, how.warmup, how.steps)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(rate, b2=0.98, weight_decay=0.01)
    )
    params = _first_params(decoder, seed)
    state = jax.jit(optimizer.init)(params)
    step = jax.jit(
        functools.partial(_step, decoder=decoder, optimizer=optimizer), donate_argnums=(0, 1)
    )
    size = len(rows.tokens_NxT) // how.steps
    for i in range(how.steps):
        part = Rows(*(array[i * size : (i + 1) * size] for array in rows))
        params, state, loss = step(params, state, part)
        if bar is not None:
            bar.advance(1, text=f"loss {float(loss):.2f}" if i % 20 == 19 else None)
    return _untied(params)


def _first_params(decoder: Decoder, seed: int) -> dict[str, Any]:
    blank = np.zeros((1, 1), np.int32)
    params = jax.jit(decoder.init)(jax.random.key(seed), blank, blank, blank)["params"]
    # The decoder's own initial values are for large widths: this one learns slowly from them.
    drawn = 0.02
    layers = jax.tree_util.tree_map_with_path(
        lambda path, x: x * (_KERNEL_STD / drawn) if path[-1].key == "kernel" else x,
        params["layers"],
    )
    table = params["embed"]["embedding"] * (_EMBEDDING_STD / drawn)
    kept = {name: tree for name, tree in params.items() if name != "head"}
    return kept | {"layers": layers, "embed": {"embedding": table}}


def _untied(params: dict[str, Any]) -> dict[str, Any]:
    table_VxD = params["embed"]["embedding"]
    own = {"embed": {"embedding": _INPUT_SCALE * table_VxD}, "head": {"kernel": table_VxD.T}}
    return params | own


def _step(params, state, rows: Rows, *, decoder, optimizer):
    def loss_of(params):
        logits = decoder.apply({"params": _untied(params)}, *rows[:3])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, rows.targets_NxT)
        mask = rows.targets_NxT > 0
        return jnp.sum(losses * mask) / jnp.sum(mask)

    loss, grads = jax.value_and_grad(loss_of)(params)
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state, loss


def _cached(config: ConfigDict) -> Path:
    """The folder of a world's base in the cache; trains it where it is absent."""
    world = make_world(config)
    shape = model_config(config.world.family, world.sizes)
    how = Pretraining(**config.world.pretraining.to_dict())
    documents = how.steps * how.batch_size
    rows = corpus(world.seed, world.facts, world.taught, documents, how.row_length)
    folder = cache_folder(config.cache_dir) / _key(config.world, rows)
    if (folder / "config.json").exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with progress.bar("train base", total=how.steps) as bar:
        params = jax.device_get(pretrain(shape, rows, how, world.seed % 2**32, bar))
    # Written aside and moved whole: of two runs that train the same base, one wins.
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
    try:
        export(shape, params, word_tokenizer(world.sizes), aside / "base")
        if not folder.exists():
            os.replace(aside / "base", folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def cache_folder(cache_dir: str) -> Path:
    """Where trained bases are kept.

    Args:
      cache_dir: the config's field; empty for ``ilp_jax`` in the user's cache folder.
    """
    if cache_dir:
        return Path(os.path.expanduser(cache_dir)) / "worlds"
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "ilp_jax" / "worlds"


def _key(world: ConfigDict, rows: Rows) -> str:
    """Names all that a base rests on: the very rows it learns, its family, how it is trained."""
    settings = [LAYOUT, world.family, world.seed, world.pretraining.to_dict()]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for array in rows:
        digest.update(array.tobytes())
    return f"{world.family}-{world.seed}-{digest.hexdigest()[:16]}"
