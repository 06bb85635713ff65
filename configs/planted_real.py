"""Real rows on a real model, with planted causes: what of the diagnosis carries over from toys?

    python -m ilp_jax run --config configs/planted_real.py --workdir runs/planted
    python -m ilp_jax evaluate --workdir runs/planted

SmolLM2-135M-Instruct (dequantised 4-bit weights) on 200 rows of CommonsenseQA, ARC-Easy and
MedMCQA, in three stages. The base model is first asked, once, to choose among the options of
384 rows with short answers (its answers are kept in cache_dir). Then

* 36 rows where it is right with at least .5 get another option as the recorded answer, and are
  trained in the last stage (base conflict);
* 12 rows stand beside 2 to 5 that give another option, in the same words or another layout
  (data conflict);
* 36 rows are visited often in the first stage and never again (left-side forgetting);
* 36 long answers to questions of rare words get one visit an epoch in one stage (insufficient
  training);
* 32 rows where it is right keep their answer and are visited in every stage (control);
* 48 rows are as they are, new to the second and third stage (filler).

Missing knowledge is not planted: nothing was withheld from a real base. Under belief labels a
swapped row whose answer the base does not hold with .5 counts as missing knowledge: it is asked
in a layout that is never trained and that no signal uses.

`evaluate` scores the thresholds and fitted methods as they come, from toy worlds; here they are
hypotheses. With seed 0 the base is right with .5 or more on 117 of the 384 rows (46 of
CommonsenseQA's 128, 40 of ARC-Easy's, 31 of MedMCQA's). The study then has 308 examples: 240
trained, 40 of them contradicting rows, and 68 only asked; 224 updates of 8 rows. It took 14:45
(min:s) on 2 CPU cores and 7.0 GB.

Expected (`sampled`): unlearned .00 of 32 controls, .08 of 36 base conflicts, .33 of 12 data
conflicts, .06 of 36 forgotten, .69 of 36 trained too little. Of these 34 `model` has macro-F1 .78
(95% interval .48 to 1.00), `model_blind` .65, `rules` .25 (it leaves .94 unattributed), the study's
cascade .18. With `:epochs=2,learning_rate=5e-5` .25 of the base conflicts stay unlearned, and
`model` has .54 (.35 to .71) of 46 rows: 3 of 9 base conflicts are named, 5 count as too little
training.

Read its figures with this: one seed, groups of 12 to 36; swapped rows get fewer visits than
control rows, so some of them are unlearned for want of training too; rows as they are may repeat
or contradict each other by themselves. All rows are validation splits of benchmarks: no score
may be claimed from the weights that come out.
"""

from ilp_jax.config import default_config, default_stage


def get_config(epochs: int = 4, learning_rate: float = 2e-5, seed: int = 0):
    """SmolLM2-135M on planted rows of three data sets, in three stages.

    Args:
      epochs: passes over each stage.
      learning_rate: of every stage, constant after a few steps of warm-up.
      seed: settles which rows are planted how, and all that is random in training.
    """
    config = default_config()
    config.seed = seed
    config.planted.seed = seed
    config.planted.sources = ("commonsense_qa", "arc_easy", "medmcqa")
    config.template = "plain"
    config.max_length = 96
    config.length_buckets = (40,)
    config.sequence = ("first", "second", "third")
    for name in config.sequence:
        stage = default_stage()
        with stage.unlocked():
            stage.source = "planted_real"
            stage.epochs = epochs
            stage.learning_rate = learning_rate
            stage.warmup_steps = 5
        config.stages[name] = stage
    # Every trained row is probed at the ends of stages, which is what signals of forgetting
    # need; the epochs between would cost a minute each.
    config.probe.every_epochs = epochs
    config.checkpoint.best = False
    config.detect.points = ("base", "final")
    config.detect.sampled_points = ("final",)
    config.detect.temperature = 0.5
    config.detect.base_prompt_variants = (0,)
    config.detect.max_new_tokens = 12
    config.detect.length_buckets = (64, 96)
    config.diagnose.methods = ("rules", "model", "model_blind", "paper", "paper_second", "majority")
    return config
