"""When the containers of one pool start and stop.

One rule: the autoscaler says how many there should be and why; this file only turns the difference into
starts and stops, within the maximum, Ray's patience and the back-off after failed starts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from flexray.config import AutoscalerSettings
from flexray.core.autoscaler import (
    GIVE_UP_AFTER,
    UNPLACED_MAX,
    VALUE_OF_WAITING,
    Decision,
    Facts,
    decide,
    idle_limit_s,
    sample_ages,
    start_backoff_s,
    starts_now,
)
from flexray.core.callers import Callers
from flexray.core.estimates import Arrivals, ColdStarts, Occupancy, ServiceTimes
from flexray.core.events import PoolEffect, Redeployed, StartContainer, StopContainer
from flexray.core.idling import IdlePeriods, Idling
from flexray.core.ledger import Container, Ledger, State

DECIDE_EVERY_S = 0.020
UNPLACEABLE_S = 3.0
"""A launch that Ray has not placed by then waits for room: launches are held at UNPLACED_MAX again."""
DECISIONS_KEPT = 32


@dataclass(frozen=True, slots=True)
class Logged:
    """A decision that changed something, and when."""

    at: float
    decision: Decision


class Scaling:
    """Starts and stops containers of one pool; learns what the autoscaler needs to know."""

    def __init__(
        self,
        ledger: Ledger,
        callers: Callers,
        settings: AutoscalerSettings,
        startup_timeout_s: float,
        name_container: Callable[[], str],
        *,
        single_use: bool = False,
    ) -> None:
        self._single_use = single_use
        self.settings = settings
        self.service = ServiceTimes()
        self.cold_starts = ColdStarts()
        self.arrivals = Arrivals()
        self.occupancy = Occupancy()
        self.idling = Idling()
        self.idle_periods = IdlePeriods()
        self.failed_starts = 0
        self.ever_ready = False
        self.failure: object = None
        """The newest failed start's error."""
        self.broken = False
        """The user's code can not be loaded anywhere: nothing is started any more."""
        self._gives_up = False
        self.decisions: deque[Logged] = deque(maxlen=DECISIONS_KEPT)
        self._ledger = ledger
        self._callers = callers
        self._startup_timeout_s = startup_timeout_s
        self._name_container = name_container
        self._places = UNPLACED_MAX
        self._retry_at = 0.0
        self._failed_at = 0.0
        self._decided_at = float("-inf")
        self._decided_demand = 0
        self._demand_since: float | None = None
        self._active_at = float("-inf")
        self.replacing = 0
        """See `Facts`."""

    # What happened.

    def placed(self, container: Container) -> None:
        self._places = min(2 * UNPLACED_MAX + self._places, 512)
        if container.state is State.LAUNCHED:
            self._ledger.set_state(container, State.LOADING)

    def became_ready(self, container: Container, now: float) -> None:
        if not container.found:
            self.cold_starts.add(now - container.launched_at)
        self.failed_starts, self.ever_ready, self.failure = 0, True, None
        self._retry_at = now
        container.idle_since = now
        self._ledger.set_state(container, State.READY)

    def redeployed(self, event: Redeployed) -> None:
        """Other code and options: what failed is tried again; what was learned is kept for a start."""
        self.settings, self._startup_timeout_s = event.settings, event.startup_timeout_s
        self._single_use = event.single_use
        self.failed_starts, self.ever_ready, self.failure = 0, False, None
        self.broken = self._gives_up = False
        self._retry_at = 0.0

    def start_failed(
        self, container: Container, failure: object, now: float, *, permanent: bool = False
    ) -> None:
        """Count a failed start: those that were under way together count as one, for they had one cause."""
        if container.launched_at >= self._failed_at or not self.failed_starts:
            self.failed_starts += 1
            self._failed_at = now
        self.failure = failure
        self.broken = self.broken or permanent
        self._gives_up = self._gives_up or (self.failed_starts >= GIVE_UP_AFTER and not self.ever_ready)
        self._retry_at = now + start_backoff_s(self.failed_starts)

    def take_give_up(self) -> bool:
        """Whether what waits must be told now that no container can start; asked once per event."""
        gives_up, self._gives_up = self._gives_up or self.broken, False
        return gives_up and not self._ledger.outdated  # Those serve on.

    # Deciding.

    def facts(self, now: float) -> Facts:
        ledger, callers = self._ledger, self._callers
        busy = bool(callers.demand or callers.assigned or callers.backlog)
        self.idling.observe(callers.demand + callers.assigned + callers.unseen_leases, now, self._loss_s)
        self.idle_periods.observe(self.settings.scaledown_window, now, busy=busy)
        if busy:
            self._active_at = now
        if not callers.demand:
            self._demand_since = None
        elif self._demand_since is None:
            self._demand_since = now
        loading = ledger.by_state[State.LOADING]
        assigned = callers.assigned + callers.unseen_leases
        crowded = 0  # Inputs beyond the target: they run, and a container more would take them.
        if ledger.target_slots < ledger.slots:
            crowded = max(0, assigned - ledger.ready * ledger.target_slots)
        return Facts(
            settings=self.settings,
            slots=ledger.target_slots,
            demand=callers.demand + crowded,
            assigned=assigned - crowded,
            ready=ledger.current,
            replacing=self.replacing,
            starting=len(loading),
            starting_ages=sample_ages([c.launched_at for c in loading.values()], now) if loading else (),
            unplaced=ledger.count(State.LAUNCHED),
            service_s=None if self._single_use else self.service.mean,
            single_use=self._single_use,
            service_cv2=self.service.cv2,
            cold_start_s=self.cold_starts.quantile(),
            stale_after_s=self.cold_starts.stale_after,
            arrival_rate=self.arrivals.rate(now),
            occupancy=self.occupancy.level(now),
            active=now - self._active_at <= self.settings.scaledown_window,
            waited_s=0.0 if self._demand_since is None else now - self._demand_since,
            failed_starts=self.failed_starts,
            idle_tail_s=self._idle_tail_s(),
            last_tail_s=self._last_tail_s(),
        )

    def _idle_tail_s(self) -> float:
        """T for the last of the ready containers, which would go first."""
        level = (self._ledger.current - 1) * self._ledger.target_slots + 1
        return self.idling.threshold_s(level, self.settings.scaledown_window, self.cold_starts.quantile())

    def _last_tail_s(self) -> float | None:
        """How long the last container idles; None: for the window, as nothing says that this is too long."""
        cold_start_s = self.cold_starts.quantile()
        learned_s = self.idling.last_threshold_s(self.settings.scaledown_window, cold_start_s)
        if learned_s is None and self.idle_periods.outlive_the_window:
            return 2.0 * cold_start_s
        return learned_s

    def _loss_s(self, busy: int) -> float:
        """What it costs, in container-seconds, that an input finds no container while so many slots are busy.

        It waits for a cold start, or for one of these slots, whichever is sooner.
        """
        cold_start_s = wait_s = self.cold_starts.quantile()
        if busy:
            wait_s = min(wait_s, (self.service.mean or wait_s) / busy)
        return cold_start_s + VALUE_OF_WAITING * wait_s

    def run(self, now: float, *, ticked: bool, may_shrink: bool) -> list[PoolEffect]:
        """Decide, and return the starts and stops that follow; at most every 20 ms but for new demand."""
        demand_grew = self._callers.demand > self._decided_demand
        self._decided_demand = self._callers.demand
        if self.broken or not (ticked or demand_grew or now - self._decided_at >= DECIDE_EVERY_S):
            return []
        self._decided_at = now
        facts = self.facts(now)
        decision = decide(facts)
        effects = self._start(facts, decision, now)
        if may_shrink:
            effects += self._withdraw(facts, decision, now)
            if ticked:
                effects += self._stop_idle(facts, now) + self._stop_overdue(now)
            effects += self._drain_excess(now)
        if effects:
            self.decisions.append(Logged(now, decision))
        return effects

    def _start(self, facts: Facts, decision: Decision, now: float) -> list[PoolEffect]:
        count = starts_now(facts, decision.target)
        if not count or now < self._retry_at:
            return []
        launched = self._ledger.by_state[State.LAUNCHED]
        oldest = next(iter(launched.values()), None)
        if oldest is not None and now - oldest.launched_at > UNPLACEABLE_S:
            self._places = UNPLACED_MAX
        count = min(count, self._places - len(launched))
        if self.settings.max_containers is not None:
            current = len(self._ledger) - len(self._ledger.outdated)
            count = min(count, self.settings.max_containers - current)
        effects: list[PoolEffect] = []
        for _ in range(count):
            container = self._ledger.add(self._name_container(), State.LAUNCHED, now)
            effects.append(StartContainer(container.container_id))
        return effects

    def _withdraw(self, facts: Facts, decision: Decision, now: float) -> list[PoolEffect]:
        """Launches that are not wanted any more cost nothing to take back: the newest first."""
        launched = [c for c in self._ledger.by_state[State.LAUNCHED].values() if c.may_be_stopped(now)]
        excess = facts.ready + facts.starting + facts.unplaced - decision.target
        unwanted = launched[len(launched) - max(0, min(excess, len(launched))) :]
        stale = self._stale(now)[: decision.stale_withdrawn]
        return [self.stop(container) for container in unwanted + stale]

    def _stale(self, now: float) -> list[Container]:
        """Starts that count as no supply any more, the youngest first."""
        stale_after_s = self.cold_starts.stale_after
        loading = reversed(self._ledger.by_state[State.LOADING].values())
        return [c for c in loading if now - c.launched_at > stale_after_s and c.may_be_stopped(now)]

    def _stop_idle(self, facts: Facts, now: float) -> list[PoolEffect]:
        effects: list[PoolEffect] = []
        while (container := self._ledger.least_recently_used()) is not None:
            limit_s = idle_limit_s(facts, self._ledger.idle)
            if limit_s is None or now - container.idle_since < limit_s:
                break
            effects.append(self.stop(container))
            facts = self.facts(now)
        return effects

    def _stop_overdue(self, now: float) -> list[PoolEffect]:
        """`startup_timeout` ends a start; one that Ray never placed says so as the failure."""
        effects: list[PoolEffect] = []
        for state in (State.LAUNCHED, State.LOADING):
            for container in list(self._ledger.by_state[state].values()):
                if now - container.launched_at < self._startup_timeout_s:
                    break
                if not container.may_be_stopped(now):
                    continue
                effects.append(self.stop(container))
                unplaced = state is State.LAUNCHED
                what = "Ray found no place for it" if unplaced else "its code was not loaded"
                late = f"{what} within startup_timeout={self._startup_timeout_s:g} s"
                self.start_failed(container, late, now)
                self._gives_up = self._gives_up or (unplaced and not self._ledger.ready)
        return effects

    def _drain_excess(self, now: float) -> list[PoolEffect]:
        """Above a lowered maximum the idle ones go at once, then busy ones are emptied."""
        effects: list[PoolEffect] = []
        maximum = self.settings.max_containers
        if maximum is None:
            return effects
        leaving = self._ledger.count(State.STOPPING) + len(self._ledger.draining)
        leaving += len(self._ledger.serving_outdated) if self._ledger.outdated else 0
        for _ in range(len(self._ledger) - leaving - maximum):
            if (container := self._newest_start(now)) is not None or (
                container := self._ledger.least_recently_used()
            ) is not None:
                effects.append(self.stop(container))
            elif (container := self._ledger.emptiest()) is not None:
                self._ledger.drain(container)
        return effects

    def _newest_start(self, now: float) -> Container | None:
        for state in (State.LAUNCHED, State.LOADING):
            for container in reversed(self._ledger.by_state[state].values()):
                if container.may_be_stopped(now):
                    return container
        return None

    def stop(self, container: Container) -> StopContainer:
        """Stop a container that has no leases; it counts until Ray says that it is dead."""
        placed = container.state is State.READY
        self._ledger.set_state(container, State.STOPPING)
        return StopContainer(container.container_id, placed)
