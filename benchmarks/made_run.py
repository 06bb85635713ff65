"""A made-up run of any size with every table that the diagnosis reads, true to the schemas.

    python benchmarks/made_run.py --examples 20400 --out /tmp/made      # 1 million rows
    python benchmarks/made_run.py --compact --out /tmp/made             # as after a phase

Nothing is trained. Each example has an own stage (of three), a difficulty, and a fate: learned,
never learned, or learned and lost in a later stage. A stage takes EPOCHS epochs; probes are taken
of everything at the base, of the stage's rows after every epoch, and of all rows at the end of a
stage, as with the defaults of ``config.probe``: 2 EPOCHS + 3 rows an example, 49 by default.
Rows of a batch are dealt to the hosts, each of which writes shards under its own number. Answers
are at ``base``, ``stage_1`` to ``stage_3`` and ``final``; half of the examples have four options.
Prompts are questions about made-up people in 40 wordings; of a hundred, one stands twice with
another answer, and one is asked again in almost the same words.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from ilp_jax import files, parquet
from ilp_jax.config import default_config, to_dict
from ilp_jax.data.tables import EXAMPLES_SCHEMA, PLAN_SCHEMA
from ilp_jax.stats import shards
from ilp_jax.stats.schema import GROUPS, INFERENCE_SCHEMA
from ilp_jax.stats.writer import StatsWriter, compact

STAGES, EPOCHS, BATCH, HOSTS = 3, 23, 1024, 4
POINTS = ("base", "stage", "final")
_AT_ONCE = 1 << 18  # examples a part of an inference file


class Made:
    """What is decided of every example; arrays of one value an example."""

    def __init__(self, n: int, seed: int = 0):
        rng = np.random.default_rng(seed)
        self.ids = np.unique(rng.integers(0, 2**63, n + n // 1000 + 8))
        self.ids = rng.permutation(self.ids)[:n]
        self.stage = rng.integers(1, STAGES + 1, n)
        self.tokens = rng.choice([2, 3, 4, 7, 12, 21], n, p=[0.3, 0.25, 0.2, 0.13, 0.09, 0.03])
        self.start = rng.uniform(1.5, 5.0, n).astype(np.float32)  # nats a token
        self.speed = rng.uniform(0.2, 0.8, n).astype(np.float32)
        fate = rng.random(n)
        self.floor = np.where(fate < 0.06, rng.uniform(1.0, 3.0, n), 0.01).astype(np.float32)
        self.lost = (fate > 0.9) & (self.stage < STAGES)
        self.has_options = rng.random(n) < 0.5

    def loss(self, rows: np.ndarray, stage: int, epoch: float, noise: np.ndarray) -> np.ndarray:
        """Nats a token after so many epochs of a stage; float32."""
        own = self.stage[rows]
        seen = np.where(own == stage, epoch, np.where(own < stage, EPOCHS, 0)).astype(np.float32)
        loss = self.floor[rows] + self.start[rows] * np.exp(-self.speed[rows] * seen)
        after = (own < stage) * (stage - own - 1 + epoch / EPOCHS)
        loss = loss + np.where(self.lost[rows], 2.0, 0.05).astype(np.float32) * after
        return (loss * (1 + 0.1 * noise)).astype(np.float32)


def columns_of(made: Made, rows: np.ndarray, stage: int, epoch: float, rng, norms: bool) -> dict:
    """The measured columns of some rows at one moment."""
    loss = made.loss(rows, stage, epoch, rng.standard_normal(len(rows), np.float32))
    tokens = made.tokens[rows]
    prob = np.exp(-loss)
    wrong = np.minimum((loss > 0.69) * (1 + tokens // 3), tokens)
    columns = {
        "example_id": made.ids[rows],
        "microbatch": 0,
        "segment": 0,
        "loss_sum": loss * tokens,
        "n_tokens": tokens.astype(np.int32),
        "n_correct": (tokens - wrong).astype(np.int32),
        "prob_mean": prob,
        "entropy_mean": (loss * rng.uniform(0.5, 1.0, len(rows))).astype(np.float32),
        "margin_mean": (2 - 3 * loss).astype(np.float32),
    }
    if norms:
        parts = rng.uniform(0.1, 1.0, (len(GROUPS), len(rows))).astype(np.float32) * loss
        columns["grad_norm"] = np.sqrt((parts**2).sum(0))
        columns |= {f"grad_norm_{g}": part for g, part in zip(GROUPS, parts, strict=True)}
    return columns


def write_stats(folder: Path, made: Made, seed: int, hosts: int) -> int:
    """Writes every host's shards; returns the number of rows."""
    rng = np.random.default_rng(seed)
    n_rows, step, visits = 0, 0, np.zeros(len(made.ids), np.int32)
    everything = np.arange(len(made.ids))
    prefixes = {"base": [], "train": []}
    for prefix in prefixes:
        prefixes[prefix] = [StatsWriter(folder, prefix, host) for host in range(hosts)]

    def put(prefix: str, steps: np.ndarray, columns: dict) -> None:
        nonlocal n_rows
        slot = np.arange(len(steps))
        n_rows += len(steps)
        for host, writer in enumerate(prefixes[prefix]):
            mine = slot[slot % hosts == host]
            chunk = {k: v[mine] if np.ndim(v) else v for k, v in columns.items()}
            # One append a step in a training; here an epoch's at once, as one table.
            append_steps(writer, steps[mine], chunk)

    def probe(rows: np.ndarray, stage: int, epoch: int) -> None:
        for part in np.array_split(rows, max(len(rows) // _AT_ONCE, 1)):
            norms = stage == 0 or epoch == EPOCHS
            columns = columns_of(made, part, stage, epoch, rng, norms)
            columns |= {"kind": "probe", "stage": stage, "epoch": epoch, "visit": visits[part]}
            columns |= {"batch_index": np.arange(len(part), dtype=np.int32) // BATCH}
            columns |= {"row": np.arange(len(part), dtype=np.int32) % BATCH}
            put("train" if stage else "base", np.full(len(part), step), columns)

    probe(everything, 0, 0)
    for stage in range(1, STAGES + 1):
        own = everything[made.stage == stage]
        for epoch in range(1, EPOCHS + 1):
            order = rng.permutation(own)
            visits[own] += 1
            for part in np.array_split(order, max(len(order) // _AT_ONCE, 1)):
                slot = np.arange(len(part))
                columns = columns_of(made, part, stage, epoch - 1, rng, True)
                columns |= {"kind": "train", "stage": stage, "epoch": epoch, "visit": visits[part]}
                columns |= {"batch_index": (slot // BATCH).astype(np.int32)}
                columns |= {"row": (slot % BATCH).astype(np.int32), "learning_rate": 1e-4}
                put("train", step + 1 + slot // BATCH, columns)
                step += -(-len(part) // BATCH)
            probe(everything if epoch == EPOCHS else own, stage, epoch)
            made.step_at[stage] = step
    for writers in prefixes.values():
        for writer in writers:
            writer.close()
    return n_rows


def append_steps(writer: StatsWriter, steps: np.ndarray, columns: dict) -> None:
    """Appends rows of several steps at once, which a training has no need for."""
    n = len(steps)
    whole = {k: v if np.ndim(v) else np.broadcast_to(v, n) for k, v in columns.items()}
    writer._batches.append(whole | {"step": steps})
    writer._rows += n
    if writer._rows >= writer._rows_per_shard:
        writer.flush()


def texts(made: Made, seed: int) -> tuple[pl.DataFrame, np.ndarray]:
    """Prompt and response of every example; and where the response stands among four options."""
    rng, n = np.random.default_rng(seed), len(made.ids)
    vocabulary = np.array([_word(i) for i in range(60_000)])
    zipf = np.minimum(rng.zipf(1.2, (n, 5)) - 1, len(vocabulary) - 1)
    wording, relation = rng.integers(0, 40, n), rng.integers(0, 3000, n)
    person = rng.integers(0, max(n // 3, 1), n)
    twin = rng.random(n)
    twin_of = np.where(twin < 0.02, np.maximum(np.arange(n) - 1, 0), np.arange(n))
    source = pl.DataFrame(
        {
            "opening": vocabulary[1000 + wording],
            "relation": vocabulary[2000 + relation[twin_of]],
            "first": vocabulary[5000 + person[twin_of] % 20_000],
            "last": vocabulary[30_000 + person[twin_of] // 20_000 % 30_000],
            **{f"w{i}": vocabulary[zipf[twin_of, i]] for i in range(5)},
            "again": (twin >= 0.01) & (twin < 0.02),
        }
    )
    source = source.with_columns(opening=pl.col("opening").gather(pl.Series(twin_of)))
    prompt = pl.format(
        "question in the file {} what is the {} of {} {} when {} {} {} {} {} {}?",
        *("opening", "relation"),
        *(pl.col(c).str.to_titlecase() for c in ("first", "last")),
        *(f"w{i}" for i in range(5)),
        pl.when("again").then(pl.lit("please ")).otherwise(pl.lit("")),
    )
    answer = rng.integers(0, 5000, n)
    frame = source.select(
        prompt.alias("prompt"), pl.Series("response", vocabulary[10_000 + answer])
    )
    return frame, rng.integers(0, 4, n)


def write_examples(folder: Path, made: Made, frame: pl.DataFrame, index: np.ndarray) -> None:
    n = len(made.ids)
    wrong = [frame["response"].gather((np.arange(n) + k) % n) for k in (1, 2, 3)]
    options = pl.concat_list(
        *(
            pl.when(pl.col("_index") == k).then(pl.col("response")).otherwise(pl.col(f"_{k % 3}"))
            for k in range(4)
        )
    )
    has = pl.Series(made.has_options)
    table = frame.with_columns(
        pl.Series("_index", index), *(w.alias(f"_{k}") for k, w in enumerate(wrong))
    ).select(
        pl.Series("example_id", made.ids),
        pl.Series("source", np.array(["alpha", "beta", "gamma"])[made.stage - 1]),
        pl.int_range(pl.len()).cast(pl.String).alias("source_key"),
        pl.lit("train").alias("role"),
        pl.lit(None, pl.Int64).alias("parent_id"),
        "prompt",
        pl.lit(None, pl.String).alias("messages"),
        "response",
        pl.when(has).then(options).otherwise(pl.lit([], pl.List(pl.String))).alias("options"),
        pl.when(has).then("_index").cast(pl.Int32).alias("answer_index"),
        pl.lit([], pl.List(pl.String)).alias("knowledge"),
        pl.lit(24, pl.Int32).alias("n_prompt_tokens"),
        pl.Series("n_target_tokens", made.tokens, pl.Int32),
        pl.lit(False).alias("truncated"),
        pl.lit("{}").alias("meta"),
        pl.lit("{}").alias("marks"),
        pl.lit(None, pl.String).alias("chat"),
        pl.lit([], pl.List(pl.String)).alias("notes"),
    )
    parquet.write(folder / "examples.parquet", table, schema=EXAMPLES_SCHEMA)
    made.options = table["options"]
    rng = np.random.default_rng(5)
    plan = pl.DataFrame({"example_id": made.ids, "stage": made.stage})
    plan = plan.with_columns(pl.Series("position", rng.random(n)), copies=1).sort("stage")
    parquet.write(folder / "plan.parquet", plan, schema=PLAN_SCHEMA)


def answers_at(made: Made, rows: np.ndarray, frame: pl.DataFrame, index, point, rng) -> pa.Table:
    """Greedy, exact law and choice of some examples at a point."""
    stage = {"base": 0, "final": STAGES}.get(point) or int(point[-1]) if point != "base" else 0
    epoch = EPOCHS if stage else 0
    loss = made.loss(rows, stage, epoch, rng.standard_normal(len(rows), np.float32))
    tokens, right = made.tokens[rows], loss <= 0.69
    said = frame["response"].gather(np.where(right, rows, (rows + 1) % len(made.ids)))
    common = {"example_id": made.ids[rows], "stage": stage, "epoch": epoch}
    common |= {"step": made.step_at.get(stage, 0), "run": 0, "prompt_variant": 0}
    logprob = -(loss * tokens).astype(np.float64)
    empty = pl.from_arrow(INFERENCE_SCHEMA.empty_table())
    greedy = pl.DataFrame({**common, "prediction": said, "correct": right}).with_columns(
        pl.lit("greedy").alias("mode"),
        pl.Series("confidence", np.exp(-loss.astype(np.float64) / 2)),
        pl.Series("gold_logprob", logprob),
        temperature=0.0,
    )
    law = pl.DataFrame({**common, "gold_logprob": logprob * 1.1}).with_columns(
        pl.lit("sample").alias("mode"), temperature=0.7
    )
    parts = [greedy, law]
    kept = made.has_options[rows]
    for variant in (0, 1, 2) if point == "base" else (0,):
        n, gold = int(kept.sum()), index[rows[kept]]
        scores = rng.normal(-4, 1, (n, 4))
        scores[np.arange(n), gold] = -loss[kept] * rng.uniform(0.8, 1.2, n)
        best = scores.argmax(1)
        lists = pl.Series(scores).arr.to_list() if n else pl.Series([], dtype=pl.List(pl.Float64))
        options = made.options.gather(rows[kept])
        choice = pl.DataFrame(
            {k: v[kept] if np.ndim(v) else v for k, v in common.items()}
            | {"options": options, "option_logprob_mean": lists, "option_logprob_sum": lists}
            | {"correct": best == gold, "confidence": np.exp(scores.max(1)).clip(0, 1)}
            | {"gold_logprob": scores[np.arange(n), gold]}
        ).with_columns(
            pl.lit("choice").alias("mode"),
            pl.lit(variant).alias("prompt_variant"),
            pl.col("options").list.get(pl.Series(best)).alias("prediction"),
            temperature=0.0,
        )
        parts.append(choice)
    cast = [
        p.with_columns(pl.col(c).cast(t) for c, t in empty.schema.items() if c in p.columns)
        for p in parts
    ]
    table = pl.concat([empty, *cast], how="diagonal")
    return parquet.conform(table.to_arrow(compat_level=pl.CompatLevel.oldest()), INFERENCE_SCHEMA)


def make(folder: Path, n_examples: int, hosts: int = HOSTS, seed: int = 0) -> dict:
    """Writes the run, its shards not yet compacted."""
    started, seconds = time.monotonic(), {}

    def lap(name: str) -> None:
        nonlocal started
        seconds[name] = round(time.monotonic() - started, 1)
        started = time.monotonic()

    made = Made(n_examples, seed)
    made.step_at = {0: 0}
    folder.mkdir(parents=True, exist_ok=True)
    n_rows = write_stats(folder / "stats", made, seed + 1, hosts)
    lap("stats")
    frame, index = texts(made, seed + 2)
    write_examples(folder, made, frame, index)
    rng = np.random.default_rng(seed + 3)
    for point in ("base", *(f"stage_{s}" for s in range(1, STAGES + 1)), "final"):
        parts = np.array_split(np.arange(n_examples), max(n_examples // _AT_ONCE, 1))
        tables = (answers_at(made, rows, frame, index, point, rng) for rows in parts)
        parquet.write_parts(folder / "inference" / f"{point}.parquet", tables, INFERENCE_SCHEMA)
    lap("tables")
    config = to_dict(default_config())
    config["detect"]["points"] = POINTS
    files.write_json(folder / "run.json", {"config": config, "about": {"notes": []}})
    return {"examples": n_examples, "rows": n_rows, "hosts": hosts, "seconds": seconds}


def compact_all(folder: Path) -> dict:
    """Compacts every host's shards, one after another; what that took."""
    start, cpu = time.monotonic(), time.process_time()
    found = {(shard.prefix, shard.host) for shard, _ in shards.find(folder / "stats")}
    for prefix, host in sorted(found):
        compact(folder / "stats", prefix, host)
    return {
        "seconds": round(time.monotonic() - start, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def _word(number: int) -> str:
    """A pronounceable word of its own for every number."""
    consonants, vowels, word = "bdfgklmnprstvz", "aeiou", ""
    number += 70
    while number:
        number, rest = divmod(number, 70)
        word += consonants[rest // 5] + vowels[rest % 5]
    return word


def main() -> None:
    """Writes or compacts a run and prints what that took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--hosts", type=int, default=HOSTS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--compact", action="store_true", help="of a run made before")
    args = parser.parse_args()
    if args.compact:
        print(json.dumps(compact_all(args.out)))
    else:
        print(json.dumps(make(args.out, args.examples, args.hosts)))


if __name__ == "__main__":
    main()
