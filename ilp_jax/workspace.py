"""What every phase of a run shares: its config, data, model and compiled programs."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Mapping
from typing import Any

import jax
import optax
from etils import epath
from ml_collections import ConfigDict
from transformers import PreTrainedTokenizerFast

from ilp_jax import files
from ilp_jax.data.lengths import fitted
from ilp_jax.data.stages import build
from ilp_jax.data.study import StudyData
from ilp_jax.detect.score import score_step
from ilp_jax.errors import UserError
from ilp_jax.mesh import processes
from ilp_jax.mesh.axes import TENSOR, check_fit, left_whole
from ilp_jax.mesh.layout import Layout, layout_of
from ilp_jax.mesh.rows import ONE_DEVICE, Placement
from ilp_jax.models import weights
from ilp_jax.models.decoder import Decoder
from ilp_jax.models.lora import LoraConfig
from ilp_jax.models.tokenizer import load_tokenizer
from ilp_jax.train.optim import make_optimizer
from ilp_jax.train.step import probe_step, train_step


@dataclasses.dataclass(frozen=True)
class Programs:
    """Jitted steps; each compiles once for every shape of rows.

    Attributes:
      train: by whether norms are taken, (state, rows, learning_rate) -> (state, statistics);
        the state is donated.
      probe: by whether norms are taken, (params, rows) -> statistics.
      score: (params, rows, temperature) -> see ``detect.score.score_step``.
    """

    train: Mapping[bool, Any]
    probe: Mapping[bool, Any]
    score: Any


@dataclasses.dataclass(frozen=True)
class Workspace:
    """A run's folder and all that its phases read.

    Attributes:
      config: the resolved config, ``max_length`` within the model's positions.
      workdir: the run's folder.
      data: examples, tokens and stages.
      tokenizer: the model's tokenizer.
      decoder: the model.
      optimizer: direction of an update.
      programs: the compiled steps.
      layout: the mesh of several devices and what lies where; None on one device.
    """

    config: ConfigDict
    workdir: epath.Path
    data: StudyData
    tokenizer: PreTrainedTokenizerFast
    decoder: Decoder
    optimizer: optax.GradientTransformation
    programs: Programs
    layout: Layout | None = None

    @property
    def place(self) -> Placement:
        """Where rows and scalars go that meet the run's parameters."""
        return ONE_DEVICE if self.layout is None else self.layout.placement


def load_weights(path: str, layout: Layout | None) -> weights.LoadedModel:
    """A model with its parameters on their devices; see ``weights.load``."""
    if layout is not None:
        return weights.load(path, layout.place)
    loaded = weights.load(path)
    return dataclasses.replace(loaded, params=jax.device_put(loaded.params))


def open_workspace(config: ConfigDict, workdir: epath.PathLike) -> Workspace:
    """Reads everything but the weights' values.

    Args:
      config: the resolved config.
      workdir: the run's folder.

    Raises:
      UserError: model folder, data files or config are wrong.
    """
    lora, layout = config.lora, layout_of(config.mesh)
    decoder = make_decoder(
        config,
        config.model.path,
        LoraConfig(lora.rank, tuple(lora.targets), lora.scale) if lora.rank else None,
        layout,
    )
    if layout is not None:
        check_fit(layout.mesh, config)
        whole = left_whole(layout.mesh.shape[TENSOR], decoder.config)
        if whole and processes.is_first():
            print(whole, file=sys.stderr, flush=True)
    tokenizer = load_tokenizer(config.model.path)
    optimizer = make_optimizer(config.train)
    config = fitted(config, decoder.config.max_position)
    data = build(config, tokenizer)
    check_vocabulary(config.model.path, data, decoder.config.vocab_size)
    return Workspace(
        config=config,
        workdir=files.as_path(workdir),
        data=data,
        tokenizer=tokenizer,
        decoder=decoder,
        optimizer=optimizer,
        programs=make_programs(decoder, optimizer, config.train.loss_normalization, layout),
        layout=layout,
    )


def anchored(ws: Workspace, decay: float) -> Workspace:
    """A workspace whose training is pulled towards where it starts.

    Args:
      ws: the workspace.
      decay: see ``train.optim.towards_start``.
    """
    optimizer = make_optimizer(ws.config.train, decay)
    programs = make_programs(ws.decoder, optimizer, ws.config.train.loss_normalization, ws.layout)
    return dataclasses.replace(ws, optimizer=optimizer, programs=programs)


def make_decoder(
    config: ConfigDict,
    path: str,
    lora: LoraConfig | None = None,
    layout: Layout | None = None,
) -> Decoder:
    """The model at a path, as the config computes it; its weights are not read.

    Args:
      config: the resolved config.
      path: of the model.
      lora: its adapters, None for none.
      layout: where its activations lie, None on one device.

    Raises:
      UserError: nothing there, or a variant that the decoder does not have.
    """
    model = dataclasses.replace(
        weights.load_config(path),
        compute_dtype=config.model.compute_dtype,
        remat=config.model.remat,
    )
    shards = None if layout is None else layout.shards
    return Decoder(model, config.train.norm_method, config.train.gram_cost_ratio, lora, shards)


def check_vocabulary(path: str, data: StudyData, vocab_size: int) -> None:
    """JAX takes an embedding's last row for any token past it, and says nothing.

    Args:
      path: of the model, for the message.
      data: the study, tokenised.
      vocab_size: rows of the model's embedding.

    Raises:
      UserError: a token has no row.
    """
    largest = max(
        int(ids.max())
        for row in data.tokens
        for ids in (row.prompt_ids, row.target_ids, *row.option_ids)
        if len(ids)
    )
    if largest >= vocab_size:
        raise UserError(
            path,
            f"the tokenizer gives token {largest}, and the model has {vocab_size}, from 0",
            "use the tokenizer that belongs to the weights",
        )


def make_programs(
    decoder: Decoder,
    optimizer: optax.GradientTransformation,
    normalization: str,
    layout: Layout | None = None,
) -> Programs:
    """Jits the steps of a model.

    Args:
      decoder: the model.
      optimizer: direction of an update.
      normalization: of the training loss.
      layout: where parameters and moments lie; None on one device.
    """
    train = functools.partial(
        train_step,
        decoder=decoder,
        optimizer=optimizer,
        normalization=normalization,
        layout=layout,
    )
    probe = functools.partial(probe_step, decoder=decoder)
    return Programs(
        train={
            norms: jax.jit(functools.partial(train, with_norms=norms), donate_argnums=0)
            for norms in (False, True)
        },
        probe={
            norms: jax.jit(functools.partial(probe, with_norms=norms)) for norms in (False, True)
        },
        score=jax.jit(functools.partial(score_step, decoder=decoder)),
    )
