"""Chat templates rendered within limits: the one way in which templates are run here."""

from __future__ import annotations

import atexit
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerBase

from ilp_jax.errors import RunFailure, UserError

# A rendering of a published template takes milliseconds, some MB, and a few times its row.
SECONDS = 2.0
"""CPU seconds that one rendering may take."""
N_BYTES = 1 << 30
"""Memory that renderings may take."""
N_CHARACTERS = 1 << 24
"""Characters of one rendered conversation."""

_MEND = "use template='plain', or mend the template"
_CHILD = Path(__file__).with_name("rendering_child.py")


def apply(
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[Mapping[str, Any]],
    template: str,
    name: str,
    /,
    *,
    add_generation_prompt: bool = False,
    tools: Sequence[Mapping[str, Any]] | None = None,
    **variables: Any,
) -> str:
    """The text that ``tokenizer.apply_chat_template(turns, tokenize=False)`` gives.

    Args:
      tokenizer: its special tokens are variables of the template.
      turns: messages, plain values such as JSON has.
      template: the chat template.
      name: how errors name it.
      add_generation_prompt: whether the header of the next reply is added.
      tools: JSON schemas of tools.
      **variables: further variables of the template.

    Raises:
      UserError: it is no template, or takes more than its limits.
      RunFailure: the program that renders could not run.
      jinja2.TemplateError: the template refuses the turns, or fails on them.
    """
    answer = _RENDERER.ask(
        {
            **tokenizer.special_tokens_map,
            **variables,
            "chat_template": template,
            # As transformers does: many templates print a value of None.
            "conversations": [[{k: v for k, v in turn.items() if v is not None} for turn in turns]],
            "add_generation_prompt": add_generation_prompt,
            "tools": tools,
        },
        name,
    )
    if "syntax" in answer:
        raise UserError(name, f"is no template ({answer['syntax']})", _MEND)
    if "limit" in answer:
        limits = {
            "time": f"{SECONDS:g} seconds of CPU time",
            "memory": f"{N_BYTES >> 20} MiB of memory",
            "characters": f"{N_CHARACTERS:,} characters",
        }
        what = f"takes more than {limits[answer['limit']]} for one conversation"
        raise UserError(name, what, _MEND)
    if "error" in answer:
        raise jinja2.TemplateError(answer["error"])
    return answer["text"]


class _Renderer:
    """The program that renders, started when it is first asked."""

    def __init__(self):
        self._lock, self._process = threading.Lock(), None

    def ask(self, arguments: dict[str, Any], name: str) -> dict[str, str]:
        """The program's answer, or which limit ended it."""
        line = json.dumps(arguments) + "\n"
        with self._lock:
            try:
                process = self._process = self._process or _start()
                process.stdin.write(line)
                process.stdin.flush()
                answer = process.stdout.readline()
                if answer.endswith("\n"):
                    return json.loads(answer)
                code = process.wait()
            except BrokenPipeError:
                code = process.wait()
            except BaseException:  # interrupted: its answer would be the next question's
                self._end()
                raise
            self._end()
        if code == -signal.SIGPROF:
            return {"limit": "time"}
        if code < 0:  # the kernel ran out of memory, or the interpreter of its stack
            return {"limit": "memory"}
        raise RunFailure(name, f"cannot be rendered (exit code {code} of {_CHILD.name})")

    def close(self) -> None:
        """Ends the program."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def _start() -> subprocess.Popen:
    # -P: its folder holds modules of ours whose names are others' too.
    words = [sys.executable, "-P", str(_CHILD), str(SECONDS), str(N_BYTES), str(N_CHARACTERS)]
    return subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="ascii",
        start_new_session=True,  # Ctrl-C is for us
    )


_RENDERER = _Renderer()
atexit.register(_RENDERER.close)
