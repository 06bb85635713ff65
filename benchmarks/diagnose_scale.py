"""What the diagnosis of a large run takes: minutes and peak resident memory, in all and by part.

    python benchmarks/made_run.py --examples 2041000 --out /tmp/made    # 100 million rows
    POLARS_MAX_THREADS=2 python benchmarks/made_run.py --compact --out /tmp/made
    POLARS_MAX_THREADS=2 python benchmarks/diagnose_scale.py --workdir /tmp/made

Peak memory is the process's own (``ru_maxrss``); of each part it is the highest resident size
seen during it, sampled every 20 ms, which is more than the part's own where memory of an earlier
part was not given back.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import threading
import time
from pathlib import Path

from ilp_jax import files
from ilp_jax.analysis import detection, forgetting, paper, rules, signal_parts, signals
from ilp_jax.analysis import diagnose as phase
from ilp_jax.analysis.parts import Parts

PARTS = {
    "answers, divided": (Parts, "_distribute"),
    "verdicts": (phase, "unlearned"),
    "signals": (signals, "compute"),
    "  near-duplicates": (signal_parts, "duplicates"),
    "  patterns": (signal_parts, "patterns"),
    "  of visits": (signal_parts, "of_training"),
    "  ranks": (signals, "ranks"),
    "visits, gathered": (phase, "gather"),
    "summary": (phase, "summarise"),
    "  detection": (detection, "from_points"),
    "causes": (rules, "judge"),
    "causes, rules": (rules, "combine"),
    "causes, the study's": (paper, "combine"),
    "forgetting": (forgetting, "summarise"),
}
"""What is timed: the parts' names, the modules and functions that do them; indented: within."""


class Meter:
    """Adds up seconds and notes the highest resident size while a part runs."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self.peak: dict[str, float] = {}
        self._running: list[str] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def __call__(self, name, function):
        def timed(*args, **kwargs):
            self._running.append(name)
            start = time.monotonic()
            try:
                return function(*args, **kwargs)
            finally:
                self._running.remove(name)
                self.seconds[name] = self.seconds.get(name, 0) + time.monotonic() - start

        return timed

    def _sample(self):
        page = os.sysconf("SC_PAGE_SIZE")
        while not self._done.wait(0.02):
            with contextlib.suppress(OSError, IndexError):
                size = int(Path("/proc/self/statm").read_text().split()[1]) * page / 2**30
                for name in list(self._running):
                    self.peak[name] = max(self.peak.get(name, 0), size)


def main() -> None:
    """Diagnoses a run and prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--cores", type=int, default=2)
    args = parser.parse_args()
    os.sched_setaffinity(0, set(range(args.cores)))
    meter = Meter()
    for name, (module, function) in PARTS.items():
        setattr(module, function, meter(name, getattr(module, function)))
    record = files.read_json(args.workdir / "run.json")
    start, cpu = time.monotonic(), time.process_time()
    phase.diagnose(args.workdir, record["config"], record["about"])
    print(
        json.dumps(
            {
                "seconds": round(time.monotonic() - start, 1),
                "cpu_seconds": round(time.process_time() - cpu, 1),
                "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
                "parts": {
                    name: {"seconds": round(s, 1), "peak_gib": round(meter.peak.get(name, 0), 2)}
                    for name, s in meter.seconds.items()
                },
            }
        )
    )


if __name__ == "__main__":
    main()
