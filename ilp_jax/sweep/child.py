"""A command as the child of a sweep: it ends when the sweep does, however that ends.

    python -m ilp_jax.sweep.child run --config FILE --workdir DIR

Its standard input is a pipe that the sweep holds and never writes to. The kernel closes it
with the sweep, even one that is killed; a run left alone would hold its folder against the
sweep that goes on from there. Every run goes on where it was, so it may be killed as well.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from ilp_jax import cli


def main() -> int:
    """Runs the command of this process's words; gives its exit code."""
    threading.Thread(target=_end_with_the_sweep, daemon=True).start()
    return cli.main()


def _end_with_the_sweep() -> None:
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
