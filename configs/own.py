"""Your own model and your own data: which rows stay unlearned, and which are lost again.

python -m ilp_jax run --config configs/own.py:model=DIR,data=FILE.jsonl --workdir runs/own

DIR is a Hugging Face folder (safetensors; LLaMA, Qwen2, Qwen3 or OLMo2) or a .gguf file. A row
of FILE.jsonl is {"prompt", "response"} or {"messages"}, with optional "options" (the response
among them), "knowledge", "stage" and "id", and what the chat template takes ("tools",
"chat_template_kwargs"). Rows that name stages are trained stage by stage, in natural order
(phase2 before phase10); otherwise there is one stage.

Shows the loss and exact gradient norm of every row at every visit, and the share of rows
unlearned at the base model, in training and at the end. `ilp data preview` with the same
--config shows the first rows as tokens, before anything is spent.
"""

from ilp_jax.config import default_config, default_stage


def get_config(
    model: str,
    data: str,
    epochs: int = 3,
    learning_rate: float = 2e-5,
    batch_size: int = 8,
    held_out: int = 0,
):
    """A study of your own.

    Args:
      model: the model's folder or file.
      data: the JSONL file.
      epochs: passes over each stage.
      learning_rate: each stage's peak, constant after a few steps of warm-up.
      batch_size: rows in an optimiser step.
      held_out: rows of each stage that are measured and never trained.
    """
    config = default_config()
    config.model.path = model
    config.train.batch_size = batch_size
    stage = default_stage()
    with stage.unlocked():
        stage.path = data
        stage.epochs = epochs
        stage.learning_rate = learning_rate
        stage.warmup_steps = 5
        stage.held_out_rows = held_out
    config.stages.own = stage
    config.sequence = ("own",)
    return config
