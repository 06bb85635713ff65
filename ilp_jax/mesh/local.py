"""A run of several processes on this machine, each with its own CPU devices.

    python -m ilp_jax.mesh.local --processes 2 --devices 2 -- run --config FILE --workdir DIR

What is learned so holds on a pod: the same collectives, statistics, checkpoints and restarts, on
CPUs. The first process speaks as ever, the others' lines have their number in front. When one
fails the rest are ended, and the exit code is the first failure's. SIGTERM and Ctrl-C reach all.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from ilp_jax.mesh.processes import ADDRESS, COUNT, NUMBER

_GRACE_SECONDS = 20.0  # for the others to end by themselves when one has failed


def start(
    words: Sequence[str], n_processes: int, n_devices: int, module: str = "ilp_jax"
) -> list[subprocess.Popen]:
    """Starts the processes of a run.

    Args:
      words: of the command.
      n_processes: how many.
      n_devices: CPU devices of each.
      module: run with ``python -m``.

    Returns:
      The processes, by number; the others' output has their number in front of each line.
    """
    address = f"127.0.0.1:{_free_port()}"
    flags = f"--xla_force_host_platform_device_count={n_devices}"
    found = []
    for number in range(n_processes):
        own = {ADDRESS: address, COUNT: str(n_processes), NUMBER: str(number)}
        own |= {"JAX_PLATFORMS": "cpu"}
        own["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
        output = subprocess.PIPE if number else None
        process = subprocess.Popen(
            [sys.executable, "-m", module, *words],
            env={**os.environ, **own},
            stdout=output,
            stderr=subprocess.STDOUT if number else None,
        )
        if number:
            threading.Thread(target=_relay, args=(number, process), daemon=True).start()
        found.append(process)
    return found


def wait(processes: Sequence[subprocess.Popen], grace: float = _GRACE_SECONDS) -> int:
    """Waits for all; when one fails, the rest get some seconds and are killed.

    Args:
      processes: of ``start``.
      grace: these seconds.

    Returns:
      The exit code of the one that failed first, else 0; 128 + N for a signal N.
    """
    code = 0
    while any(process.poll() is None for process in processes):
        failed = [process.returncode for process in processes if process.returncode]
        if failed:
            code = failed[0]
            break
        time.sleep(0.05)
    end = time.monotonic() + grace
    for process in processes:
        try:
            process.wait(max(end - time.monotonic(), 0.0) if code else None)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    code = code or next((p.returncode for p in processes if p.returncode), 0)
    return 128 - code if code < 0 else code


def _relay(number: int, process: subprocess.Popen) -> None:
    for line in process.stdout:
        sys.stderr.write(f"[{number}] {line.decode(errors='replace')}")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def main() -> int:
    """Runs a command in several processes; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ilp_jax.mesh.local", description=__doc__)
    parser.add_argument("--processes", type=int, default=2, help="how many (default 2)")
    parser.add_argument("--devices", type=int, default=2, help="devices of each (default 2)")
    parser.add_argument("words", nargs="+", help="-- and a command of ilp with its words")
    options = parser.parse_args()
    processes = start(options.words, options.processes, options.devices)

    def pass_on(number, frame):
        for process in processes:
            process.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, pass_on)
    return wait(processes)


if __name__ == "__main__":
    sys.exit(main())
