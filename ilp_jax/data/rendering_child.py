"""The program that renders chat templates within limits; `rendering` starts and asks it.

A template is code of whoever made the model. In a process of its own the kernel holds it to its
limits wherever it spends them, also within one operation such as ``'x' * 10**10``.
"""

import json
import os
import resource
import signal
import sys

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template


def main(seconds: float, n_bytes: int, n_characters: int) -> None:
    """Answers each line of standard input, arguments as JSON, with one line of JSON."""
    _limit_memory(n_bytes)
    for line in sys.stdin:
        arguments = json.loads(line)
        # CPU time, so that a busy machine changes nothing; the signal ends this process.
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            answer = _rendered(arguments, n_characters)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(answer), flush=True)


def _rendered(arguments: dict, n_characters: int) -> dict[str, str]:
    try:
        (text,), _ = render_jinja_template(**arguments)
    except jinja2.TemplateSyntaxError as error:
        return {"syntax": f"line {error.lineno}: {error.message}"}
    except MemoryError:
        return {"limit": "memory"}
    except jinja2.TemplateError as error:
        return {"error": str(error.message)[:1000]}
    except Exception as error:  # anything that a template may bring on
        return {"error": f"{type(error).__name__}: {error}"[:1000]}
    return {"text": text} if len(text) <= n_characters else {"limit": "characters"}


def _limit_memory(n_bytes: int) -> None:
    """Allows that much above what is mapped now, where the system can tell that."""
    if os.path.exists("/proc/self/statm"):
        with open("/proc/self/statm") as file:
            mapped = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + n_bytes,) * 2)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
