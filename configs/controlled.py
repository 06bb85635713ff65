"""A world whose causes are planted: does the diagnosis find them?

python -m ilp_jax run --config configs/controlled.py:family=llama,world=0 --workdir runs/world0
"""

from ilp_jax.config import default_config, default_stage


def get_config(family: str = "llama", world: int = 0, epochs: int = 2, learning_rate: float = 4e-4):
    """A tiny decoder, taught a world and fine-tuned in three stages with planted causes.

    Args:
      family: llama, qwen2, qwen3 or olmo2.
      world: the world's number, any whole number.
      epochs: passes over each stage.
      learning_rate: peak of each stage.
    """
    config = default_config()
    config.world.family = family
    config.world.seed = world
    config.model.path = "world"
    config.template = "plain"
    config.max_length = 64
    config.length_buckets = (20,)
    config.sequence = ("first", "second", "third")
    for name in config.sequence:
        stage = default_stage()
        with stage.unlocked():
            stage.source = "world"
            stage.epochs = epochs
            stage.learning_rate = learning_rate
            stage.schedule = "linear"
            stage.warmup_steps = 5
            stage.final_learning_rate_fraction = 0.05
            stage.optimizer_state = "fresh"
        config.stages[name] = stage
    config.train.batch_size = 32
    config.train.b2 = 0.99
    config.probe.batch_size = 128
    config.checkpoint.best = False
    config.detect.batch_size = 128
    config.detect.length_buckets = (24, 36)
    config.detect.temperature = 0.5
    config.detect.points = ("base", "stage", "final")
    config.detect.sampled_points = ("final",)
    config.detect.base_prompt_variants = (0,)
    config.detect.max_new_tokens = 4
    return config
