"""Runs in which detectors are absent, made up without training: tables and report all the same."""

import dataclasses
import io
import itertools
import json
import re

import pyarrow as pa
import pytest
from rich.console import Console

from ilp_jax import files, parquet
from ilp_jax.analysis import report, table
from ilp_jax.analysis.diagnose import diagnose
from ilp_jax.config import default_config, default_stage, to_dict
from ilp_jax.data.tables import EXAMPLES_SCHEMA, PLAN_SCHEMA
from ilp_jax.stats.inference import put_inference
from ilp_jax.stats.schema import INFERENCE_SCHEMA, STATS_SCHEMA

EPOCHS = 2
ABSENT = ["probes"]


@dataclasses.dataclass(frozen=True)
class Made:
    """What a made-up run has: by default two stages of six rows, of all kinds.

    ``options`` and ``long``: of all rows, of some or of none; ``right``: the rows learned at the
    end; ``points``: those asked; ``tuned``: elsewhere, so that nothing of a training is known.
    """

    rows: int = 6
    stages: int = 2
    held_out: int = 2
    options: str = "some"
    long: str = "some"
    right: str = "some"
    points: tuple[str, ...] = ("base", "epoch_2", "stage", "converged", "final")
    alike: bool = False
    tuned: bool = False
    task: str = "answer"


CHANGES = {
    "no options": {"options": "none"},
    "options everywhere": {"options": "all"},
    "all long": {"long": "all"},
    "all short": {"long": "none"},
    "one row": {"rows": 1},
    "one stage": {"stages": 1},
    "nothing unlearned": {"right": "all"},
    "nothing learned": {"right": "none"},
    "no held-out rows": {"held_out": 0},
    "rows alike": {"alike": True},
    "the end alone": {"points": ("final",)},
    "the base alone": {"points": ("base",)},
    "no point": {"points": ()},
    "tuned elsewhere": {"tuned": True},
    "summaries": {"task": "summary"},
}


def _some(which, i):
    return which == "all" or (which == "some" and i % 2 == 0)


