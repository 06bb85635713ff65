"""A run of two processes that is harmed again and again: does it end as one left alone?

    python benchmarks/faults.py --kills 20 --out /tmp/faults
    python benchmarks/faults.py --bucket --out /tmp/faults      # in a bucket (needs gcsfs)
    mount -t tmpfs -o size=32m tmpfs /mnt/small
    python benchmarks/faults.py --disk /mnt/small --out /tmp/faults

Trains a tiny random model on made-up rows (two stages, 36 updates, probes, detection) with two
processes of two CPU devices each: once on a disk without a fault, once where faults are to be
done (where it lies should change nothing), then with ``--kills`` faults at random moments, each
followed by the same command. A fault is SIGKILL of either process, SIGKILL of both, or SIGTERM;
with ``--bucket`` also 5 to 90 seconds in which the bucket (``bucket_server.py``) answers nothing
but 503, and with ``--disk`` as many in which the disk is full. Once the newest checkpoint is cut
short as well; then one run is killed inside a checkpoint's save and another inside a flush.
Whenever a run has come to its end, its statistics, sorted by key, must be bitwise those of the run
without faults, and so must verdicts and answers; then another is begun. Prints a line a fault.

Expected: ``0 columns differ``; about a minute a fault on 2 busy cores, most of it starting Python.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import bucket_server
import polars as pl
from etils import epath

from ilp_jax import files, parquet
from ilp_jax.mesh import local
from ilp_jax.stats.reader import read_stats
from ilp_jax.stats.schema import KEY

ROOT = Path(__file__).resolve().parents[1]
# Moments of tests/fatal_run.py.
ON_DISK = {
    "inside a checkpoint's save": ("ilp_jax.train.checkpoint:write_checksums", 1, "state"),
    "inside a flush of statistics": ("os:replace", 2, "stats/.train"),
}
IN_BUCKET = {
    "inside a checkpoint's save": ("gcsfs.core:GCSFile._upload_chunk", 1, "checkpoints/state"),
    "inside a flush of statistics": ("gcsfs.core:GCSFile._upload_chunk", 2, "stats/train"),
}


def command(inputs: Path, workdir: epath.Path) -> list[str]:
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
    with no_longer_than(local.start(words, 2, 2, module)) as processes:
        return local.wait(processes)


@contextlib.contextmanager
def no_longer_than(
    processes: list[subprocess.Popen], seconds: float = 900.0
) -> Iterator[list[subprocess.Popen]]:
    """Kills processes that hang, which shows in their exit code, 137."""

    def end() -> None:
        print("hangs", flush=True)
        for process in processes:
            process.kill()

    timer = threading.Timer(seconds, end)
    timer.start()
    try:
        yield processes
    finally:
        timer.cancel()


class Place:
    """Where the killed run lies, and how that place fails and comes back."""

    def __init__(self, workdir: epath.Path, port: int | None, disk: Path | None):
        self.workdir, self.port, self.disk = workdir, port, disk
        self.fails = "outage" if port else "disk full" if disk else None

    def away(self, seconds: float) -> None:
        """Fails at once; comes back after some seconds, in the background."""
        if self.port:
            self._ask("outage", str(seconds))
            return
        ballast = self.disk / "ballast"
        with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"0" * 4096)
        threading.Timer(seconds, lambda: ballast.unlink(missing_ok=True)).start()

    def back(self) -> None:
        """Waits until it is back."""
        while self.disk and (self.disk / "ballast").exists():
            time.sleep(0.1)
        if self.port:
            self._ask("restore", "")

    def _ask(self, path: str, body: str) -> None:
        request = Request(f"http://localhost:{self.port}/{path}", body.encode(), method="POST")
        urlopen(request).close()


def fault(words: list[str], place: Place, kind: str, after: float, seconds: float) -> str:
    """Starts a run, does something to it after some seconds; what became of it."""
    with no_longer_than(local.start(words, 2, 2)) as processes:
        time.sleep(after)
        if all(process.poll() is not None for process in processes):
            return "had ended"
        if kind == place.fails:
            place.away(seconds)
            code = local.wait(processes, grace=30.0)
            place.back()
            return f"exit code {code}"
        hit = {"one": processes[-1:], "first": processes[:1]}.get(kind, processes)
        for process in hit:
            process.send_signal(signal.SIGTERM if kind == "terminate" else signal.SIGKILL)
        return f"exit code {local.wait(processes, grace=30.0)}"


def is_finished(workdir: epath.Path, phase: str) -> bool:
    """Whether a phase of a run is done."""
    record = workdir / "run.json"
    return record.exists() and phase in json.loads(record.read_text())["finished"]


def committed(workdir: epath.Path) -> list[epath.Path]:
    """Checkpoints that stand there, the newest last."""
    folder = workdir / "checkpoints/state"
    found = [p for p in folder.iterdir() if p.name.isdigit()] if folder.exists() else []
    if not files.is_local(workdir):
        found = [p for p in found if (p / "commit_success.txt").exists()]
    return sorted(found, key=lambda p: p.name)


def cut_newest(workdir: epath.Path) -> str:
    """Cuts the largest file of the newest checkpoint in half."""
    newest = committed(workdir)[-1]
    found = [newest]
    for folder in found:  # grows while it is gone through
        found += [p for p in folder.iterdir() if p.is_dir()]
    inside = [p for folder in found for p in folder.iterdir() if p.is_file()]
    contents = {p: p.read_bytes() for p in inside if p.name != "checksums.json"}
    victim = max(contents, key=lambda p: len(contents[p]))
    victim.write_bytes(contents[victim][: len(contents[victim]) // 2])
    return f"{newest.name}/{victim.relative_to(newest)}"


def differing(a: epath.Path, b: epath.Path) -> list[str]:
    """Columns that differ in a bit: statistics, verdicts and answers."""

    def tables(run: epath.Path) -> dict[str, pl.DataFrame]:
        found = {"stats": read_stats(run).sort(KEY)}
        names = ["diagnosis.parquet", "signals.parquet", "examples.parquet", "plan.parquet"]
        names += [f"inference/{p.name}" for p in files.list_files(run / "inference", ".parquet")]
        return found | {name: parquet.read(run / name) for name in names}

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


@contextlib.contextmanager
def place(options: argparse.Namespace) -> Iterator[Place]:
    """Where runs are killed: a folder, a disk of its own, or a bucket, served meanwhile."""
    if not options.bucket:
        yield Place(epath.Path(options.disk or options.out) / "killed", None, options.disk)
        return
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    os.environ.update(bucket_server.environment(port))
    words = [sys.executable, bucket_server.__file__, "--port", str(port)]
    with open(options.out / "bucket.txt", "wb") as told:
        server = subprocess.Popen(words, stdout=told, stderr=told)
    try:
        yield Place(epath.Path(f"gs://{bucket_server.BUCKET}/killed"), port, None)
    finally:
        server.kill()
        server.wait()


def main() -> int:
    """Runs the benchmark; 0 where nothing differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--disk", type=Path, help="a small file system, to be filled")
    where.add_argument("--bucket", action="store_true", help="runs lie in a bucket, which fails")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, value in (
        ("JAX_COMPILATION_CACHE_DIR", str(options.out / "compiled")),
        ("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0"),
        ("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1"),
        ("PYTHONPATH", f"{ROOT}:{ROOT / 'tests'}:{os.environ.get('PYTHONPATH', '')}"),
    ):
        os.environ[name] = value
    make = "import conftest, json, sys; from pathlib import Path; f = Path(sys.argv[1]);"
    make += "conftest.write_tiny_model(f / 'model'); (f / 'rows.jsonl').write_text("
    make += "''.join(json.dumps(row) + '\\n' for row in conftest.tiny_rows()))"
    subprocess.run([sys.executable, "-c", make, str(options.out)], cwd=ROOT / "tests", check=True)
    with place(options) as killed:
        return series(options, epath.Path(options.out / "alone"), killed)


