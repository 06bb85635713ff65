"""``ilp`` that ends its own process by SIGKILL at a call of a function.

    FATAL_CALL='["os:replace", 2, "stats/.train"]' python tests/fatal_run.py run --config ...

The variable has the function (module:path), the number of the call, and a text that the calls'
arguments contain, else they are not counted. Of several processes the first alone is killed.
"""

import importlib
import json
import os
import signal
import sys

from ilp_jax.cli import main


def arm(target: str, n: int, text: str) -> None:
    """Makes the n-th call with that text fatal."""
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    owner = importlib.import_module(module)
    for one in owners:
        owner = getattr(owner, one)
    real, calls = getattr(owner, name), 0

    def fatal(*args, **kwargs):
        nonlocal calls
        calls += text in repr((args, kwargs))
        if calls == n:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(owner, name, fatal)


if __name__ == "__main__":
    if os.environ.get("JAX_PROCESS_ID", "0") == "0":
        arm(*json.loads(os.environ["FATAL_CALL"]))
    sys.exit(main())
