"""Collectives of a compiled program, from its text: how often each runs, and what it moves."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2}
_BYTES |= {"s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8}

_COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) \(.*\) -> .* \{$")
_OPERATION = re.compile(
    r"^\s+(?:ROOT )?%?[\w.\-]+ = (?P<shape>\(.*?\)|\S+) (?P<kind>[\w\-]+)\((?P<rest>.*)$"
)
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_CALLED = re.compile(
    r"(?:body|condition|calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"?(\d+)"?\}')
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_LIMIT = re.compile(r" s32\[\]\S* constant\((\d+)\)")
_CHANNEL = re.compile(r"channel_id=(\d+)")
# Groups as lists, as [groups, size] or as axes of a mesh.
_LISTS = re.compile(r"replica_groups=\{\{([\d,]+)\}")
_SIZES = re.compile(r"replica_groups=\[(\d+),(\d+)\]")
_AXES = re.compile(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}")
_FUSED_SCATTER = "all-reduce-scatter"
_SHARED_CHANNEL = "1"  # of operations that the compiler made itself


@dataclasses.dataclass(frozen=True)
class Collective:
    """Collectives of one kind.

    Attributes:
      sites: places in the program.
      runs: how often they run in a step, loops counted.
      received: bytes that each chip receives in a step: (n - 1) / n of what is gathered or
        scattered over n chips, twice that of what is reduced on all.
    """

    sites: int = 0
    runs: int = 0
    received: float = 0.0


def collectives(text: str) -> dict[str, Collective]:
    """Collectives of a compiled program by kind; those that do not occur are left out.

    Args:
      text: of ``compiled.as_text()``.
    """
    bodies, entry = _computations(text)
    times = _times(bodies, entry)
    # One that is spread over several fusions, to overlap with what they compute, stands in each
    # of them under its channel.
    found: dict[tuple[str, str], tuple[int, float]] = {}
    for name, lines in bodies.items():
        for place, (kind, shape, rest) in enumerate(_operations(lines)):
            base, n = kind.removesuffix("-start"), times[name]
            if base not in KINDS or not n:
                continue
            received = _received(base, shape, rest, kind != base)
            if base == "all-reduce" and name.startswith(_FUSED_SCATTER):
                base, received = "reduce-scatter", received / 2
            channel = _CHANNEL.search(rest)
            own = channel[1] if channel and channel[1] != _SHARED_CHANNEL else f"{name}.{place}"
            before = found.get((base, own), (0, 0.0))
            found[base, own] = max(before, (n, received))
    of_kind = {kind: [v for (k, _), v in found.items() if k == kind] for kind in KINDS}
    return {
        kind: Collective(len(all_), sum(n for n, _ in all_), sum(n * b for n, b in all_))
        for kind, all_ in of_kind.items()
        if all_
    }


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    bodies: dict[str, list[str]] = {}
    entry, name = "", None
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            name = match["name"]
            bodies[name] = []
            entry = name if match["entry"] else entry
        elif line.startswith("}"):
            name = None
        elif name is not None:
            bodies[name].append(line)
    return bodies, entry


def _operations(lines: list[str]) -> Iterator[tuple[str, str, str]]:
    for line in lines:
        if match := _OPERATION.match(line):
            yield match["kind"], match["shape"], match["rest"]


def _times(bodies: Mapping[str, list[str]], entry: str) -> Counter[str]:
    """How often each computation runs in a step.

    A loop's length is what its text says, else the largest number in its condition, else 1.
    """
    calls: dict[str, Counter[str]] = {name: Counter() for name in bodies}
    for name, lines in bodies.items():
        for kind, _, rest in _operations(lines):
            trips = _length(rest, bodies) if kind == "while" else 1
            called = _CALLED.findall(rest)
            for group in _BRANCHES.findall(rest):
                called += [one.strip().lstrip("%") for one in group.split(",")]
            for one in called:
                calls[name][one] += trips
    times: Counter[str] = Counter()

    def visit(name: str, n: int) -> None:
        times[name] += n
        for one, m in calls.get(name, {}).items():
            visit(one, n * m)

    visit(entry, 1)
    return times


def _length(rest: str, bodies: Mapping[str, list[str]]) -> int:
    if match := _TRIPS.search(rest):
        return int(match[1])
    condition = _CONDITION.search(rest)
    limits = _LIMIT.findall("\n".join(bodies.get(condition[1], ()))) if condition else []
    return max(map(int, limits), default=1)


def _group_size(rest: str) -> int:
    if match := _LISTS.search(rest):
        return match[1].count(",") + 1
    if match := _SIZES.search(rest):
        return int(match[2])
    if match := _AXES.search(rest):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        # An axis may be cut, as in 'axis_0':(2)4.
        named = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", match[2])
        return math.prod(int(part or sizes[axis]) for axis, part in named)
    return 2


def _received(kind: str, shape: str, rest: str, starts: bool) -> float:
    sizes = [_size(*array) for array in _ARRAY.findall(shape)]
    if starts and kind in ("all-gather", "collective-permute") and len(sizes) > 1:
        sizes = sizes[1:2]  # of a started one: (operand, result, ...)
    size = float(sum(sizes))
    n = _group_size(rest)
    share = (n - 1) / n
    if kind == "collective-permute":
        return size
    if kind == "reduce-scatter":
        return size * (n - 1)  # the result is a part of what is reduced
    return (2 if kind == "all-reduce" else 1) * size * share


def _size(dtype: str, dims: str) -> int:
    return _BYTES.get(dtype, 0) * math.prod(int(n) for n in dims.split(",") if n)
