"""The two ways in which a command ends without its result."""

import reprlib

_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 200


def brief(value: object) -> str:
    """A value as Python writes it, cut short; never long, whatever it holds."""
    return _BRIEF.repr(value)


def shown(text: str) -> str:
    """The text on one line: line ends and control characters as their escapes."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


class UserError(Exception):
    """The user's input is wrong: printed as one line, exit code 2.

    Args:
      where: the file, line, field or argument at fault.
      what: what is wrong with it.
      mend: how to put it right, as an instruction.
    """

    exit_code = 2

    def __init__(self, where: object, what: str, mend: str = ""):
        self.where, self.what, self.mend = str(where), what, mend
        line = f"{self.where}: {what}"
        if mend:
            line += f" -- {mend}"
        super().__init__(shown(" ".join(line.split())))


class RunFailure(UserError):
    """The run itself failed (non-finite loss, full disk): one line, exit code 1."""

    exit_code = 1


class Stopped(RunFailure):
    """The run was asked to stop (SIGTERM) and has saved what it had: one line, exit code 143.

    Args:
      step: updates done and saved.
      total: updates of the whole training.
    """

    exit_code = 143  # 128 + 15, as of a process that the signal ended: launchers start it again

    def __init__(self, step: int, total: int):
        super().__init__(
            "stopped by SIGTERM",
            f"update {step} of {total} is saved",
            "the same command goes on from there",
        )
