"""A sweep: the runs that a function beside a config yields, each a process with a folder.

    get_sweep of the config file -> runs -> one process each (jobs, child) -> sweep.json (ledger)

No JAX here: every run has it in its own process, which gives its memory back when it ends.
"""
