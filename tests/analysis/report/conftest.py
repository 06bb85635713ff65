"""Small finished runs, written without training: two stages, known fates, any texts."""

import json

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from ilp_jax import files, parquet
from ilp_jax.analysis import diagnose, parts, visits
from ilp_jax.analysis.unlearned import unlearned
from ilp_jax.config import default_config, default_stage, to_dict
from ilp_jax.data.tables import EXAMPLES_SCHEMA, PLAN_SCHEMA
from ilp_jax.stats import reader
from ilp_jax.stats.inference import put_inference
from ilp_jax.stats.schema import CAUSES, DIAGNOSIS_SCHEMA, INFERENCE_SCHEMA, STATS_SCHEMA

LIMITS = {"max_rows": 2000, "max_text": 4000, "max_visits": 64, "include_text": True}
STEPS = {"base": 0, "stage_1": 6, "stage_2": 12, "final": 12}
FATES = ("learned", "lost", "never")
IDS = 2**60  # beyond the whole numbers that JavaScript knows


def _config(seed, source):
    config = default_config()
    config.seed = seed
    for name in (source, "second"):
        config.stages[name] = default_stage()
        config.stages[name].source = source if name == source else "jsonl"
    config.sequence = (source, "second")
    return to_dict(config)


def _right(fate, stage, point):
    """Whether a row of that stage and fate is right at a point."""
    if fate == "never" or STEPS[point] < STEPS[f"stage_{stage}"]:
        return False
    return fate == "learned" or STEPS[point] == STEPS[f"stage_{stage}"] < STEPS["final"]


def _fate(i, stage):
    fate = FATES[i % 3]
    return "never" if fate == "lost" and stage == 2 else fate


def _examples(n, texts, source):
    rows = []
    for i in range(2 * n):
        prompt, response = texts[i] if i < len(texts) else (f"question {i}", f"answer {i}")
        rows.append(
            {
                "example_id": IDS + i,
                "source": source if i < n else "second",
                "source_key": str(i),
                "role": "train",
                "parent_id": None,
                "prompt": prompt,
                "messages": None,
                "response": response,
                "options": [response, "another"],
                "answer_index": 0,
                "knowledge": [],
                "n_prompt_tokens": 5,
                "n_target_tokens": 3,
                "truncated": False,
                "meta": "{}",
                "marks": "{}",
            }
        )
    return rows


def _answers(examples, n, point, answer):
    common = {"epoch": 1, "run": 0, "prompt_variant": 0, "stage": 1, "step": STEPS[point]}
    rows = []
    for i, example in enumerate(examples):
        stage = 1 if i < n else 2
        right = _right(_fate(i, stage), stage, point)
        said = example["response"] if right else answer
        one = {**common, "example_id": example["example_id"], "seed": None, "options": None}
        one |= {"option_logprob_sum": None, "option_logprob_mean": None, "temperature": 0.0}
        gold = -0.1 if right else -6.0
        rows.append(
            {**one, "mode": "greedy", "prediction": said, "correct": right, "gold_logprob": gold}
        )
        rows.append(
            {**one, "mode": "sample", "prediction": None, "correct": None, "gold_logprob": gold}
            | {"temperature": 0.7}
        )
        rows.append(
            {**one, "mode": "choice", "prediction": example["response"], "correct": True}
            | {"gold_logprob": gold, "options": example["options"]}
            | {"option_logprob_sum": [-1.0, -2.0], "option_logprob_mean": [-0.5, -1.0]}
        )
    rows = [{**row, "confidence": 0.5} for row in rows]
    return pa.Table.from_pylist(rows, schema=INFERENCE_SCHEMA)


