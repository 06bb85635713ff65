"""Three stages in sequence on a real model and real rows: learned, then lost.

    bash quickstart.sh
    python -m ilp_jax run --config configs/quickstart.py --workdir runs/quickstart

SmolLM2-135M-Instruct (dequantised 4-bit weights) on CommonsenseQA, then ARC-Easy, then
MedMCQA: 40 short answers each, 8 epochs a stage, full fine-tuning at a constant 2e-5, one
optimiser state throughout, and 8 planted twins that contradict a row of their stage.

Expected (seed 0, 2 CPU cores, jax 0.10.2): by exact match 40 of 43, 40 of 43 and 39 of 42 rows
are learned at the end of their own stage; of these 28, 25 and 0 are lost by the end, where
choice calls .92 of all rows right. Exact match at the end: .48 unlearned (1.00 at the base,
.88 after epoch 2 of the row's own stage); choice: .08 (.70, .34).
Of the 62 rows unlearned by exact match, rules give 55 left-side forgetting, 5 data conflict,
2 unattributed.
It took 11:13.87 (min:s) with installing, and 7.7 GB.

The rows are validation and test splits of benchmarks: no score may be claimed from the weights
that come out. `--config configs/quickstart.py:epochs=2,rows=8` is a smaller version for trying
things out (about 2 minutes).
"""

from ilp_jax.config import default_config, default_stage


def get_config(epochs: int = 8, rows: int = 40):
    """SmolLM2-135M on CommonsenseQA, then ARC-Easy, then MedMCQA.

    Args:
      epochs: passes over each stage.
      rows: real rows a stage.
    """
    config = default_config()
    config.template = "plain"
    config.length_buckets = (40,)
    config.detect.length_buckets = (64, 96)
    for name, twins in (("commonsense_qa", 3), ("arc_easy", 3), ("medmcqa", 2)):
        stage = default_stage()
        with stage.unlocked():
            stage.source = name
            stage.n_rows = rows
            stage.n_options = 4
            stage.max_response_tokens = 6
            stage.max_prompt_tokens = 34
            stage.held_out_rows = 8
            stage.planted_twins = twins
            stage.epochs = epochs
            stage.learning_rate = 2e-5
            stage.warmup_steps = 5
        config.stages[name] = stage
    config.sequence = ("commonsense_qa", "arc_easy", "medmcqa")
    return config
