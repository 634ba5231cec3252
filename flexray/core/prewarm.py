"""Containers that are ready when a declared schedule fires.

One rule: a start begins as long before the tick as the slowest recent cold start took, and a little more.
"""

from __future__ import annotations

from dataclasses import dataclass

AHEAD = 1.15
"""Times the slowest recent cold start."""
LATE_S = 5.0
"""A tick's inputs arrive at the pool within this time; containers are kept for them until then."""


@dataclass(slots=True)
class NextTick:
    """When a pool's schedule fires next, on the clock of its events."""

    at: float
    inputs: int = 1

    def containers(self, slots: int, slowest_s: float, now: float) -> int:
        """How many are to be ready or starting by now: those of the tick if it is near, else none."""
        ahead_s = self.at - now
        if -LATE_S <= ahead_s <= AHEAD * slowest_s:
            return -(-self.inputs // slots)
        return 0

    def is_beyond(self, seconds: float, now: float) -> bool:
        """Whether it fires later than in so many seconds, so that nothing is worth keeping for it."""
        return self.at - now > seconds
