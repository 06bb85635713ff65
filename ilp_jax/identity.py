"""What a run's numbers rest on beside its config, kept in ``run.json`` and checked ever after.

The config names files; this is what was in them: the tokens of every row, the plan of every stage,
the tokenizer, the model's config, and the weights. Every command that computes compares them with
what the run began from.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from ilp_jax import files, run_record
from ilp_jax.data.study import StudyData
from ilp_jax.data.tables import plan_changes
from ilp_jax.data.tokens import TokenRow
from ilp_jax.errors import UserError
from ilp_jax.mesh import processes
from ilp_jax.models import ends, weights

if TYPE_CHECKING:
    from ilp_jax.workspace import Workspace

log = logging.getLogger(__name__)

KEY = "identity"
WEIGHTS = "weights_hash"
_LONGEST = 60  # characters of a value in an error
_WORDS = {
    "tokens": "other tokens of its rows",
    "plan": "another plan",
    "tokenizer": "another tokenizer",
    "chat_template": "another chat template",
    "ends": "other ends of answers",
    "model": "another config of the model",
    "base": "another config of the base model",
    WEIGHTS: "other weights",
}


def identity(ws: Workspace) -> dict[str, Any]:
    """All but the weights, which take long to read.

    Args:
      ws: the workspace, its data as built: without the options that the run made itself.

    Returns:
      ``tokens``, ``plan`` and ``tokenizer`` as SHA-256 in hex; ``chat_template`` likewise, empty
      where none is used; the tokens that are ``ends`` of answers; the fields of ``model``, and of
      ``base`` where the model was tuned elsewhere.
    """
    model = ws.config.model
    template = "" if ws.config.template == "plain" else ws.tokenizer.chat_template or ""
    found = {
        "tokens": _of_tokens(ws.data),
        "plan": _of_plan(ws.data),
        "tokenizer": _of_tokenizer(ws.tokenizer),
        "chat_template": _hash(template) if template else "",
        "ends": sorted(ends.of_study(ws.data, ws.tokenizer)),
        "model": dataclasses.asdict(ws.decoder.config),
    }
    if model.tuned:
        found["base"] = dataclasses.asdict(weights.load_config(model.path))
    return json.loads(files.to_json(found))


def weights_hash(ws: Workspace) -> str:
    """Identity of the weights that a run begins from; of both models where it asks two."""
    model = ws.config.model
    paths = (model.path, model.tuned) if model.tuned else (model.path,)
    return "+".join(weights.identify(path)[0] for path in paths)


def hold(ws: Workspace, has_begun: bool, write: bool = True) -> None:
    """Makes sure that a run goes on from what it began from; records it where it begins.

    Args:
      ws: the workspace, its data as built.
      has_begun: whether the run's tables are written: what is recorded counts from then on.
      write: whether this process may write to the record; one that does not lock the folder
        only checks.

    Raises:
      UserError: something is another than it was, or is not the same in all processes.
    """
    path, found = ws.workdir / run_record.FILE, identity(ws)
    before = processes.on_first(lambda: _recorded(files.read_json(path))) if has_begun else {}
    if WEIGHTS in before:
        found[WEIGHTS] = weights_hash(ws)
    _require_alike(ws, processes.exchange(found))
    require(ws.workdir, before, found, ws)
    if has_begun and "tokens" not in before:
        log.warning(
            "%s was made by a version that did not record what it is computed from: whether "
            "tokens, plan, tokenizer and model are still the same is not known",
            ws.workdir,
        )
    if write and "tokens" not in before:
        found.pop(WEIGHTS, None)  # recorded where they are loaded
        processes.on_first(lambda: run_record.put(ws.workdir, {KEY: found}))


def require_weights(workdir: Any, found: str) -> None:
    """Makes sure that weights just loaded are those that a run began from.

    Args:
      workdir: the run's folder.
      found: their hash.

    Raises:
      UserError: they are others.
    """
    before = _recorded(files.read_json(workdir / run_record.FILE))
    require(workdir, before, {WEIGHTS: found})


def require(
    workdir: Any, before: Mapping[str, Any], now: Mapping[str, Any], ws: Workspace | None = None
) -> None:
    """Compares what is known of both; what only one of them has is passed over.

    Args:
      workdir: the run's folder.
      before: what the run began from.
      now: what is there now.
      ws: where it is known, to say what changed in the plan.

    Raises:
      UserError: they differ.
    """
    changed = []
    for name in (name for name in _WORDS if name in before and name in now):
        if isinstance(before[name], Mapping):
            fields = [
                f"{field} was {_shown(was)}, now {_shown(now[name][field])}"
                for field, was in before[name].items()
                if field in now[name] and now[name][field] != was
            ]
            changed += [f"{_WORDS[name]} ({'; '.join(fields)})"] if fields else []
        elif name == "ends" and before[name] != now[name]:
            changed.append(f"{_WORDS[name]} ({_shown(before[name])}, now {_shown(now[name])})")
        elif before[name] != now[name]:
            told = plan_changes(workdir / "plan.parquet", ws.data) if name == "plan" and ws else ""
            changed.append(f"{_WORDS[name]}{f' ({told})' if told else ''}")
    if changed:
        raise UserError(
            workdir,
            f"holds a run that began from {', '.join(changed)}",
            f"put that back, give another --workdir, or delete {workdir}",
        )


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _recorded(record: Mapping[str, Any]) -> dict[str, Any]:
    known = {WEIGHTS: record[WEIGHTS]} if record.get(WEIGHTS) else {}
    return {**(record.get(KEY) or {}), **known}


def _require_alike(ws: Workspace, found: Sequence[Mapping[str, Any]]) -> None:
    for number, other in enumerate(found):
        differ = [_WORDS[name] for name in found[0] if other.get(name) != found[0][name]]
        if differ:
            raise UserError(
                ws.workdir,
                "what its run is computed from is not the same in all processes "
                f"(process {number} has {', '.join(differ)})",
                "stage the same files on every host",
            )


def _of_tokens(data: StudyData) -> str:
    """Of all that is trained and asked: ids and marks of every row, planted faults too."""
    digest = hashlib.sha256()
    _add(digest, "ids", data.example_ids)
    for field in dataclasses.fields(TokenRow):
        _add(digest, field.name, [getattr(row, field.name) for row in data.tokens])
    faults = sorted(data.faults.items())
    _add(digest, "faulty", [row for row, _ in faults])
    _add(digest, "faults", [targets for _, targets in faults])
    return digest.hexdigest()


def _of_plan(data: StudyData) -> str:
    """Of every stage: its rows, their copies, its epochs, its place in a cycle."""
    digest = hashlib.sha256()
    for stage in data.stages:
        _add(digest, "stage", [stage.index, stage.epochs, *(stage.cycle or ())])
        _add(digest, "rows", data.example_ids[stage.rows])
        _add(digest, "copies", stage.copies_N)
        _add(digest, "held out", data.example_ids[stage.held_out])
    _add(digest, "apart", [one for pair in sorted(data.apart.items()) for one in pair])
    _add(digest, "apart every", [data.apart_every])
    return digest.hexdigest()


def _of_tokenizer(tokenizer: PreTrainedTokenizerFast) -> str:
    """Of what turns ids into text; how text becomes ids shows in the tokens."""
    decoder = tokenizer.backend_tokenizer.decoder
    return _hash(
        sorted(tokenizer.get_vocab().items()),
        sorted(tokenizer.all_special_ids),
        tokenizer.eos_token_id,
        None if decoder is None else decoder.__getstate__().decode(),
    )


def _add(digest: Any, name: str, values: Sequence[Any]) -> None:
    """Adds numbers, or sequences of them of any depth, each level's lengths and then all at once.

    What is empty or zero throughout adds nothing: fields that come later leave digests as they are.
    """
    if not len(values):
        return
    of_numbers = isinstance(values[0], np.ndarray)
    is_nested = of_numbers or isinstance(values[0], tuple | list)
    numbers = np.asarray([len(one) for one in values] if is_nested else values)
    if numbers.dtype.kind not in "biu":
        raise TypeError(f"{name} holds {numbers.dtype}")
    if not numbers.any():
        return
    digest.update(name.encode() + numbers.tobytes())
    if is_nested:
        inner = np.concatenate(values) if of_numbers else [one for v in values for one in v]
        _add(digest, "of these", inner)


def _hash(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
