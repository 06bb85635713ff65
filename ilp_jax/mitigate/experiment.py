"""The experiment: every arm of a finished run, and what became of each example in it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
from etils import epath
from ml_collections import ConfigDict

from ilp_jax import files, run_record
from ilp_jax.config import to_dict
from ilp_jax.data.batches import probe_batches
from ilp_jax.data.examples import Example, example_id
from ilp_jax.data.stages import tokens_of
from ilp_jax.data.study import StudyData
from ilp_jax.detect.point import Point, ask_point, is_asked
from ilp_jax.detect.variants import SHORT, reworded
from ilp_jax.fields.mitigate import CURVES
from ilp_jax.mesh.rows import fetch_own
from ilp_jax.mitigate import actions, outcome
from ilp_jax.mitigate.arm_data import page_rows
from ilp_jax.mitigate.arms import Arm, make_arm, treat
from ilp_jax.mitigate.context import Context
from ilp_jax.mitigate.evidence import (
    Evidence,
    diagnosed,
    linked,
    planted_causes,
    read_evidence,
    with_library,
)
from ilp_jax.mitigate.library import Fact, Library
from ilp_jax.mitigate.passages import PassageLibrary
from ilp_jax.mitigate.plan import Document, plan_of
from ilp_jax.mitigate.prerequisites import Prerequisites
from ilp_jax.mitigate.train_arm import (
    ARM,
    FOLDER,
    arm_folder,
    general_loss,
    is_trained,
    train_arm,
)
from ilp_jax.session import Session
from ilp_jax.stats import reader
from ilp_jax.stats.remedies import write_remedies
from ilp_jax.train import loop
from ilp_jax.train.schedule import total_steps
from ilp_jax.train.step import in_microbatches
from ilp_jax.workspace import Workspace
from ilp_jax.world.library import WorldLibrary
from ilp_jax.world.study import make_world

N_GENERAL = 256
"""General texts, drawn anew, whose loss is measured at every arm's end. Ours."""
RUN = ".run"
"""In the arms' folder: the run itself, asked what arms are asked."""
FACTS = "facts.json"
"""What the base model knows of what unlearned rows rest on; in the arms' folder."""


def nothing_to_mend(config: ConfigDict, workdir: epath.Path) -> str:
    """What to say of a run whose trained rows are all learned; '' where one is not.

    Args:
      config: a resolved config.
      workdir: the folder of a diagnosed run.

    Raises:
      UserError: no verdicts of ``mitigate.detector`` and ``mitigate.method``.
    """
    own = config.mitigate
    told = diagnosed(reader.read_diagnosis(workdir), own.detector, own.method)
    if told["example_id"].is_in(reader.read_plan(workdir)["example_id"].implode()).any():
        return ""
    return f"{workdir}: no trained row is unlearned (detector {own.detector}): nothing to mend"


def context_of(session: Session) -> Context:
    """A finished run as remedies see it, from its files alone.

    Args:
      session: of the run.

    Raises:
      UserError: no verdicts of ``mitigate.detector`` and ``mitigate.method``.
    """
    ws = session.workspace
    config = to_dict(session.config)
    evidence = read_evidence(ws.workdir, config)
    library = library_of(ws)
    evidence = with_library(evidence, ws.data.examples, library)
    facts = {row: library.facts(ws.data.examples[row]) for row in evidence.unlearned.tolist()}
    return Context(
        base=plan_of(ws.data),
        evidence=evidence,
        examples=ws.data.examples,
        library=library,
        facts=facts,
        base_probability=_base_probability(session, facts),
        settings=config["mitigate"],
        n_tokens=lambda text: len(ws.tokenizer(text, add_special_tokens=False)["input_ids"]) + 1,
        thresholds=config["diagnose"],
    )


def make_arms(session: Session, context: Context) -> list[Arm]:
    """All arms of a finished run.

    Args:
      session: of the run.
      context: of `context_of`.

    Raises:
      UserError: ``oracle`` where nothing was planted.
    """
    settings, planted_N = context.settings, None
    if "oracle" in settings["arms"]:
        planted_N = planted_causes(session.workspace.workdir, context.evidence)
    curves = [name for name in settings["arms"] if name in CURVES]
    budgets = [multiple for multiple in settings["budgets"] if multiple != 1]
    wanted = [(name, 1.0) for name in settings["arms"]]
    wanted += [(name, multiple) for multiple in budgets for name in curves]
    return [
        make_arm(name, number, context, int(session.config.seed), planted_N, budget)
        for number in range(settings["seeds"])
        for name, budget in wanted
    ]


