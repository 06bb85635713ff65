"""The whole flow by the real commands on a tiny model, against independent recomputation."""

import json
import math
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from ilp_jax import cli, parquet
from ilp_jax.config import from_run
from ilp_jax.models import weights
from ilp_jax.models.decoder import Decoder
from ilp_jax.models.tokenizer import load_tokenizer
from ilp_jax.stats.reader import (
    check_unique,
    read_diagnosis,
    read_examples,
    read_inference,
    read_plan,
    read_stats,
)
from ilp_jax.train import loop
from ilp_jax.train.checkpoint import Checkpoints
from ilp_jax.workspace import open_workspace

GROUPS = ("embed", "attn", "mlp", "norm", "head")
CAUSES = (
    "missing_knowledge",
    "base_conflict",
    "data_conflict",
    "left_side_forgetting",
    "insufficient_training",
)
COLUMNS = {
    "examples.parquet": "example_id source source_key role parent_id prompt messages response "
    "options answer_index knowledge n_prompt_tokens n_target_tokens truncated meta marks "
    "chat notes",
    "plan.parquet": "example_id stage position copies",
    "stats": "example_id kind stage epoch step visit batch_index microbatch row segment "
    "learning_rate loss_sum n_tokens n_correct prob_mean grad_norm "
    + " ".join(f"grad_norm_{group}" for group in GROUPS)
    + " entropy_mean margin_mean",
    "inference": "example_id stage epoch step run mode prompt_variant temperature seed prediction "
    "confidence correct gold_logprob options option_logprob_sum option_logprob_mean",
    "diagnosis.parquet": "example_id point detector method unlearned cause "
    + " ".join(f"{kind}_{cause}" for kind in ("score", "flag") for cause in CAUSES)
    + " runner_up related_ids evidence",
}
EPOCHS, PER_EPOCH, STAGES = 6, 3, 2
LAST = EPOCHS * PER_EPOCH * STAGES


@pytest.fixture(scope="module")
def ws(finished_run):
    return open_workspace(from_run(finished_run), finished_run)


@pytest.fixture(scope="module")
def base(tiny):
    return weights.load(tiny / "model")


@pytest.fixture(scope="module")
def final(ws):
    checkpoints = Checkpoints(ws.workdir / loop.CHECKPOINTS)
    step, state = checkpoints.restore(checkpoints.latest_step(), loop.abstract_state(ws))
    checkpoints.close()
    assert step == LAST == int(state.step)
    return state.params


@pytest.fixture(scope="module")
def questions(tiny, finished_run):
    """Example id to (prompt tokens, response tokens with end, option tokens), by word look-up."""
    vocab = load_tokenizer(tiny / "model").get_vocab()

    def ids(text):
        return [vocab[word] for word in text.split()]

    return {
        row["example_id"]: (
            ids(row["prompt"]),
            [*ids(row["response"]), vocab["<end>"]],
            [ids(option) for option in row["options"]],
        )
        for row in read_examples(finished_run).to_dicts()
    }


def test_every_file_of_the_contract(finished_run):
    record = json.loads((finished_run / "run.json").read_text())
    wanted = "config config_hash versions git_commit device seeds weights_hash seconds"
    assert set(wanted.split()) <= set(record)
    assert list(record["finished"]) == ["probe", "train", "detect", "diagnose", "report"]
    points = ("base", "epoch_2", "stage_1", "stage_2", "converged", "final")
    tables = {f"inference/{point}.parquet": COLUMNS["inference"] for point in points}
    tables |= {name: columns for name, columns in COLUMNS.items() if name.endswith(".parquet")}
    stats = [p.relative_to(finished_run) for p in (finished_run / "stats").iterdir()]
    tables |= {str(path): COLUMNS["stats"] for path in stats}
    assert len(stats) == 2  # one a phase: probe and train, compacted
    for name, columns in tables.items():
        assert parquet.read(finished_run / name).columns == columns.split(), name
        assert parquet.read_metadata(finished_run / name)["schema_version"] == "1"
    assert {p.name for p in (finished_run / "inference").iterdir()} == {
        f"{point}.parquet" for point in points
    }
    vectors = finished_run / "projections/representations.parquet"
    assert parquet.read(vectors).columns == ["example_id", "vector"]
    assert "final norm" in parquet.read_metadata(vectors)["layer"]
    ids = read_examples(finished_run)["example_id"]
    assert sorted(parquet.read(vectors)["example_id"]) == sorted(ids)
    assert list((finished_run / "tensorboard").iterdir())
    summary = json.loads((finished_run / "summary.json").read_text(), parse_constant=pytest.fail)
    assert {"shares", "probe_loss", "n_examples", "report"} <= set(summary)
    assert "trained rows (" in (finished_run / "report.html").read_text()
    assert [p.name for p in (finished_run / "checkpoints/state").iterdir()] == [f"{LAST:09d}"]
    assert not [p for p in finished_run.rglob("*") if "tmp" in p.name]


