"""The command ``launch``: what each action does, and how it is called."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence

from ilp_jax import config as config_lib
from ilp_jax.errors import UserError
from ilp_jax.fields import nearest
from ilp_jax.launch import jobset, queued, staging, steps, watch, workload, xpk
from ilp_jax.launch import setup as setup_lib
from ilp_jax.launch.spec import Launch, read
from ilp_jax.launch.steps import Step

_WAYS = {"xpk": xpk, "jobset": jobset, "queued": queued}

ACTIONS = {
    "check": "check the description and its configuration, and say what it asks for",
    "setup": "what an empty project needs: APIs, bucket, registry, account, cluster",
    "image": "build the container image in the cloud",
    "stage": "put weights and data into the bucket, once",
    "start": "start the run; one that was stopped goes on where it was",
    "status": "whether it waits, runs or has ended",
    "logs": "follow the log of host 0",
    "watch": "TPU VMs: start it, and start it again whenever the TPUs are taken away",
    "collect": "copy results to this machine, without checkpoints",
    "stop": "end it, and give the TPUs back; what was written stays",
}
USAGE = "ilp launch ACTION FILE.yaml [--dry-run] [--out DIR]"


def overview() -> str:
    """The command's help."""
    actions = "\n".join(f"  {name:<9}{line}" for name, line in ACTIONS.items())
    return (
        f"usage: {USAGE}\n\nA run on Cloud TPUs, as FILE.yaml describes it "
        f"(see launch/README.md and launch/examples).\n\nactions:\n{actions}\n\n"
        "  --dry-run  print the commands as a script, run none\n"
        "  --out DIR  collect: where to (default runs/NAME)\n\n"
        "exit code: 0 done, 1 a step failed, 2 the input is wrong (one line says what)."
    )


def main(words: Sequence[str], say: Callable[[str], None] = print) -> int:
    """Runs the command.

    Args:
      words: those after ``ilp launch``.
      say: gets what is printed.

    Returns:
      The exit code.

    Raises:
      UserError: the words or the description are wrong.
      RunFailure: a step failed.
    """
    words, dry, out = _options(list(words))
    if not words or {"-h", "--help"} & set(words):
        say(overview())
        return 0 if words else 2
    action = words[0]
    if action not in ACTIONS:
        mend = nearest(action, list(ACTIONS)) or f"one of {', '.join(ACTIONS)}"
        raise UserError(f"ilp launch {action}", "no such action", mend)
    if len(words) != 2:
        raise UserError("ilp launch", "needs an action and a file", USAGE)
    if out is not None and action != "collect":
        raise UserError("--out", f"is of collect, not of {action}", "leave it out")
    launch = read(words[1], needs_config=action in ("check", "start", "watch"))
    if launch.words:
        check_config(launch)
    if action == "check":
        say(told(launch))
        return 0
    if action == "watch":
        if launch.by != "queued":
            mend = "Kubernetes starts it again by itself: `ilp launch status`"
            raise UserError(f"{launch.file}: by", f"{launch.by} needs no watch", mend)
        if dry:
            say(steps.comment(_title(action, launch)) + "\n" + watch.told_as_script(launch))
        else:
            watch.watch(launch, say=say)
        return 0
    wanted = steps_of(action, launch, out)
    if dry:
        say(steps.script(_title(action, launch), wanted, after(action, launch)).rstrip())
    elif wanted:
        steps.run(wanted, say)
        say(after(action, launch))
    else:
        say(f"{launch.file}: nothing to {action}")
    return 0


def steps_of(action: str, launch: Launch, out: str | None = None) -> list[Step]:
    """The steps of an action, but for ``check`` and ``watch``.

    Args:
      action: its name.
      launch: the run.
      out: folder for ``collect``, None for ``runs/NAME``.
    """
    if action == "setup":
        return setup_lib.setup(launch)
    if action == "image":
        return setup_lib.image(launch)
    if action == "stage":
        return staging.stage(launch)
    if action == "collect":
        return collect(launch, out or f"runs/{launch.name}")
    return getattr(_WAYS[launch.by], action)(launch)


_NEXT = {
    "setup": ("image", "stage", "start"),
    "image": ("stage", "start"),
    "stage": ("start",),
    "start": ("status", "logs", "collect", "stop"),
    "collect": ("stop",),
}


def after(action: str, launch: Launch) -> str:
    """What to call next, one line; '' where nothing has to follow."""
    names = _NEXT.get(action, ())
    if action == "start" and launch.by == "queued":
        names = ("watch", *names)
    file = shlex.quote(launch.file)
    return f"Next: ilp launch {' | '.join(names)} {file}" if names else ""


def collect(launch: Launch, out: str) -> list[Step]:
    """Copies statistics, answers and the report; checkpoints stay in the bucket."""
    words = ("gcloud", "storage", "rsync", launch.workdir, out)
    words += ("--recursive", "--exclude=(^|.*/)checkpoints/.*")
    copy = f"mkdir -p {shlex.quote(out)}\n{steps.command(*words)}"
    again = f"then: ilp report --workdir {shlex.quote(out)}"
    return [Step(f"copy {launch.workdir} to {out} ({again})", copy, "has the run begun?")]


def check_config(launch: Launch) -> None:
    """Raises UserError where the configuration of the run is wrong."""
    try:
        config_lib.load(launch.words[1], launch.words[2:])
    except UserError as error:
        raise UserError(f"{launch.file}: {error.where}", error.what, error.mend) from None


def told(launch: Launch) -> str:
    """What a description asks for, in a few lines."""
    one = launch.slice
    price = "spot" if launch.spot else launch.reservation or "on demand"
    lines = [
        f"{launch.name}: {launch.slices} x {one.name} ({one.topology}), {price}, {launch.zone}",
        f"  {launch.slices * one.chips} chips, {launch.processes} hosts, by {launch.by}",
        f"  writes {launch.workdir}",
        *(f"  {source} -> {target}" for source, target in workload.sources(launch).items()),
        "  every host runs:",
        "    " + shlex.join(workload.command(launch)),
    ]
    return "\n".join(lines)


def _title(action: str, launch: Launch) -> str:
    return f"ilp launch {action} {launch.file}: {ACTIONS[action]}"


def _options(words: list[str]) -> tuple[list[str], bool, str | None]:
    rest, dry, out = [], False, None
    while words:
        word = words.pop(0)
        if word == "--dry-run":
            dry = True
        elif word == "--out" and words:
            out = words.pop(0)
        elif word.startswith("--out="):
            out = word.removeprefix("--out=")
        elif word.startswith("-") and word not in ("-h", "--help"):
            mend = nearest(word, ["--dry-run", "--out"]) or USAGE
            raise UserError(word, "no such argument", mend)
        else:
            rest.append(word)
    return rest, dry, out
