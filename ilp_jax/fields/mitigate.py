"""The fields of the group ``mitigate``: remedies, and the arms that they are tried in."""

from __future__ import annotations

import math

from ml_collections import ConfigDict

from ilp_jax.fields.limits import TINY
from ilp_jax.stats.schema import CAUSES

ARMS = (
    *("none", "randomised", "sham", "diagnosed", "oracle", "random"),
    *CAUSES,
    *("masked", "relabel", "buckets", "weighted", "resample", "progressive"),
    *("epochs", "oversample_all", "shuffle"),
)
"""The arms of `ilp mitigate`; see ``mitigate.arms``."""
CURVES = ("none", "diagnosed", "oracle", "random", *CAUSES, "epochs", "oversample_all")
"""Arms that are also trained at other budgets; see ``mitigate.budgets``."""


def mitigate_fields() -> ConfigDict:
    """What `ilp mitigate` does; a finished run may be mitigated with other values.

    Returns:
      A ConfigDict, not locked.
    """
    mitigate = ConfigDict(sort_keys=False)
    # Arms that are trained: 'none', 'randomised' (each unlearned row gets one remedy or none),
    # 'sham' (the same with shams), 'diagnosed', 'oracle' (planted studies alone), 'random' (a
    # remedy drawn for each row), a cause (its remedy for every unlearned row), 'masked' (that of
    # missing_knowledge with the answers blotted out), 'relabel' and 'buckets' (other remedies of
    # contradictions), 'weighted' (contested rows weigh more, under a pull towards the base model),
    # 'resample' (rows are replayed when they are seen to fall), 'progressive' (stages go on while
    # their loss falls), 'epochs', 'oversample_all' and 'shuffle'.
    mitigate.arms = ("none", "randomised", "sham", "diagnosed", "random", *CAUSES, *ARMS[-3:])
    # Trainings of each arm; the k-th has the run's seed + 1000 k, and draws anew.
    mitigate.seeds = 1
    # Further budgets, as multiples of extra_visits and pages (and of the treatments' visits and
    # documents): what the arms of CURVES bring for more or less compute. They are trained as
    # NAME_xMULTIPLE, such as diagnosed_x2.
    mitigate.budgets = ()
    # Whose verdicts and causes are treated and judged: a detector of diagnosis.parquet
    # ('default': exact_match where it applies, else choice), and a method.
    mitigate.detector = "default"
    mitigate.method = "rules"
    # Further visits that every arm makes, over those of the run: treatments take them, and
    # random learned rows the rest.
    mitigate.extra_visits = 0.25
    # Pages of documents that every arm is trained on before fine-tuning, over the run's visits;
    # and their share that tells facts to treated rows, the rest is general text. The share is
    # the study's (arXiv:2604.10079, section 4.1: 0.8 and 0.2); how many is ours.
    mitigate.pages = 1.0
    mitigate.knowledge_share = 0.2
    # Tokens of a page, on which short texts stand one after another.
    mitigate.page_tokens = 64
    # Most documents of one treated row. Ours: the study has 20 of each blind spot; on a planted
    # prototype 23 brought back two thirds, 80 nearly all.
    mitigate.documents_a_row = 80
    # Peak rate of that training; a short warm-up, then it falls linearly to a twentieth.
    mitigate.pages_rate = 2e-5
    # missing_knowledge: a prerequisite is blind where the base model's probability of its
    # answer is below this. Ours: right less often than not.
    mitigate.blind_probability = 0.5
    # base_conflict: the base model's probability of another answer from which on the row's
    # answer is contested; below there is nothing to tell against. Ours, as in the diagnosis.
    mitigate.contested = 0.5
    # insufficient_training: further visits of a row over its own stages; left_side_forgetting:
    # over the stages after its last. The same dose for both; ours.
    mitigate.visits = 8
    # left_side_forgetting: relative fall of the target's probability since the end of the row's
    # own stage from which on it is being erased. The study, appendix D.1.
    mitigate.relapse = 0.05
    # resample: updates between looks at what has fallen by relapse; a tenth of the fine-tuning
    # where that is less. The study, section 4.4.
    mitigate.resample_every = 500
    # buckets: updates after which the visits that are left of an epoch are arranged anew, so that
    # rows that contradict each other share no mini-batch; 0: once an epoch. The study
    # (arXiv:2604.10079, section 4.3) re-evaluates its buckets every K updates and gives no K; 20 is
    # ours. Who contradicts whom follows from texts and verdicts, which no update changes, so only
    # the arrangement is made anew. To judge it by the model of the moment would make the order
    # depend on more than (seed, stage, epoch, step), by which a killed arm goes on as it was.
    mitigate.buckets_every = 20
    # weighted: strength of the pull towards the base model, times the learning rate, per update
    # (L2-SP, arXiv:1802.01483). Ours.
    mitigate.anchor_decay = 0.1
    # progressive: a stage ends when an epoch lowers the mean loss of its rows, in nats a token, by
    # less than this; the study's delta (arXiv:2604.10079, equation 7). At most so many epochs
    # beyond the run's, at this fraction of the stage's peak rate; both ours.
    mitigate.delta = 0.01
    mitigate.further_epochs = 8
    mitigate.further_rate = 0.25
    # A JSONL file of what rows rest on, {"example_id": ..., "question": ..., "answer": ...} and
    # optionally "text", which tells it: rows named there are asked these; '' = none.
    mitigate.prerequisites = ""
    # A JSONL file of judged rows, {"example_id": ..., "wrong": true or false}: overrides the
    # judge of contradicting rows; '' = none.
    mitigate.verdicts = ""
    # A folder of text files that may tell what rows rest on; '' = their own passages.
    mitigate.library = ""
    return mitigate


ALLOWED = {
    "mitigate.arms": ARMS,
    "mitigate.detector": ("default", "exact_match", "exact_law", "sampled", "choice", "rouge_l"),
    "mitigate.method": ("rules", "model", "model_blind", "paper", "paper_second", "majority"),
}
RANGE = {
    "mitigate.seeds": (1, math.inf),
    "mitigate.knowledge_share": (0, 1),
    "mitigate.documents_a_row": (1, math.inf),
    "mitigate.page_tokens": (2, math.inf),
    "mitigate.pages_rate": (TINY, math.inf),
    "mitigate.blind_probability": (0, 1),
    "mitigate.contested": (0, 1),
    "mitigate.relapse": (0, 1),
    "mitigate.resample_every": (1, math.inf),
    "mitigate.visits": (1, math.inf),
    "mitigate.further_rate": (TINY, 1),
}
