"""From the config to the data of a run: which rows each stage trains on."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from ml_collections import ConfigDict
from transformers import PreTrainedTokenizerFast

from ilp_jax.data import (
    arguments,
    chat,
    distractors,
    jsonl,
    lengths,
    own_text,
    packaged,
    tfds_source,
)
from ilp_jax.data.examples import Example
from ilp_jax.data.order import keyed_order, score
from ilp_jax.data.study import StudyData, assemble
from ilp_jax.data.tokens import TokenRow, tokenise_all
from ilp_jax.data.twins import twin
from ilp_jax.errors import UserError
from ilp_jax.world import real
from ilp_jax.world import study as world

Row = tuple[Example, TokenRow]


def build(config: ConfigDict, tokenizer: PreTrainedTokenizerFast) -> StudyData:
    """The data of every stage of ``config.sequence``.

    A stage's rows are those of its source that pass its limits, the first ``n_rows`` of a
    permutation by (seed, stage name); ``held_out_rows`` others are held out. No prompt is
    trained in one stage and held out in the same or another. A name that stands twice in the
    sequence is the same rows twice. A JSONL file whose rows name stages makes one stage of
    each, in natural order (`natural`), all with the entry's fields (``n_rows`` counts for each).
    Where a stage asks for distractors, rows without options get answers of similar questions,
    those of all stages; a row that finds too few stays without (``distractors.counts``).

    Args:
      config: the study's config.
      tokenizer: the model's tokenizer.

    Returns:
      The data, the same for the same config, files and tokenizer.

    Raises:
      UserError: unknown or missing stages, bad rows, or fewer rows than asked for.
    """
    if "world" in config and config.world.family:
        return world.build(config, tokenizer)
    if "planted" in config and config.planted.sources:
        return real.build(config, tokenizer)
    if not config.sequence:
        raise UserError("config.sequence", "names no stage", "list names of config.stages")
    builder = _Builder(config, tokenizer)
    parts = [part for name in config.sequence for part in builder.stages_of(name)]
    parts = builder.finished(parts)
    return assemble(
        [(part.name, part.settings, part.train, part.held_out) for part in parts],
        dropped={part.name: part.dropped for part in parts},
        usable={part.name: part.usable for part in parts},
        long_rows=dict.fromkeys(part.long_rows for part in parts if part.long_rows),
    )


@dataclasses.dataclass(frozen=True)
class _Part:
    """What a stage takes from its source; ``rows`` are all that pass its limits."""

    name: str
    settings: ConfigDict
    train: list[Row]
    held_out: list[Row]
    dropped: Mapping[str, int]
    usable: int
    rows: list[Row]
    long_rows: str


class _Builder:
    """Builds stages in order; remembers what is trained and what is held out so far."""

    def __init__(self, config: ConfigDict, tokenizer: PreTrainedTokenizerFast):
        self._config, self._tokenizer = config, tokenizer
        self._how = chat.renderer(tokenizer, *layout(config))
        self._done: dict[str, list[_Part]] = {}
        self._trained: set[str] = set()  # prompts
        self._held_out: set[str] = set()

    def stages_of(self, name: str) -> list[_Part]:
        """The stage, or stages, that one name of the sequence stands for."""
        if name not in self._done:
            if name not in self._config.stages:
                known = ", ".join(self._config.stages) or "none"
                raise UserError(
                    "config.sequence", f"no stage {name!r}", f"config.stages has: {known}"
                )
            settings = self._config.stages[name]
            self._done[name] = [
                self._part(part_name, settings, examples, left_out)
                for part_name, examples, left_out in _sources(name, settings)
            ]
        return self._done[name]

    def _part(
        self,
        name: str,
        settings: ConfigDict,
        candidates: Sequence[Example],
        left_out: Mapping[str, int],
    ) -> _Part:
        rows, dropped, names = self._usable(settings, candidates)
        dropped, long_rows = {**left_out, **dropped}, ""
        if names:
            left_out_too = self._config.get("drop_truncated", True)
            long_rows = lengths.about_long(name, names, self._config.max_length, left_out_too)
        n_rows, n_held = settings.get("n_rows", 0), settings.get("held_out_rows", 0)
        train, held = self._choose(name, rows, n_rows, n_held)
        if not train or len(train) < n_rows or len(held) < n_held:
            wanted = f"{n_rows} to train" if n_rows else "some to train"
            reasons = ", ".join(f"{n} {reason}" for reason, n in dropped.items()) or "none"
            raise UserError(
                f"config.stages.{name}",
                f"asks for {wanted} and {n_held} held out, and has {len(rows)} usable rows of "
                f"{len(candidates) + sum(left_out.values())} (free: {len(train)} and {len(held)}; "
                f"dropped: {reasons}). {long_rows}".rstrip(". "),
                "ask for fewer rows or loosen the limits",
            )
        if not n_rows and len(train) + len(held) < len(rows):
            dropped["prompt_held_out"] = len(rows) - len(train) - len(held)
        self._trained |= {_prompt(rows[i]) for i in train}
        self._held_out |= {_prompt(rows[i]) for i in held}
        return _Part(
            name=name,
            settings=settings,
            train=[rows[i] for i in train],
            held_out=[rows[i] for i in held],
            dropped=dropped,
            usable=len(rows) - dropped.get("prompt_held_out", 0),
            rows=rows,
            long_rows=long_rows,
        )

    def finished(self, parts: Sequence[_Part]) -> list[_Part]:
        """All stages, with distractors and twins: both need what was chosen before."""
        pool = None
        if any(_similar(part.settings) for part in parts):
            rows = {e.example_id: (e, t) for part in parts for e, t in part.rows}
            pool = distractors.Neighbours([*map(_answered, rows.values())], self._config.seed)
        done: dict[str, _Part] = {}
        for part in parts:
            if part.name in done:
                continue
            train, held_out = part.train, part.held_out
            if _similar(part.settings):
                train = self._with_options(part.settings, train, pool)
                held_out = self._with_options(part.settings, held_out, pool)
            train = [*train, *self._twins(part.name, part.settings, train)]
            done[part.name] = dataclasses.replace(part, train=train, held_out=held_out)
        return [done[part.name] for part in parts]

    def _with_options(
        self, settings: ConfigDict, rows: list[Row], pool: distractors.Neighbours
    ) -> list[Row]:
        """The rows, those without options with the answers of similar questions if enough."""
        n, places = settings.n_distractors, [i for i, row in enumerate(rows) if not row[0].options]
        found = pool.wrong_answers(
            [_answered(rows[i]) for i in places],
            n,
            settings.get("same_question_similarity", 0.9),
            settings.get("max_response_tokens", 0),
        )
        enough = [(i, wrong) for i, wrong in zip(places, found, strict=True) if len(wrong) == n]
        made = [
            distractors.with_options(rows[i][0], wrong, self._config.seed, distractors.SIMILAR)
            for i, wrong in enough
        ]
        rows = list(rows)
        for (i, _), row in zip(enough, zip(made, self._tokens(made), strict=True), strict=True):
            rows[i] = row
        return rows

    def _choose(self, name: str, rows: list[Row], n_rows: int, n_held: int):
        """Indices of the rows to train and to hold out; no prompt is in both, in any stage."""
        ids = [example.example_id for example, _ in rows]
        order = keyed_order(ids, self._config.seed, "rows", name).tolist()
        prompts = [_prompt(row) for row in rows]
        train = [i for i in order if prompts[i] not in self._held_out]
        if n_rows:
            train = train[:n_rows]
            trained = self._trained | {prompts[i] for i in train}
            return train, [i for i in order if prompts[i] not in trained][:n_held]
        held = [i for i in reversed(order) if prompts[i] not in self._trained][:n_held]
        held_prompts = {prompts[i] for i in held}
        return [i for i in train if prompts[i] not in held_prompts], held

    def _usable(self, settings, candidates) -> tuple[list[Row], dict[str, int], list[str]]:
        """Rows that pass the stage's limits, how many failed which, and those too long by name."""
        dropped, left, names = Counter(), [], []
        for example in own_text.mended(candidates, self._how):
            # Rows without options may get n_distractors later.
            n_options = settings.get("n_options", 0)
            if example.options or not settings.get("n_distractors", 0):
                example = _with_n_options(example, n_options, self._config.seed)
            if example is None:
                dropped["too_few_options"] += 1
            else:
                left.append(_with_task(example, settings.get("task", "answer")))
        rows = []
        for example, tokens in zip(left, self._tokens(left), strict=True):
            if tokens.truncated:
                names.append(example.label)
            reason = self._reason(settings, tokens)
            if reason:
                dropped[reason] += 1
            else:
                rows.append((example, tokens))
        return rows, dict(dropped), names

    def _reason(self, settings: ConfigDict, tokens: TokenRow) -> str:
        """Why a row is left out of a stage, or ''."""
        if not len(tokens.target_ids):
            return "no_target"
        if not all(map(len, tokens.option_ids)):
            return "empty_option"
        if tokens.truncated and self._config.get("drop_truncated", True):
            return "truncated"
        limit = settings.get("max_prompt_tokens", 0)
        if limit and len(tokens.prompt_ids) > limit:
            return "long_prompt"
        limit = settings.get("max_response_tokens", 0)
        # The end token is no part of a reply.
        replies = [stop - start - 1 for start, stop in tokens.earlier_replies]
        replies.append(len(tokens.target_ids) - (not tokens.truncated))
        if limit and max(*replies, *map(len, tokens.option_ids), 0) > limit:
            return "long_response"
        return ""

    def _tokens(self, examples: Sequence[Example]) -> tuple[TokenRow, ...]:
        return tokens_of(self._config, self._tokenizer, examples)

    def _twins(self, name: str, settings: ConfigDict, train: list[Row]) -> list[Row]:
        n_twins = settings.get("planted_twins", 0)
        if not n_twins:
            return []
        parents = [example for example, _ in train if len(example.options) > 1]
        order = keyed_order([p.example_id for p in parents], self._config.seed, "twins", name)
        usable: list[Row] = []
        for start in range(0, len(order), n_twins):
            if len(usable) >= n_twins:
                break
            twins = [twin(parents[i], self._config.seed) for i in order[start : start + n_twins]]
            twins = [_with_task(one, settings.get("task", "answer")) for one in twins]
            pairs = zip(twins, self._tokens(twins), strict=True)
            usable += [pair for pair in pairs if not self._reason(settings, pair[1])]
        if len(usable) < n_twins:
            raise UserError(
                f"config.stages.{name}.planted_twins",
                f"asks for {n_twins}, and {len(usable)} of the {len(train)} training rows have "
                "another option to contradict them with",
                "ask for fewer, or give the rows options",
            )
        return usable[:n_twins]


