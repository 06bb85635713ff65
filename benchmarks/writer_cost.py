"""What writing the statistics costs a training: CPU seconds of its thread, and waits of the loop.

    python benchmarks/writer_cost.py                    # a planted world, 1.1 million parameters
    python benchmarks/writer_cost.py --rows 4000000     # the writer alone: microseconds a row

Runs the phases ``probe`` and ``train`` of a config in this process and takes three times of the
statistics' writer, from the first row of the training to the last: CPU of its own thread (all
that turns arrays into files), CPU of ``append`` in the loop's thread, and wall time that the loop
spent in ``append``, at most and in all. A flush before a checkpoint does wait, by contract, and is
counted apart. Shares are of the CPU seconds of the whole process over the same span, compilation
left out, so the denominator is as small as it can be. The smaller the model, the larger the share.

With ``--rows`` no model runs: a loop hands over made-up steps of 256 rows as fast as they are
taken, which gives the cost of a row for other models and batches: at R rows a second and host the
writer takes R times that.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time

import numpy as np

from ilp_jax.stats.schema import STATS_SCHEMA
from ilp_jax.stats.writer import StatsWriter

_ROWS_A_STEP = 256


class Meter:
    """Times of `StatsWriter`'s methods, taken by wrapping them."""

    def __init__(self):
        self.thread, self.rows = 0.0, 0
        self.append_cpu, self.append_wall, self.append_most, self.flush_wall = 0.0, 0.0, 0.0, 0.0
        self.first = self.last = None

    def install(self, prefix: str) -> None:
        """Wraps the methods for writers of one phase."""
        write, append, flush = StatsWriter._write, StatsWriter.append, StatsWriter.flush

        def timed_write(writer, batches):
            start = time.thread_time()
            try:
                return write(writer, batches)
            finally:
                if writer._shard.prefix == prefix:
                    self.thread += time.thread_time() - start

        def timed_append(writer, step, columns):
            if writer._shard.prefix != prefix:
                return append(writer, step, columns)
            self.first = self.first or (time.monotonic(), process_cpu())
            wall, cpu = time.monotonic(), time.thread_time()
            append(writer, step, columns)
            taken = time.monotonic() - wall
            self.append_cpu += time.thread_time() - cpu
            self.append_wall += taken
            self.append_most = max(self.append_most, taken)
            self.rows += len(columns["example_id"])

        def timed_flush(writer):
            start = time.monotonic()
            flush(writer)
            if writer._shard.prefix == prefix:
                self.flush_wall += time.monotonic() - start
                self.last = time.monotonic(), process_cpu()

        StatsWriter._write, StatsWriter.append, StatsWriter.flush = (
            timed_write,
            timed_append,
            timed_flush,
        )

    def figures(self) -> dict[str, float]:
        """The times, and their shares of the process's CPU."""
        wall, cpu = (b - a for a, b in zip(self.first, self.last, strict=True))
        return {
            "rows": self.rows,
            "seconds": round(wall, 2),
            "process_cpu_seconds": round(cpu, 2),
            "writer_thread_cpu_seconds": round(self.thread, 4),
            "append_cpu_seconds": round(self.append_cpu, 4),
            "writer_share_of_cpu": round((self.thread + self.append_cpu) / cpu, 5),
            "microseconds_a_row": round(1e6 * (self.thread + self.append_cpu) / self.rows, 3),
            "append_share_of_wall": round(self.append_wall / wall, 5),
            "longest_append_ms": round(1e3 * self.append_most, 3),
            "flush_share_of_wall": round(self.flush_wall / wall, 5),
        }


def process_cpu() -> float:
    """CPU seconds of this process, user and system, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def trained(words: list[str]) -> dict[str, float]:
    """Trains a study by the real commands and gives what its writer took."""
    from ilp_jax import cli

    with tempfile.TemporaryDirectory() as workdir:
        place = ["--workdir", f"{workdir}/run", *words]
        meter = Meter()
        meter.install("train")
        for command in ("probe", "train"):
            code = cli.main([command, *place])
            if code:
                raise SystemExit(code)
        return meter.figures()


def alone(n_rows: int, rows_per_shard: int) -> dict[str, float]:
    """The writer without a model."""
    rng = np.random.default_rng(0)
    meter = Meter()
    meter.install("train")
    with tempfile.TemporaryDirectory() as folder:
        with StatsWriter(folder, rows_per_shard=rows_per_shard) as writer:
            for step in range(1, n_rows // _ROWS_A_STEP + 1):
                columns = {"kind": "train", "stage": 1, "epoch": 1, "microbatch": 0, "segment": 0}
                for field in STATS_SCHEMA:
                    if field.name in columns or field.name == "step":
                        continue
                    kind = field.type.to_pandas_dtype()
                    values = rng.random(_ROWS_A_STEP, np.float32) * 1000
                    columns[field.name] = values.astype(kind)
                columns["example_id"] = rng.integers(0, 2**62, _ROWS_A_STEP)
                writer.append(step, columns)
        return meter.figures()


def main() -> None:
    """Prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=0, help="rows without a model; 0: train")
    parser.add_argument("--rows-per-shard", type=int, default=1 << 19)
    parser.add_argument("--config", default="configs/controlled.py:family=llama,world=0")
    args, overrides = parser.parse_known_args()
    if args.rows:
        print(json.dumps(alone(args.rows, args.rows_per_shard)))
    else:
        print(json.dumps(trained(["--config", args.config, *overrides])))


if __name__ == "__main__":
    main()
