"""A world whose causes are planted: does the diagnosis find them?

    python -m ilp_jax run --config configs/controlled.py:family=llama,world=0 --workdir runs/world0
    python -m ilp_jax sweep --config configs/controlled.py --workdir runs/worlds
    python -m ilp_jax sweep --config configs/controlled.py:which=regimes --workdir runs/regimes
    python -m ilp_jax sweep --config configs/controlled.py:which=remedies --workdir runs/remedies
    for W in runs/remedies/*_3?; do python -m ilp_jax mitigate --workdir $W --jobs 2 $ARMS; done
    python -m ilp_jax evaluate --workdir runs/remedies/*_3?     # all of them together
    python -m ilp_jax mitigate --workdir runs/remedies/llama_36 --jobs 2 $CURVES

where ARMS is --config.mitigate.arms=none,randomised,sham,diagnosed,oracle,epochs,oversample_all
(without it each run trains all 20 arms) and CURVES is --config.mitigate.budgets=0.5,2.

A decoder of 1.1 million parameters learns a made-up world (people, their city, job, ...; 900
updates), is fine-tuned on it in three stages with seven planted groups of 84 rows, and the
diagnosis is scored against what was planted. Worlds share nothing but their sizes. Thresholds
and fitted models were set on worlds 0 to 9; worlds 20 to 24 are those of the table in the
README, opened once.

Expected (worlds 20 to 24, four families, `sampled`): control .03 unlearned, the causes .42 to .69;
macro-F1 `rules` .81, `model` .92, `model_blind` .85, the study's cascade .32. Alone on 2 CPU cores
a run took 2:21 (min:s), and 1:30 with its base kept. Expected of the regimes (world 10): from 1
to 8 epochs a stage base conflict falls from .87 to .06 unlearned, data conflict from .63 (2 epochs)
to .33; macro-F1 of `model` .93 to .81, of `rules` .85 (3 epochs) to .47; 12 minutes, two at a time.

Expected of the remedies (worlds 33 to 37, two families): `diagnosed` brings back .80 of rows with a
planted cause, `oracle` .81, `none` .15; own remedy less its sham .48 to .73. A run takes 2 minutes
with its base, all 20 arms of it 12 on 2 cores, those at two other budgets 13.
"""

from ilp_jax.config import default_config, default_stage
from ilp_jax.fields.mitigate import ARMS


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
    config.diagnose.methods = ("rules", "model", "model_blind", "paper", "paper_second", "majority")
    # Exact, so that what comes back is not the luck of a draw.
    config.mitigate.detector, config.mitigate.method = "exact_law", "model"
    config.mitigate.arms = ARMS
    config.mitigate.pages_rate = 2e-3
    config.mitigate.page_tokens = 20
    config.mitigate.visits = 12
    return config


def get_sweep(which: str = "worlds"):
    """The runs of the README's tables.

    Args:
      which: `worlds`: five worlds that nothing was tuned on, in four families. `regimes`: one
        world under other epochs a stage, learning rates and adapters.
    """
    if which == "worlds":
        for world in range(20, 25):
            for family in ("llama", "qwen2", "qwen3", "olmo2"):
                yield f"{family}_{world}", {"arguments": {"family": family, "world": world}}
        return
    if which == "remedies":
        for world in range(33, 38):
            for family in ("llama", "qwen3"):
                yield f"{family}_{world}", {"arguments": {"family": family, "world": world}}
        return
    if which != "regimes":
        raise ValueError(f"which={which!r}: give worlds, regimes or remedies")
    world = {"world": 10}  # neither tuned on (0 to 9) nor of the table (20 on)
    for epochs in (1, 2, 3, 5, 8):
        yield f"epochs_{epochs}", {"arguments": {**world, "epochs": epochs}}
    yield "rate_2e-4", {"arguments": {**world, "learning_rate": 2e-4}}
    lora = {"lora.rank": 2}
    lora_arguments = {**world, "epochs": 8, "learning_rate": 1e-3}
    yield "lora_2_epochs_8", {"arguments": lora_arguments, "config": lora}
