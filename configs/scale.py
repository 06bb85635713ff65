r"""Full fine-tuning of a published model on a TPU slice, compiled and planned without one.

    python -m ilp_jax compile --config configs/scale.py:model=llama3_8b --topology v5e:16x16
    python -m ilp_jax plan --config configs/scale.py:model=llama3_8b --topology v5e:16x16 \
        --rows 100000 --tokens 1024 --targets 256

Models: llama3_8b, qwen2_5_7b, qwen3_8b, olmo2_7b; their published shapes, no weights are needed.
To train: give folder=DIR (safetensors, on every host) and data=FILE.jsonl, and start `ilp run` on
every worker; `launch/README.md` has the steps.

bf16 compute, float32 parameters and moments (AdamW), every layer recomputed in the backward pass;
parameters split over all chips. Needs libtpu to compile (pip install 'jax[tpu]'). Expected: the
table in the README; a compilation takes two to six minutes of 2 CPU cores and 4 GB.
"""

from ilp_jax.config import default_config, default_stage

MODELS = {
    "llama3_8b": "llama3_1_8b",
    "qwen2_5_7b": "qwen2_5_7b",
    "qwen3_8b": "qwen3_8b",
    "olmo2_7b": "olmo2_7b",
}


def get_config(
    model: str = "llama3_8b",
    folder: str = "",
    data: str = "data.jsonl",
    batch_size: int = 256,
    max_length: int = 1024,
    epochs: int = 3,
    learning_rate: float = 1e-5,
):
    """Full fine-tuning at scale.

    Args:
      model: one of MODELS, or the name of another preset.
      folder: its weights; '' = its shape alone, to plan and to compile.
      data: the JSONL file.
      batch_size: rows in an optimiser step, over all chips.
      max_length: tokens of a row.
      epochs: passes over the data.
      learning_rate: the peak, constant after a warm-up.
    """
    config = default_config()
    config.model.path = folder or f"preset:{MODELS.get(model, model)}"
    config.model.compute_dtype = "bfloat16"
    config.model.remat = "full"
    config.max_length = max_length
    config.train.batch_size = config.probe.batch_size = batch_size
    config.detect.batch_size = batch_size
    stage = default_stage()
    with stage.unlocked():
        stage.path = data
        stage.epochs = epochs
        stage.learning_rate = learning_rate
        stage.warmup_steps = 20
    config.stages.own = stage
    config.sequence = ("own",)
    return config