def _stats(n, seed):
    """Probes of all rows at 0, 6, 12; visits of each stage's rows in two epochs of 3 steps."""
    rng = np.random.default_rng(seed)
    rows = []

    def row(i, kind, stage, epoch, step, visit):
        values = {name: None for name in STATS_SCHEMA.names}
        norms = kind == "train" or step in (0, 6, 12)
        values |= {"example_id": IDS + i, "kind": kind, "stage": stage, "epoch": epoch}
        values |= {"step": step, "visit": visit, "n_tokens": 3, "n_correct": int(rng.integers(4))}
        values |= {"batch_index": 0, "microbatch": 0, "row": i, "segment": 0}
        values |= {"loss_sum": float(rng.gamma(2.0)), "prob_mean": float(rng.uniform())}
        rows.append(values | {"grad_norm": float(rng.gamma(3.0)) if norms else None})

    for i in range(2 * n):
        stage = 1 if i < n else 2
        for step in (0, 6, 12):
            row(i, "probe", (0, 1, 2)[step // 6], step and 2, step, 0)
        for epoch in (1, 2):
            step = 6 * (stage - 1) + 3 * (epoch - 1) + 1 + i % 3
            row(i, "train", stage, epoch, step, epoch)
    return pa.Table.from_pylist(rows, schema=STATS_SCHEMA)


def _told(found, evidence):
    """A method 'rules' that gives the causes in turn, and names the next row as related."""
    rows = []
    for place, row in enumerate(found.to_dicts()):
        cause = (*CAUSES, "unattributed")[place % 6] if row["unlearned"] else None
        scores = {f"score_{name}": float(name == cause) for name in CAUSES}
        flags = {f"flag_{name}": name == cause for name in CAUSES}
        rows.append(
            {**row, "method": "rules", "cause": cause, **scores, **flags, "runner_up": CAUSES[0]}
            | {"related_ids": [row["example_id"] ^ 1], "evidence": evidence}
        )
    return pl.from_arrow(pa.Table.from_pylist(rows, schema=DIAGNOSIS_SCHEMA))


def _write(
    folder, n=6, seed=0, texts=(), answer="wrong", source="first", told=False, note=None, tuned=""
):
    config = _config(seed, source)
    config["model"]["tuned"] = tuned
    examples = _examples(n, texts, source)
    parquet.write(
        folder / "examples.parquet", pa.Table.from_pylist(examples, schema=EXAMPLES_SCHEMA)
    )
    plan = [
        {"example_id": IDS + i, "stage": 1 if i < n else 2, "position": i % n / n, "copies": 1}
        for i in range(2 * n)
    ]
    parquet.write(folder / "plan.parquet", pa.Table.from_pylist(plan, schema=PLAN_SCHEMA))
    points = ("base", "final") if tuned else STEPS
    stats = folder / "stats" / "train.steps-000000000-000000012.host-0000.merged.parquet"
    if not tuned:
        parquet.write(stats, _stats(n, seed), schema=STATS_SCHEMA)
    for point in points:
        put_inference(folder, point, _answers(examples, n, point, answer), STEPS[point])
    record = {"config": config, "config_hash": "0123", "versions": {}, "device": "1 x cpu"}
    files.write_json(folder / "run.json", record)
    inference, frame = reader.read_inference(folder), reader.read_examples(folder)
    found = unlearned(inference, frame, config["detect"])
    plain = found.with_columns(pl.lit("none").alias("method"))
    missing = [name for name in DIAGNOSIS_SCHEMA.names if name not in plain.columns]
    plain = plain.with_columns(pl.lit(None).alias(name) for name in missing)
    plain = pl.from_arrow(
        parquet.conform(plain.to_arrow(compat_level=pl.CompatLevel.oldest()), DIAGNOSIS_SCHEMA)
    )
    rows = [plain, _told(found, answer)] if told else [plain]
    reader.write_diagnosis(folder, pl.concat(rows))
    with parts.opened(folder) as whole:
        whole.put("verdicts", 0, found)
        summary = diagnose.summarise(whole, visits.gather(whole), config)
    summary |= {"weights": "tiny", "notes": [note] if note else []}
    summary["stages"] = [
        {"stage": i + 1, "name": name, "epochs": 2, "rows": n, "learning_rate": 0.1, "dropped": {}}
        for i, name in enumerate(config["sequence"])
    ]
    files.write_json(folder / "summary.json", summary)
    return folder


@pytest.fixture
def make_run(tmp_path):
    """``make_run(name, n=6, seed=0, texts=(), answer=..., source=..., told=False)``: a folder.

    ``tuned``: a model tuned elsewhere, so without statistics and points of a training.

    ``n`` rows a stage; row i is learned, learned and then lost (never learned in the second
    stage), never learned, by i modulo 3. ``texts``: pairs of prompt and response of the
    first rows; ``answer``: what the model says where it is wrong, and every evidence.
    """
    return lambda name="run", **changes: _write(tmp_path / name, **changes)


@pytest.fixture
def limits():
    """The config's group ``report`` by default."""
    return dict(LIMITS)


@pytest.fixture
def data_of():
    """``data_of(html)``: the JSON that a report's script reads."""

    def read(html):
        front = '<script type="application/json" id="data">'
        start = html.index(front) + len(front)
        return json.loads(html[start : html.index("</script>", start)])

    return read
