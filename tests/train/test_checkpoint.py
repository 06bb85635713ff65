import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ilp_jax.errors import RunFailure
from ilp_jax.train.checkpoint import BestCheckpoint, Checkpoints, abstract
from ilp_jax.train.checksums import check_checksums, crc32, write_checksums


def make_state(step):
    """A state with all that a real one has: bfloat16, named tuples, a typed key, a number."""
    keys = jax.random.split(jax.random.key(step))
    params = {
        "embed": jax.random.normal(keys[0], (7, 33)),
        "layers": {"kernel": jax.random.normal(keys[1], (2, 5, 3), jnp.bfloat16)},
    }
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    grads = jax.tree.map(jnp.sin, params)
    opt_state = optimizer.update(grads, optimizer.init(params), params)[1]
    return {
        "params": params,
        "opt_state": opt_state,
        "step": jnp.int32(step),
        "key": keys[0],
        "count": step,
    }


def assert_same(a, b):
    """The same structure, dtypes and bits."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        x, y = np.asarray(x), np.asarray(y)
        assert x.dtype == y.dtype and x.tobytes() == y.tobytes()


def array_files(folder):
    """The files of a checkpoint that hold array data, largest first."""
    found = [p for p in Path(folder).rglob("*") if p.is_file() and p.parent.name == "d"]
    return sorted(found, key=lambda p: -p.stat().st_size)


def test_restored_state_is_bitwise_the_saved_one(tmp_path):
    state = make_state(3)
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.latest_step() is None
    checkpoints.save(3, state)
    checkpoints.save(3, make_state(4))  # already there: not saved again
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.latest_step() == 3
    step, restored = checkpoints.restore(3, abstract(state))
    assert step == 3
    assert_same(restored, state)
    assert type(restored["opt_state"][1][0]) is type(state["opt_state"][1][0])
    checkpoints.close()
    assert not [p for p in (tmp_path / "c").rglob("*") if p.suffix in (".pkl", ".pickle")]


def test_state_may_be_donated_while_it_is_saved(tmp_path):
    update = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    state = {"w": [jnp.full((512, 512), 7.0) for _ in range(8)]}
    target = abstract(state)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state)
    for _ in range(5):
        state = update(state)
    restored = checkpoints.restore(1, target).state
    checkpoints.close()
    assert all((np.asarray(w) == 7.0).all() for w in restored["w"])


@pytest.mark.parametrize("keep", [1, 2])
def test_keeps_the_newest(tmp_path, keep):
    checkpoints = Checkpoints(tmp_path, keep=keep)
    for step in (1, 2, 3):
        checkpoints.save(step, {"x": jnp.full(3, step)})
    checkpoints.close()
    assert len([p for p in tmp_path.iterdir() if p.name.isdigit()]) == keep
    reopened = Checkpoints(tmp_path, keep=keep)
    assert reopened.latest_step() == 3
    reopened.close()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "metadata"])
def test_damaged_newest_falls_back_to_the_one_before(tmp_path, caplog, damage):
    folder = tmp_path / "c"
    checkpoints = Checkpoints(folder, keep=2)
    for step in (5, 9):
        checkpoints.save(step, make_state(step))
    checkpoints.close()
    path = array_files(folder / "000000009")[0]
    if damage == "metadata":
        path = folder / "000000009" / "state" / "_METADATA"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else content)

    checkpoints = Checkpoints(folder, keep=2)
    with caplog.at_level("WARNING"):
        step, restored = checkpoints.restore(9, abstract(make_state(9)))
    assert step == 5
    assert_same(restored, make_state(5))
    assert "checkpoint 9 cannot be read" in caplog.text
    assert "going on from checkpoint 5" in caplog.text
    # The damaged one is out of the way, so that the step can be saved again.
    assert checkpoints.latest_step() == 5
    checkpoints.save(9, make_state(9))
    assert_same(checkpoints.restore(9, abstract(make_state(9))).state, make_state(9))
    checkpoints.close()


def test_no_readable_checkpoint_is_a_run_failure(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(RunFailure, match="no checkpoint of step 3"):
        checkpoints.restore(3, {})
    checkpoints.save(3, make_state(3))
    checkpoints.wait()
    wrong = abstract(make_state(3) | {"params": {"other": jnp.zeros(3)}})
    with pytest.raises(RunFailure, match="cannot be read.*no older one"):
        checkpoints.restore(3, wrong)
    # Nothing was moved away: the file is whole, the request was wrong.
    assert_same(checkpoints.restore(3, abstract(make_state(3))).state, make_state(3))
    checkpoints.close()


CHILD = """
import os, signal, sys
import jax.numpy as jnp
from ilp_jax.train import checkpoint
folder, moment = sys.argv[1:]
state = lambda s: {"w": jnp.arange(2_000_000, dtype=jnp.float32) + s, "step": jnp.int32(s)}
checkpoints = checkpoint.Checkpoints(folder)
checkpoints.save(1, state(1))
checkpoints.wait()
print("saved", flush=True)
if moment == "before_commit":
    checkpoint.write_checksums = lambda folder: os.kill(os.getpid(), signal.SIGKILL)
