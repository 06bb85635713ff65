"""Other wordings and permuted runs of a tiny model, against questions scored one by one."""

import dataclasses

import jax
import numpy as np
import polars as pl
import pytest
from scipy.special import log_softmax, softmax

from ilp_jax import config as config_lib
from ilp_jax.analysis.not_asked import not_asked
from ilp_jax.detect import choices, variants
from ilp_jax.detect.points import ask_points
from ilp_jax.errors import UserError
from ilp_jax.models import weights
from ilp_jax.stats.schema import INFERENCE_SCHEMA
from ilp_jax.workspace import open_workspace

RUNS, SEED, TEMPERATURE, SIZE = 3, 5, 0.05, 48
PLACE = {"stage": 0, "epoch": 0, "step": 0}
KEY = ["example_id", "prompt_variant", "run"]
CHAT = (
    "{% for m in messages %}{{ 'old ' if m['role'] == 'assistant' else 'new ' }}{{ m['content'] }}"
    " <end>\n{% endfor %}{% if add_generation_prompt %}old {% endif %}"
)


@pytest.fixture(scope="module")
def make(tiny, tiny_arguments, tmp_path_factory):
    """A workspace of the tiny study with other detection."""

    def make(*words):
        words = [*tiny_arguments(tmp_path_factory.mktemp("run")), *words]
        return open_workspace(config_lib.load(words[1], words[4:]), words[3])

    return make


@pytest.fixture(scope="module")
def ws(make):
    return make(
        f"--config.detect.choice_runs={RUNS}",
        f"--config.seed={SEED}",
        f"--config.detect.temperature={TEMPERATURE}",
        "--config.detect.choice_run_points=base,stage",
    )


@pytest.fixture(scope="module")
def params(tiny):
    """Random weights, with large logits."""
    loaded = weights.load(tiny / "model").params
    kernel = {"kernel": loaded["head"]["kernel"] * 5}
    return jax.device_put({**loaded, "head": kernel})


def choice_rows(table):
    table = table if isinstance(table, pl.DataFrame) else pl.from_arrow(table)
    return table.filter(pl.col("mode") == "choice")


@pytest.fixture(scope="module")
def alone(ws, params):
    """Log-probabilities of a text's words after a prompt, from one row by itself."""
    vocab, at = ws.tokenizer.get_vocab(), np.arange(SIZE, dtype=np.int32)[None]
    apply = jax.jit(lambda row: ws.decoder.apply({"params": params}, row, at, 0 * row)[0])

    def alone(prompt, text):
        ids = [[vocab.get(word, 0) for word in words.split()] for words in (prompt, text)]
        n, row = len(ids[0]), np.zeros((1, SIZE), np.int32)
        row[0, : n + len(ids[1])] = ids[0] + ids[1]
        logprobs = log_softmax(np.asarray(apply(row), np.float64), axis=-1)
        return [logprobs[n - 1 + i, one] for i, one in enumerate(ids[1])]

    return alone


def listing(prompt, options, order, letters):
    """The prompt of a run, by hand."""
    shown = [options[i] for i in order]
    if letters:
        lines = [f"{'ABC'[k]}. {option}" for k, option in enumerate(shown)]
    else:
        lines = ["Options:", *(f"- {option}" for option in shown)]
    return "\n".join([prompt, *lines, "Answer:"])


