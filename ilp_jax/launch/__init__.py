"""Runs on Cloud TPU pods: a checked description becomes commands and manifests.

Nothing here imports JAX. ``spec`` reads the description, ``slices`` knows the TPUs, ``xpk``,
``jobset`` and ``queued`` each say which commands start, show, stop and collect a run,
``steps`` prints those commands or runs them, and ``on_host`` and ``hub`` are what runs inside.
"""
