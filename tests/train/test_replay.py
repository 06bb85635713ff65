"""Replay against a loop by hand, and by the real command: killed, resumed, refused."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import polars as pl
import pytest

from ilp_jax import cli, parquet
from ilp_jax.analysis.unlearned import by_default
from ilp_jax.config import load
from ilp_jax.errors import RunFailure
from ilp_jax.models import weights
from ilp_jax.models.decoder import Decoder
from ilp_jax.models.lora import LoraConfig
from ilp_jax.stats.reader import read_diagnosis, read_examples, read_inference
from ilp_jax.stats.replay import read_replay
from ilp_jax.train import loop
from ilp_jax.train.replay import measure
from ilp_jax.workspace import open_workspace

RATE, STEPS = 0.02, (1, 2, 4)


@pytest.fixture(params=["all parameters", "adapters"], scope="module")
def setting(request, tiny_arguments, tmp_path_factory):
    """Workspace, parameters to begin from and, by hand, the optimiser and a decoder."""
    rank = 2 * (request.param == "adapters")
    workdir = tmp_path_factory.mktemp("replay")
    words = tiny_arguments(workdir, f"--config.lora.rank={rank}", "--config.train.weight_decay=0.1")
    ws = open_workspace(load(words[1], words[4:]), workdir)
    loaded = weights.load(ws.config.model.path)
    params = loop.at_start(ws, jax.device_put(loaded.params))
    adapters = LoraConfig(rank, ("q", "k", "v", "o", "gate", "up", "down"), 2.0) if rank else None
    return ws, params, Decoder(loaded.config, lora=adapters)


@pytest.fixture
def by_hand(setting):
    """``by_hand(row)``: loss sum and whether all is right, after 0 to 4 updates on one row."""
    _, params, decoder = setting
    adapted = decoder.lora is not None

    def is_matrix(tree):
        return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key != "scale", tree)

    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(RATE, weight_decay=0.1, mask=is_matrix)
    )

    @jax.jit
    def update(trained, moments, tokens, slots, target, mask):
        def mean_loss(trained):
            variables = {"params": params.base, "lora": trained} if adapted else {"params": trained}
            at = jnp.arange(len(tokens))[None]
            logits = decoder.apply(variables, tokens[None], at, jnp.zeros_like(at))[0, slots]
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, target) * mask
            right = (logits.argmax(-1) == target) | (mask == 0)
            return losses.sum() / mask.sum(), (losses.sum(), right.all())

        grads, measured = jax.grad(mean_loss, has_aux=True)(trained)
        changes, moments = optimizer.update(grads, moments, trained)
        return optax.apply_updates(trained, changes), moments, measured

    def loop_over(row):
        n_prompt, n = len(row.prompt_ids), len(row.target_ids)
        tokens, target = np.zeros(16, np.int32), np.zeros(5, np.int32)
        tokens[: n_prompt + n] = [*row.prompt_ids, *row.target_ids]
        target[:n] = row.target_ids
        slots, mask = n_prompt - 1 + np.arange(5), (np.arange(5) < n).astype(np.float32)
        trained = params.adapters if adapted else params
        moments, out = optimizer.init(trained), []
        for _ in range(STEPS[-1] + 1):
            trained, moments, measured = update(trained, moments, tokens, slots, target, mask)
            out.append((float(measured[0]), bool(measured[1])))
        return out

    return loop_over


def test_against_a_loop_by_hand(setting, by_hand):
    ws, params, _ = setting
    before = jax.device_get(params)
    indices = [4, 1, 15, 4]
    frames = list(measure(ws, params, indices, RATE, STEPS))
    assert len(frames) == 4
    came_back = set()
    for index, frame in zip(indices, frames, strict=True):
        row = ws.data.tokens[index]
        wanted = by_hand(row)
        assert frame["k"].to_list() == [0, 1, 2, 4]
        assert frame["example_id"].unique().to_list() == [row.example_id]
        for k, loss, p_gold, correct in frame.drop("example_id").iter_rows():
            loss_sum, right = wanted[k]
            assert loss == pytest.approx(loss_sum / len(row.target_ids), rel=2e-4)
            assert p_gold == pytest.approx(np.exp(-loss_sum), rel=2e-3)
            assert correct is right
        assert frame["loss"][0] > frame["loss"][3]
        came_back.add(tuple(frame["correct"]))
    assert len(came_back) > 1  # some were right sooner than others
    # Each began from the same parameters, which are left as they were.
    assert frames[0].equals(frames[3])
    jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(params))


def test_a_loss_that_is_not_finite(setting):
    ws, params, _ = setting
    with pytest.raises(RunFailure, match="the loss after 1 updates is nan.*learning_rate"):
        list(measure(ws, params, [0], float("inf"), (1,)))


@pytest.fixture(scope="module")
def replayed(finished_run, tmp_path_factory):
    """A finished run that was replayed in one go; do not change it."""
    workdir = tmp_path_factory.mktemp("replayed") / "run"
    shutil.copytree(finished_run, workdir)
    assert cli.main(["replay", "--workdir", str(workdir)]) == 0
    return workdir


def unlearned(workdir):
    found = read_diagnosis(workdir).filter(pl.col("point") == "final", pl.col("method") == "none")
    found = by_default(found)
    return dict(found.select("example_id", "unlearned").drop_nulls().iter_rows())


def test_rows_and_metadata(replayed):
    rows, found = read_replay(replayed), unlearned(replayed)
    lost = {one for one, is_lost in found.items() if is_lost}
    assert lost and len(found) - len(lost) < 16  # so all learned rows are controls
    wanted = [(one, k) for one in sorted(found) for k in (0, 1, 2, 4, 8)]
    assert rows.select("example_id", "k").rows() == wanted
    metadata = parquet.read_metadata(replayed / "replay.parquet")
    assert metadata["learning_rate"] == "0.001" and json.loads(metadata["steps"]) == [1, 2, 4, 8]
    assert metadata["detector"] == "default" and "b2=0.999" in metadata["optimizer"]
    assert not list((replayed / "replay").iterdir())
    # Before any update it is what detection saw.
    greedy = read_inference(replayed, ["final"]).filter(pl.col("mode") == "greedy")
    both = rows.filter(pl.col("k") == 0).join(greedy, on="example_id", suffix="_asked")
    assert (both["correct"] == both["correct_asked"]).all()
    np.testing.assert_allclose(both["p_gold"], np.exp(both["gold_logprob"]), rtol=1e-3)
    n_tokens = read_examples(replayed).select("example_id", "n_target_tokens")
    checked = rows.join(n_tokens, on="example_id")
    total = checked["loss"] * checked["n_target_tokens"]
    np.testing.assert_allclose(np.exp(-total), checked["p_gold"], rtol=1e-9)


def test_killed_and_resumed(finished_run, replayed, ilp, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(finished_run, workdir)
    command = ["replay", "--workdir", str(workdir)]
    done = ilp(*command, killed_at=("os:replace", 1, "replay/.00001"))
    assert done.returncode < 0
    kept = parquet.read(workdir / "replay" / "00000.parquet")
    assert len(kept) == 8 * 5 and not (workdir / "replay.parquet").exists()
    assert cli.main(command) == 0
    shown = capsys.readouterr()
    n = len(unlearned(workdir))
    assert f"replay 9/{n}" in shown.err or f"replay 10/{n}" in shown.err
    assert "unlearned" in shown.out and "controls" in shown.out
    assert read_replay(workdir).equals(read_replay(replayed))
    assert (workdir / "replay.parquet").read_bytes() == (replayed / "replay.parquet").read_bytes()
    assert not list((workdir / "replay").iterdir())


def test_a_limit_then_more(finished_run, replayed, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(finished_run, workdir)
    command = ["replay", "--workdir", str(workdir)]
    assert cli.main([*command, "--limit", "2"]) == 0
    rows = read_replay(workdir)
    assert rows["example_id"].n_unique() == 2
    assert all(unlearned(workdir)[one] for one in rows["example_id"])
    assert rows.equals(read_replay(replayed).join(rows, on=("example_id", "k"), how="semi"))
    before = (workdir / "replay.parquet").read_bytes()
    capsys.readouterr()
    assert cli.main([*command, "--limit", "1"]) == 0  # nothing new, nothing lost
    assert capsys.readouterr().err == ""
    assert (workdir / "replay.parquet").read_bytes() == before

    # Rows of other settings are not mixed in, and not thrown away either.
    for change, words in (
        ("learning_rate=0.5", ["learning_rate was 0.001, now 0.5", "delete"]),
        ("steps=1,2", ["steps was [1, 2, 4, 8], now [1, 2]"]),
        ("detector=choice", ["detector was default, now choice"]),
    ):
        assert cli.main([*command, f"--config.replay.{change}"]) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1 and all(word in line for word in words), line
    assert (workdir / "replay.parquet").read_bytes() == before
    # A refused call's settings are not the next one's.
    assert cli.main([*command, "--limit", "2"]) == 0
    (workdir / "replay.parquet").unlink()
    assert cli.main([*command, "--config.replay.detector=sampled"]) == 2
    assert "choice, exact_law, exact_match" in capsys.readouterr().err
    assert not (workdir / "replay.parquet").exists()


def test_needs_a_finished_run(finished_run, tmp_path, tiny_arguments, capsys):
    workdir = tmp_path / "run"
    assert cli.main(["replay", *tiny_arguments(workdir)]) == 2
    assert "needs the phase probe" in capsys.readouterr().err
    shutil.copytree(finished_run, workdir, dirs_exist_ok=True)
    (workdir / "diagnosis.parquet").unlink()
    assert cli.main(["replay", *tiny_arguments(workdir)]) == 2
    assert "diagnosis.parquet: there is no such file" in capsys.readouterr().err
