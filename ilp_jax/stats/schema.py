"""Columns of the tables that carry per-example measurements: names, types, units.

Nothing here computes; writers, readers and notebooks agree through it. Each field of
a schema carries its ``meaning`` and ``unit`` as metadata, which Parquet keeps, so a
file explains itself (``pyarrow.parquet.read_schema(path).field("loss_sum").metadata``).

Statistics (``stats/*.parquet``), one row an example and visit. A *visit* is one
measurement of one example: in training (``kind`` = ``train``) at the step's parameters
before its update; in a probe (``kind`` = ``probe``) at the parameters after update
``step`` (step 0: the base model). Means are over the example's own target tokens
(response and end token), never over padding or the batch. Absent measurements are null:
``grad_norm_head`` of a tied model, and every norm where norms were not taken.

=================  ========  ===================================================
column             unit      meaning
=================  ========  ===================================================
example_id                   the example (``examples.parquet``)
kind                         ``train`` or ``probe``
stage, epoch                 counted from 1; 0 for the base model
step               updates   the update the row belongs to, from 1 through the run
visit              visits    ``train``: the how-manieth training visit of the example in
                             the run, from 1; ``probe``: training visits made before it
batch_index                  batch of the epoch or of the probe, from 0
microbatch                   gradient-accumulation part of the step
row                rows      row of the microbatch
segment                      index within a packed row, else 0
learning_rate                the optimiser's rate in that step
loss_sum           nats      cross-entropy summed over target tokens
n_tokens           tokens    target tokens
n_correct          tokens    target tokens that are the argmax
prob_mean          [0, 1]    mean probability of the target token
grad_norm                    L2 norm of the gradient of the mean loss
grad_norm_{group}            its share in a group; the squares sum to the total's
entropy_mean       nats      mean entropy of the prediction
margin_mean        nats      mean of target logit minus best other logit
=================  ========  ===================================================
"""

from __future__ import annotations

import pyarrow as pa

KEY = ("example_id", "kind", "stage", "epoch", "step", "visit")
"""What makes a row of the statistics unique."""

KINDS = ("train", "probe")
GROUPS = ("embed", "attn", "mlp", "norm", "head")
"""Parameter groups whose squared gradient norms sum to the whole."""

CAUSES = (
    "missing_knowledge",
    "base_conflict",
    "data_conflict",
    "left_side_forgetting",
    "insufficient_training",
)
"""The five causes that carry a score; a diagnosis may also be `UNATTRIBUTED`."""

UNATTRIBUTED = "unattributed"

PLANTED = (*CAUSES, "fault", "control", "filler")
"""What a row of a planted study was made to show. ``fault``: the base model knows the answer,
nothing contradicts it, and a pipeline fault trains another target: none of the five causes.
``control``: nothing is planted. ``filler``: rows that make up the run, not scored."""


def _field(name: str, kind: pa.DataType, meaning: str, unit: str = "", null: bool = False):
    return pa.field(name, kind, nullable=null, metadata={"meaning": meaning, "unit": unit})


def _group_norm(group: str) -> pa.Field:
    meaning = f"L2 norm of that gradient over the {group} parameters; null where there are none"
    return _field(f"grad_norm_{group}", pa.float32(), meaning, null=True)


STATS_SCHEMA = pa.schema(
    [
        _field("example_id", pa.int64(), "the example, as in examples.parquet"),
        _field("kind", pa.string(), "train: before the update of step; probe: after it"),
        _field("stage", pa.int32(), "stage, from 1; 0 before training"),
        _field("epoch", pa.int32(), "epoch of the stage, from 1; 0 before training"),
        _field("step", pa.int64(), "update, from 1 through the run; 0 is the base", "updates"),
        _field(
            "visit",
            pa.int32(),
            "train: the how-manieth training visit of the example, from 1; probe: training "
            "visits made before it",
            "visits",
        ),
        _field("batch_index", pa.int32(), "batch of the epoch or of the probe, from 0"),
        _field("microbatch", pa.int32(), "gradient-accumulation part of the step"),
        _field("row", pa.int32(), "row of the microbatch", "rows"),
        _field("segment", pa.int32(), "index within a packed row, else 0"),
        _field("learning_rate", pa.float64(), "the optimiser's rate in that step", null=True),
        _field("loss_sum", pa.float32(), "cross-entropy summed over target tokens", "nats"),
        _field("n_tokens", pa.int32(), "target tokens, the end token included", "tokens"),
        _field("n_correct", pa.int32(), "target tokens that are the argmax", "tokens"),
        _field("prob_mean", pa.float32(), "mean probability of the target token", "[0, 1]", True),
        _field(
            "grad_norm",
            pa.float32(),
            "L2 norm of the gradient of the mean loss over the example's target tokens, "
            "before clipping, decay and weights; null where norms were not taken",
            null=True,
        ),
        *(_group_norm(group) for group in GROUPS),
        _field("entropy_mean", pa.float32(), "mean entropy of the prediction", "nats", True),
        _field(
            "margin_mean",
            pa.float32(),
            "mean over target tokens of the target's logit minus the best other logit",
            "nats",
            True,
        ),
    ]
)

