"""Drawn answers of a tiny model: their law, their rows, and the verdicts from them."""

import dataclasses
import re
import string

import jax
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from scipy.stats import binomtest

from ilp_jax import config as config_lib
from ilp_jax.analysis.unlearned import unlearned
from ilp_jax.data.examples import Example
from ilp_jax.data.study import StudyData
from ilp_jax.data.tokens import TokenRow
from ilp_jax.detect.ask import ask
from ilp_jax.detect.drawn import draw
from ilp_jax.detect.normalise import normalise
from ilp_jax.detect.screen import is_sampled
from ilp_jax.errors import UserError
from ilp_jax.models import weights
from ilp_jax.stats.schema import INFERENCE_SCHEMA
from ilp_jax.train.milestones import Milestones
from ilp_jax.workspace import open_workspace

N, TEMPERATURE, END = 1000, 0.7, 1
LAST, WORDS = 2, (50, 51, 52, 53)
PLACE = {"stage": 1, "epoch": 2, "step": 6}


def next_logprobs(ws, params, rows, temperature=1.0):
    """Log-probabilities of each row's next token, by an uncached pass over a whole row."""
    rows = np.array(rows, np.int32)
    positions = np.broadcast_to(np.arange(rows.shape[1], dtype=np.int32), rows.shape)
    logits = jax.jit(ws.decoder.apply)({"params": params}, rows, positions, np.zeros_like(rows))
    return log_softmax(np.asarray(logits[:, -1], np.float64) / temperature, axis=-1)


def logprob_of(ws, params, prompt, target, temperature=1.0):
    return sum(
        next_logprobs(ws, params, [[*prompt, *target[:i]]], temperature)[0, token]
        for i, token in enumerate(target)
    )


def unit(vector):
    return vector / np.linalg.norm(vector)


@pytest.fixture(scope="module")
def ws(tiny, tiny_arguments, tmp_path_factory):
    """A workspace; its rows are given by `asked`."""
    words = tiny_arguments(tmp_path_factory.mktemp("run"))
    config = config_lib.load(words[1], words[4:])
    with config.unlocked():
        config.detect.n_samples, config.detect.temperature = N, TEMPERATURE
        config.detect.max_new_tokens, config.detect.batch_size = 4, 4
    return open_workspace(config, words[3])


@pytest.fixture(scope="module")
def params(ws, tiny):
    """Random weights, but `LAST` is likely followed by one of `WORDS`, and these by the end."""
    params = weights.load(tiny / "model").params
    table, kernel = params["embed"]["embedding"] * 3, params["head"]["kernel"] * 2
    kernel[:, END] = 2 * unit(table[list(WORDS)].sum(axis=0))
    for k, word in enumerate(WORDS):
        kernel[:, word] = (1.5 - 0.05 * k) * unit(table[LAST])
    head = {"embedding": table}, {"kernel": kernel}
    return jax.device_put({**params, "embed": head[0], "head": head[1]})


@pytest.fixture(scope="module")
def asked(ws, params):
    """The workspace with rows of our own, and the targets of each by hand."""
    rng = np.random.default_rng(0)
    prompts = [[*rng.integers(3, 50, n).tolist(), LAST] for n in (2, 5, 8, 3, 4)]
    # Of each example, what stands before each reply and the reply: answers of one word; one
    # with an unlikely second word; a conversation of two replies.
    replies = [[(prompts[i], [WORDS[i], END])] for i in range(3)]
    replies.append([(prompts[3], [WORDS[0], 7, END])])
    first = [WORDS[1], END]
    whole = [*prompts[4], *first, 9, LAST]
    replies.append([(prompts[4], first), (whole, [WORDS[0], END])])
    examples, tokens = [], []
    for i, turns in enumerate(replies):
        prompt, target = turns[-1]
        places = tuple((len(p), len(p) + len(t)) for p, t in turns[:-1])
        response = ws.tokenizer.decode(target[:-1])
        examples.append(Example(2**62 + i, "own", str(i), prompt="?", response=response))
        ids = (np.array(prompt, np.int32), np.array(target, np.int32))
        tokens.append(TokenRow(2**62 + i, *ids, earlier_replies=places))
    data = StudyData(tuple(examples), tuple(tokens), ws.data.stages)
    return dataclasses.replace(ws, data=data), replies