def test_standard_error_has_progress_alone(finished_run):
    for line in (finished_run.parent / "stderr").read_text().splitlines():
        assert line.startswith(("probe ", "ask ", "train ")), line
    stdout = (finished_run.parent / "stdout").read_text()
    assert "Share unlearned" in stdout
    assert stdout.replace("\n", "").endswith(f"Report: {finished_run}/report.html")


def test_visits_are_complete_and_unique(finished_run, tiny):
    """Brute force: every key that the plan and the config call for, and no other."""
    examples, plan = read_examples(finished_run), read_plan(finished_run)
    rows = {
        stage: plan.filter(pl.col("stage") == stage)["example_id"].to_list() for stage in (1, 2)
    }
    held_out = examples.filter(pl.col("role") == "held_out")["example_id"].to_list()
    everything = examples["example_id"].to_list()
    assert [len(rows[1]), len(rows[2]), len(held_out), len(everything)] == [10, 10, 4, 23]
    assert len(set(rows[1]) & set(rows[2])) == 1
    assert plan["copies"].to_list() == [1] * 20
    keys = [(one, "probe", 0, 0, 0, 0) for one in everything]
    visits = Counter()
    for stage in (1, 2):
        for epoch in range(1, EPOCHS + 1):
            end = ((stage - 1) * EPOCHS + epoch) * PER_EPOCH
            for one in rows[stage]:
                visits[one] += 1
                keys.append((one, "train", stage, epoch, None, visits[one]))
            probed = everything if epoch == EPOCHS else [*rows[stage], *held_out]
            keys += [(one, "probe", stage, epoch, end, visits[one]) for one in probed]
    stats = read_stats(finished_run)
    check_unique(stats)
    found = [
        (*key[:4], None if key[1] == "train" else key[4], key[5])
        for key in stats.select("example_id", "kind", "stage", "epoch", "step", "visit").rows()
    ]
    assert sorted(found, key=repr) == sorted(keys, key=repr)
    # Batches: 4 rows, 4 rows and 2 rows, in steps that count through the run.
    train = stats.filter(pl.col("kind") == "train").sort("step", "row")
    for step, of_step in train.group_by("step"):
        place, batch = divmod(step[0] - 1, PER_EPOCH)
        assert of_step["batch_index"].unique().to_list() == [batch]
        assert of_step["epoch"].unique().to_list() == [place % EPOCHS + 1]
        assert of_step["row"].to_list() == list(range(4 if batch < 2 else 2))
    assert train["step"].unique().to_list() == list(range(1, LAST + 1))
    assert (train["microbatch"] == 0).all() and (train["segment"] == 0).all()
    rates = train.group_by("step").agg(pl.col("learning_rate").unique()).sort("step")
    warm_up = [0.002, 0.004, 0.006, 0.008, 0.01] + [0.01] * 13
    assert np.allclose(rates["learning_rate"].list.first(), warm_up * 2, rtol=1e-12, atol=0)
    first = train.filter(pl.col("epoch") == 1).sort("step", "row")
    for stage in (1, 2):
        order = first.filter(pl.col("stage") == stage)["example_id"].to_list()
        wanted = {one: place / 9 for place, one in enumerate(order)}
        of_stage = plan.filter(pl.col("stage") == stage)
        assert dict(of_stage.select("example_id", "position").iter_rows()) == wanted


