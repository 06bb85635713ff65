"""One progress bar for every long loop: drawn on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator

from rich import progress as rich_progress
from rich.console import Console
from rich.errors import LiveError

QUIET = "ILP_QUIET"
"""Environment variable under which no bar is shown: of several processes one speaks."""
_LINE_SHARE = 0.1
_LINE_SECONDS = 30.0


class Bar:
    """What `bar` gives to the loop.

    Args:
      show: called after each advance with the count so far and the text.
      done: count to begin at.
    """

    def __init__(self, show: Callable[[int, str], None], done: int = 0):
        self.done = done
        self.text = ""
        self._show = show

    def advance(self, n: int = 1, text: str | None = None) -> None:
        """Counts further.

        Args:
          n: how many more are done; 0 changes the text alone.
          text: shown behind the bar, such as the loss; None leaves it.
        """
        self.done += n
        if text is not None:
            self.text = text
        self._show(self.done, self.text)


@contextlib.contextmanager
def bar(
    description: str,
    total: int | None,
    done: int = 0,
    quiet: bool = False,
    console: Console | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Bar]:
    """Shows how far a loop is.

    ``with progress.bar("train", total=n) as bar: bar.advance(1, text="loss 1.23")``

    On a terminal: a bar with count, time elapsed, time left and a text. Into a file or a
    pipe: a plain line whenever a tenth more is done or 30 seconds have passed, and at the
    end; no control characters.

    Args:
      description: what the loop does, in a word or two.
      total: how many there are; None where that is not known.
      done: how many were done before, as in a resumed run.
      quiet: show nothing (on all hosts but one).
      console: where to; standard error by default.
      clock: seconds, for the plain lines.

    Yields:
      The bar, to be advanced.
    """
    if quiet or os.environ.get(QUIET):
        yield Bar(lambda count, text: None, done)
        return
    console = console or _console()
    live = _live(console) if _draws(console) else None
    if live is not None:
        with live:
            task = live.add_task(description, total=total, completed=done, text="")
            yield Bar(lambda count, text: live.update(task, completed=count, text=text), done)
        return
    lines = _Lines(description, total, done, console, clock)
    try:
        yield Bar(lines.show, done)
    finally:
        lines.end()


class _Lines:
    """Plain lines, neither too many nor too few."""

    def __init__(
        self,
        description: str,
        total: int | None,
        done: int,
        console: Console,
        clock: Callable[[], float],
    ):
        self._description, self._total, self._console = description, total, console
        self._clock, self._start, self._first = clock, clock(), done
        self._said_count, self._said_at = done, clock()
        self._latest: tuple[int, str] | None = None

    def show(self, count: int, text: str) -> None:
        self._latest = count, text
        share = (count - self._said_count) / self._total if self._total else 0.0
        if share >= _LINE_SHARE or self._clock() - self._said_at >= _LINE_SECONDS:
            self._say()

    def end(self) -> None:
        if self._latest is not None:
            self._say()

    def _say(self) -> None:
        count, text = self._latest
        elapsed = self._clock() - self._start
        parts = [f"{self._description} {count}"]
        if self._total:
            parts[0] += f"/{self._total} ({100 * count / self._total:.0f}%)"
        parts.append(f"elapsed {duration(elapsed)}")
        fresh = count - self._first
        if self._total and fresh and count < self._total:
            parts.append(f"left {duration(elapsed / fresh * (self._total - count))}")
        if text:
            parts.append(text)
        self._console.print("  ".join(parts), markup=False, highlight=False, soft_wrap=True)
        self._said_count, self._said_at, self._latest = count, self._clock(), None


def duration(seconds: float) -> str:
    """Seconds as ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


@functools.cache
def _console() -> Console:
    # One for all bars, so that a bar within a bar does not draw over it.
    return Console(stderr=True)


def _draws(console: Console) -> bool:
    return (console.is_terminal and not console.is_dumb_terminal) or console.is_jupyter


def _live(console: Console) -> rich_progress.Progress | None:
    live = rich_progress.Progress(
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TimeRemainingColumn(),
        rich_progress.TextColumn("{task.fields[text]}", markup=False),
        console=console,
    )
    try:
        live.start()
    except LiveError:  # another bar is being drawn: this one speaks in lines above it
        return None
    return live
