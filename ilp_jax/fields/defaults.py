"""A study's configuration put together from its groups, and the fields that are in none."""

from __future__ import annotations

import math

from ml_collections import ConfigDict

from ilp_jax.fields.detect import detect_fields
from ilp_jax.fields.diagnose import diagnose_fields
from ilp_jax.fields.influence import influence_fields
from ilp_jax.fields.mesh import mesh_fields
from ilp_jax.fields.mitigate import mitigate_fields
from ilp_jax.fields.model import lora_fields, model_fields
from ilp_jax.fields.planted import planted_fields
from ilp_jax.fields.replay import replay_fields
from ilp_jax.fields.report import report_fields
from ilp_jax.fields.train import (
    checkpoint_fields,
    convergence_fields,
    probe_fields,
    train_fields,
)
from ilp_jax.fields.world import world_fields


def default_config() -> ConfigDict:
    """Every field of a study with its default; the comments give meaning and unit.

    Returns:
      A ConfigDict that refuses unknown fields, apart from new entries of ``stages``.
    """
    config = ConfigDict(sort_keys=False)
    # Root of every random choice: data order, sampling, initial adapters. 0 to 2**32 - 1.
    config.seed = 0
    # Folder for trained bases of planted worlds, outside the workdir; '' = the user's
    # cache folder. Deleting it is safe.
    config.cache_dir = ""

    # Prompt layout: 'plain', 'chat' (the tokenizer's own template), or 'auto' (chat where
    # the tokenizer has a template).
    config.template = "auto"
    # Text between prompt and response in the plain layout.
    config.separator = " "
    # Which replies of a conversation ('messages' with several) are trained: 'all', each with
    # its end token, or the 'last'. An example is learned when all that is trained is.
    config.trained_turns = "all"
    # Further arguments of the chat template as a JSON object, such as
    # '{"enable_thinking": false}'; a row's own 'chat_template_kwargs' go before. '' = none.
    config.chat_template_kwargs = ""
    # Tokens that a row may have, prompt and response and end token together; never more than
    # the model has positions (max_position_embeddings).
    config.max_length = 2048
    # An example longer than that loses its response's tail. True: it is then left out
    # and counted; False: it is trained on what is left, and marked truncated everywhere.
    config.drop_truncated = True
    # Row lengths in tokens that batches are padded to, increasing; () = a built-in ladder.
    config.length_buckets = ()
    # Names of the stages in training order; a name that stands twice is trained twice.
    config.sequence = ()
    # One default_stage() a name.
    config.stages = ConfigDict(sort_keys=False)

    config.world = world_fields()
    config.planted = planted_fields()
    config.model = model_fields()
    config.lora = lora_fields()
    config.mesh = mesh_fields()
    config.train = train_fields()
    config.probe = probe_fields()
    config.convergence = convergence_fields()
    config.checkpoint = checkpoint_fields()
    config.detect = detect_fields()
    config.diagnose = diagnose_fields()
    config.replay = replay_fields()
    config.influence = influence_fields()
    config.mitigate = mitigate_fields()
    config.report = report_fields()

    config.lock()
    config.stages.unlock()
    return config


ALLOWED = {
    "template": ("auto", "plain", "chat"),
    "trained_turns": ("all", "last"),
}
RANGE = {
    "seed": (0, 2**32 - 1),
    "max_length": (2, math.inf),
}