def test_norms_are_where_they_should_be(finished_run):
    stats = read_stats(finished_run)
    with_norms = pl.col("grad_norm").is_not_null()
    probes = stats.filter(pl.col("kind") == "probe")
    assert stats.filter(pl.col("kind") == "train").select(with_norms.all()).item()
    for (epoch,), rows in probes.group_by("epoch"):
        assert rows.select(with_norms.unique()).to_series().to_list() == [epoch in (0, EPOCHS)]
    normed = stats.filter(with_norms)
    squares = sum(normed[f"grad_norm_{group}"].cast(pl.Float64) ** 2 for group in GROUPS)
    assert np.allclose(np.sqrt(squares), normed["grad_norm"], rtol=1e-5)
    assert probes["learning_rate"].null_count() == len(probes)


def test_first_update_against_plain_gradients(finished_run, base, questions):
    """Losses and norms of step 1 = jax.grad of each row alone, without taps."""
    decoder = Decoder(base.config)

    @jax.jit
    def gradient(params, tokens, slots, target, mask):
        def mean_loss(params):
            at = jnp.arange(len(tokens))[None]
            logits = decoder.apply({"params": params}, tokens[None], at, jnp.zeros_like(at))
            logprob = jax.nn.log_softmax(logits[0, slots])
            own = jnp.take_along_axis(logprob, target[:, None], -1)[:, 0]
            return -jnp.sum(own * mask) / jnp.sum(mask), logprob

        return jax.value_and_grad(mean_loss, has_aux=True)(params)

    rows = read_stats(finished_run, kind="train").filter(pl.col("step") == 1)
    assert len(rows) == 4
    for row in rows.to_dicts():
        prompt, target, _ = questions[row["example_id"]]
        n = len(target)
        tokens, wanted = np.zeros(16, np.int32), np.zeros(5, np.int32)
        tokens[: len(prompt) + n], wanted[:n] = [*prompt, *target], target
        slots = len(prompt) - 1 + np.arange(5)
        mask = (np.arange(5) < n).astype(np.float32)
        (loss, logprob), grads = gradient(base.params, tokens, slots, wanted, mask)
        assert row["n_tokens"] == n and row["visit"] == 1
        assert row["loss_sum"] == pytest.approx(float(loss) * n, rel=1e-5)
        logprob = np.asarray(logprob, np.float64)[:n]
        own = logprob[np.arange(n), target]
        assert row["prob_mean"] == pytest.approx(np.exp(own).mean(), rel=1e-5)
        entropy = -(np.exp(logprob) * logprob).sum(-1).mean()
        assert row["entropy_mean"] == pytest.approx(entropy, rel=1e-5)
        assert row["n_correct"] == (logprob.argmax(-1) == target).sum()
        squares = Counter()
        for path, grad in jax.tree_util.tree_leaves_with_path(grads):
            names = [key.key for key in path]
            group = "norm" if names[-1] == "scale" else next(n for n in names if n in GROUPS)
            squares[group] += float(jnp.sum(grad.astype(jnp.float32) ** 2))
        for group in GROUPS:
            wanted = math.sqrt(squares[group])
            assert row[f"grad_norm_{group}"] == pytest.approx(wanted, rel=1e-5), group
        assert row["grad_norm"] == pytest.approx(math.sqrt(squares.total()), rel=1e-5)


def test_probes_and_first_visits_agree(finished_run):
    """A row first visited at step 1 was probed at the same parameters before."""
    stats = read_stats(finished_run)
    first = stats.filter(pl.col("kind") == "train", pl.col("step") == 1)
    probed = stats.filter(pl.col("kind") == "probe", pl.col("step") == 0)
    both = first.join(probed, on="example_id", suffix="_probe")
    assert len(both) == 4
    for column in ("loss_sum", "n_tokens", "n_correct", "grad_norm", "margin_mean"):
        assert np.allclose(both[column], both[f"{column}_probe"], rtol=1e-5), column


