"""The hub's token stands in no command, manifest, file or log."""

import pytest

from ilp_jax import cli
from ilp_jax.launch import hub
from ilp_jax.launch.command import ACTIONS

TOKEN = "hf_" + "Canary0123456789Canary"
NAMES = ("xpk_8b_v5e", "jobset_8b_v5p", "queued_v6e_spot")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("where", ["here", "cloud"])
def test_no_dry_run_says_it(example, capsys, monkeypatch, name, where):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    weights = {"repo": "meta-llama/Llama-3.1-8B", "secret": "hf-token", "where": where}
    launch = example(name, weights=weights)
    said = ""
    for action in set(ACTIONS) - ({"watch"} if launch.by != "queued" else set()):
        assert cli.main(["launch", action, launch.file, "--dry-run"]) == 0
        said += capsys.readouterr().out
    assert "hf-token" in said and TOKEN not in said and "Canary" not in said


def test_a_download_here_gets_it_as_a_variable_alone(example, tools, monkeypatch, capfd):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    weights = {"repo": "meta-llama/Llama-3.1-8B", "where": "here"}
    launch = example("xpk_8b_v5e", weights=weights)
    assert cli.main(["launch", "stage", launch.file]) == 0
    calls = tools()
    assert [call[:2] for call in calls] == [["hf", "download"], ["gcloud", "storage"]] + [
        ["gcloud", "storage"]
    ]
    out, err = capfd.readouterr()
    assert TOKEN not in str(calls) + out + err


@pytest.mark.parametrize(
    "fields, what",
    [
        ({"environment": {"HF_TOKEN": "x"}}, "looks like a secret"),
        ({"environment": {"A": TOKEN}}, "holds a token"),
        ({"weights": {"repo": "a/b", "secret": TOKEN}}, "holds a token"),
    ],
)
def test_a_description_with_a_secret_is_refused(example, capsys, fields, what):
    example("xpk_8b_v5e")
    with pytest.raises(Exception, match=what):
        example("xpk_8b_v5e", **fields)
    assert cli.main(["launch", "start", "launch/examples/xpk_8b_v5e.yaml", "--dry-run"]) == 2
    out, err = capsys.readouterr()
    assert TOKEN not in out + err and err.count("\n") == 1


def test_the_remote_download_reads_it_from_standard_input(monkeypatch, capsys):
    import io

    got = []
    monkeypatch.setattr(hub, "bring", lambda *args: got.append(args) or 1)
    monkeypatch.setattr("sys.stdin", io.StringIO(TOKEN + "\n"))
    assert hub.main(["a/b", "gs://b/w", "--token-from-stdin"]) == 0
    assert got == [("a/b", "main", "gs://b/w", TOKEN)]
    assert TOKEN not in "".join(capsys.readouterr())
