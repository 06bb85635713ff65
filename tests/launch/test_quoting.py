"""Words reach the hosts as they were written, whatever stands in them."""

import dataclasses
import shlex
import subprocess

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ilp_jax.errors import UserError
from ilp_jax.launch import jobset, queued, steps, workload, xpk

NASTY = ["a b", "it's", '"$HOME"', "$(date)", "`id`", "a;b&&c|d>e", "*", "#x", "\\", "!x", "{a,b}"]
TEXTS = st.text(st.characters(blacklist_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=12)
WORDS = st.lists(st.one_of(TEXTS, st.sampled_from(NASTY)), max_size=4)
PROPERTY = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def kubernetes(text):
    """Expansion of container words as Kubernetes documents it, with no variable set."""
    out, i = "", 0
    while i < len(text):
        if text[i] == "$" and text[i + 1 : i + 2] == "$":
            out, i = out + "$", i + 2
        else:
            out, i = out + text[i], i + 1
    return out


def run_of(launch, values):
    words = [f"--config.model.path={value}" for value in values]
    return dataclasses.replace(launch, words=("--config", "configs/own.py", *words))


@pytest.fixture
def launches(example):
    return {n: example(n) for n in ("xpk_8b_v5e", "jobset_8b_v5p", "queued_v6e_spot")}


@PROPERTY
@given(WORDS)
def test_xpk(launches, values):
    launch = run_of(launches["xpk_8b_v5e"], values)
    (step,) = xpk.start(launch)
    words = shlex.split(step.script)
    (command,) = [word for word in words if word.startswith("--command=")]
    inside = shlex.split(kubernetes(command.removeprefix("--command=")))
    assert inside == ["exec", *workload.command(launch)]
    assert words[:3] == ["xpk", "workload", "create"]


@PROPERTY
@given(WORDS)
def test_jobset(launches, values):
    launch = run_of(launches["jobset_8b_v5p"], values)
    manifest = yaml.load(jobset.text(jobset.manifest(launch)), yaml.CSafeLoader)
    (slices,) = manifest["spec"]["replicatedJobs"]
    (container,) = slices["template"]["spec"]["template"]["spec"]["containers"]
    assert [kubernetes(word) for word in container["args"]] == workload.command(launch)


@PROPERTY
@given(WORDS)
def test_tpu_vm(launches, values):
    launch = run_of(launches["queued_v6e_spot"], values)
    words = shlex.split(queued.run(launch).script)
    (remote,) = [word for word in words if word.startswith("--command=")]
    inside = shlex.split(remote.removeprefix("--command="), comments=False)
    command = workload.command(launch)
    command[-1] += ";"  # of the shell's group
    at = inside.index(launch.image) + 1
    assert inside[at : at + len(command)] == command


@PROPERTY
@given(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0\r")))
def test_bash_hands_over_words_and_standard_input(text):
    words = [text, f"--a={text}", *NASTY]
    script = steps.command("printf", "%s\\0", *words)
    told = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout
    assert told.decode().split("\0")[:-1] == words
    script = steps.command("cat", stdin=f"{text}\nILP_END\n")
    told = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout
    assert told.decode().rstrip() == f"{text}\nILP_END".rstrip()


def test_a_worker_gets_the_words_through_two_shells(launches, tools):
    launch = run_of(launches["queued_v6e_spot"], NASTY)
    steps.run([queued.run(launch)], say=lambda line: None)
    (docker,) = [call for call in tools() if call[:3] == ["sudo", "docker", "run"]]
    assert docker[docker.index(launch.image) + 1 :] == workload.command(launch)


def test_xpk_has_no_place_for_new_lines(launches):
    with pytest.raises(UserError, match="new line"):
        xpk.start(run_of(launches["xpk_8b_v5e"], ["a\nb"]))
