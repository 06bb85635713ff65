"""An already tuned model: the base and the tuned one are asked, and nothing is trained here.

    config (base, tuned, data) -> data -> ask the base -> ask the tuned -> diagnose

The phases ``detect``, ``diagnose`` and ``report`` of ``study`` work on such a run as on any
other; what only a training could tell is absent, and every result says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from ilp_jax import run_record
from ilp_jax.data import chat
from ilp_jax.data.lengths import fitted
from ilp_jax.data.stages import layout
from ilp_jax.detect import base_answers
from ilp_jax.detect.point import Point, ask_point, is_asked
from ilp_jax.errors import UserError
from ilp_jax.models import weights
from ilp_jax.models.tokenizer import load_tokenizer
from ilp_jax.workspace import (
    Workspace,
    check_vocabulary,
    load_weights,
    make_decoder,
    make_programs,
    open_workspace,
)

PHASES = ("detect", "diagnose", "report")

ABSENT = (
    "loss, gradient norm, entropy and margin of every visit",
    "probes",
    "the points epoch_K, stage_K and converged",
    "what was learned and lost again",
    "each row's place in the order of training, and its number of visits",
    "epochs, learning rates, batch, optimiser and loss of the training: run.json's fields of "
    "these are defaults that nothing used",
)
"""What a run without a training of ours cannot know; stands in the summary."""

_SAME_SHAPE = ("d_model", "n_layers", "n_heads", "n_kv_heads", "head_dim", "d_ff")
_ROWS_COMPARED = 4096  # at a time


def check_pair(config: ConfigDict) -> None:
    """Makes sure, before anything is written, that the two models belong together.

    Args:
      config: the resolved config; ``model.path`` is the base, ``model.tuned`` the other.

    Raises:
      UserError: a folder is missing or holds no whole model, both are the same, they differ in
        shape, or a row holds a token that is not the same to both.
    """
    base, tuned = config.model.path, config.model.tuned
    if weights.resolve(base).resolve() == weights.resolve(tuned).resolve():
        raise UserError(tuned, "is the base model too", "give the tuned model's own folder")
    of_base, of_tuned = weights.load_config(base), weights.load_config(tuned)
    for field in _SAME_SHAPE:
        pair = getattr(of_base, field), getattr(of_tuned, field)
        if pair[0] != pair[1]:
            raise UserError(
                tuned,
                f"was not tuned from {base}: {field} is {pair[1]}, the base has {pair[0]}",
                "give the base that belongs to it with --base",
            )
    if load_tokenizer(base).get_vocab() != load_tokenizer(tuned).get_vocab():
        open_pair(config, "")  # whether the rows hold a token that differs


def open_pair(config: ConfigDict, workdir: epath.PathLike) -> Workspace:
    """The workspace of the tuned model, for questions to both.

    Prompts are laid out by the tuned model's tokenizer and chat template, which it was tuned
    with, for both models.

    Args:
      config: the resolved config, its models checked by ``check_pair``.
      workdir: the run's folder.

    Raises:
      UserError: the data are wrong, or the two tokenizers cut them differently.
    """
    base, tuned = config.model.path, config.model.tuned
    of_tuned = config.copy_and_resolve_references()
    with of_tuned.unlocked():
        of_tuned.model.path, of_tuned.lora.rank = tuned, 0
    base_positions = weights.load_config(base).max_position
    of_tuned = fitted(of_tuned, base_positions)  # both are asked the same rows
    ws = open_workspace(of_tuned, workdir)
    _check_same_tokens(base, ws)
    check_vocabulary(base, ws.data, weights.load_config(base).vocab_size)
    if base_answers.wanted(ws.data):
        raise UserError(
            "config.stages.*.distractors",
            "the base model's answers are drawn in the phase probe, which such a run does not have",
            "use 'similar_questions'",
        )
    return dataclasses.replace(ws, config=fitted(config, ws.config.max_length))


def ask_both(ws: Workspace, about: Mapping[str, Any]) -> None:
    """Asks the base model (point ``base``), then the tuned one (``final``).

    Only one of them is in memory at a time. A point whose answers are on disk is not asked
    again, and its weights are not loaded.

    Args:
      ws: what ``open_pair`` gave.
      about: what the results should say of the data (``stages``, ``notes``).

    Raises:
      UserError: the weights are the same, or are not those that the run began with.
      RunFailure: a log-probability is not a number, or the disk is full.
    """
    model = ws.config.model
    found = {"base": weights.identify(model.path), "tuned": weights.identify(model.tuned)}
    (base_hash, base_is), (tuned_hash, tuned_is) = found.values()
    if base_hash == tuned_hash:
        raise UserError(
            model.tuned, "holds the base model's weights, bit for bit", "give the tuned model's"
        )
    run_record.describe(
        ws.workdir,
        weights_hash=f"{base_hash}+{tuned_hash}",
        about={
            **about,
            "weights": f"{tuned_is}; tuned elsewhere from {base_is}",
            "models": {
                name: {"path": path, "description": is_, "weights_hash": weights_hash}
                for (name, (weights_hash, is_)), path in zip(
                    found.items(), (model.path, model.tuned), strict=True
                )
            },
            "absent": list(ABSENT),
            "loss_normalization": None,
            "notes": [
                f"Nothing was trained here. Absent: {'; '.join(ABSENT)}.",
                *_template_note(ws),
                *about.get("notes", ()),
            ],
        },
    )
    for point, path in (
        (Point("base", 0, 0, 0, base_hash), model.path),
        (Point("final", ws.data.stages[-1].index, 0, 0, tuned_hash), model.tuned),
    ):
        if point.name in ws.config.detect.points and not is_asked(ws, point):
            _ask(ws, path, point)


def _ask(ws: Workspace, path: str, point: Point) -> None:
    """Loads a model and asks it; nothing of it is referred to afterwards."""
    decoder = make_decoder(ws.config, path, layout=ws.layout)
    programs = ws.programs  # compiled once, where both are the same to the compiler
    if decoder != ws.decoder:
        programs = make_programs(
            decoder, ws.optimizer, ws.config.train.loss_normalization, ws.layout
        )
    one = dataclasses.replace(ws, decoder=decoder, programs=programs)
    loaded = load_weights(path, ws.layout)
    if loaded.weights_hash != point.weights_hash:
        raise UserError(path, "its weights changed just now", "put them back, and repeat")
    ask_point(one, loaded.params, point)


def _check_same_tokens(base: str, ws: Workspace) -> None:
    """What the rows hold must mean the same to both: a model is asked in the other's tokens.

    Tokens that no row holds, such as a ``[PAD]`` that was added, may differ.
    """
    own, theirs, config = ws.tokenizer, load_tokenizer(base), ws.config
    if own.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str():
        return

    def refuse(row: int, what: str) -> NoReturn:
        label = ws.data.examples[row].label
        raise UserError(
            config.model.path,
            f"its vocabulary is not the base model's: {label} {what}",
            "give the base that belongs to it, with the tokenizer that both have",
        )

    ids, there = own.get_vocab(), theirs.get_vocab()
    differing = {i: (token, there.get(token)) for token, i in ids.items() if there.get(token) != i}
    for row, tokens in enumerate(ws.data.tokens if differing else ()):
        for token_id in np.concatenate([tokens.prompt_ids, tokens.target_ids, *tokens.option_ids]):
            if found := differing.get(int(token_id)):
                token, other = found
                has = "absent" if other is None else other
                refuse(row, f"holds token {token!r}, which is {token_id}, and {has} in {base}")
    # What both have is a token to both, whatever the base's own files mark as one.
    added = own.added_tokens_decoder.items()
    theirs.add_tokens([token for i, token in added if there.get(token.content) == i])
    how = chat.renderer(own, *layout(config))
    for start in range(0, len(ws.data.examples), _ROWS_COMPARED):
        some = ws.data.examples[start : start + _ROWS_COMPARED]
        rendered = [chat.render(example, how) for example in some]
        texts = [(r, t) for r, one in enumerate(rendered, start) for t in _texts(one)]
        pair = (
            one([text for _, text in texts], add_special_tokens=False, verbose=False).input_ids
            for one in (own, theirs)
        )
        for (row, _), one, other in zip(texts, *pair, strict=True):
            if one != other:
                at = next((n for n, i in enumerate(one) if other[n : n + 1] != [i]), 0)
                piece = own.decode(one[at : at + 8])
                refuse(row, f"is cut into other tokens than by {base}, at {piece[:40]!r}")


def _texts(rendered: chat.Rendered) -> tuple[str, ...]:
    return rendered.prompt, rendered.body, *rendered.options


def _template_note(ws: Workspace) -> list[str]:
    if ws.config.template == "plain" or not ws.tokenizer.chat_template:
        return []
    of_base = load_tokenizer(ws.config.model.path).chat_template
    if of_base == ws.tokenizer.chat_template:
        return []
    has = "another" if of_base else "none"
    return [f"Prompts have the tuned model's chat template; the base model has {has}."]
