"""Asks the base model about real rows once, before causes are planted in them."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from pathlib import Path

import jax
import pyarrow as pa
from ml_collections import ConfigDict

from ilp_jax import parquet, progress
from ilp_jax.data.study import StudyData
from ilp_jax.detect.ask import option_logprobs, scored
from ilp_jax.detect.score import score_step
from ilp_jax.models import weights
from ilp_jax.models.tokenizer import load_tokenizer
from ilp_jax.workspace import Programs, make_decoder
from ilp_jax.world.real import SCORES_SCHEMA, asked_of


@dataclasses.dataclass(frozen=True)
class _Asker:
    """What `detect.ask.scored` needs of a workspace, before there is one."""

    config: ConfigDict
    programs: Programs


def with_scores(config: ConfigDict, folder: Path) -> ConfigDict:
    """A config whose ``planted.scores`` names the base model's answers; asks where they lack.

    Args:
      config: a resolved config with planted real rows.
      folder: where answers are kept, under a hash of the weights, how they compute, and the
        tokens of all that is asked.

    Returns:
      The same config where it names a file already.

    Raises:
      UserError: the model or a source is missing, or has too few rows.
    """
    if config.planted.scores:
        return config
    asked = asked_of(config, load_tokenizer(config.model.path))
    path = folder / f"{_key(config, asked)}.parquet"
    if not path.exists():
        parquet.write(path, _ask(config, asked), schema=SCORES_SCHEMA)
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.planted.scores = str(path)
    return config


def _ask(config: ConfigDict, asked: StudyData) -> pa.Table:
    """The mean log-likelihood a token of every option, as detection by choice has it."""
    decoder = make_decoder(config, config.model.path)
    score = jax.jit(functools.partial(score_step, decoder=decoder))
    asker = _Asker(config, Programs({}, {}, score))
    params = jax.device_put(weights.load(config.model.path).params)
    means: dict[int, list[float]] = {}
    with progress.bar("ask base", total=len(asked.examples)) as bar:
        for batch, scores in scored(asker, params, asked, range(len(asked.examples)), bar):
            for row in range(batch.meta.n_real):
                index = int(batch.meta.example_index_B[row])
                branch_R, logprob_R = batch.slot_branch_BxR[row], scores["logprob"][row]
                n_options = len(asked.examples[index].options)
                means[index] = option_logprobs(branch_R, logprob_R, n_options)[1]
    return pa.table(
        {
            "example_id": asked.example_ids,
            "option_logprob_mean": [means[index] for index in sorted(means)],
        }
    )


def _key(config: ConfigDict, asked: StudyData) -> str:
    weights_hash, _ = weights.identify(config.model.path)
    digest = hashlib.sha256(f"{weights_hash} {config.model.compute_dtype}".encode())
    digest.update(asked.example_ids.tobytes())
    for row in asked.tokens:
        for ids in (row.prompt_ids, *row.option_ids):
            digest.update(len(ids).to_bytes(4, "little") + ids.tobytes())
    return digest.hexdigest()[:24]
