"""The command line: ``python -m ilp_jax COMMAND ...``, installed also as ``ilp``.

Every command reads the configuration and calls one function, which a notebook may call as
well. Nothing heavy is imported before a command is known to be well-formed.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import ilp_jax
from ilp_jax import storage
from ilp_jax.arguments import HOW_CONFIG_WORKS, NEEDS_WORKDIR, parser
from ilp_jax.errors import Stopped, UserError
from ilp_jax.fields import nearest

# One line each for `ilp --help`; the second text is the command's own help.
COMMANDS = {
    "run": (
        "every phase in order: probe, train, detect, diagnose, report",
        "A finished phase of the same config is not run again; an interrupted one goes on "
        "where it stopped: give the same command. Writes everything under WORKDIR.",
    ),
    "probe": (
        "loss and gradient norm of every example on the base model",
        "Writes WORKDIR/stats/*.parquet, kind 'probe', at the point 'base'.",
    ),
    "train": (
        "fine-tune stage by stage, with every example's loss and exact gradient norm",
        "Writes WORKDIR/stats/*.parquet and WORKDIR/checkpoints; an interrupted training "
        "goes on from its last checkpoint.",
    ),
    "detect": (
        "which examples are unlearned, at each of config.detect.points",
        "Reads WORKDIR/checkpoints, writes WORKDIR/inference/POINT.parquet. With --base, "
        "--tuned and --data it asks a model that was tuned elsewhere, and its base, about the "
        "rows that it was tuned on; `ilp diagnose` goes on from there. Killed, the same "
        "command goes on where it stopped.",
    ),
    "diagnose": (
        "the cause of each unlearned example, from the saved statistics",
        "Reads WORKDIR/stats and WORKDIR/inference, writes signals.parquet, "
        "diagnosis.parquet and summary.json beside them. Needs no accelerator.",
    ),
    "replay": (
        "what updates on an unlearned row alone do for it, from the final model",
        "Needs a finished run; writes WORKDIR/replay.parquet. An interrupted one goes on "
        "where it stopped. config.replay gives rows, rate and numbers of updates.",
    ),
    "influence": (
        "whose later updates raised the loss of examples that were learned, then lost",
        "Needs a finished run; trains it again from its base, beside it, and writes "
        "WORKDIR/influence.parquet. A killed one begins anew. config.influence says how many "
        "rows are followed.",
    ),
    "mitigate": (
        "remedies by cause, each beside its sham, tried in arms trained from the base model",
        "Needs a finished run; config.mitigate says which arms. Each is a run of its own in "
        "WORKDIR/arms/NAME/SEED; those that are trained are skipped, a killed one goes on where "
        "it stopped. Writes WORKDIR/remedies.parquet and actions.jsonl; with --apply it writes the "
        "training set that these actions make, into --out.",
    ),
    "report": (
        "one HTML file of a finished run, or of several side by side",
        "Writes WORKDIR/report.html, which opens offline; with --out, or with several "
        "--workdir, writes FILE and nothing else there. Needs no accelerator.",
    ),
    "evaluate": (
        "the diagnosis of planted studies against what was planted",
        "Macro-F1, recalls, what is left unattributed, calibration. Adds the figures to "
        "WORKDIR/summary.json; of several --workdir only shows them, and --out FILE keeps them "
        "as JSON, each run's beside those of all. Needs no accelerator and no configuration.",
    ),
    "sweep": (
        "the runs that get_sweep() of a config file yields, each in WORKDIR/NAME",
        "Each is a process of its own, its output in WORKDIR/NAME/log.txt; one that fails stops "
        "no other. Runs that are done are skipped, others go on where they stopped. "
        "WORKDIR/sweep.json says how far each has come. get_sweep() gets the arguments that it "
        "takes, the others and the overrides go to every run. With --launch runs become workloads "
        "on a GKE cluster, but for those that are done or submitted already.",
    ),
    "launch": (
        "a run on Cloud TPUs, as a YAML file describes it",
        "`ilp launch --help` says more.",  # it has words of its own
    ),
    "config show": (
        "print the resolved configuration as YAML",
        "Runs nothing and needs no WORKDIR.",
    ),
    "data preview": (
        "show the first examples as tokens, with the trained tokens marked",
        "Also counts truncated examples and those without target tokens. Needs no WORKDIR.",
    ),
    "plan": (
        "steps, tokens, FLOPs, hours and GB of a run, before anything is spent",
        "Reads the config, the data and the model's shape, never its weights' values; runs "
        "nothing. --topology names a slice of chips, --device one of them, or `cpu`, which is "
        "measured for a second. --rows and --tokens stand in for data that are not here; "
        "--config.model.path=preset:NAME then for a model. Needs no WORKDIR.",
    ),
    "compile": (
        "the training step compiled for a TPU slice that is not here",
        "With and without norms: memory a chip, FLOPs, collectives, an estimate of a step's time. "
        "Needs libtpu (pip install 'jax[tpu]') and no TPU; config.model.path=preset:NAME needs no "
        "weights. Minutes of CPU for a model of billions. Needs no WORKDIR.",
    ),
    "prepare": (
        "write the local copy of each TensorFlow Datasets data set that the config reads",
        "Downloads and writes it where the stage's data_dir says, as array_record; does "
        "nothing where it is there already. Needs no WORKDIR.",
    ),
    "export": (
        "the tuned weights as a Hugging Face folder",
        "Reads WORKDIR/checkpoints, writes config.json, generation_config.json, safetensors "
        "(float32) and the tokenizer into --out; transformers loads it with the same logits.",
    ),
    "check-norms": (
        "exact gradient norms against vmap on the configured model, shrunk",
        "Prints each norm's largest relative error; needs no WORKDIR.",
    ),
}
_TOGETHER = ("run", "probe", "train", "detect")  # which several processes may run as one
_ON_DEVICES = (*_TOGETHER, "export", "replay", "influence", "mitigate")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
      argv: the words after the program's name; those of this process when None.

    Returns:
      The exit code: 0 done, 1 failed, 2 wrong input, 130 interrupted.
    """
    # Our models need no torch: the advice to install it is no news to a user of ours.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    try:
        code = _dispatch(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except Stopped as stopped:
        return _say(str(stopped), stopped.exit_code)
    except UserError as error:  # RunFailure is one, with exit code 1
        return _say(f"error: {error}", error.exit_code)
    except SystemExit as done:  # argparse's --help
        return done.code or 0
    except KeyboardInterrupt:
        return _say("interrupted -- the same command goes on where it stopped", 130)
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except Exception as error:
        if isinstance(error, ImportError) and "gcsfs" in str(error):
            mend = "pip install -r requirements-tpu.txt, or its gcsfs"
            return _say(f"error: {UserError('gs://', 'needs the package gcsfs', mend)}", 2)
        failure = storage.failure(error)
        if failure is not None:
            return _say(f"error: {failure}", failure.exit_code)
        processes = sys.modules.get("ilp_jax.mesh.processes")
        if processes is not None and processes.is_loss(error):
            return _say(f"error: {processes.lost(error)}", 1)
        _leave(1, error)
        raise


def _dispatch(argv: list[str]) -> int:
    rest, overrides = _split_overrides(argv)
    if "--version" in rest[:1]:
        print(f"ilp_jax {ilp_jax.__version__}")
        return 0
    if not rest or rest[0] in ("-h", "--help"):
        print(_overview())
        return 0 if rest else 2
    command, rest = _split_command(rest)
    if command == "launch":
        from ilp_jax.launch.command import main as launch

        return launch([*rest, *overrides])
    options = parser(command, *COMMANDS[command]).parse_args(rest)
    if command in NEEDS_WORKDIR and options.workdir is None:
        raise UserError(f"ilp {command}", "needs --workdir", "add --workdir DIR")
    workdirs = options.workdir if isinstance(options.workdir, list) else [options.workdir]
    for workdir in filter(None, workdirs):
        storage.check_place(workdir, "--workdir", written=True)
        workdir = os.path.expanduser(workdir)
        if os.path.exists(workdir) and not os.path.isdir(workdir):
            raise UserError(workdir, "is a file, not a folder", "give another --workdir")
    for name in ("config", "out", "base", "tuned", "data"):
        place, written = getattr(options, name, None) or "", name == "out"
        storage.check_place(place, f"--{name}", written or name == "data", written)
    if command == "sweep":
        return _sweep(options, overrides)
    _show(_call(command, _config(command, options, overrides), options))
    return 0


def _config(command: str, options: argparse.Namespace, overrides: list[str]):
    from ilp_jax import config

    if command == "detect" and (options.base or options.tuned or options.data):
        pair = (options.base, options.tuned, options.data)
        return config.for_tuned(*pair, options.config, overrides)
    if options.config:
        return config.load(options.config, overrides)
    if command == "evaluate" and not overrides:
        return None  # a run of an older or newer version is scored all the same
    if options.workdir:
        first = options.workdir[0] if isinstance(options.workdir, list) else options.workdir
        return config.from_run(first, overrides)
    raise UserError(f"ilp {command}", "needs --config", "add --config FILE.py")


def _call(command: str, config: Any, options: argparse.Namespace) -> Any:
    """Runs the function behind a command; what it returns is shown."""
    if command == "config show":
        from ilp_jax.config import to_yaml

        return to_yaml(config).rstrip()
    if command == "check-norms":
        from ilp_jax.norms.check import check_norms, report

        return report(check_norms(config), config.model.compute_dtype)
    if command == "plan":
        from ilp_jax.planning.command import plan

        where = (options.topology, options.device, options.mfu)
        return plan(config, *where, (options.rows, options.tokens, options.targets), options.out)
    if command == "compile":
        from ilp_jax.ahead.command import compile_ahead

        rows = (options.tokens, options.targets)
        return compile_ahead(
            config, options.topology, *rows, options.mfu, options.largest, options.out
        )
    if command == "prepare":
        from ilp_jax.data.prepare import prepare

        return prepare(config)
    if command == "evaluate":
        from ilp_jax.analysis.evaluate import evaluate

        return evaluate(options.workdir, options.out)
    if command == "report" and (options.out or len(options.workdir) > 1):
        return _report_of(options, config)
    from ilp_jax import study

    if command in _ON_DEVICES:
        _join(command, config)
    if command == "report":
        return study.report(config, options.workdir[0])
    if command == "data preview":
        return study.preview(config, options.rows)
    if command == "export":
        return study.export(config, options.workdir, options.out)
    if command == "replay":
        return study.replay(config, options.workdir, options.limit)
    if command == "mitigate":
        if options.apply:
            if options.out is None:
                raise UserError("ilp mitigate", "--apply needs --out", "add --out DIR")
            return study.apply(config, options.workdir, options.out)
        return study.mitigate(config, options.workdir, options.jobs, options.train_only)
    return getattr(study, command)(config, options.workdir)


def _join(command: str, config: Any) -> None:
    """Makes one run of the processes that were started for it, and says what it runs on."""
    from ilp_jax.mesh import axes, processes

    processes.join(config.mesh)
    if processes.count() > 1 and command not in _TOGETHER:
        raise UserError(
            f"ilp {command}",
            f"runs in one process, and this run has {processes.count()}",
            "start it on one host",
        )
    if processes.is_first() and (mesh := axes.make_mesh(config.mesh)).size > 1:
        print(axes.describe(mesh), file=sys.stderr, flush=True)


def _report_of(options: argparse.Namespace, config: Any) -> str:
    from ilp_jax.analysis.report import compare

    if options.out is None:
        raise UserError("ilp report", "needs --out for several runs", "add --out FILE.html")
    return f"Report: {compare(options.workdir, options.out, config.report.to_dict())}"


def _sweep(options: argparse.Namespace, overrides: list[str]) -> int:
    from ilp_jax.sweep.command import check, closing, render, sweep

    if options.config is None:
        raise UserError("ilp sweep", "needs --config", "add --config FILE.py")
    where, dry = options.workdir, options.dry_run
    if options.launch:
        return _submit(options, overrides)
    entries = sweep(options.config, where, overrides, options.jobs, dry)
    _show(render(entries, dry))
    print(closing(where, entries))  # commands to be copied: rich would wrap them
    if not dry:
        check(where, entries)
    return 0


def _submit(options: argparse.Namespace, overrides: list[str]) -> int:
    from ilp_jax.launch import steps
    from ilp_jax.sweep.submit import submit, told

    wanted, names = submit(options.config, options.workdir, overrides, options.launch)
    if options.dry_run:
        title = f"{len(wanted[1:])} of {len(names)} runs of {options.config}"
        print(steps.script(title, wanted, notes=told(names)).rstrip())
    else:
        print("\n".join(told(names)))
        steps.run(wanted)
    return 0


def _show(result: Any) -> None:
    """Prints a text, or anything that rich can draw; of several processes the first does."""
    if os.environ.get("ILP_QUIET"):  # progress.QUIET, which takes long to import
        return
    if isinstance(result, str):
        print(result)
    elif result is not None:
        from rich.console import Console

        # Nothing that is shown is markup: paths have brackets and colons, too.
        console = Console(markup=False, emoji=False)
        # A log has no width of its own, and a table cut short helps nobody.
        console.width = max(console.width, 90) if console.is_terminal else 120
        console.print(result, highlight=False, crop=False)


def _split_overrides(argv: list[str]) -> tuple[list[str], list[str]]:
    """Separates ``--config.field=value`` and ``--config.field value`` from other words."""
    rest, overrides, words = [], [], iter(argv)
    for word in words:
        if not word.startswith("--config."):
            rest.append(word)
            continue
        overrides.append(word)
        if "=" not in word:
            overrides += [value for value in [next(words, None)] if value is not None]
    return rest, overrides


def _split_command(words: list[str]) -> tuple[str, list[str]]:
    """The command, of one or two words, and the words after it."""
    pair = " ".join(words[:2])
    if pair in COMMANDS:
        return pair, words[2:]
    if words[0] in COMMANDS:
        return words[0], words[1:]
    second = [name for name in COMMANDS if name.startswith(words[0] + " ")]
    if second:
        raise UserError(f"ilp {words[0]}", "is not complete", f"did you mean ilp {second[0]}?")
    mend = nearest(words[0], list(COMMANDS), "ilp ") or "see ilp --help"
    raise UserError(f"ilp {words[0]}", "no such command", mend)


def _overview() -> str:
    lines = "\n".join(f"  {name:<14}{line}" for name, (line, _) in COMMANDS.items())
    return (
        "usage: ilp COMMAND --config FILE[:name=value,...] --workdir DIR "
        "[--config.field=value ...]\n\nWhy fine-tuning leaves examples unlearned.\n\n"
        f"commands:\n{lines}\n\n  ilp COMMAND --help says more; ilp --version\n\n"
        + HOW_CONFIG_WORKS
    ).rstrip()


def _say(line: str, code: int) -> int:
    print(f"ilp: {line}", file=sys.stderr)
    _leave(code)
    return code


def _leave(code: int, error: Exception | None = None) -> None:
    """Ends one process of several at once; see ``mesh.processes.leave``."""
    processes = sys.modules.get("ilp_jax.mesh.processes")
    if processes is None or processes.count() == 1:
        return
    if error is not None:
        traceback.print_exception(error)
    processes.leave(code)
