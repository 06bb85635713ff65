"""A host copies what it needs once, whole, and becomes the run."""

import os
import sys
import types

import pytest

from ilp_jax.errors import UserError
from ilp_jax.launch import hub, on_host


def test_copies_folders_and_files_once(tmp_path):
    source, target = tmp_path / "bucket" / "w", tmp_path / "host" / "w"
    (source / "deep").mkdir(parents=True)
    (source / "a.safetensors").write_bytes(b"x" * 1000)
    (source / "deep" / "b.json").write_text("{}")
    assert on_host.fetch(str(source), str(target)) == 1002
    assert (target / "a.safetensors").read_bytes() == b"x" * 1000
    assert (target / "deep" / "b.json").read_text() == "{}"
    assert on_host.fetch(str(source), str(target)) == 0
    # Another file of the same size is another file.
    (source / "a.safetensors").write_bytes(b"y" * 1000)
    os.utime(source / "a.safetensors", (1, 1))
    assert on_host.fetch(str(source), str(target)) == 1000
    assert (target / "a.safetensors").read_bytes() == b"y" * 1000
    assert not [p for p in target.rglob("*") if p.name.endswith(".tmp")]
    assert on_host.fetch(str(source / "deep" / "b.json"), str(tmp_path / "c.json")) == 2


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="nothing there -- `ilp launch stage FILE`"):
        on_host.fetch(str(tmp_path / "none"), str(tmp_path / "x"))


def test_words():
    pairs, words = on_host.split(["--fetch", "a", "b", "--fetch", "c", "d", "--", "run", "--x"])
    assert pairs == [("a", "b"), ("c", "d")] and words == ["run", "--x"]
    for wrong in ([], ["--"], ["--fetch", "a", "--", "run"], ["run"]):
        with pytest.raises(UserError):
            on_host.split(wrong)


def test_becomes_the_run(tmp_path, monkeypatch, capsys):
    became = []
    monkeypatch.setattr(os, "execv", lambda *words: became.append(words))
    monkeypatch.setenv("ILP_LAUNCHED", "")
    (tmp_path / "rows").write_text("x")
    on_host.main(["--fetch", str(tmp_path / "rows"), str(tmp_path / "here"), "--", "run", "--x"])
    words = [sys.executable, "-m", "ilp_jax", "run", "--x"]
    assert became == [(sys.executable, words)] and os.environ["ILP_LAUNCHED"] == "1"
    assert (tmp_path / "here").read_text() == "x" and "GB copied" in capsys.readouterr().out
    assert on_host.main(["--fetch", str(tmp_path / "no"), "b", "--", "run"]) == 2


def test_a_refused_bucket_is_one_line(monkeypatch, capsys):
    def refuse(source, target):
        raise OSError("403, ilp@p.iam does not have\nstorage.objects.list access")

    monkeypatch.setattr(on_host, "fetch", refuse)
    assert on_host.main(["--fetch", "gs://b/w", "x", "--", "run"]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "storage.objects.list" in err and "service account" in err


def test_the_hub_is_asked_for_what_training_reads_alone(tmp_path, monkeypatch):
    names = ["a.safetensors", "config.json", "tokenizer.model", "a.bin", "original/x.pth", "b.png"]
    state = {"sha": "one", "loaded": []}

    class Api:
        def __init__(self, token):
            assert token == "secret"

        def model_info(self, repo, revision, files_metadata):
            files = [types.SimpleNamespace(rfilename=name, size=3) for name in names]
            return types.SimpleNamespace(siblings=files, sha=state["sha"])

    def download(repo, name, revision, token, local_dir):
        state["loaded"].append((name, revision))
        path = os.path.join(local_dir, name)
        with open(path, "w") as file:
            file.write(revision)
        return path

    fake = types.SimpleNamespace(HfApi=Api, hf_hub_download=download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    wanted = ["a.safetensors", "config.json", "tokenizer.model"]
    target = tmp_path / "weights"
    assert hub.bring("a/b", "main", str(target), "secret") == 3
    assert [name for name, _ in state["loaded"]] == wanted
    (target / "config.json").unlink()
    assert hub.bring("a/b", "main", str(target), "secret") == 1
    state["sha"] = "two"  # as large as the other commit's
    assert hub.bring("a/b", "main", str(target), "secret") == 3
    assert (target / "a.safetensors").read_text() == "two"
