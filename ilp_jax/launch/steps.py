"""Steps: what they do in words, and the lines of bash that do it.

A dry run prints the very lines that would be run, as a script that can be kept and run.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence

from ilp_jax.errors import RunFailure, shown

_END = "ILP_END"


@dataclasses.dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
      title: what it does, one line.
      script: bash; nothing secret may stand in it.
      mend: what to look at when it fails, one line.
    """

    title: str
    script: str
    mend: str = "see launch/README.md"


def command(*words: str, stdin: str | None = None, quiet: bool = False) -> str:
    """A command as lines of bash, one option a line, quoted.

    Args:
      *words: the program and its arguments.
      stdin: text for its standard input, None for none.
      quiet: on one line, without its output.
    """
    quoted = [quote(word) for word in words]
    if quiet:
        return " ".join(quoted) + " >/dev/null 2>&1"
    lines = [[]]
    for word in quoted:
        if word.startswith("--") and lines[-1]:
            lines.append([])
        lines[-1].append(word)
    text = " \\\n  ".join(" ".join(line) for line in lines)
    if stdin is None:
        return text
    end = _END
    while end in stdin:
        end += "_"
    return f"{text} <<'{end}'\n{stdin.rstrip()}\n{end}"


def quote(word: str) -> str:
    """The word for a shell; of ``--name=value`` the value alone is quoted, for the reader."""
    option = re.match(r"--[a-z-]+=", word)
    head = option[0] if option else ""
    return head + shlex.quote(word[len(head) :]) if word != head else head or shlex.quote(word)


def join(words: Sequence[str]) -> str:
    """The words on one line for a shell."""
    return " ".join(quote(word) for word in words)


def comment(text: str) -> str:
    """The text as one comment of a script, in which a line end would begin a command."""
    return f"# {shown(text)}"


def unless(test: str, script: str) -> str:
    """A script that runs only where a test fails, such as one that makes what is missing."""
    head, *rest = script.split("\n")
    return "\n".join([f"{test} ||", f"  {head}", *(f"  {line}" for line in rest)])


def script(title: str, steps: Sequence[Step], after: str = "", notes: Sequence[str] = ()) -> str:
    """All steps as one bash script.

    Args:
      title: its first comment.
      steps: in order.
      after: its last comment, '' for none.
      notes: comments below the title, one line each.
    """
    head = "\n".join(map(comment, (title, *notes)))
    parts = [f"#!/usr/bin/env bash\n{head}\nset -euo pipefail"]
    for number, step in enumerate(steps, start=1):
        head = comment(f"{number} of {len(steps)}: {step.title}")
        parts.append(f"{head}\n{step.script}")
    if after:
        parts.append(comment(after))
    return "\n\n".join(parts) + "\n"


def run(steps: Sequence[Step], say: Callable[[str], None] = print) -> None:
    """Runs the steps one by one, with a line before each.

    Args:
      steps: in order.
      say: gets the lines.

    Raises:
      RunFailure: a step failed; what it printed stands above.
    """
    for number, step in enumerate(steps, start=1):
        say(f"[{number}/{len(steps)}] {shown(step.title)}")
        sys.stdout.flush()
        code = subprocess.run(_bash(step.script)).returncode
        if code:
            raise RunFailure(step.title, f"failed with exit code {code}", step.mend)


def output(text: str) -> tuple[int, str]:
    """Exit code and standard output of a script; what it says on standard error is shown."""
    done = subprocess.run(_bash(text), stdout=subprocess.PIPE, text=True)
    return done.returncode, done.stdout


def _bash(text: str) -> list[str]:
    return ["bash", "-euo", "pipefail", "-c", text]