if moment == "at_rename":
    os.rename = os.replace = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
for step in range(2, 10_000):
    checkpoints.save(step, state(step))
    print("started", flush=True)
checkpoints.wait()
"""


@pytest.mark.parametrize("moment", ["before_commit", "at_rename", "random"])
def test_killed_in_a_save(tmp_path, moment):
    """SIGKILL while a checkpoint is written leaves the one before it, bit for bit."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path), moment], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "saved\n"
    n_started = 0
    for _ in child.stdout:
        n_started += 1
        if moment == "random" and n_started == 4:
            child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    unfinished = [p for p in tmp_path.iterdir() if "tmp" in p.name]
    assert unfinished or moment == "random"

    checkpoints = Checkpoints(tmp_path)
    newest = checkpoints.latest_step()
    assert newest == 1 if moment != "random" else newest >= 1
    target = {
        "w": jax.ShapeDtypeStruct((2_000_000,), jnp.float32),
        "step": jax.ShapeDtypeStruct((), jnp.int32),
    }
    step, state = checkpoints.restore(newest, target)
    assert step == newest == int(state["step"])
    wanted = jnp.arange(2_000_000, dtype=jnp.float32) + newest
    assert np.array_equal(state["w"], wanted)
    assert not [p for p in tmp_path.iterdir() if "tmp" in p.name]
    checkpoints.save(newest + 1, state)
    checkpoints.close()


def test_full_disk_while_saving_is_a_run_failure(tmp_path, monkeypatch):
    from ilp_jax.train import checkpoint

    def full(folder):
        raise OSError(28, "No space left on device")

    checkpoints = Checkpoints(tmp_path)
    monkeypatch.setattr(checkpoint, "write_checksums", full)
    with pytest.raises(RunFailure, match="the disk is full"):
        checkpoints.save(1, {"x": jnp.zeros(3)})
        checkpoints.wait()
    assert Checkpoints(tmp_path).latest_step() is None


def test_best_keeps_the_lowest_loss(tmp_path):
    params = [{"w": jnp.full(4, float(i))} for i in range(6)]
    best = BestCheckpoint(tmp_path / "best")
    assert best.step is None and best.loss is None
    with pytest.raises(RunFailure, match="no best"):
        best.restore(abstract(params[0]))
    losses = {1: 2.0, 2: 1.5, 3: 1.5, 4: 1.75, 5: 1.25}
    assert [best.offer(s, params[s], loss) for s, loss in losses.items()] == [
        True,
        True,
        False,
        False,
        True,
    ]
    assert not best.offer(6, params[0], float("nan"))
    best.close()
    best = BestCheckpoint(tmp_path / "best")
    assert (best.step, best.loss) == (5, 1.25)
    restored = best.restore(abstract(params[0]))
    assert restored.step == 5
    assert_same(restored.state, params[5])
    best.discard_after(5)
    assert best.step == 5
    best.discard_after(4)
    assert best.step is None
    assert best.offer(5, params[5], 1.25)
    best.close()
    assert len([p for p in (tmp_path / "best").iterdir() if p.name.isdigit()]) == 1


def test_best_with_a_damaged_note_starts_afresh(tmp_path, caplog):
    best = BestCheckpoint(tmp_path)
    best.offer(1, {"w": jnp.zeros(2)}, 1.0)
    best.close()
    for path in (tmp_path / "000000001" / "meta").iterdir():
        path.write_bytes(b"{")
    best = BestCheckpoint(tmp_path)
    assert best.step is None and "forgotten" in caplog.text
    assert best.offer(1, {"w": jnp.zeros(2)}, 2.0)
    best.close()


def test_checksums(tmp_path):
    folder = tmp_path / "000000001"
    (folder / "state" / "d").mkdir(parents=True)
    (folder / "state" / "d" / "x").write_bytes(b"123456789")
    (folder / "beside").write_text("not counted")
    assert crc32(folder / "state" / "d" / "x") == "cbf43926"  # the standard check value
    check_checksums(folder)
    write_checksums(folder)
    (folder / "beside").write_text("changed")
    check_checksums(folder)
    (folder / "state" / "d" / "x").write_bytes(b"123456780")
    with pytest.raises(ValueError, match="state/d/x differs"):
        check_checksums(folder)
    shutil.rmtree(folder / "state")
    with pytest.raises(ValueError, match="missing"):
        check_checksums(folder)


def test_every_checkpoint_has_checksums(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, make_state(1))
    checkpoints.close()
    assert os.path.exists(tmp_path / "000000001" / "checksums.json")
