"""Remedies on a real model and real rows: what brings back what later stages erased?

    python -m ilp_jax run      --config configs/remedies_real.py --workdir runs/real
    python -m ilp_jax mitigate --workdir runs/real --jobs 1

The quick start's three stages with 64 rows each, 200 in all with the planted twins, for 4 epochs;
no gradient norms, and probes at the ends of stages alone. Then five trainings from the base model:
`none`, `randomised` (each unlearned row is dealt one remedy or none), `sham`, `diagnosed` and
`masked` (all are told their passages, without the answer). A quarter as many pages of general text
(SciQ's passages) as visits go before fine-tuning. Both commands go on where they were stopped.

Expected (seed 0): 166 of 200 trained rows unlearned at the end, 128 of them with a cause.
`diagnosed` brings back 79, `none` 7, and loses none of 34 learned ones (`none`: 1); `masked` 10. In
`randomised` 20 of 20 forgotten rows that were dealt replay come back, and 15 of 20 left alone
beside them, so that the row's own replay is worth .25; under the sham 4 of 20. Of base conflicts
2 of 10, 3 of 10 and 2 of 10. On 2 CPU cores the run took 13:38 (min:s) beside other work, and the
arms 48:56 behind other work.
"""

import importlib.util
from pathlib import Path


def get_config(rows: int = 64, epochs: int = 4):
    """The quick start with more rows, and its arms.

    Args:
      rows: real rows a stage.
      epochs: passes over each stage.
    """
    path = Path(__file__).with_name("quickstart.py")
    spec = importlib.util.spec_from_file_location("quickstart", path)
    quickstart = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(quickstart)
    config = quickstart.get_config(epochs=epochs, rows=rows)
    config.max_length = 96
    config.train.norms_every = 0
    config.probe.norms_at = ()
    config.probe.every_epochs = epochs
    config.checkpoint.best = False
    config.detect.points = ("base", "stage", "final")
    config.mitigate.arms = ("none", "randomised", "sham", "diagnosed", "masked")
    config.mitigate.pages = 0.25
    return config
