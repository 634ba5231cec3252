"""How long an idle container is worth keeping, learned from how often so many were needed before.

One rule: a container that is ended too early costs a cold start and the wait for it, so idling pays as long
as, at that age, it tends to be needed soon (ski rental with what is known of the season).

Inputs go to the fullest container, ties to the most recently used, so the n-th container is needed exactly
while more than n - 1 are busy. So what is watched is the load, not the containers: for each level, the gaps
between falling below it and reaching it again. Whatever is running or was stopped makes no difference to it.
For a container at a level with gaps g, v container-seconds per second of waiting and a cold start C

    T = 1.1 argmin_t [ sum over gaps g <= t of g  +  sum over gaps g > t of (t + (1 + v) C) ]

within 2 s and the window; one cold start where a level has had none. Sources: ski rental per
server under most-recently-used dispatch (Lu, Chen, Andrew, arXiv 1112.0442); histograms of idle times
(Serverless in the Wild, ATC 2020).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable

SHORTEST_IDLE_S = 2.0
"""Nothing is stopped that was idle for less; shorter gaps decide nothing and are not counted."""
LONGEST_GAP_S = 3600.0
"""The longest window. Longer gaps are all alike."""
HALF_LIFE_S = 900.0
GAPS_LAST = 12
"""Gaps that are believed of the last container, which keeps the window until then."""
SAFETY = 1.1
BINS_PER_OCTAVE = 4
BINS = math.ceil(BINS_PER_OCTAVE * math.log2(LONGEST_GAP_S / SHORTEST_IDLE_S)) + 1
LEVELS = (*range(1, 9), *(step << octave for octave in range(18) for step in (12, 16)))
"""Watched levels, in slots: each up to 8, then two per octave."""
PERIODS = 3
"""So many idle periods in a row must outlive the window before the last container is let go early."""


class Gaps:
    """A log-histogram of the gaps of one level; weights halve every 15 minutes."""

    __slots__ = ("_losses", "_seconds", "_started_at", "_weights", "count")

    def __init__(self) -> None:
        self.count = 0
        self._weights = [0.0] * BINS
        self._seconds = [0.0] * BINS
        """Weighted sums of the gaps of each bin."""
        self._losses = [0.0] * BINS
        """The same of what an early end would have cost."""
        self._started_at = 0.0
        """What is added then has the weight 1, one half-life later 2."""

    def add(self, gap_s: float, loss_s: float, now: float) -> None:
        """Count a gap that has ended now; without a container kept it would have cost `loss_s`."""
        halvings = (now - self._started_at) / HALF_LIFE_S
        if halvings > 32.0:
            self._weights = [weight * 0.5**halvings for weight in self._weights]
            self._seconds = [seconds * 0.5**halvings for seconds in self._seconds]
            self._losses = [seconds * 0.5**halvings for seconds in self._losses]
            self._started_at, halvings = now, 0.0
        number = min(BINS - 1, int(BINS_PER_OCTAVE * math.log2(gap_s / SHORTEST_IDLE_S)))
        self.count += 1
        self._weights[number] += 2.0**halvings
        self._seconds[number] += 2.0**halvings * gap_s
        self._losses[number] += 2.0**halvings * loss_s

    def best_s(self, window_s: float) -> float:
        """The threshold at which idling and losses would have cost least; 0 if ending at once."""
        longer, loss_s = sum(self._weights), sum(self._losses)
        bridged = 0.0
        best_s, best_cost = 0.0, loss_s
        for number, weight in enumerate(self._weights):
            if not weight:
                continue
            edge_s = SHORTEST_IDLE_S * 2.0 ** ((number + 1) / BINS_PER_OCTAVE)
            if edge_s > window_s * 2.0 ** (1 / BINS_PER_OCTAVE):
                break  # It cannot be bridged.
            longer -= weight
            bridged += self._seconds[number]
            loss_s -= self._losses[number]
            cost = bridged + longer * edge_s + loss_s
            if cost < best_cost:
                best_s, best_cost = edge_s, cost
        return best_s


class Idling:
    """The gaps of all levels of one pool's load."""

    __slots__ = ("_gaps", "_lows", "_reached", "_since")

    def __init__(self) -> None:
        self._gaps: dict[int, Gaps] = {}
        self._since: list[float | None] = [None] * len(LEVELS)
        """When the load fell below each level; None: it has never been there."""
        self._lows = [0] * len(LEVELS)
        """The lowest load in the open gap of each level, but for what the gap of the level below tells."""
        self._reached = 0
        """How many of the levels the load reaches."""

    def observe(self, load: int, now: float, loss_s: Callable[[int], float]) -> None:
        """Note how many slots the inputs that wait or run could use now.

        `loss_s(low)` is what it costs to have no container for an input while `low` slots were busy.
        """
        reached, lows = bisect_right(LEVELS, load), self._lows
        for number in range(self._reached, reached):
            since = self._since[number]
            if since is not None and now - since >= SHORTEST_IDLE_S:
                self._gaps.setdefault(number, Gaps()).add(now - since, loss_s(lows[number]), now)
            if number + 1 < len(LEVELS):
                lows[number + 1] = min(lows[number + 1], lows[number])
        for number in range(reached, self._reached):
            self._since[number], lows[number] = now, load
        self._reached = reached
        if reached < len(LEVELS):
            lows[reached] = min(lows[reached], load)

    def threshold_s(self, level: int, window_s: float, cold_start_s: float) -> float:
        """T for the container that is needed while the load is at `level` slots or above."""
        gaps = self._gaps.get(max(0, bisect_right(LEVELS, level) - 1))
        if gaps is None:
            return min(window_s, max(SHORTEST_IDLE_S, cold_start_s))
        return min(window_s, max(SHORTEST_IDLE_S, SAFETY * gaps.best_s(window_s)))

    def last_threshold_s(self, window_s: float, cold_start_s: float) -> float | None:
        """The same for the last container, once there is much to go by; None: not yet."""
        gaps = self._gaps.get(0)
        if gaps is None or gaps.count < GAPS_LAST:
            return None
        return self.threshold_s(1, window_s, cold_start_s)


class IdlePeriods:
    """Whether a pool's idle periods have lately all been longer than its window."""

    __slots__ = ("_idle_since", "_outlived")

    def __init__(self) -> None:
        self._idle_since: float | None = None
        self._outlived = 0
        """How many in a row."""

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
        """The last three did, so keeping the last container for the window is of no use."""
        return self._outlived >= PERIODS