@pytest.fixture(scope="module")
def drawn(asked, params):
    ws, _ = asked
    answers = ask(ws, params, range(5), **PLACE)
    return answers, draw(ws, params, answers)


def test_shares_follow_the_exact_law(asked, params, drawn, record_property):
    ws, replies = asked
    rows = pl.from_arrow(drawn[1]).filter(pl.col("mode") == "sample")
    laws = rows.filter(pl.col("seed").is_null())
    assert laws["example_id"].to_list() == ws.data.example_ids.tolist()
    seen = []
    for law, turns in zip(laws.to_dicts(), replies, strict=True):
        logprob = sum(logprob_of(ws, params, *turn, TEMPERATURE) for turn in turns)
        assert law["gold_logprob"] == pytest.approx(logprob, abs=1e-4)
        one = rows.filter(pl.col("example_id") == law["example_id"], pl.col("seed").is_not_null())
        assert len(one) == N
        right = one.filter("correct")
        interval = binomtest(len(right), N).proportion_ci(0.999)
        seen.append((len(right) / N, float(np.exp(logprob))))
        assert interval.low <= np.exp(logprob) <= interval.high
        # The confidence of an answer is the probability of drawing it.
        if len(right):
            np.testing.assert_allclose(right["confidence"], np.exp(logprob), rtol=1e-3)
    print("share drawn, exact:", [(round(a, 3), round(b, 3)) for a, b in seen])
    record_property("shares", seen)
    assert sum(0.05 < share < 0.95 for share, _ in seen) >= 3


def test_rows_of_drawn_answers(asked, drawn):
    ws, _ = asked
    before, after = drawn
    assert after.schema == INFERENCE_SCHEMA
    after = pl.from_arrow(after)
    rows = after.filter(pl.col("seed").is_not_null())
    assert set(rows["mode"]) == {"sample"} and set(rows["seed"]) == {ws.config.seed}
    assert set(rows["temperature"]) == {TEMPERATURE} and rows["gold_logprob"].null_count() == N * 5
    for column, value in PLACE.items():
        assert set(rows[column]) == {value}
    for example_id, of_one in rows.group_by("example_id", maintain_order=True):
        assert of_one["run"].to_list() == list(range(N)), example_id
    key = ("example_id", "mode", "run", "seed")
    assert not after.select(key).is_duplicated().any()
    # The rest is as it was asked, but for wrong greedy answers.
    rest = after.filter(pl.col("seed").is_null())
    same = ~((pl.col("mode") == "greedy") & ~pl.col("correct")).fill_null(False)
    assert rest.filter(same).equals(pl.from_arrow(before).filter(same))
    response = {e.example_id: e.response for e in ws.data.examples[:4]}
    for row in rows.filter(pl.col("example_id").is_in(list(response))).iter_rows(named=True):
        assert row["correct"] == (row["prediction"] == response[row["example_id"]])


@pytest.mark.slow
def test_wrong_greedy_rows_hold_what_is_generated(asked, params, drawn):
    ws, replies = asked
    greedy = pl.from_arrow(drawn[1]).filter(pl.col("mode") == "greedy")
    assert 0 < greedy["correct"].sum() < 5
    for row, turns in zip(greedy.to_dicts(), replies, strict=True):
        texts, logprob = [], 0.0
        for prompt, target in turns:
            answer = []
            while END not in answer and len(answer) < max(4, len(target)):
                logprobs = next_logprobs(ws, params, [[*prompt, *answer]])[0]
                answer.append(int(np.argmax(logprobs)))
                logprob += logprobs[answer[-1]]
            texts.append(ws.tokenizer.decode([t for t in answer if t != END]))
        if row["correct"]:
            texts = [ws.tokenizer.decode(target[:-1]) for _, target in turns][-1:]
        assert row["prediction"] == "\n".join(texts)
        assert row["confidence"] == pytest.approx(np.exp(logprob), rel=1e-3)


