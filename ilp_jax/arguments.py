"""The words that each command takes behind its name."""

from __future__ import annotations

import argparse
import textwrap
from typing import NoReturn

from ilp_jax.errors import UserError
from ilp_jax.fields import nearest

_SEVERAL = ("report", "evaluate")  # of which runs may stand side by side
NEEDS_WORKDIR = (
    *("run", "probe", "train", "detect", "diagnose", "export", "replay", "influence"),
    *("mitigate", "sweep"),
    *_SEVERAL,
)
_TUNED_USAGE = """
       ilp detect --base DIR --tuned DIR --data FILE.jsonl --workdir DIR [--config FILE ...]"""
_PLAN_USAGE = """[--topology v5e:16x16 | --device NAME] [--mfu X]
       [--rows N --tokens T [--targets R]] [--out FILE] """
_COMPILE_USAGE = """--topology v5e:16x16 [--tokens T] [--targets R]
       [--mfu X] [--largest] [--out FILE] """
HOW_CONFIG_WORKS = """\
configuration:
  --config FILE.py                the study; its get_config() returns the fields
  --config FILE.py:a=X,b=Y        the same with arguments of that get_config()
  --config.train.batch_size=4     overrides one field, as often as needed
                                  (`ilp config show --config FILE` lists them all)
  Without --config, WORKDIR/run.json gives the configuration of the run made there.

exit code: 0 done, 1 the run failed, 2 the input is wrong (one line says what).
"""


class _Parser(argparse.ArgumentParser):
    """Reports a mistake as a UserError, so as one line."""

    def parse_args(self, args):  # type: ignore[override]
        options, unknown = self.parse_known_args(args)
        if unknown:
            known = [*self._option_string_actions, "--config.FIELD"]
            word = unknown[0].split("=")[0]
            mend = nearest(word, known) if word.startswith("-") else ""
            raise UserError(word, "no such argument", mend or f"see {self.prog} --help")
        return options

    def error(self, message: str) -> NoReturn:
        raise UserError(self.prog, message, f"see {self.prog} --help")


def parser(command: str, line: str, more: str) -> argparse.ArgumentParser:
    """The parser of a command's own words; overrides of fields are taken out before.

    Args:
      command: its name.
      line: one line of help.
      more: what else its own help says.
    """
    parser = _Parser(
        prog=f"ilp {command}",
        usage=f"ilp {command} --config FILE[:name=value,...] "
        + ("--workdir DIR " if command in NEEDS_WORKDIR else "")
        + ("--out DIR " if command == "export" else "")
        + ("[DIR ...] [--out FILE]\n       " if command in _SEVERAL else "")
        + ("[--rows N] " if command == "data preview" else "")
        + (_PLAN_USAGE if command == "plan" else "")
        + (_COMPILE_USAGE if command == "compile" else "")
        + ("[--limit N]\n           " if command == "replay" else "")
        + ("[--jobs N] [--launch FILE] [--dry-run]\n       " if command == "sweep" else "")
        + ("[--jobs N] [--apply --out DIR]\n       " if command == "mitigate" else "")
        + "[--config.field=value ...]"
        + (_TUNED_USAGE if command == "detect" else ""),
        description=textwrap.fill(f"{line[0].upper()}{line[1:]}. {more}", 88),
        epilog=HOW_CONFIG_WORKS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="the study's Python file")
    several = {"action": "extend", "nargs": "+"} if command in _SEVERAL else {}
    parser.add_argument(
        "--workdir", metavar="DIR", help="folder of the run, local or gs://", **several
    )
    if command == "report":
        parser.add_argument("--out", metavar="FILE", help="an HTML file, in place of WORKDIR's")
    if command == "evaluate":
        parser.add_argument("--out", metavar="FILE", help="a JSON file for the figures")
    if command == "export":
        parser.add_argument("--out", metavar="DIR", required=True, help="a new folder")
    if command == "replay":
        parser.add_argument(
            "--limit", type=_count, metavar="N", help="only the first N rows, unlearned ones first"
        )
    if command in ("sweep", "mitigate"):
        parser.add_argument(
            "--jobs", type=_count, default=1, metavar="N", help="runs at a time (default 1)"
        )
    if command == "mitigate":
        parser.add_argument(
            "--apply", action="store_true", help="train nothing: write the changed training set"
        )
        parser.add_argument("--out", metavar="DIR", help="with --apply: a new folder")
        parser.add_argument(
            "--train-only", action="store_true", help="train arms that no other process has"
        )
    if command == "sweep":
        parser.add_argument("--dry-run", action="store_true", help="list the runs, start none")
        parser.add_argument(
            "--launch", metavar="FILE", help="each run as a workload on the pod that FILE describes"
        )
    if command == "detect":
        parser.add_argument("--base", metavar="DIR", help="the model before tuning elsewhere")
        parser.add_argument("--tuned", metavar="DIR", help="the tuned model, of the same shape")
        parser.add_argument("--data", metavar="FILE", help="the .jsonl file it was tuned on")
    if command == "plan":
        where = parser.add_mutually_exclusive_group()
        where.add_argument(
            "--topology", metavar="CHIP:SHAPE", help="a slice, such as v5e:16x16, v5p:4x4x8, h100:8"
        )
        where.add_argument(
            "--device",
            metavar="NAME",
            default="cpu",
            help="one chip: cpu (default), v5e, h100, ...",
        )
        parser.add_argument(
            "--mfu", type=_share, metavar="X", help="share of the peak that matmuls reach"
        )
        parser.add_argument("--rows", type=_count, metavar="N", help="assumed rows a stage")
        parser.add_argument("--tokens", type=_count, metavar="T", help="assumed tokens a row")
        parser.add_argument(
            "--targets", type=_count, metavar="R", help="of these trained ones (default 16)"
        )
        parser.add_argument("--out", metavar="FILE", help="a JSON file for the plan")
    if command == "compile":
        parser.add_argument(
            "--topology", metavar="CHIP:SHAPE", help="a slice, such as v5e:16x16 or v5p:4x4x8"
        )
        parser.add_argument(
            "--tokens",
            type=_count,
            metavar="T",
            help="tokens a row (default config.max_length, or the model's positions if fewer)",
        )
        parser.add_argument(
            "--targets", type=_count, metavar="R", help="of these trained ones (default all)"
        )
        parser.add_argument(
            "--mfu", type=_share, metavar="X", help="share of the peak that matmuls reach"
        )
        parser.add_argument(
            "--largest", action="store_true", help="also look for the largest batch that fits"
        )
        parser.add_argument("--out", metavar="FILE", help="a JSON file for the figures")
    if command == "data preview":
        parser.add_argument(
            "--rows", "-n", type=_count, default=3, metavar="N", help="examples a stage (default 3)"
        )
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0 and at most 1")
    return value
