"""What a pool has learned about its own load: service times, cold starts, arrivals, occupancy.

One rule: a lone burst is not a trend. Rates and levels are medians over eight equal parts of their window;
what is old is forgotten by count or by that window, never by decay.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

SERVICE_SAMPLES = 256
COLD_STARTS = 32
DEFAULT_COLD_START_S = 2.0
FIRST_START_STALE_S = 60.0
PARTS = 8


class ServiceTimes:
    """How long inputs run: the mean of the last 256 inputs and a sample of their times."""

    __slots__ = (
        "_chunks",
        "_count",
        "_recent",
        "_sorted",
        "_squares",
        "_sum",
        "_total",
        "_until_resum",
        "added",
    )

    def __init__(self) -> None:
        self._chunks: deque[tuple[int, float]] = deque()  # (inputs, their seconds), oldest first
        self._count = 0
        self.added = 0
        """Inputs, all that ever were."""
        self._total = 0.0
        self._recent: deque[float] = deque()  # the sample by age; at most 256
        self._sorted: list[float] = []  # the same by size
        self._sum = 0.0
        self._squares = 0.0
        self._until_resum = SERVICE_SAMPLES

    def add(self, seconds: float) -> None:
        """Count one finished input."""
        self.add_summary(1, seconds, (seconds,))

    def add_summary(self, count: int, total: float, samples: Iterable[float]) -> None:
        """Count inputs that ran for `total` seconds together; `samples` are the times of some of them."""
        if count <= 0:
            return
        self.added += count
        kept = min(count, SERVICE_SAMPLES)
        self._add_chunk(kept, max(0.0, total) * kept / count)
        for seconds in samples:
            self._add_sample(max(0.0, seconds))

    @property
    def mean(self) -> float | None:
        """Mean seconds of the last 256 inputs (of a little more where a summary straddles the edge)."""
        return max(0.0, self._total) / self._count if self._count else None

    def mean_with(self, unended_s: float) -> float | None:
        """The same where these slot-seconds have run and ended nothing.

        Time over ends is the most likely mean of exponential times of which some are cut short.
        """
        return (max(0.0, self._total) + unended_s) / self._count if self._count else None

    @property
    def cv2(self) -> float | None:
        """Variance over squared mean, at most 1; 1 until two samples are known, None before the first."""
        samples = len(self._sorted)
        if samples == 0:
            return None
        mean = self._sum / samples
        if samples == 1 or mean <= 0.0:
            return 1.0
        return min(1.0, max(0.0, self._squares / samples / (mean * mean) - 1.0))

    def few(self, most: int = 32) -> tuple[float, ...]:
        """At most so many of the sample, evenly chosen, shortest first: about the same mean and spread."""
        size = min(most, len(self._sorted))
        return tuple([self._sorted[(2 * turn + 1) * len(self._sorted) // (2 * size)] for turn in range(size)])

    @property
    def sample(self) -> Sequence[float]:
        """The last 256 samples, shortest first. A view: valid until the next addition."""
        return self._sorted

    def _add_chunk(self, count: int, total: float) -> None:
        self._chunks.append((count, total))
        self._count += count
        self._total += total
        while self._count - self._chunks[0][0] >= SERVICE_SAMPLES:
            gone, seconds = self._chunks.popleft()
            self._count -= gone
            self._total -= seconds

    def _add_sample(self, seconds: float) -> None:
        self._recent.append(seconds)
        insort(self._sorted, seconds)
        self._sum += seconds
        self._squares += seconds * seconds
        if len(self._recent) > SERVICE_SAMPLES:
            gone = self._recent.popleft()
            del self._sorted[bisect_left(self._sorted, gone)]
            self._sum -= gone
            self._squares -= gone * gone
        self._until_resum -= 1
        if self._until_resum == 0:
            self._resum()

    def _resum(self) -> None:
        """Sum afresh, so that rounding errors of additions and subtractions never add up."""
        self._until_resum = SERVICE_SAMPLES
        self._sum = math.fsum(self._sorted)
        self._squares = math.fsum(seconds * seconds for seconds in self._sorted)
        self._total = math.fsum(seconds for _, seconds in self._chunks)


class Stall:
    """For how long slots have run and ended nothing while something waited.

    Service times are known of what has ended. Where short inputs came before and long ones run, only this
    tells of it. Whoever has the slots is asked, and time counts once a report has come that was sent after
    that and tells of no end: who was paused, or late, may have seen many.
    """

    __slots__ = (
        "_asked_s",
        "_asked_slot_s",
        "_at",
        "_running",
        "_slot_s",
        "seconds",
        "slot_s",
        "unconfirmed_s",
    )

    def __init__(self) -> None:
        self.seconds = 0.0
        self.slot_s = 0.0
        """The seconds of all slots that ran meanwhile, together."""
        self.unconfirmed_s = 0.0
        """Seconds that do not count yet."""
        self._slot_s = 0.0
        """The same, of all slots."""
        self._asked_s = self._asked_slot_s = 0.0
        """Of these, those until somebody was asked."""
        self._running = 0
        self._at = 0.0

    def observe(self, running: int, now: float, *, waiting: bool) -> None:
        """So many slots are busy from now on; where nothing waits one may be free, so that begins anew."""
        if not waiting:
            self.ended()
        elif self._running:
            self.unconfirmed_s += now - self._at
            self._slot_s += min(running, self._running) * (now - self._at)
        self._running = running if waiting else 0
        self._at = now

    def ask(self) -> None:
        """Whoever has busy slots is asked whether anything has ended until now."""
        self._asked_s, self._asked_slot_s = self.unconfirmed_s, self._slot_s

    def confirm(self) -> None:
        """Nothing has, says somebody who was asked."""
        self.seconds += self._asked_s
        self.slot_s += self._asked_slot_s
        self.unconfirmed_s -= self._asked_s
        self._slot_s -= self._asked_slot_s
        self._asked_s = self._asked_slot_s = 0.0

    def ended(self) -> None:
        """An input is over."""
        self.seconds = self.unconfirmed_s = self._asked_s = 0.0
        self.slot_s = self._slot_s = self._asked_slot_s = 0.0
        self._running = 0  # What has passed since the last look was before that.


class ColdStarts:
    """How long the last 32 containers took from launch to ready."""

    __slots__ = ("_default_s", "_recent", "_sorted")

    def __init__(self, default_s: float = DEFAULT_COLD_START_S) -> None:
        self._default_s = default_s  # what containers of the same runtime_env take, if that is known
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, seconds: float) -> None:
        """Count one container that became ready `seconds` after its launch."""
        seconds = max(0.0, seconds)
        self._recent.append(seconds)
        insort(self._sorted, seconds)
        if len(self._recent) > COLD_STARTS:
            del self._sorted[bisect_left(self._sorted, self._recent.popleft())]

    def quantile(self, share: float = 0.6) -> float:
        """Seconds within which `share` of the starts were ready; the default before the first start."""
        if not self._sorted:
            return self._default_s
        return self._sorted[max(0, math.ceil(share * len(self._sorted)) - 1)]

    @property
    def recent(self) -> tuple[float, ...]:
        """The last 32 in seconds, oldest first."""
        return tuple(self._recent)

    @property
    def slowest(self) -> float | None:
        """The slowest of the last 32, in seconds; None before the first."""
        return self._sorted[-1] if self._sorted else None

    @property
    def stale_after(self) -> float:
        """Age in seconds at which a start is no longer supply; a minute or more until the first is ready."""
        known = self._sorted[-1] if self._sorted else FIRST_START_STALE_S
        return max(3.0 * self.quantile(), known)


@dataclass(frozen=True, slots=True)
class Learned:
    """What is worth keeping of a pool over restarts, for the same version of its function."""

    service_s: tuple[float, ...] = ()
    """A sample of service times, shortest first; at most 32."""
    cold_start_s: tuple[float, ...] = ()
    """The last cold starts, oldest first; at most 32."""


class _Counted:
    """A running total of arrivals by time, in steps of `resolution_s`, reaching `horizon_s` back."""

    __slots__ = ("_dropped", "_horizon_s", "_resolution_s", "_times", "_totals", "_trim_at")

    def __init__(self, resolution_s: float, horizon_s: float) -> None:
        self._resolution_s = resolution_s
        self._horizon_s = horizon_s
        self._times: list[float] = []  # when each step began, oldest first
        self._totals: list[int] = []  # arrivals since birth at the end of each step
        self._dropped = 0  # arrivals since birth before the first step kept
        self._trim_at = 256

    def add(self, count: int, now: float) -> None:
        if count <= 0:
            return
        total = (self._totals[-1] if self._totals else 0) + count
        if self._times and now - self._times[-1] < self._resolution_s:
            self._totals[-1] = total
            return
        self._times.append(now)
        self._totals.append(total)
        if len(self._times) >= self._trim_at:
            self._trim(now)

    def window_s(self, last: int, shortest: float, now: float) -> float:
        """Seconds since the `last`-th arrival from the end (since the first, if fewer), within bounds."""
        if not self._times:
            return self._horizon_s
        step = bisect_right(self._totals, self._totals[-1] - last)
        return min(self._horizon_s, max(shortest, now - self._times[step]))

    def until(self, at: float) -> int:
        """Arrivals since birth up to and including `at`."""
        step = bisect_right(self._times, at)
        return self._totals[step - 1] if step else self._dropped

    def _trim(self, now: float) -> None:
        """Forget what lies behind the horizon, but for the newest step; O(1) amortised."""
        old = min(bisect_left(self._times, now - self._horizon_s), len(self._times) - 1)
        if old:
            self._dropped = self._totals[old - 1]
            del self._times[:old]
            del self._totals[:old]
        self._trim_at = max(256, 2 * len(self._times))


class Arrivals:
    """Inputs per second, as they have been arriving for a while."""

    __slots__ = ("_counted",)

    def __init__(self) -> None:
        self._counted = _Counted(resolution_s=1 / 32, horizon_s=60.0)

    def add(self, count: int, now: float) -> None:
        """Count `count` inputs that arrived just now; `now` never goes back."""
        self._counted.add(count, now)

    def rate(self, now: float) -> float:
        """Inputs per second: the median of eight parts of the time of the last 24 arrivals (1..60 s).

        A lone burst lies in one part and counts 0.
        """
        part_s = self._counted.window_s(last=24, shortest=1.0, now=now) / PARTS
        edges = [self._counted.until(now - part * part_s) for part in range(1, PARTS + 1)]
        edges.insert(0, self._counted.until(now))
        return _median_fall(edges) / part_s


class Occupancy:
    """How many slots the sustained load keeps busy."""

    __slots__ = ("_area", "_areas", "_assigned", "_counted", "_since", "_times", "_trim_at")

    _RESOLUTION_S = 1 / 8
    _HORIZON_S = 60.0

    def __init__(self) -> None:
        self._counted = _Counted(resolution_s=1 / 8, horizon_s=self._HORIZON_S)
        self._assigned = 0
        self._since = 0.0  # when `_assigned` began to hold
        self._area = 0.0  # slot-seconds from birth to `_since`
        self._times: list[float] = []  # points of the curve of `_area`, oldest first
        self._areas: list[float] = []
        self._trim_at = 1024

    def observe(self, assigned: int, now: float, arrived: int = 0) -> None:
        """Note that `assigned` slots are busy from now on, and `arrived` inputs came since last time.

        Without `arrived` the level looks back 60 s.
        """
        self._counted.add(arrived, now)
        if not self._times:
            self._since = now
        self._area += self._assigned * (now - self._since)
        self._assigned = assigned
        self._since = now
        if not self._times or now - self._times[-1] >= self._RESOLUTION_S:
            self._times.append(now)
            self._areas.append(self._area)
            if len(self._times) >= self._trim_at:
                self._trim(now)

    def level(self, now: float) -> float:
        """Busy slots: the median of eight parts of the time of the last 400 arrivals (8..60 s).

        The mean within each part is weighted by time; before the first observation nothing was busy.
        """
        if not self._times:
            return 0.0
        part_s = self._counted.window_s(last=400, shortest=8.0, now=now) / PARTS
        edges = [self._area_until(now - part * part_s, now) for part in range(PARTS + 1)]
        return max(0.0, _median_fall(edges) / part_s)

    def _area_until(self, at: float, now: float) -> float:
        if at >= self._since:
            return self._area + self._assigned * (at - self._since)
        after = bisect_right(self._times, at)
        if after == 0:
            return self._areas[0]
        before_s, before = self._times[after - 1], self._areas[after - 1]
        if after < len(self._times):
            next_s, following = self._times[after], self._areas[after]
        else:
            next_s, following = self._since, self._area
        return before + (following - before) * (at - before_s) / (next_s - before_s)

    def _trim(self, now: float) -> None:
        """Forget the points behind the horizon but for the newest of them; O(1) amortised."""
        old = max(0, bisect_right(self._times, now - self._HORIZON_S) - 1)
        del self._times[:old]
        del self._areas[:old]
        self._trim_at = max(1024, 2 * len(self._times))


def _median_fall(edges: Sequence[float]) -> float:
    """The median difference of neighbours of a falling sequence of nine."""
    falls = sorted(later - earlier for later, earlier in pairwise(edges))
    return (falls[PARTS // 2 - 1] + falls[PARTS // 2]) / 2