INFERENCE_SCHEMA = pa.schema(
    [
        _field("example_id", pa.int64(), "the example, as in examples.parquet"),
        _field("stage", pa.int32(), "stage in which it was asked, from 1; 0: base"),
        _field("epoch", pa.int32(), "epoch of the stage, from 1; 0: base, or tuned elsewhere"),
        _field("step", pa.int64(), "updates made here before the question", "updates"),
        _field("run", pa.int32(), "repetition of the same question, from 0"),
        _field("mode", pa.string(), "greedy, sample or choice"),
        _field("prompt_variant", pa.int32(), "wording of the prompt; 0: as trained"),
        _field("temperature", pa.float64(), "sampling temperature; 0 for greedy", null=True),
        _field("seed", pa.int64(), "seed of the answer drawn; null: nothing was drawn", null=True),
        _field("prediction", pa.string(), "the answer given", null=True),
        _field("confidence", pa.float64(), "probability of the answer given", "[0, 1]", True),
        _field("correct", pa.bool_(), "whether the answer is the target", null=True),
        _field("gold_logprob", pa.float64(), "log-probability of the target", "nats", True),
        _field("options", pa.list_(pa.string()), "the options asked about", null=True),
        _field(
            "option_logprob_sum",
            pa.list_(pa.float64()),
            "log-likelihood of each option",
            "nats",
            True,
        ),
        _field(
            "option_logprob_mean",
            pa.list_(pa.float64()),
            "log-likelihood of each option per token",
            "nats a token",
            True,
        ),
    ]
)

DIAGNOSIS_SCHEMA = pa.schema(
    [
        _field("example_id", pa.int64(), "the example, as in examples.parquet"),
        _field("point", pa.string(), "moment of the run: base, epoch_2, stage_K, ..."),
        _field("detector", pa.string(), "how unlearned was decided"),
        _field("method", pa.string(), "how the cause was found"),
        _field("unlearned", pa.bool_(), "null where the detector does not apply", null=True),
        _field("cause", pa.string(), "one of the causes or unattributed; null: learned", null=True),
        *(
            _field(f"score_{cause}", pa.float64(), f"evidence for {cause}", "[0, 1]", True)
            for cause in CAUSES
        ),
        *(
            _field(f"flag_{cause}", pa.bool_(), f"whether {cause} is flagged", null=True)
            for cause in CAUSES
        ),
        _field("runner_up", pa.string(), "the second most likely cause", null=True),
        _field("related_ids", pa.list_(pa.int64()), "examples named by the evidence", null=True),
        _field("evidence", pa.string(), "text that a person can check", null=True),
    ]
)

TRUTH_SCHEMA = pa.schema(
    [
        _field("example_id", pa.int64(), "the example, as in examples.parquet"),
        _field("planted", pa.string(), "one of the five causes, control, filler or fault"),
        _field("detail", pa.string(), "which kind of it"),
        _field("group_id", pa.int64(), "rows that belong together have the same"),
        _field("related_ids", pa.list_(pa.int64()), "rows that contradict it, or that it does"),
        _field("prerequisite_id", pa.int64(), "the question of what it rests on", null=True),
    ]
)


def empty(schema: pa.Schema) -> pa.Table:
    """A table of that schema without rows."""
    return schema.empty_table()