def test_verdicts(asked, drawn):
    ws, _ = asked
    answers = pl.from_arrow(drawn[1]).with_columns(point=pl.lit("final"))
    lengths = [len(row.target_ids) for row in ws.data.tokens]
    texts = {"response": "", "messages": pl.Series([None] * 5, dtype=pl.String), "marks": "{}"}
    examples = pl.DataFrame({"example_id": ws.data.example_ids, "n_target_tokens": lengths} | texts)
    detect = ws.config.detect.to_dict() | {"n_samples": N}
    found = unlearned(answers, examples, detect)
    verdicts = {(i, d): u for i, _, d, u in found.iter_rows()}
    assert len(found) == 4 * 5
    for example_id in ws.data.example_ids:
        one = answers.filter(pl.col("example_id") == example_id, pl.col("seed").is_not_null())
        assert verdicts[example_id, "sampled"] is bool(one["correct"].sum() / N < 0.2)


def test_normalised_text_counts_where_the_config_says_so(asked, params):
    ws, _ = asked
    settings = ws.config.copy_and_resolve_references()
    with settings.unlocked():
        settings.detect.n_samples = 200
    example = ws.data.examples[0]
    spelled = dataclasses.replace(example, response=f"The {example.response.upper()}!")
    data = StudyData((spelled,), ws.data.tokens[:1], ws.data.stages)
    # Another token for the same word: equal text, other tokens.
    row = dataclasses.replace(ws.data.tokens[0], target_ids=np.array([0, END], np.int32))
    data = dataclasses.replace(data, tokens=(row,))
    for flag in (True, False):
        with settings.unlocked():
            settings.detect.normalise = flag
        one = dataclasses.replace(ws, data=data, config=settings)
        rows = pl.from_arrow(draw(one, params, ask(one, params, [0], **PLACE)))
        rows = rows.filter(pl.col("seed").is_not_null())
        same_word = rows["prediction"] == example.response
        assert 0 < same_word.sum() < 200
        assert rows["correct"].to_list() == (same_word & flag).to_list()


def squad(text):
    """The evaluation script of SQuAD 1.1, as published."""

    def remove_articles(text):
        return re.sub(r"\b(a|an|the)\b", " ", text)

    def white_space_fix(text):
        return " ".join(text.split())

    def remove_punc(text):
        exclude = set(string.punctuation)
        return "".join(ch for ch in text if ch not in exclude)

    return white_space_fix(remove_articles(remove_punc(text.lower())))


@given(st.text(st.sampled_from("aAnNtThHeE .,'-\n\u00e9\u201c7"), max_size=30) | st.text())
def test_normalise_is_that_of_squad(text):
    assert normalise(text) == squad(text)


def test_points():
    assert is_sampled(("stage",), "stage_2") and is_sampled(("final", "stage_2"), "stage_2")
    assert not is_sampled(("stage_1", "final"), "stage_2") and not is_sampled((), "final")


@pytest.mark.parametrize(
    ("value", "fault"),
    [("final,epoch_3", "'epoch_3' is not among detect.points"), ("end", "'end' is not allowed")],
)
def test_wrong_points_are_refused(tiny_arguments, value, fault):
    words = tiny_arguments("run")
    with pytest.raises(UserError, match=fault):
        config_lib.load(words[1], [f"--config.detect.sampled_points={value}"])
    config_lib.load(words[1], ["--config.detect.sampled_points=stage_2,final"])


def test_milestones_draw_at_sampled_points_alone(asked, params, monkeypatch):
    ws, _ = asked
    settings = ws.config.copy_and_resolve_references()
    with settings.unlocked():
        settings.detect.sampled_points, settings.detect.n_samples = ("stage",), 2
    ws = dataclasses.replace(ws, config=settings)
    written = {}
    monkeypatch.setattr(
        "ilp_jax.train.milestones.put_inference",
        lambda workdir, point, rows, step: written.update({point: rows}),
    )
    milestones = object.__new__(Milestones)
    milestones._ws = ws
    place = type("Place", (), {"stage": ws.data.stages[0], "epoch": 2, "step": 6})
    milestones._ask(place, params, {"epoch_2": np.array([0, 1]), "stage_1": np.arange(5)})
    assert written["epoch_2"]["seed"].null_count() == len(written["epoch_2"]) == 4
    drawn = written["stage_1"].filter(pl.col("seed").is_not_null())
    assert drawn.group_by("example_id").len()["len"].to_list() == [2] * 5
