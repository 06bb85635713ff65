"""A run of two processes that is killed again and again: does it end as one left alone?

    python benchmarks/faults.py --kills 20 --out /tmp/faults

Trains a tiny random model on made-up rows (two stages, 36 updates, probes, detection) with two
processes of two CPU devices each: once without a fault, then with ``--kills`` faults at random
moments, each followed by the same command. A fault is SIGKILL of either process, SIGKILL of both,
or SIGTERM; once the newest checkpoint is cut short as well; then one run is killed inside a
checkpoint's save and another inside a flush of statistics. Whenever a run has come to its end, its
statistics, sorted by key, must be bitwise those of the run without faults, and so must verdicts
and answers; then another is begun. Prints a line a fault.

Expected: ``0 columns differ``; about a minute a fault on 2 busy cores, most of it starting Python.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl

from ilp_jax import files
from ilp_jax.mesh import local
from ilp_jax.stats.reader import read_stats
from ilp_jax.stats.schema import KEY

ROOT = Path(__file__).resolve().parents[1]
# Ends its own process by SIGKILL at a call of a function whose arguments contain a text.
FATAL = """
import importlib, os, signal, sys
target, n, text = {moment!r}
module, _, path = target.partition(":")
*owners, name = path.split(".")
owner = importlib.import_module(module)
for one in owners:
    owner = getattr(owner, one)
real, calls = getattr(owner, name), 0

def fatal(*args, **kwargs):
    global calls
    calls += text in repr((args, kwargs))
    if calls == n and os.environ["JAX_PROCESS_ID"] == "{victim}":
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)

setattr(owner, name, fatal)
from ilp_jax.cli import main

sys.exit(main())
"""
MOMENTS = {
    "inside a checkpoint's save": ("ilp_jax.train.checkpoint:write_checksums", 1, "state"),
    "inside a flush of statistics": ("os:replace", 2, "stats/.train"),
}


def command(inputs: Path, workdir: Path) -> list[str]:
    """Words of the run."""
    model, data = inputs / "model", inputs / "rows.jsonl"
    study = "epochs=6,learning_rate=0.01,batch_size=4,held_out=2"
    return [
        *("run", "--config", f"{ROOT / 'configs' / 'own.py'}:model={model},data={data},{study}"),
        *("--workdir", str(workdir)),
        "--config.checkpoint.every_steps=5",
        "--config.convergence.relative_fall=0.2",
        "--config.checkpoint.keep=2",
        "--config.mesh.heartbeat_seconds=20",
        "--config.mesh.processes=2",
    ]


def run(words: list[str], module: str = "ilp_jax") -> int:
    """A run to its end; its exit code."""
    return local.wait(local.start(words, 2, 2, module))


def fault(words: list[str], kind: str, after: float) -> str:
    """Starts a run, does something to it after some seconds; what became of it."""
    processes = local.start(words, 2, 2)
    time.sleep(after)
    if all(process.poll() is not None for process in processes):
        return "had ended"
    hit = {"one": processes[-1:], "first": processes[:1]}.get(kind, processes)
    for process in hit:
        process.send_signal(signal.SIGTERM if kind == "terminate" else signal.SIGKILL)
    return f"exit code {local.wait(processes, grace=30.0)}"


def is_finished(workdir: Path, phase: str) -> bool:
    """Whether a phase of a run is done."""
    record = workdir / "run.json"
    return record.exists() and phase in json.loads(record.read_text())["finished"]


def n_checkpoints(workdir: Path) -> int:
    """Checkpoints that stand there, committed."""
    folder = workdir / "checkpoints/state"
    return sum(p.name.isdigit() for p in folder.iterdir()) if folder.exists() else 0


def cut_newest(workdir: Path) -> str:
    """Cuts the largest file of the newest checkpoint in half."""
    steps = [p for p in (workdir / "checkpoints/state").iterdir() if p.name.isdigit()]
    newest = max(steps, key=lambda p: int(p.name))
    victim = max(
        (p for p in newest.rglob("*") if p.is_file() and p.name != "checksums.json"),
        key=lambda p: p.stat().st_size,
    )
    os.truncate(victim, victim.stat().st_size // 2)
    return f"{newest.name}/{victim.relative_to(newest)}"


def differing(a: Path, b: Path) -> list[str]:
    """Columns that differ in a bit: statistics, verdicts and answers."""

    def tables(run: Path) -> dict[str, pl.DataFrame]:
        found = {"stats": read_stats(run).sort(KEY)}
        names = ["diagnosis.parquet", "signals.parquet", "examples.parquet", "plan.parquet"]
        names += [f"inference/{p.name}" for p in sorted((run / "inference").glob("*.parquet"))]
        return found | {name: files.read_parquet(run / name) for name in names}

    one, other = tables(a), tables(b)
    return [
        f"{name}: {column}"
        for name, table in one.items()
        for column in table.columns
        if not table[column].equals(other[name][column], null_equal=True)
        or table[column].dtype.is_float()
        and table[column].drop_nulls().to_numpy().tobytes()
        != other[name][column].drop_nulls().to_numpy().tobytes()
    ]


def main() -> int:
    """Runs the benchmark; 0 where nothing differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, value in (
        ("JAX_COMPILATION_CACHE_DIR", str(options.out / "compiled")),
        ("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0"),
        ("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1"),
        ("PYTHONPATH", f"{options.out}:{ROOT}"),
    ):
        os.environ[name] = value
    make = "import conftest, json, sys; from pathlib import Path; f = Path(sys.argv[1]);"
    make += "conftest.write_tiny_model(f / 'model'); (f / 'rows.jsonl').write_text("
    make += "''.join(json.dumps(row) + '\\n' for row in conftest.tiny_rows()))"
    subprocess.run([sys.executable, "-c", make, str(options.out)], cwd=ROOT / "tests", check=True)
    quiet, killed = options.out / "alone", options.out / "killed"
    for folder in (quiet, killed):
        shutil.rmtree(folder, ignore_errors=True)
    start = time.monotonic()
    assert run(command(options.out, quiet)) == 0
    alone = time.monotonic() - start
    print(f"without a fault: {alone:.0f} s", flush=True)

    rng, words = random.Random(options.seed), command(options.out, killed)
    told: list[dict] = []
    found: list[str] = []

    def tell(name: str, then: str, **more: float) -> None:
        told.append({"fault": name, **more, "then": then})
        print(len(told), told[-1], flush=True)

    def begin_again() -> None:
        """A run that has ended is compared, and another begun."""
        if is_finished(killed, "report"):
            found.extend(differing(quiet, killed))
            print(f"   the run ended; {len(found)} columns differ", flush=True)
            shutil.rmtree(killed)

    for number in range(options.kills):
        begin_again()
        kind = rng.choice(["one", "first", "all", "terminate"])
        after = rng.uniform(0.1, 0.7) * alone
        tell(kind, fault(words, kind, after), after_s=round(after, 1))
        if number >= options.kills // 2 and not any("cut" in one["fault"] for one in told):
            if n_checkpoints(killed) > 1 and not is_finished(killed, "train"):
                tell("newest checkpoint cut short", cut_newest(killed))
    for name, moment in MOMENTS.items():
        begin_again()
        shutil.rmtree(killed, ignore_errors=True)
        (options.out / "fatal_run.py").write_text(FATAL.format(moment=moment, victim=0))
        tell(name, f"exit code {run(words, 'fatal_run')}")
    assert run(words) == 0
    found.extend(differing(quiet, killed))
    print(f"{len(told)} faults; {len(found)} columns differ {found}")
    (options.out / "faults.json").write_text(json.dumps({"faults": told, "differ": found}))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