def library_of(ws: Workspace) -> Library:
    """Where a run's remedies take their texts from: its world, or passages.

    Raises:
      UserError: ``mitigate.library`` is no folder of texts, no general text is installed, or
        ``mitigate.prerequisites`` is wrong.
    """
    settings = ws.config.mitigate
    if ws.config.world.family:
        world = make_world(ws.config)
        library: Library = WorldLibrary(world.facts, world.taught)
    else:
        words = max(settings.page_tokens * 3 // 4, 8)  # of English, a word has about 4/3 tokens
        library = PassageLibrary(ws.data.examples, settings.library, words)
    if settings.prerequisites:
        return Prerequisites(settings.prerequisites, ws.data.examples, library)
    return library


def asked_of(ws: Workspace) -> StudyData:
    """The run's examples, and where it has no paraphrases of its own, one of each trained row.

    The paraphrase is the question as ``detect.variants`` words it for the base model; it is never
    trained.
    """
    data = ws.data
    if any(one.role == "paraphrase" for one in data.examples):
        return data
    trained = sorted({int(i) for stage in data.stages for i in stage.rows})
    made = tuple(_paraphrase(data.examples[i]) for i in trained)
    tokens = tokens_of(ws.config, ws.tokenizer, made)
    fitting = [i for i, row in enumerate(tokens) if len(row.target_ids) and not row.truncated]
    return dataclasses.replace(
        data,
        examples=(*data.examples, *(made[i] for i in fitting)),
        tokens=(*data.tokens, *(tokens[i] for i in fitting)),
    )


def ask_run(session: Session) -> None:
    """Asks the run's final model what every arm is asked, where the run has not: paraphrases.

    Its answers are in ``arms/.run``, with its loss of general texts.

    Raises:
      UserError: its last checkpoint is gone.
    """
    ws = session.workspace
    folder = ws.workdir / FOLDER / RUN
    data = asked_of(ws)
    weights_hash = run_record.read(ws.workdir)["weights_hash"]
    last = ws.data.stages[-1]
    step = total_steps(ws.data, ws.config.train.batch_size)
    point = Point("final", last.index, last.epochs, step, weights_hash)
    own = dataclasses.replace(ws, data=data, workdir=folder)
    if (folder / ARM).exists() and is_asked(own, point):
        return
    params = session.restore_final()
    ask_point(own, params, point)
    loss = general_loss(ws, params, _general_text(ws))
    files.write_json(folder / ARM, {"name": RUN, "general_loss": loss})


def _paraphrase(example: Example) -> Example:
    key = f"{example.source}:{example.source_key}:{example.example_id}"
    return dataclasses.replace(
        reworded(example, SHORT),
        example_id=example_id("paraphrase", key),
        role="paraphrase",
        parent_id=example.example_id,
    )


def train_arms(session: Session, arms: Sequence[Arm]) -> None:
    """Trains, one after another, the arms that are neither trained nor at work elsewhere.

    Args:
      session: of the run.
      arms: of ``make_arms``.

    Raises:
      RunFailure: see ``train_arm``.
    """
    ws = session.workspace
    weights_hash = run_record.read(ws.workdir)["weights_hash"]
    general, asked = _general_text(ws), asked_of(ws)
    for arm in arms:
        if not is_trained(ws, arm):
            with contextlib.suppress(run_record.InUse):  # another process is at it
                train_arm(ws, arm, session.read_base, weights_hash, general, asked)


def _general_text(ws: Workspace) -> StudyData:
    """General texts that no arm is trained on, to see what arms do to them."""
    rng = np.random.default_rng([ws.config.seed, *b"general"])
    pages = [(Document(text),) for text in library_of(ws).general(N_GENERAL, rng)]
    rows = page_rows(pages, ws.tokenizer, ws.config.max_length)
    return StudyData(tuple(row[0] for row in rows), tuple(row[1] for row in rows), ())


def put_actions(session: Session, context: Context, diagonal: Sequence[Any]) -> None:
    """Writes ``actions.jsonl``: what to do with each unlearned row.

    Args:
      session: of the run.
      context: of `context_of`.
      diagonal: of ``analysis.remedies.matrix.diagonal``.
    """
    config, workdir = to_dict(session.config), session.workspace.workdir
    arm = make_arm("diagnosed", 0, context, config["seed"])
    own = context.settings
    told = diagnosed(
        reader.read_diagnosis(workdir), own["detector"], own["method"], columns=("evidence",)
    )
    rows = actions.actions(context, arm.assigned, arm.treated, told, diagonal)
    actions.write_actions(workdir, rows)


def applied(session: Session, context: Context, out: epath.Path) -> str:
    """Writes the training set that the remedies of diagnosed causes make of the run's.

    Args:
      session: of the run.
      context: of `context_of`.
      out: a new folder.

    Returns:
      A line that says what was written.

    Raises:
      UserError: the folder is in use.
    """
    seed = int(session.config.seed)
    arm = make_arm("diagnosed", 0, context, seed)
    plan, _ = treat(context.base, arm.assigned, context, np.random.default_rng(seed))
    return actions.apply(plan, session.workspace.data, files.as_path(out))


def collect(session: Session, arms: Sequence[Arm]) -> pl.DataFrame:
    """Writes ``remedies.parquet`` from the arms that are trained.

    Args:
      session: of the run.
      arms: of ``make_arms``.

    Returns:
      Its rows.
    """
    ws, config = session.workspace, to_dict(session.config)
    evidence = read_evidence(ws.workdir, config)
    examples = _asked_examples(ws)
    answers = reader.read_inference(ws.workdir / FOLDER / RUN, ["final"])
    before = outcome.states(answers, examples, config)
    about = pl.DataFrame(
        {
            "example_id": evidence.ids_N,
            "cause": [cause or None for cause in evidence.cause_N],
            "group_id": _group_ids(evidence),
        },
        schema={"example_id": pl.Int64, "cause": pl.String, "group_id": pl.Int64},
    )
    tables = [
        _rows_of(arm_folder(ws.workdir, arm), before, examples, config, about)
        for arm in arms
        if is_trained(ws, arm)
    ]
    rows = pl.concat(tables)
    write_remedies(ws.workdir, rows)
    return rows


def _asked_examples(ws: Workspace) -> pl.DataFrame:
    """``examples.parquet`` of the run, with the paraphrases that were made for it."""
    examples = reader.read_examples(ws.workdir)
    data = asked_of(ws)
    made = data.examples[len(ws.data.examples) :]
    rows = [
        {
            **dict.fromkeys(examples.columns),
            "example_id": one.example_id,
            "role": one.role,
            "parent_id": one.parent_id,
            "response": one.response,
            "meta": json.dumps(dict(one.meta)),
            "marks": json.dumps(dict(one.marks)),
            "n_target_tokens": len(tokens.target_ids),
        }
        for one, tokens in zip(made, data.tokens[len(ws.data.examples) :], strict=True)
    ]
    return pl.concat([examples, pl.DataFrame(rows, schema=examples.schema)]) if rows else examples


def _rows_of(folder: epath.Path, before, examples, config, about) -> pl.DataFrame:
    arm = files.read_json(folder / ARM)
    after = outcome.states(reader.read_inference(folder, ["final"]), examples, config)
    ids = pl.col("example_id")
    return (
        outcome.outcomes(before, after, examples)
        .join(about, on="example_id", maintain_order="left")
        .with_columns(
            remedy=ids.cast(pl.String).replace_strict(
                arm["remedy"], default=None, return_dtype=pl.String
            ),
            arm=pl.lit(arm["name"]),
            is_sham=pl.lit(arm["is_sham"]),
            seed=pl.lit(arm["seed"], pl.Int64),
            treated=ids.is_in(arm["treated"]),
            deleted=ids.is_in(arm["deleted"]),
            steps=pl.lit(arm["steps"], pl.Int64),
            tokens=pl.lit(arm["tokens"], pl.Int64),
        )
    )


def _group_ids(evidence: Evidence) -> list[int]:
    ids = evidence.ids_N.tolist()
    found = list(ids)
    for group in linked(evidence.rivals, evidence.rivals):
        for row in group:
            found[row] = ids[group[0]]
    return found


def _base_probability(session: Session, facts: dict[int, tuple[Fact, ...]]) -> dict[str, float]:
    """The base model's probability of each fact's answer; asked once, then kept."""
    ws = session.workspace
    path = ws.workdir / FOLDER / FACTS
    asked = {fact.key: fact for own in facts.values() for fact in own if fact.question}
    known = files.read_json(path) if path.exists() else {}
    if asked.keys() - known.keys():
        params = loop.at_start(ws, session.read_base())  # new adapters change nothing
        found = _asked(ws, params, list(asked.values()))
        known = dict(zip(asked, found, strict=True))
        files.write_json(path, known)
    return known


def _asked(ws: Workspace, params: Any, facts: list[Fact]) -> list[float]:
    examples = tuple(
        Example(example_id("prerequisite", fact.key), "prerequisite", fact.key, *_qa(fact))
        for fact in facts
    )
    data = StudyData(examples, tokens_of(ws.config, ws.tokenizer, examples), ())
    found = np.zeros(len(facts))
    size = ws.place.batch_size(ws.config.probe.batch_size)
    for rows, meta in probe_batches(data, range(len(facts)), size, ws.config.length_buckets):
        _, stats = fetch_own(ws.programs.probe[False](params, in_microbatches(rows, 1, ws.place)))
        found[meta.example_index_B[: meta.n_real]] = np.exp(-stats["loss_sum"][: meta.n_real])
    return found.tolist()


def _qa(fact: Fact) -> Iterator[str]:
    return iter((fact.question, fact.answer))
