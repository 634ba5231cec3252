"""Which scheduled functions are due, each tick once.

One rule: whoever fires a tick says so before the next one of the same function counts; a tick that nobody
fired in time is missed, which is told, and not made up.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from flexray.core.cron import next_tick
from flexray.schedule import Period, Schedule

LATE_S = 30.0
"""A tick is fired so late at most: the controller was restarting, say."""


@dataclass(frozen=True, slots=True)
class Due:
    """A tick of a function, by its pool."""

    pool_id: str
    tick: float
    """Seconds since the epoch of Unix."""
    missed: bool = False
    """It was due too long ago: it is told, and not fired."""


class Schedules:
    """The functions of all apps that run by the clock. Times are seconds since the epoch of Unix."""

    def __init__(self) -> None:
        self._schedules: dict[str, Schedule] = {}
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._schedules)

    def set(self, pool_id: str, schedule: Schedule, after: float) -> None:
        """Its next tick is the first later than that: than the last that was fired, or than the deploy."""
        self.remove(pool_id)
        tick = next_tick(schedule, after)
        if tick is not None:
            self._schedules[pool_id] = schedule
            heappush(self._heap, (tick, pool_id))

    def remove(self, pool_id: str) -> None:
        """It is scheduled no more."""
        if self._schedules.pop(pool_id, None) is not None:
            self._heap = [entry for entry in self._heap if entry[1] != pool_id]
            heapify(self._heap)

    def next_at(self, pool_id: str) -> float | None:
        """When it is due next."""
        return next((tick for tick, one in self._heap if one == pool_id), None)

    def upcoming(self) -> list[tuple[float, str]]:
        """(when it is due next, its pool) of every function, in no order."""
        return list(self._heap)

    def _following(self, pool_id: str, tick: float, after: float) -> float | None:
        """The first tick later than `after`, in step with this one: what was missed is told once."""
        schedule = self._schedules[pool_id]
        if isinstance(schedule, Period):
            after = tick + (after - tick) // schedule.seconds * schedule.seconds
        return next_tick(schedule, after)

    def due(self, now: float) -> list[Due]:
        """Every tick up to now, in order; each is given out once."""
        found: list[Due] = []
        while self._heap and self._heap[0][0] <= now:
            tick, pool_id = heappop(self._heap)
            missed = now - tick > LATE_S
            found.append(Due(pool_id, tick, missed))
            following = self._following(pool_id, tick, now - LATE_S if missed else tick)
            if following is None:
                del self._schedules[pool_id]
            else:
                heappush(self._heap, (following, pool_id))
        return found