@pytest.mark.parametrize("template", ["plain", "chat"])
def test_wordings_against_rows_scored_alone(ws, params, alone, template):
    tokenizer = ws.tokenizer
    if template == "chat":
        tokenizer = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<end>")
        tokenizer.chat_template = CHAT
    ws = dataclasses.replace(ws, tokenizer=tokenizer)
    table = choices.ask_choices(ws, params, choices.other_wordings(ws, range(6)), **PLACE)
    assert table.schema == INFERENCE_SCHEMA
    rows = choice_rows(table)
    with_options = [e for e in ws.data.examples[:6] if e.options]
    assert len(with_options) < 6 and len(rows) == 2 * len(with_options)
    assert set(rows["run"]) == {0} and rows["seed"].null_count() == len(rows)
    by_id = {e.example_id: e for e in with_options}
    for row in rows.to_dicts():
        example = by_id[row["example_id"]]
        prompt = {
            1: f"{example.prompt}\nThe correct answer is:",
            2: f"Answer this question.\nQ: {example.prompt}\nA:",
        }[row["prompt_variant"]]
        if template == "chat":
            prompt = f"new {prompt} <end>\nold "
        logprobs = [alone(prompt, option) for option in example.options]
        assert row["options"] == list(example.options)
        assert np.allclose(row["option_logprob_sum"], [sum(one) for one in logprobs], atol=1e-3)
        means = [np.mean(one) for one in logprobs]
        assert np.allclose(row["option_logprob_mean"], means, atol=1e-3)
        best = int(np.argmax(means))
        assert row["prediction"] == example.options[best]
        assert row["correct"] == (best == example.answer_index)
        assert row["confidence"] == pytest.approx(softmax(means)[best], abs=1e-3)
        assert row["gold_logprob"] == row["option_logprob_sum"][example.answer_index]


@pytest.mark.parametrize("letters", [False, True])
def test_runs_against_lists_scored_alone(ws, params, alone, letters):
    settings = ws.config.copy_and_resolve_references()
    with settings.unlocked():
        settings.detect.choice_prompt = "letters" if letters else "listed"
    ws = dataclasses.replace(ws, config=settings)
    questions = choices.permuted_runs(ws, range(6))
    rows = choice_rows(choices.ask_choices(ws, params, questions, **PLACE)).to_dicts()
    by_id = {e.example_id: e for e in ws.data.examples[:6] if e.options}
    assert len(rows) == len(by_id) * RUNS
    orders, answers = {}, {}
    for row in rows:
        example = by_id[row["example_id"]]
        order = variants.order_of(SEED, example.example_id, row["run"], len(example.options))
        orders.setdefault(example.example_id, set()).add(order)
        prompt = listing(example.prompt, example.options, order, letters)
        texts = ["ABC"[order.index(i)] for i in range(3)] if letters else example.options
        logprobs = [alone(prompt, text) for text in texts]
        means = [np.mean(one) for one in logprobs]
        assert (row["prompt_variant"], row["seed"]) == (4 if letters else 3, SEED)
        assert row["options"] == list(example.options)
        assert np.allclose(row["option_logprob_sum"], [sum(one) for one in logprobs], atol=1e-3)
        assert np.allclose(row["option_logprob_mean"], means, atol=1e-3)
        shares = softmax(np.array(row["option_logprob_mean"]) / TEMPERATURE)
        place = row["options"].index(row["prediction"])
        assert row["confidence"] == pytest.approx(shares[place], rel=1e-9)
        assert place == variants.drawn(SEED, example.example_id, row["run"], shares)
        assert row["correct"] == (place == example.answer_index)
        assert row["temperature"] == TEMPERATURE
        answers.setdefault(example.example_id, set()).add(tuple(row["option_logprob_sum"]))
    assert max(map(len, orders.values())) > 1
    if not letters:  # letters are all one unknown word to the tiny tokenizer
        assert all(len(answers[one]) == len(orders[one]) for one in orders)


