"""TPUs that are taken away are asked for again; what cannot end well ends."""

import pytest

from ilp_jax.errors import RunFailure
from ilp_jax.launch import watch as watch_lib
from ilp_jax.launch.watch import decide

RUNS, NONE = ("running", 0), ("none", 0)
DONE, FAILED, WRONG, KILLED = [("exited", code) for code in (0, 1, 2, 143)]


@pytest.mark.parametrize(
    "queue, node, hosts, action",
    [
        ("", "", [], "ask"),
        ("WAITING_FOR_RESOURCES", "", [], "wait"),
        ("PROVISIONING", "", [], "wait"),
        ("SUSPENDING", "", [], "wait"),
        ("SUSPENDED", "", [], "replace"),
        ("FAILED", "", [], "replace"),
        ("ACTIVE", "PREEMPTED", [], "replace"),
        ("ACTIVE", "CREATING", [], "wait"),
        ("ACTIVE", "READY", [RUNS], "wait"),  # the other does not answer
        ("ACTIVE", "READY", [NONE, NONE], "start"),
        ("ACTIVE", "READY", [RUNS, NONE], "start"),
        ("ACTIVE", "READY", [RUNS, RUNS], "wait"),
        ("ACTIVE", "READY", [DONE, RUNS], "wait"),
        ("ACTIVE", "READY", [DONE, DONE], "done"),
        ("ACTIVE", "READY", [FAILED, RUNS], "again"),
        ("ACTIVE", "READY", [KILLED, DONE], "again"),
        ("ACTIVE", "READY", [WRONG, RUNS], "wrong input"),
    ],
)
def test_decide(queue, node, hosts, action):
    assert decide(queue, node, dict(enumerate(hosts)), 2) == action


class Cloud:
    """Four workers that go through given states; steps that are run are noted."""

    def __init__(self, states):
        self.states, self.titles, self.pauses = iter(states), [], 0
        self.now = next(self.states)

    def output(self, script):
        if "queued-resources" in script:
            return 0, self.now[0]
        if "describe" in script:
            return 0, self.now[1]
        return 0, "".join(f"ilp-host w-{i} {s} {c}\n" for i, (s, c) in enumerate(self.now[2]))

    def run(self, steps):
        self.titles += [step.title.split(" own-7b")[0][:22] for step in steps]
        if steps:
            self.now = next(self.states)

    def pause(self, seconds):
        self.now = next(self.states)


def watched(launch, states):
    cloud, said = Cloud(states), []
    watch_lib.watch(launch, cloud.run, cloud.output, cloud.pause, said.append)
    return cloud.titles, said


def test_from_nothing_through_a_preemption_to_the_end(example):
    ready = ("ACTIVE", "READY")
    titles, said = watched(
        example("queued_v6e_spot"),
        [
            ("", "", []),
            ("WAITING_FOR_RESOURCES", "", []),
            (*ready, [NONE] * 4),
            (*ready, [RUNS] * 4),
            ("ACTIVE", "PREEMPTED", []),
            ("PROVISIONING", "", []),
            (*ready, [NONE] * 4),
            (*ready, [FAILED] + [RUNS] * 3),
            (*ready, [RUNS] * 4),
            (*ready, [DONE] * 4),
        ],
    )
    ask, start = "ask for a v6e-16 (4 wo", ["get the image onto all", "start the run on all 4"]
    again = ["end the run on all wor", start[1]]
    assert titles == [ask, *start, "give back the TPUs of", ask, *start, *again]
    assert said[-1].endswith("4 of 4 workers answer: done")


def test_wrong_input_is_not_tried_again(example):
    with pytest.raises(RunFailure, match="its input is wrong"):
        watched(example("queued_v6e_spot"), [("ACTIVE", "READY", [WRONG] * 4)])


def test_too_many_ends(example):
    states = [("ACTIVE", "READY", [FAILED] * 4)] * 5
    with pytest.raises(RunFailure, match="ended early 3 times"):
        watched(example("queued_v6e_spot", max_restarts=2), states)


def test_silent_workers_are_replaced(example):
    silent = [("ACTIVE", "READY", [RUNS])] * 17
    titles, _ = watched(example("queued_v6e_spot"), [*silent, ("ACTIVE", "READY", [DONE] * 4)])
    assert titles == ["give back the TPUs of", "ask for a v6e-16 (4 wo"]
