"""How long an idle container is worth keeping, learned from how long containers were idle before.

One rule: a container that is ended too early costs a cold start and the wait for it, so idling pays as long as
the gaps that are still open at that age tend to end soon (ski rental with what is known of the season).

A gap is the time from a container's last input to the next one that takes it. Where the container was stopped
in between, its gap is open: the next launch, which it would have spared, completes it. The threshold is

    T = 1.1 argmin_t [ sum over gaps g <= t of g  +  sum over gaps g > t of (t + (1 + v) C) ]

within 2 s and the window; under 12 gaps two cold starts. Sources: ski rental per server under
most-recently-used dispatch (Lu, Chen, Andrew, arXiv 1112.0442); histograms of idle times (Serverless in the
Wild, ATC 2020).
"""

from __future__ import annotations

import math
from collections import deque

SHORTEST_IDLE_S = 2.0
"""Nothing is stopped that was idle for less; shorter gaps decide nothing and are not counted."""
LONGEST_GAP_S = 3600.0
"""The longest window. Longer gaps are all alike."""
HALF_LIFE_S = 900.0
GAPS_MIN = 12
"""Gaps needed before they are believed."""
SAFETY = 1.1
BINS_PER_OCTAVE = 4
BINS = math.ceil(BINS_PER_OCTAVE * math.log2(LONGEST_GAP_S / SHORTEST_IDLE_S)) + 1
GHOSTS_MAX = 4096
PERIODS = 3
"""So many idle periods in a row must outlive the window before the last container is let go early."""


class IdleGaps:
    """A log-histogram of gaps whose weights halve every 15 minutes, and the gaps that are open."""

    __slots__ = ("_count", "_ghosts", "_seconds", "_started_at", "_weights")

    def __init__(self) -> None:
        self._count = 0
        self._weights = [0.0] * (BINS + 1)  # the last: gaps that outlived the window
        self._seconds = [0.0] * (BINS + 1)  # weighted sums of the gaps of each bin
        self._started_at = 0.0  # an addition then has the weight 1, one half-life later 2
        self._ghosts: deque[float] = deque()  # since when stopped containers had been idle, oldest first

    def add(self, gap_s: float, now: float) -> None:
        """A container that had been idle for so long took an input."""
        if gap_s >= SHORTEST_IDLE_S:
            self._add(min(BINS - 1, _bin(gap_s)), gap_s, now)

    def stopped(self, idle_since: float) -> None:
        """A container that had been idle since then was stopped: its gap is open."""
        self._ghosts.append(idle_since)
        if len(self._ghosts) > GHOSTS_MAX:
            self._ghosts.popleft()

    def launched(self, window_s: float, now: float) -> None:
        """A container was launched: the one stopped last would have done, had it been kept."""
        self.expire(window_s, now)
        if self._ghosts:
            self.add(now - self._ghosts.pop(), now)

    def expire(self, window_s: float, now: float) -> None:
        """Gaps that are open for longer than the window: no threshold would have bridged them."""
        while self._ghosts and now - self._ghosts[0] > window_s:
            self._add(BINS, now - self._ghosts.popleft(), now)

    def threshold_s(self, window_s: float, cold_start_s: float, value_of_waiting: float) -> float:
        """T: how long a container may be idle in a substantially overprovisioned pool."""
        if self._count < GAPS_MIN:
            return _within(2.0 * cold_start_s, window_s)
        loss_s = (1.0 + value_of_waiting) * cold_start_s
        longer = sum(self._weights)
        bridged = 0.0
        best_s, best_cost = 0.0, longer * loss_s
        for number in range(BINS):
            if not self._weights[number]:
                continue
            longer -= self._weights[number]
            bridged += self._seconds[number]
            edge_s = _edge_s(number)
            cost = bridged + longer * (edge_s + loss_s)
            if cost < best_cost and edge_s <= 2.0 * window_s:
                best_s, best_cost = edge_s, cost
        return _within(SAFETY * best_s, window_s)

    def _add(self, number: int, gap_s: float, now: float) -> None:
        halvings = (now - self._started_at) / HALF_LIFE_S
        if halvings > 32.0:
            self._rebase(0.5**halvings, now)
            halvings = 0.0
        weight = 2.0**halvings
        self._count += 1
        self._weights[number] += weight
        self._seconds[number] += weight * gap_s

    def _rebase(self, factor: float, now: float) -> None:
        """Let an addition now have the weight 1 again, so that weights never overflow."""
        self._started_at = now
        self._weights = [weight * factor for weight in self._weights]
        self._seconds = [seconds * factor for seconds in self._seconds]


class IdlePeriods:
    """Whether a pool's idle periods have lately all been longer than its window."""

    __slots__ = ("_idle_since", "_outlived")

    def __init__(self) -> None:
        self._idle_since: float | None = None
        self._outlived = 0  # in a row

    def observe(self, window_s: float, now: float, *, busy: bool) -> None:
        """Note whether anything waits or runs now."""
        if not busy:
            if self._idle_since is None:
                self._idle_since = now
        elif self._idle_since is not None:
            self._outlived = self._outlived + 1 if now - self._idle_since > window_s else 0
            self._idle_since = None

    @property
    def outlive_the_window(self) -> bool:
        """The last three did, so keeping the last container for the window is no use."""
        return self._outlived >= PERIODS


def _bin(gap_s: float) -> int:
    return int(BINS_PER_OCTAVE * math.log2(gap_s / SHORTEST_IDLE_S))


def _edge_s(number: int) -> float:
    """The upper edge of a bin."""
    return SHORTEST_IDLE_S * 2.0 ** ((number + 1) / BINS_PER_OCTAVE)


def _within(seconds: float, window_s: float) -> float:
    return min(window_s, max(SHORTEST_IDLE_S, seconds))
