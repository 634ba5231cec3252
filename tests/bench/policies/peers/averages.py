"""Averages of the concurrency over windows of time, as peers measure it."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque

from tests.bench.policies.simulator import Simulation


class Concurrency:
    """Inputs in flight over time; `note` whenever they may have changed."""

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._times: deque[float] = deque([0.0])
        self._areas: deque[float] = deque([0.0])
        self._level = 0
        self.since: float | None = None
        """When measuring began: with the first input after a whole window without any."""
        self._busy_at = float("-inf")

    def note(self, pool: Simulation) -> None:
        now = pool.now
        self._append(now, self._areas[-1] + self._level * (now - self._times[-1]))
        if self._level or pool.in_flight:
            if now - self._busy_at >= self._longest_s:
                self.since = now
            self._busy_at = now
        self._level = pool.in_flight

    def _append(self, at: float, area: float) -> None:
        if at - self._times[-1] < 0.05 and len(self._times) > 1:
            self._times[-1], self._areas[-1] = at, area
        else:
            self._times.append(at)
            self._areas.append(area)
        while len(self._times) > 2 and self._times[1] <= at - self._longest_s:
            self._times.popleft()
            self._areas.popleft()

    def mean(self, window_s: float) -> float:
        """The mean of the last `window_s`, or of the time since measuring began; just after `note`."""
        now, since = self._times[-1], self.since
        start = max(now - window_s, self._times[0], now if since is None else since)
        if now - start < 0.1:
            return float(self._level)
        before = max(0, bisect_right(self._times, start) - 1)
        t0, a0 = self._times[before], self._areas[before]
        t1, a1 = self._times[before + 1], self._areas[before + 1]
        area = a0 + (a1 - a0) * (start - t0) / (t1 - t0) if t1 > t0 else a0
        return (self._areas[-1] - area) / (now - start)