def test_points_get_what_they_should(ws, params):
    everything, some = range(len(ws.data.examples)), [3, 0, 2]
    base = ask_points(ws, params, {"base": everything}, **PLACE)["base"]
    later = {"stage": 1, "epoch": 6, "step": 18}
    found = ask_points(ws, params, {"epoch_2": some, "stage_1": everything}, **later)
    n = sum(bool(e.options) for e in ws.data.examples)
    variant = choice_rows(base).group_by("prompt_variant").len().sort("prompt_variant")
    assert variant.rows() == [(0, n), (1, n), (2, n), (3, n * RUNS)]
    variant = choice_rows(found["stage_1"]).group_by("prompt_variant").len().sort("prompt_variant")
    assert variant.rows() == [(0, n), (3, n * RUNS)]
    ids = ws.data.example_ids
    assert set(found["epoch_2"]["example_id"]) == set(ids[some])
    assert set(choice_rows(found["epoch_2"])["prompt_variant"]) == {0}
    for rows in (base, *found.values()):
        assert not rows.select("mode", "seed", *KEY).is_duplicated().any()
        order = rows["example_id"].unique(maintain_order=True).to_list()
        assert order == [one for one in ids.tolist() if one in set(order)]
        assert rows["example_id"].rle().len() == len(order)
    # The same model, other batches, another point: the same orders and draws.
    runs = [
        choice_rows(rows).filter(pl.col("prompt_variant") == 3).drop("stage", "epoch", "step")
        for rows in (base, found["stage_1"])
    ]
    assert runs[0].equals(runs[1])
    few = choices.ask_choices(ws, params, choices.permuted_runs(ws, some), **PLACE)
    few = choice_rows(few).sort(KEY)
    same = choice_rows(base).filter(pl.col("prompt_variant") == 3).sort(KEY)
    same = same.join(few.select(KEY), on=KEY, how="semi", maintain_order="left")
    assert same["prediction"].equals(few["prediction"]) and len(few)


def test_off_by_fields(make, params):
    with pytest.raises(UserError, match="choice_run_points: 'final' is not among detect.points"):
        make("--config.detect.choice_runs=1", "--config.detect.points=base")
    make("--config.detect.points=base")
    ws = make("--config.detect.base_prompt_variants=0")
    rows = ask_points(ws, params, {"base": [0, 1], "final": [0]}, **PLACE)["base"]
    assert set(rows["prompt_variant"]) == {0}


def test_temperature_zero_takes_the_likeliest(ws):
    settings = ws.config.copy_and_resolve_references()
    with settings.unlocked():
        settings.detect.temperature = 0.0
    ws = dataclasses.replace(ws, config=settings)
    question = choices.permuted_runs(ws, [0])[0]
    record = choices._record(ws, question, [-3.0, -1.0, -2.0], [-3.0, -1.0, -2.0])
    assert record["prediction"] == ws.data.examples[0].options[1]
    assert record["temperature"] == 0 and record["seed"] == SEED
    assert record["confidence"] == pytest.approx(softmax([-3.0, -1.0, -2.0])[1])


def test_rows_that_are_too_long_are_left_out_and_counted(ws, params):
    settings = ws.config.copy_and_resolve_references()
    # As trained the longest row has 7 + 3 words; lists add 2 and a dash an option.
    lengths = {}
    for question in choices.permuted_runs(ws, range(len(ws.data.examples))):
        words = len(question.example.prompt.split())
        words += max(len(option.split()) for option in question.example.options)
        lengths.setdefault(question.index, set()).add(words)
    limit = sorted(max(one) for one in lengths.values())[len(lengths) // 2]
    with settings.unlocked():
        settings.max_length = limit
    ws = dataclasses.replace(ws, config=settings)
    fits = {index for index, one in lengths.items() if max(one) <= limit}
    assert 0 < len(fits) < len(lengths)
    questions, rows = choices.fitting(ws, choices.permuted_runs(ws, range(len(ws.data.examples))))
    assert len(questions) == len(rows) == len(fits) * RUNS
    assert {question.index for question in questions} == fits
    asked = ask_points(ws, params, {"base": range(len(ws.data.examples))}, **PLACE)["base"]
    counted = not_asked(asked.with_columns(pl.lit("base").alias("point")), ws.config.detect)
    assert counted[3] == len(lengths) - len(fits)
    nothing = [q for q in choices.permuted_runs(ws, lengths) if q.index not in fits]
    assert choices.ask_choices(ws, params, nothing, **PLACE).num_rows == 0