def test_answers_against_separate_forwards(ws, finished_run, base, final, questions):
    """Greedy by generating token by token; options and the exact law by unpacked forwards."""
    decoder, size = Decoder(base.config), 24

    @jax.jit
    def log_probs(params, tokens, temperature):
        at = jnp.arange(size)[None]
        logits = decoder.apply({"params": params}, tokens[None], at, jnp.zeros_like(at))[0]
        return jax.nn.log_softmax(logits), jax.nn.log_softmax(logits / temperature)

    def along(params, prompt, ids):
        """Log-probabilities of ids after the prompt, plain and tempered."""
        tokens = np.zeros(size, np.int32)
        tokens[: len(prompt) + len(ids)] = [*prompt, *ids]
        slots = np.arange(len(prompt) - 1, len(prompt) + len(ids) - 1)
        plain, tempered = log_probs(params, tokens, 0.7)
        return np.asarray(plain)[slots, ids], np.asarray(tempered)[slots, ids]

    def generate(params, prompt, n):
        answer = []
        for _ in range(n):
            tokens = np.zeros(size, np.int32)
            tokens[: len(prompt) + len(answer)] = [*prompt, *answer]
            plain, _ = log_probs(params, tokens, 1.0)
            answer.append(int(np.argmax(plain[len(prompt) + len(answer) - 1])))
        return answer

    texts = {row["example_id"]: row for row in read_examples(finished_run).to_dicts()}
    n_correct = Counter()
    for point, params in (("base", base.params), ("final", final)):
        answers = read_inference(finished_run, [point]).filter(pl.col("prompt_variant") == 0)
        by_mode = {
            mode: {row["example_id"]: row for row in part.to_dicts()}
            for (mode,), part in answers.group_by("mode")
        }
        for one, (prompt, target, options) in questions.items():
            text = texts[one]
            greedy, law = by_mode["greedy"][one], by_mode["sample"][one]
            correct = generate(params, prompt, len(target)) == target
            n_correct[point] += correct
            assert greedy["correct"] == correct
            assert (greedy["prediction"] == text["response"]) or not correct
            assert greedy["temperature"] == 0 and law["temperature"] == 0.7
            plain, tempered = along(params, prompt, target)
            assert greedy["gold_logprob"] == pytest.approx(plain.sum(), abs=1e-4)
            # The law: each answer is right with the product of the tempered probabilities.
            assert math.exp(law["gold_logprob"]) == pytest.approx(np.exp(tempered).prod(), rel=1e-4)
            assert law["correct"] is None and law["prediction"] is None
            if not options:
                assert one not in by_mode["choice"]
                continue
            choice = by_mode["choice"][one]
            sums = [along(params, prompt, ids)[0].sum() for ids in options]
            means = [total / len(ids) for total, ids in zip(sums, options, strict=True)]
            assert choice["options"] == text["options"]
            assert np.allclose(choice["option_logprob_sum"], sums, atol=1e-4)
            assert np.allclose(choice["option_logprob_mean"], means, atol=1e-4)
            best = int(np.argmax(means))
            assert choice["prediction"] == text["options"][best]
            assert choice["correct"] == (text["options"][best] == text["response"])
            share = np.exp(means[best]) / np.exp(means).sum()
            assert choice["confidence"] == pytest.approx(share, rel=1e-3)
        assert len(by_mode["choice"]) == len(questions) - 2
    assert n_correct["base"] < n_correct["final"] < len(questions)


def test_points_are_asked_when_they_should_be(finished_run):
    answers = read_inference(finished_run)
    greedy = answers.filter(pl.col("mode") == "greedy")
    places = greedy.group_by("point", "stage", "epoch", "step").agg("example_id")
    found = {row[:4]: sorted(row[4]) for row in places.rows()}
    examples, plan = read_examples(finished_run), read_plan(finished_run)
    everything = sorted(examples["example_id"])
    rows = {s: plan.filter(pl.col("stage") == s)["example_id"].to_list() for s in (1, 2)}
    own = {1: sorted(rows[1]), 2: sorted(set(rows[2]) - set(rows[1]))}
    wanted = {
        ("base", 0, 0, 0): everything,
        ("epoch_2", 1, 2, 6): own[1],
        ("stage_1", 1, 6, 18): everything,
        ("epoch_2", 2, 2, 24): own[2],
        ("stage_2", 2, 6, 36): everything,
        ("final", 2, 6, 36): everything,
    }
    # Brute force from the statistics: the second epoch running with a fall below 20%.
    probes = read_stats(finished_run, kind="probe").with_columns(
        (pl.col("loss_sum") / pl.col("n_tokens")).alias("loss")
    )
    for stage in (1, 2):
        of_stage = probes.filter(pl.col("example_id").is_in(rows[stage]))
        at = [(stage - 1) * EPOCHS * PER_EPOCH + e * PER_EPOCH for e in range(EPOCHS + 1)]
        loss = [of_stage.filter(pl.col("step") == step)["loss"].mean() for step in at]
        flat = [loss[e - 1] - loss[e] < 0.2 * loss[0] for e in range(1, EPOCHS + 1)]
        epoch = next(e for e in range(2, EPOCHS + 1) if flat[e - 2] and flat[e - 1])
        wanted["converged", stage, epoch, at[epoch]] = own[stage]
    assert found == wanted
    law = answers.filter(pl.col("point") == "stage_2").drop("point")
    assert law.equals(answers.filter(pl.col("point") == "final").drop("point"))