def tokens_of(
    config: ConfigDict, tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example]
) -> tuple[TokenRow, ...]:
    """Tokens of examples in the layout of a config.

    Args:
      config: the study's config.
      tokenizer: the model's tokenizer.
      examples: the examples.
    """
    template, separator, *more = layout(config)
    return tokenise_all(examples, tokenizer, template, separator, config.max_length, *more)


def layout(config: ConfigDict) -> tuple:
    """What ``chat.renderer`` takes beside the tokenizer."""
    turns = config.get("trained_turns", "all")
    return config.template, config.separator, turns, arguments.of_config(config)


def _sources(
    name: str, settings: ConfigDict
) -> Iterator[tuple[str, Sequence[Example], Mapping[str, int]]]:
    """(stage name, its candidate rows, rows left out by reason) for each stage of the entry."""
    where, source = f"config.stages.{name}", settings.source
    if source == "tfds":
        yield name, *tfds_source.load(settings, where)
        return
    if source != "jsonl":
        if source not in packaged.FILES:
            known = ", ".join((*packaged.FILES, "jsonl", "tfds"))
            raise UserError(f"{where}.source", f"{source!r} is unknown", f"use {known}")
        yield name, packaged.load(source), {}
        return
    if not settings.get("path", ""):
        raise UserError(f"{where}.path", "is empty", "give the path of a JSONL file")
    rows = jsonl.load(settings.path)
    if rows.stages is None:
        yield name, rows.examples, {}
        return
    for value in sorted(set(rows.stages), key=natural):
        own = [e for e, stage in zip(rows.examples, rows.stages, strict=True) if stage == value]
        yield f"{name}/{value}", own, {}


