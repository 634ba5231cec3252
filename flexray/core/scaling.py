"""When the containers of one pool start and stop.

One rule: the autoscaler says how many there should be and why; this file only turns the difference into
starts and stops, within the maximum, Ray's patience and the back-off after failed starts.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil

from flexray.config import AutoscalerSettings
from flexray.core.autoscaler import (
    AGES_MAX,
    GIVE_UP_AFTER,
    UNPLACED_MAX,
    Decision,
    Facts,
    Rule,
    decide,
    hold_containers,
    idle_limit_s,
    sample,
    start_backoff_s,
    starts_now,
)
from flexray.core.callers import Callers
from flexray.core.events import PoolEffect, Redeployed, StartContainer, StopContainer
from flexray.core.ledger import Container, Ledger, State
from flexray.core.lessons import Lessons
from flexray.core.sharing import NO_ROOM_S, PoolNeed, Shape, spare_containers

DECIDE_EVERY_S = 0.020
UNPLACEABLE_S = 3.0
"""A launch that Ray has not placed by then waits for room: launches are held at UNPLACED_MAX again."""
REPLACED_AT_ONCE = 0.25
"""Share of the containers for which others of a new version start at the same time, as in Kubernetes' rolling
updates: all at once they would take the processors from the inputs that run."""
DECISIONS_KEPT = 32


@dataclass(frozen=True, slots=True)
class Logged:
    """A decision that changed something, and when; `str()` of it is what `explain` prints."""

    at: float
    decision: Decision
    idle_ended: int = 0
    """Idle containers that were stopped with it."""
    idle_s: float = 0.0
    """How long the least recently used of them had been idle."""
    for_others: bool = False
    """Another pool waits for their room."""

    def __str__(self) -> str:
        if not self.idle_ended:
            return str(self.decision.reason)
        ended = "1 container" if self.idle_ended == 1 else f"{self.idle_ended:,} containers"
        before = self.decision.reason.before
        change = f"{before} -> {before - self.idle_ended}"
        why = ", for another function waits for their room" if self.for_others else ""
        return f"{change}: {ended} ended, idle for {self.idle_s:.1f} s{why}"


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
        self.lessons = Lessons()
        self.failed_starts = 0
        self.ever_ready = False
        self.failure: object = None
        """The newest failed start's error."""
        self.broken = False
        """The user's code can not be loaded anywhere: nothing is started any more."""
        self._gives_up = False
        self.decisions: deque[Logged] = deque(maxlen=DECISIONS_KEPT)
        self.started = self.cold_started = 0
        """Containers that were started, and that became ready, since the controller began."""
        self.decided: Counter[Rule] = Counter()
        """Decisions that changed something, by the rule that made them."""
        self._ledger = ledger
        self._callers = callers
        self._startup_timeout_s = startup_timeout_s
        self._name_container = name_container
        self._places = UNPLACED_MAX
        self._launches: list[float] = []
        """When some of those that start were launched."""
        self._sampled_at = 0
        """The ledger's moves when these were chosen."""
        self._held_back = False
        """More launches were wanted than Ray may have to place at once."""
        self._retry_at = 0.0
        self._failed_at = 0.0
        self._decided_at = float("-inf")
        self._decided_demand = 0
        self.demand_since: float | None = None
        self._active_at = float("-inf")
        self.replacing = 0
        """See `Facts`."""
        self.held_up = False
        """What runs waits for another pool, which has no container (see `blocking.held_up`)."""

    # What happened.

    def placed(self, container: Container) -> None:
        self._places = min(2 * UNPLACED_MAX + self._places, 512)
        if container.state is State.LAUNCHED:
            self._ledger.set_state(container, State.LOADING)

    def became_ready(self, container: Container, now: float) -> None:
        if not container.found:
            self.lessons.cold_starts.add(now - container.launched_at)
            self.cold_started += 1
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
        self.lessons.next_tick = None  # Its schedule may be another, or none.
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

    @property
    def seen(self) -> int:
        """How many inputs and starts that was learned from, since the controller began."""
        return self.cold_started + self.lessons.service.added

    # Deciding.

    def facts(self, now: float) -> Facts:
        ledger, callers = self._ledger, self._callers
        busy = bool(callers.demand or callers.assigned or callers.backlog)
        assigned = callers.assigned + callers.unseen_leases
        lessons, window_s = self.lessons, self.settings.scaledown_window
        lessons.observe(
            callers.demand,
            assigned,
            window_s,
            now,
            busy=busy,
            held_up=self.held_up,
            late_s=callers.report_every_s,
        )
        if busy:
            self._active_at = now
        if not callers.demand:
            self.demand_since = None
        elif self.demand_since is None:
            self.demand_since = now
        crowded = 0  # Inputs beyond the target: they run, and a container more would take them.
        if ledger.target_slots < ledger.slots:
            crowded = max(0, assigned - ledger.ready * ledger.target_slots)
        return Facts(
            settings=self.settings,
            slots=ledger.target_slots,
            demand=callers.demand + crowded,
            held_back=callers.held_back,
            assigned=assigned - crowded,
            ready=ledger.current,
            replacing=self.replacing,
            starting=ledger.count(State.LOADING),
            starting_ages=self._starting_ages(now),
            unplaced=ledger.count(State.LAUNCHED),
            service_s=None if self._single_use else lessons.service_s,
            stalled_s=lessons.stalled_s,
            single_use=self._single_use,
            service_cv2=lessons.service.cv2,
            cold_start_s=lessons.cold_starts.quantile(),
            stale_after_s=lessons.cold_starts.stale_after,
            arrival_rate=lessons.arrivals.rate(now),
            occupancy=lessons.occupancy.level(now),
            active=now - self._active_at <= window_s,
            waited_s=0.0 if self.demand_since is None else now - self.demand_since,
            failed_starts=self.failed_starts,
            idle_tail_s=self._idle_tail_s(),
            prewarmed=lessons.prewarmed(ledger.target_slots, now),
            last_tail_s=lessons.last_tail_s(window_s, now),
        )

    def _may_decide(self, now: float) -> bool:
        """Whether enough time has passed, or Ray has placed half of what held further launches back."""
        room = self._held_back and 2 * self._ledger.count(State.LAUNCHED) <= self._places
        return room or now - self._decided_at >= DECIDE_EVERY_S

    def _starting_ages(self, now: float) -> list[float]:
        """Ages of at most 32 starts, evenly chosen, oldest first; chosen anew when one in 32 has moved."""
        loading = self._ledger.by_state[State.LOADING]
        moves = self._ledger.moves
        if moves - self._sampled_at >= max(1, len(loading) // AGES_MAX) or not loading:
            self._launches = [container.launched_at for container in sample(loading.values())]
            self._sampled_at = moves
        return [now - at for at in self._launches]

    def _idle_tail_s(self) -> float:
        """T for the last of the ready containers, which would go first."""
        level = (self._ledger.current - 1) * self._ledger.target_slots + 1
        return self.lessons.idle_tail_s(level, self.settings.scaledown_window)

    def run(self, now: float, *, ticked: bool, may_shrink: bool) -> list[PoolEffect]:
        """Decide, and return the starts and stops that follow; at most every 20 ms but for new demand."""
        demand_grew = self._callers.demand > self._decided_demand
        self._decided_demand = self._callers.demand
        if self.broken or not (ticked or demand_grew or self._may_decide(now)):
            return []
        self._decided_at = now
        facts = self.facts(now)
        decision = decide(facts)
        effects = self._start(facts, decision, now)
        ended: list[PoolEffect] = []
        idle_s = self._idle_s(now)
        if may_shrink:
            effects += self._withdraw(facts, decision, now)
            if ticked:
                ended = self._stop_idle(facts, now)
                effects += ended + self._stop_overdue(now)
            effects += self._drain_excess(now)
        if effects:
            self.decided[decision.reason.rule] += 1
            only_ended = len(ended) == len(effects)
            logged = Logged(now, decision, len(ended), idle_s) if only_ended else Logged(now, decision)
            self.decisions.append(logged)
        return effects

    def _idle_s(self, now: float) -> float:
        """How long the least recently used container has been idle."""
        container = self._ledger.least_recently_used()
        return 0.0 if container is None else now - container.idle_since

    def _start(self, facts: Facts, decision: Decision, now: float) -> list[PoolEffect]:
        count = starts_now(facts, decision.target)
        self._held_back = False
        if not count or now < self._retry_at:
            return []
        launched = self._ledger.by_state[State.LAUNCHED]
        oldest = next(iter(launched.values()), None)
        if oldest is not None and now - oldest.launched_at > UNPLACEABLE_S:
            self._places = UNPLACED_MAX
        self._held_back = count > self._places - len(launched)
        count = min(count, self._places - len(launched))
        if self.settings.max_containers is not None:
            current = len(self._ledger) - len(self._ledger.outdated)
            count = min(count, self.settings.max_containers - current)
        if self.replacing:
            count = min(count, self._replacements(facts, decision.target))
        effects: list[PoolEffect] = []
        for _ in range(count):
            container = self._ledger.add(self._name_container(), State.LAUNCHED, now)
            effects.append(StartContainer(container.container_id))
            self.started += 1
        return effects

    def _replacements(self, facts: Facts, target: int) -> int:
        """How many may begin while a new version takes over: some at once, beside what the load asks for.

        On a node that leaves nothing waits for anything.
        """
        serving = sum(not container.leaves_node for container in self._ledger.serving_outdated)
        grown = max(0, target - facts.ready - serving)
        at_once = ceil(REPLACED_AT_ONCE * (facts.ready + serving)) if serving else target
        return max(0, grown + at_once - facts.starting - facts.unplaced)

    def _withdraw(self, facts: Facts, decision: Decision, now: float) -> list[PoolEffect]:
        """Launches that are not wanted any more cost nothing to take back: the newest first."""
        excess = facts.ready + facts.starting + facts.unplaced - decision.target
        unwanted: list[Container] = []
        if excess > 0 and facts.unplaced:
            launched = self._ledger.by_state[State.LAUNCHED].values()
            unwanted = [c for c in launched if c.may_be_stopped(now)][-excess:]
        if decision.stale_withdrawn:
            unwanted += self._stale(now)[: decision.stale_withdrawn]
        return [self.stop(container) for container in unwanted]

    def _stale(self, now: float) -> list[Container]:
        """Starts that count as no supply any more, the youngest first."""
        stale_after_s = self.lessons.cold_starts.stale_after
        loading = reversed(self._ledger.by_state[State.LOADING].values())
        return [c for c in loading if now - c.launched_at > stale_after_s and c.may_be_stopped(now)]

    def _stop_idle(self, facts: Facts, now: float) -> list[PoolEffect]:
        effects: list[PoolEffect] = []
        while (oldest := self._ledger.least_recently_used()) is not None:
            limit_s = idle_limit_s(facts, self._ledger.idle)
            if limit_s is None or now - oldest.idle_since < limit_s:
                break
            container = self._ledger.least_wanted()
            assert container is not None
            effects.append(self.stop(container))
            facts = replace(facts, ready=self._ledger.current, idle_tail_s=self._idle_tail_s())
        return effects

    def _stop_overdue(self, now: float) -> list[PoolEffect]:
        """`startup_timeout` ends a start; one that Ray never placed says so as the failure."""
        effects: list[PoolEffect] = []
        for container in self._overdue(now):
            unplaced = container.state is State.LAUNCHED
            effects.append(self.stop(container))
            what = "Ray found no place for it" if unplaced else "its code was not loaded"
            late = f"{what} within startup_timeout={self._startup_timeout_s:g} s"
            self.start_failed(container, late, now)
            self._gives_up = self._gives_up or (unplaced and not self._ledger.ready)
        return effects

    def _overdue(self, now: float) -> list[Container]:
        overdue: list[Container] = []
        for state in (State.LAUNCHED, State.LOADING):
            for container in self._ledger.by_state[state].values():
                if now - container.launched_at < self._startup_timeout_s:
                    break
                if container.may_be_stopped(now):
                    overdue.append(container)
        return overdue

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
                container := self._ledger.least_wanted()
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

    def explain(self, now: float) -> str:
        """Why there are as many containers as there are, in a sentence."""
        if self.broken:
            return "nothing is started: the function's code cannot be loaded"
        facts = self.facts(now)
        sentence = str(decide(facts).reason)
        if facts.failed_starts and now < self._retry_at:
            return f"{sentence}; the next start is tried in {self._retry_at - now:.1f} s"
        return sentence

    def need(self, pool_id: str, shape: Shape, now: float) -> PoolNeed:
        """What this pool wants and could spare, for the sharing between pools."""
        facts = self.facts(now)
        target = decide(facts).target
        missing = max(0, target - facts.ready - facts.starting)
        if self.replacing:
            missing = min(missing, facts.unplaced + self._replacements(facts, target))
        return PoolNeed(
            pool_id,
            shape,
            missing=missing,
            spare=self._spare(facts),
            lacks_room=self.lacks_room(now),
        )

    def lacks_room(self, now: float) -> bool:
        """Whether inputs wait, and Ray has no room for what was launched for them."""
        oldest = next(iter(self._ledger.by_state[State.LAUNCHED].values()), None)
        waits = oldest is not None and now - oldest.launched_at > NO_ROOM_S
        return waits and bool(self._callers.demand)

    def give_up(self, count: int, now: float) -> list[PoolEffect]:
        """Stop so many idle containers for other pools, the least recently used first, and none needed."""
        ended: list[PoolEffect] = []
        facts = self.facts(now)
        idle_s = self._idle_s(now)
        for _ in range(min(count, self._spare(facts))):
            container = self._ledger.least_wanted()
            if container is None:
                break
            ended.append(self.stop(container))
        if ended:
            self.decisions.append(Logged(now, decide(facts), len(ended), idle_s, for_others=True))
        return ended

    def _spare(self, facts: Facts) -> int:
        """Idle ones above its minimum, its buffer and its sustained load."""
        settings, idle = self.settings, self._ledger.idle
        needed = max(settings.min_containers, hold_containers(facts), facts.prewarmed)
        if facts.active and settings.buffer_containers:
            needed = max(needed, facts.ready - idle + settings.buffer_containers)
        return spare_containers(ready=facts.ready, idle=idle, needed=needed)

    def stop(self, container: Container) -> StopContainer:
        """Stop a container that has no leases; it counts until Ray says that it is dead."""
        placed = container.state is State.READY
        self._ledger.set_state(container, State.STOPPING)
        return StopContainer(container.container_id, placed)