def test_verdicts_follow_from_the_answers(finished_run):
    answers, verdicts = read_inference(finished_run), read_diagnosis(finished_run)
    keys = ["example_id", "point", "detector", "method"]
    assert not verdicts.select(keys).is_duplicated().any()
    by_key = {
        (row["example_id"], row["point"], row["detector"]): row["unlearned"]
        for row in verdicts.to_dicts()
    }
    trained = read_plan(finished_run)["example_id"].unique().to_list()
    answers = answers.filter(pl.col("example_id").is_in(trained), pl.col("prompt_variant") == 0)
    for row in answers.to_dicts():
        detector = {"greedy": "exact_match", "sample": "exact_law", "choice": "choice"}[row["mode"]]
        unlearned = by_key.pop((row["example_id"], row["point"], detector))
        if row["mode"] == "sample":
            assert unlearned == ((1 - math.exp(row["gold_logprob"])) ** 5 >= 0.5)
        else:
            assert unlearned is (not row["correct"])
    # What is left are rows without options, to which `choice` does not apply.
    assert set(by_key.values()) == {None}
    examples = read_examples(finished_run).filter(pl.col("example_id").is_in(trained))
    without = examples.filter(pl.col("options").list.len() == 0)["example_id"].to_list()
    assert without and {key[0::2] for key in by_key} == {(one, "choice") for one in without}


def test_metrics_follow_the_statistics(finished_run):
    lines = [json.loads(line) for line in (finished_run / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["event"] == "train"]
    assert [line["step"] for line in train] == list(range(1, LAST + 1))
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
    stats = read_stats(finished_run, kind="train")
    for line in train:
        rows = stats.filter(pl.col("step") == line["step"])
        assert line["loss"] == pytest.approx((rows["loss_sum"] / rows["n_tokens"]).mean(), rel=1e-6)
        assert line["grad_norm_max"] == rows["grad_norm"].max()
    probes = [line for line in lines if line["event"] == "probe"]
    assert [line["step"] for line in probes] == list(range(3, LAST + 1, 3))
    best = min(probes, key=lambda line: line["held_out_loss"])
    (kept,) = (finished_run / "checkpoints/best").iterdir()
    assert int(kept.name) == best["step"]


def test_running_again_does_nothing_and_prints_the_table(finished_run, tiny_arguments, ilp, capsys):
    def contents():
        skip = ("run.json", ".lock")
        return {
            path: (path.stat().st_mtime_ns, path.read_bytes())
            for path in finished_run.rglob("*")
            if path.is_file() and path.name not in skip
        }

    before, record = contents(), json.loads((finished_run / "run.json").read_text())
    assert cli.main(["run", *tiny_arguments(finished_run)]) == 0
    shown = capsys.readouterr()
    assert shown.out.split() == (finished_run.parent / "stdout").read_text().split()
    assert shown.err == ""
    assert contents() == before
    after = json.loads((finished_run / "run.json").read_text())
    assert {**after, "git_commit": None} == {**record, "git_commit": None}
    # The workdir alone is enough as well.
    assert cli.main(["diagnose", "--workdir", str(finished_run)]) == 0
    tables, *report = shown.out.split("Report: ")
    assert capsys.readouterr().out.split() == tables.split() and len(report) == 1


@pytest.mark.slow
def test_each_phase_by_itself_gives_the_same(
    finished_run, tiny_arguments, ilp, tmp_path, same_run, capsys
):
    workdir = tmp_path / "phases"
    for command, missing in (("train", "probe"), ("detect", "probe"), ("diagnose", "probe")):
        assert cli.main([command, *tiny_arguments(workdir)]) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1 and f"{command} needs the phase {missing}" in line
    for command in ("probe", "train", "detect", "diagnose", "report"):
        done = ilp(command, *tiny_arguments(workdir))
        assert done.returncode == 0, done.stderr
    same_run(finished_run, workdir)