def _examples(made):
    out = []
    for i in range(made.stages * made.rows + made.held_out):
        number = 0 if made.alike else i
        words = 20 if _some(made.long, i // 2) else 2
        response = " ".join(f"word{number + k}" for k in range(words))
        options = [response, "another"] if _some(made.options, i) else []
        one = dict.fromkeys(EXAMPLES_SCHEMA.names) | {"example_id": 100 + i, "source": "rows"}
        one |= {"source_key": str(i), "prompt": f"question {number}", "response": response}
        one |= {"role": "train" if i < made.stages * made.rows else "held_out"}
        one |= {"options": options, "answer_index": 0 if options else None, "knowledge": []}
        one |= {"n_prompt_tokens": 2, "n_target_tokens": words + 1, "truncated": False}
        meta = {"task": made.task} if made.task != "answer" else {}
        out.append(one | {"meta": "{}", "marks": json.dumps(meta)})
    return out


def _answers(made, examples, stage, epoch):
    """Wrong at the base, and at the end as `Made.right` says; others in between."""
    rows = []
    for i, one in enumerate(examples):
        right = stage > 0 and _some(made.right, i)
        common = dict.fromkeys(INFERENCE_SCHEMA.names) | {"example_id": one["example_id"]}
        common |= {"stage": stage, "epoch": epoch, "step": stage * 6, "run": 0}
        common |= {"prompt_variant": 0, "temperature": 0.0, "confidence": 0.5}
        common |= {"gold_logprob": -0.01 if right else -9.0, "correct": right}
        said = one["response"] if right else "another"
        rows.append(common | {"mode": "greedy", "prediction": said})
        law = {"mode": "sample", "temperature": 0.7, "correct": None, "confidence": None}
        rows.append(common | law)
        if one["options"]:
            means = [-1.0, -2.0] if right else [-2.0, -1.0]
            choice = {"mode": "choice", "options": one["options"], "option_logprob_mean": means}
            rows.append(common | choice | {"prediction": said, "option_logprob_sum": means})
    return pa.Table.from_pylist(rows, schema=INFERENCE_SCHEMA)


def _stats(made, examples):
    rows = []

    def add(one, kind, stage, epoch, step, visit):
        n = one["n_target_tokens"]
        values = dict.fromkeys(STATS_SCHEMA.names) | {"example_id": one["example_id"]}
        values |= {"kind": kind, "stage": stage, "epoch": epoch, "step": step, "visit": visit}
        values |= {"batch_index": 0, "microbatch": 0, "row": len(rows), "segment": 0}
        values |= {"n_tokens": n, "n_correct": n // 2, "loss_sum": n / (1 + visit)}
        values |= {"prob_mean": 0.5, "grad_norm": 1.0 if kind == "train" else None}
        values |= {"learning_rate": 0.1 if kind == "train" else None}
        rows.append(values)

    for i, one in enumerate(examples):
        stage = 1 + i // made.rows
        for end in range(made.stages + 1):
            add(one, "probe", end, EPOCHS if end else 0, end * 6, 0)
        for epoch in range(1, EPOCHS + 1) if one["role"] == "train" else ():
            add(one, "train", stage, epoch, 6 * (stage - 1) + 3 * epoch, epoch)
    return pa.Table.from_pylist(rows, schema=STATS_SCHEMA)


def write(folder, made):
    """The files of a run up to the phase ``detect``, and its diagnosis; the folder."""
    config = default_config()
    names = [f"s{stage + 1}" for stage in range(made.stages)]
    for name in names:
        config.stages[name] = default_stage()
    config.sequence = tuple(names)
    config.detect.points = made.points
    config.model.tuned = "elsewhere" if made.tuned else ""
    examples = _examples(made)
    table_ = pa.Table.from_pylist(examples, schema=EXAMPLES_SCHEMA)
    parquet.write(folder / "examples.parquet", table_)
    plan = [
        {"example_id": one["example_id"], "stage": 1 + i // made.rows, "copies": 1}
        | {"position": None if made.tuned else (i % made.rows) / made.rows}
        for i, one in enumerate(examples)
        if one["role"] == "train"
    ]
    parquet.write(folder / "plan.parquet", pa.Table.from_pylist(plan, schema=PLAN_SCHEMA))
    for point in made.points:
        if made.tuned and point not in ("base", "final"):
            continue
        last = (made.stages, EPOCHS)
        places = {point: (0, 0) if point == "base" else last}
        if point == "stage":
            places = {f"stage_{k + 1}": (k + 1, EPOCHS) for k in range(made.stages)}
        for name, place in places.items():
            put_inference(folder, name, _answers(made, examples, *place), place[0] * 6)
    if not made.tuned:
        path = folder / "stats" / "train.steps-000000000-000000099.host-0000.merged.parquet"
        parquet.write(path, _stats(made, examples), schema=STATS_SCHEMA)
    about = {
        "weights": "tiny",
        "notes": [],
        "stages": [
            {"stage": k + 1, "name": name, "rows": made.rows, "held_out": 0, "dropped": {}}
            | ({} if made.tuned else {"epochs": EPOCHS, "learning_rate": 0.1})
            for k, name in enumerate(names)
        ],
    }
    if made.tuned:
        about |= {"absent": ABSENT, "loss_normalization": None}
    resolved = to_dict(config)
    record = {"config": resolved, "config_hash": "0123", "versions": {}, "about": about}
    files.write_json(folder / "run.json", record)
    diagnose(folder, resolved, about)
    return folder


def printed(folder):
    """The tables in the terminal, in one line."""
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table.render(files.read_json(folder / "summary.json")))
    return " ".join(console.export_text().split())


def check(folder):
    """Every result is there, and claims nothing that is not a number."""
    html = report.report(folder, to_dict(default_config())["report"]).read_text()
    summary = json.loads((folder / "summary.json").read_text(), parse_constant=pytest.fail)
    for text in (html, printed(folder)):
        for word in ("None", "nan", "undefined"):
            assert word not in text.split("<script")[0], word
    assert summary["n_examples"]["trained"]
    return html, summary


def merged(*names):
    return Made(**{key: value for name in names for key, value in CHANGES[name].items()})


PAIRS = [
    pair
    for pair in itertools.combinations(CHANGES, 2)
    if not set(CHANGES[pair[0]]) & set(CHANGES[pair[1]])
]


@pytest.mark.parametrize("name", ["all long", "no point", "nothing unlearned"])
def test_what_is_absent_is_told(tmp_path, name):
    html, summary = check(write(tmp_path / "run", merged("no options", name)))
    found, told = summary["default_verdicts"], " ".join(html.split())
    shown = printed(tmp_path / "run")
    if name == "nothing unlearned":
        assert (found["trained"], found["known"], found["long"]) == (12, 6, 6)
        assert "0 of 6 trained rows" in told and "no cause to tell" in told
        assert "Whether 6 of the 12 trained rows stayed unlearned is not known" in shown
    else:
        assert found["known"] == 0 and ">? <span>" in told
        # What was measured is shown, whatever is known of the rows' fates.
        assert "no verdict at the end (12)" in told and "was recorded over training" not in told
        assert "Whether any of the 12 trained rows stayed unlearned is not known" in told
        assert shown.startswith("Whether any of the 12 trained rows")
        assert (found["long"], found["not_asked"]) == ((12, 0) if name == "all long" else (0, 12))


def test_what_is_known_of_a_training_elsewhere(tmp_path):
    html, summary = check(write(tmp_path / "run", merged("tuned elsewhere")))
    text = re.sub(r"<[^>]*>", " ", html.split("<script")[0])
    for phrase in ("2e-05", "2 epochs", "not reached", "converged:", "after the last update"):
        assert phrase not in text and phrase not in printed(tmp_path / "run"), phrase
    assert "how is not known" in text and "12 given as trained, in 2 stages" in text
    # Nothing can be lost where no stage's end was seen: that is no count of 0.
    assert "left side forgetting: not measured in this run" in printed(tmp_path / "run")


def test_convergence_that_was_not_asked_is_not_missed(tmp_path):
    folder = write(tmp_path / "run", merged("the end alone"))
    html, _ = check(folder)
    assert "not reached" not in html and "stage 1 not asked, stage 2 not asked" in printed(folder)
    assert "epoch_2" not in printed(folder)
    html, _ = check(write(tmp_path / "other", merged("nothing learned")))
    assert "at epoch 2" in html


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_one_thing_absent(tmp_path, name):
    check(write(tmp_path / "run", merged(name)))


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS, ids=" and ".join)
def test_two_things_absent(tmp_path, pair):
    """And in one report beside a run that lacks nothing."""
    one, whole = write(tmp_path / "run", merged(*pair)), write(tmp_path / "whole", Made())
    check(one)
    limits = to_dict(default_config())["report"]
    html = report.compare([one, whole], tmp_path / "both.html", limits).read_text()
    assert "None" not in html.split("<script")[0]
