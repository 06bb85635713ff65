"""Frames of signals by hand: what a test does not name is null."""

import polars as pl
import pytest

FLOATS = (
    "own_stage_prob prob own_drop best_prob drop_from_best position slope_end rank_slope_end "
    "loss_last loss_fall_last base_gold_prob base_gold_rank base_wrong_confidence "
    "rank_base_wrong_confidence base_accuracy base_prob rank_base_prob base_greedy_confidence "
    "rank_base_greedy_confidence d_js twin_disagreement pattern_rarity pattern_relative"
)
INTEGERS = "example_id presentations near_duplicates pattern_count response_tokens"
SCHEMA = {
    **dict.fromkeys(INTEGERS.split(), pl.Int64),
    **dict.fromkeys(FLOATS.split(), pl.Float64),
    **dict.fromkeys(("point", "segment"), pl.String),
    **dict.fromkeys(
        ("learned_own_stage", "p_exist", "base_in_kind", "rival_predicted"), pl.Boolean
    ),
    "near_ids": pl.List(pl.Int64),
}


@pytest.fixture(scope="session")
def signals_of():
    """``signals_of(row, row, ...)``: a frame of signals; ids from 0, at ``final``, 4 visits."""

    def frame(*rows):
        common = {"point": "final", "presentations": 4, "response_tokens": 2}
        return pl.DataFrame(
            [{"example_id": i, **common, **row} for i, row in enumerate(rows)], schema=SCHEMA
        )

    return frame


@pytest.fixture(scope="session")
def thresholds():
    """The defaults of the config's group ``diagnose``, as plain values."""
    from ilp_jax.config import default_config, to_dict

    return to_dict(default_config())["diagnose"]


def write_planted_run(folder, n=40, seed=0, world=0, family="llama", methods=None, belief=True):
    """A diagnosed planted study written without training: truth, base answers, random causes.

    ``n`` rows a planted group (of 7; half as many filler rows), in contradiction groups of two;
    each has an untrained paraphrase. By ``sampled`` and ``choice`` a random half is unlearned,
    less of the controls; ``methods`` (name: share told right) give the causes.
    """
    import json

    import numpy as np
    import pyarrow as pa

    from ilp_jax import parquet
    from ilp_jax.data.tables import EXAMPLES_SCHEMA
    from ilp_jax.stats import reader
    from ilp_jax.stats.inference import put_inference
    from ilp_jax.stats.schema import (
        CAUSES,
        DIAGNOSIS_SCHEMA,
        INFERENCE_SCHEMA,
        PLANTED,
        UNATTRIBUTED,
    )
    from ilp_jax.stats.truth import write_truth

    rng = np.random.default_rng(seed)
    methods = methods or {"rules": 0.7, "model": 0.8, "majority": 0.0}
    told = (*CAUSES, UNATTRIBUTED)
    examples, truth, answers, diagnosis = [], [], [], []
    rows = [group for group in PLANTED for _ in range(n if group != "filler" else n // 2)]
    for i, group in enumerate(rows):
        for role in ("train", "paraphrase"):
            id_ = 1000 * (i + 1) + (role != "train")
            examples.append(
                {"example_id": id_, "source": "world", "source_key": str(id_), "role": role}
                | {"parent_id": None if role == "train" else id_ - 1, "prompt": f"what {i}"}
                | {"messages": None, "response": f"answer {i}", "options": []}
                | {
                    "meta": "{}",
                    "marks": "{}",
                    "answer_index": None,
                    "knowledge": [],
                    "n_prompt_tokens": 2,
                }
                | {"n_target_tokens": 3, "truncated": False}
            )
            truth.append(
                {"example_id": id_, "planted": group, "group_id": i // 2, "related_ids": []}
                | {"prerequisite_id": None, "detail": f"kind_{i % 3}"}
            )
            right = bool(rng.random() < 0.3)
            answers.append(
                {name: None for name in INFERENCE_SCHEMA.names}
                | {"example_id": id_, "stage": 0, "epoch": 0, "step": 0, "run": 0}
                | {"mode": "greedy", "prompt_variant": 0, "correct": right}
                | {"prediction": f"answer {i}" if right else "other", "confidence": rng.random()}
            )
        for detector in ("sampled", "choice"):
            unlearned = bool(rng.random() < (0.05 if group == "control" else 0.5))
            for method in ("none", *methods):
                one = {name: None for name in DIAGNOSIS_SCHEMA.names}
                one |= {"example_id": 1000 * (i + 1), "point": "final", "detector": detector}
                one |= {"method": method, "unlearned": unlearned}
                if unlearned and method != "none":
                    scores = rng.dirichlet(np.full(len(CAUSES), 0.5))
                    hit = group in CAUSES and rng.random() < methods[method]
                    one["cause"] = group if hit else told[rng.integers(len(told))]
                    one |= dict(zip((f"score_{c}" for c in CAUSES), scores, strict=True))
                diagnosis.append(one)
    # At another point everything is told otherwise: only the end counts.
    diagnosis += [{**one, "point": "stage_1", "unlearned": False} for one in diagnosis]
    parquet.write(
        folder / "examples.parquet", pa.Table.from_pylist(examples, schema=EXAMPLES_SCHEMA)
    )
    write_truth(folder, pl.DataFrame(truth, schema_overrides={"prerequisite_id": pl.Int64}))
    if belief:
        put_inference(folder, "base", pa.Table.from_pylist(answers, schema=INFERENCE_SCHEMA), 0)
    reader.write_diagnosis(folder, pa.Table.from_pylist(diagnosis, schema=DIAGNOSIS_SCHEMA))
    config = {"seed": 0, "world": {"seed": world, "family": family}}
    (folder / "run.json").write_text(json.dumps({"config": config}))
    (folder / "summary.json").write_text(json.dumps({"shares": [], "kept": "as it was"}))
    return folder


@pytest.fixture
def planted_run(tmp_path):
    """``planted_run(name="run", **how)``: see `write_planted_run`; gives the folder."""
    return lambda name="run", **how: write_planted_run(tmp_path / name, **how)
