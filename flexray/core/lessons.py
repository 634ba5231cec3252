"""What a pool has learned of its load and its containers, and what follows for the autoscaler.

One rule: lessons are drawn from what happened, whatever the pool decided; a new version of the function keeps
them for a start, and a restarted controller those that the store has.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from flexray.core.autoscaler import VALUE_OF_WAITING
from flexray.core.estimates import Arrivals, ColdStarts, Learned, Occupancy, ServiceTimes, Stall
from flexray.core.idling import IdlePeriods, Idling
from flexray.core.prewarm import NextTick

LATE_REPORTS = 4.0
"""A stall lasts, and is asked after, for as many times as long as it may take until an end is reported."""


class Lessons:
    """One pool's estimates."""

    def __init__(self) -> None:
        self.service = ServiceTimes()
        self.cold_starts = ColdStarts()
        self.arrivals = Arrivals()
        self.occupancy = Occupancy()
        self.next_tick: NextTick | None = None
        """Of the function's declared schedule."""
        self._stall = Stall()
        self._late_s = 0.0
        self._idling = Idling()
        self._periods = IdlePeriods()

    def ended(self, count: int, total_s: float, sample_s: Iterable[float]) -> None:
        """So many inputs have ended, after `total_s` seconds together and some of them after these."""
        self.service.add_summary(count, total_s, sample_s)
        self._stall.ended()

    def observe(
        self,
        waiting: int,
        taken: int,
        window_s: float,
        now: float,
        *,
        busy: bool,
        held_up: bool,
        late_s: float,
    ) -> None:
        """Note how many inputs wait and how many slots are taken, and whether the pool is used at all.

        Where it is held up by another pool, that nothing ends says nothing of its inputs. What has ended is
        reported `late_s` later.
        """
        self._late_s = late_s
        self._stall.observe(taken, now, waiting=waiting > 0 and not held_up)
        self._idling.observe(waiting + taken, now, self._loss_s)
        self._periods.observe(window_s, now, busy=busy)

    def ask(self) -> None:
        """Whoever has busy slots is asked whether anything has ended."""
        self._stall.ask()

    def nothing_ended(self) -> None:
        """Nothing has, says somebody who was asked."""
        self._stall.confirm()

    @property
    def stalled_s(self) -> float:
        """How long nothing has ended though something waited and slots ran.

        0 while that is usual: up to two service times it may be chance, and up to a cold start no container
        would have helped.
        """
        return self._stall.seconds if self._stall.seconds > self._usual_s else 0.0

    @property
    def wants_report(self) -> bool:
        """Whether nothing was heard for so long that this may be a stall, or one that goes on."""
        return self._stall.unconfirmed_s > (self._late_reports_s if self.stalled_s else self._usual_s)

    @property
    def _usual_s(self) -> float:
        service_s = self.service.mean
        if service_s is None:
            return math.inf
        return max(self._late_reports_s, 2.0 * service_s, self.cold_starts.quantile())

    @property
    def _late_reports_s(self) -> float:
        return LATE_REPORTS * self._late_s

    @property
    def service_s(self) -> float | None:
        """Mean service time, that of a stall included; None while nothing has finished."""
        return self.service.mean_with(self._stall.slot_s) if self.stalled_s else self.service.mean

    def idle_tail_s(self, level: int, window_s: float) -> float:
        """T for a container that is needed while the load is at `level` slots or above."""
        return self._idling.threshold_s(level, window_s, self.cold_starts.quantile())

    def last_tail_s(self, window_s: float, now: float) -> float | None:
        """How long the last container idles; None: for the window, as nothing says that this is too long."""
        cold_start_s = self.cold_starts.quantile()
        learned_s = self._idling.last_threshold_s(window_s, cold_start_s)
        if learned_s is not None:
            return learned_s
        far = self.next_tick is not None and self.next_tick.is_beyond(window_s, now)
        return 2.0 * cold_start_s if far or self._periods.outlive_the_window else None

    def prewarmed(self, slots: int, now: float) -> int:
        """Containers for the next tick of the schedule, if it is near."""
        if self.next_tick is None:
            return 0
        slowest_s = self.cold_starts.slowest or self.cold_starts.quantile()
        return self.next_tick.containers(slots, slowest_s, now)

    @property
    def learned(self) -> Learned:
        """What to keep of this version of the function over a restart."""
        return Learned(self.service.few(), self.cold_starts.recent)

    def recall(self, learned: Learned) -> None:
        """Begin with what was learned before; what is seen from now on replaces it."""
        for seconds in learned.service_s:
            self.service.add(seconds)
        for seconds in learned.cold_start_s:
            self.cold_starts.add(seconds)

    def _loss_s(self, busy: int) -> float:
        """What it costs, in container-seconds, that an input finds no container while so many slots are busy.

        It waits for a cold start, or for one of these slots, whichever is sooner.
        """
        cold_start_s = wait_s = self.cold_starts.quantile()
        if busy:
            wait_s = min(wait_s, (self.service.mean or wait_s) / busy)
        return cold_start_s + VALUE_OF_WAITING * wait_s
