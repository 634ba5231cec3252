"""How a figure comes about.

One rule: what is compared is measured in turns, in one process, and a ratio is the median of the ratios of
the turns: whatever slows the machine down for a while slows both sides.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """How much to measure. The smoke test measures next to nothing of everything."""

    repeat: int = 5
    """Turns of every comparison."""
    share: float = 1.0
    """Of the inputs of every row."""

    def count(self, inputs: int, least: int = 1) -> int:
        """How many inputs to run where the row says `inputs`."""
        return max(least, round(inputs * self.share))


@dataclass(frozen=True)
class Row:
    """One line of the table: some work, measured here and at the peer."""

    work: str
    unit: str
    ours: Sequence[float]
    """One figure for each turn."""
    peer: str
    theirs: Sequence[float]
    """The peer's, turn by turn; empty where the bound is absolute."""
    reach: float
    at_least: bool = False
    """Whether more is better; else `reach` is an upper bound."""
    note: str = ""

    @property
    def value(self) -> float:
        """What is held against `reach`: the ratio to the peer, or our own figure."""
        return median(self.values)

    @property
    def values(self) -> list[float]:
        """The same of every turn, lowest first."""
        if not self.theirs:
            return sorted(self.ours)
        return sorted(mine / other for mine, other in zip(self.ours, self.theirs, strict=True))

    @property
    def is_reached(self) -> bool:
        return self.value >= self.reach if self.at_least else self.value <= self.reach

    def as_json(self) -> dict[str, Any]:
        return {
            "work": self.work,
            "unit": self.unit,
            "ours": median(self.ours),
            "peer": self.peer,
            "theirs": median(self.theirs) if self.theirs else None,
            "value": self.value,
            "lowest": self.values[0],
            "highest": self.values[-1],
            "turns": len(self.ours),
            "reach": f"{'>=' if self.at_least else '<='} {self.reach:g}",
            "reached": self.is_reached,
            "note": self.note,
        }


def in_turns(subjects: Sequence[Callable[[], T]], turns: int) -> list[list[T]]:
    """What each subject returned, turn by turn; each goes first in every other turn."""
    results: list[list[T]] = [[] for _ in subjects]
    for turn in range(turns):
        order = range(len(subjects))
        for position in reversed(order) if turn % 2 else order:
            results[position].append(subjects[position]())
    return results


def seconds(work: Callable[[], object]) -> float:
    """How long it takes once."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def median_ms(call: Callable[[int], object], calls: int) -> float:
    """The median time of one call of many, in milliseconds."""
    clock, times = time.perf_counter, []
    for number in range(calls):
        began = clock()
        call(number)
        times.append(clock() - began)
    return median(times) * 1e3


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