def series(options: argparse.Namespace, quiet: epath.Path, killed: Place) -> int:
    """The run left alone, the faults, and what differs."""
    workdir, words = killed.workdir, command(options.out, killed.workdir)
    for folder in (quiet, workdir):
        if folder.exists():
            folder.rmtree()
    # The same on a disk: where a run lies changes nothing of it.
    start = time.monotonic()
    assert run(command(options.out, quiet)) == 0
    print(f"without a fault: {time.monotonic() - start:.0f} s", flush=True)
    start = time.monotonic()
    assert run(words) == 0  # also makes the compiled programs that later runs find
    alone = time.monotonic() - start
    found = differing(quiet, workdir)
    print(f"where faults are done: {alone:.0f} s, {len(found)} columns differ", flush=True)

    rng, ended = random.Random(options.seed), 1
    told: list[dict] = []

    def tell(name: str, then: str, **more: float) -> None:
        told.append({"fault": name, **more, "then": then})
        print(len(told), told[-1], flush=True)

    def begin_again() -> None:
        """A run that has ended is compared, and another begun."""
        nonlocal ended
        if is_finished(workdir, "report"):
            found.extend(differing(quiet, workdir))
            ended += 1
            print(f"   run {ended} ended; {len(found)} columns differ", flush=True)
            workdir.rmtree()

    workdir.rmtree()
    kinds = ["one", "first", "all", "terminate", *([killed.fails] if killed.fails else [])]
    for number in range(options.kills):
        begin_again()
        kind = rng.choice(kinds)
        after, seconds = rng.uniform(0.15, 0.7) * alone, rng.uniform(5, 90)
        more = {"seconds": round(seconds)} if kind == killed.fails else {}
        then = fault(words, killed, kind, after, seconds)
        tell(kind, then, after_s=round(after, 1), **more)
        if number >= options.kills // 2 and not any("cut" in one["fault"] for one in told):
            if len(committed(workdir)) > 1 and not is_finished(workdir, "train"):
                tell("newest checkpoint cut short", cut_newest(workdir))
    for name, moment in (IN_BUCKET if killed.port else ON_DISK).items():
        begin_again()
        if workdir.exists():
            workdir.rmtree()
        os.environ["FATAL_CALL"] = json.dumps(moment)
        tell(name, f"exit code {run(words, 'fatal_run')}")
    assert run(words) == 0
    found.extend(differing(quiet, workdir))
    print(f"{len(told)} faults, {ended + 1} runs; {len(found)} columns differ {found}")
    written = {"faults": told, "runs": ended + 1, "differ": found}
    (options.out / "faults.json").write_text(json.dumps(written))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
