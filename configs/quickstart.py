"""Three stages in sequence on a real model and real rows.

bash quickstart.sh
python -m ilp_jax run --config configs/quickstart.py --workdir runs/quickstart
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