def natural(value: int | str) -> tuple:
    """A key that sorts whole numbers by size, and texts with the numbers in them by size.

    So phase2 stands before phase10.

    Args:
      value: a stage as a row names it; all of one file are of one type.
    """
    if isinstance(value, int):
        return value, ""
    # Texts at even places, numbers at odd ones: like is compared with like.
    parts = re.split(r"(\d+)", value.casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], value


def _prompt(row: Row) -> str:
    example, _ = row
    return json.dumps(example.messages) if example.messages else example.prompt


def _with_task(example: Example, task: str) -> Example:
    """The example with the stage's task in ``marks``, where it is not the usual 'answer'."""
    if task == "answer":
        return example
    return dataclasses.replace(example, marks={**example.marks, "task": task})


def _similar(settings: ConfigDict) -> bool:
    """Whether a stage gives rows without options the answers of similar questions."""
    kind = settings.get("distractors", distractors.SIMILAR)
    return settings.get("n_distractors", 0) > 0 and kind in (distractors.SIMILAR, distractors.BOTH)


def _answered(row: Row) -> distractors.Answered:
    # The end token, which a row that is cut has lost, is no part of the response.
    return distractors.answered(row[0], len(row[1].target_ids) - (not row[1].truncated))


def _with_n_options(example: Example, n_options: int, seed: int) -> Example | None:
    """The example with its answer and n - 1 distractors, in their own order; None if too few."""
    if not n_options or len(example.options) == n_options:
        return example
    if len(example.options) < n_options:
        return None
    others = [i for i in range(len(example.options)) if i != example.answer_index]
    others.sort(key=lambda i: (score(seed, "options", example.example_id, example.options[i]), i))
    kept = sorted([example.answer_index, *others[: n_options - 1]])
    return dataclasses.replace(
        example,
        options=tuple(example.options[i] for i in kept),
        answer_index=kept.index(example.answer_index),
    )
