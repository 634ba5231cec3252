"""The ten invariants of the protocol, against the world's truth.

What one input may do is checked by its `Truth` when it does it; here is what takes the whole world to see.
`check_event` runs after every event, `check_end` when nothing is left to do; both raise `Violation`.
"""

from __future__ import annotations

from typing import Any

from flexray.core.dispatch import LINGER_S
from flexray.core.events import ReportReceived, Ticked
from flexray.core.occupancy import KEEP_ANSWER_S
from flexray.core.pool import FORGET_S
from flexray.core.reporting import PARKED_TIMEOUT_S
from tests.sim.actors import SimCaller, SimContainer
from tests.sim.truth import Violation
from tests.sim.world import World

BESIDE_FREE_SLOT_S = 1.5
CUT_OFF_S = 16.0
LOOK_AT_WAITS_EVERY_S = 0.1
STOPPED_WITHIN_S = 1.0
"""Of the end of the window: two ticks of the controller, and Ray's word."""
LONG_AFTER_S = 1e6


def _demands(caller: SimCaller) -> bool:
    """Whether an input waits for a slot and not for the end of its back-off."""
    return caller.dispatch.waiting > len(caller.dispatch._resting)


def _returned(caller: SimCaller) -> int:
    """Inputs that a retry or a loss brought back: they may exceed the limits."""
    return len(caller.dispatch._attempts) + len(caller.dispatch._losses)


class Checks:
    """Checks one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._beside_free_since: float | None = None
        self._unstarted_since: float | None = None
        self._looked_at = 0.0
        self._newest_lease = 0
        self._admitted = 0
        self._demand = 0
        self._epoch = 0
        faults = world.scenario.faults
        cut_off = faults.pause_caller or faults.lose or faults.slow
        self._knows_all = not (faults.restart_controller and cut_off)
        """No caller can be cut off while the controller restarts (invariant 5)."""
        self._patience_s = BESIDE_FREE_SLOT_S if world.scenario.is_calm else CUT_OFF_S
        if faults.restart_controller and faults.lose:
            self._patience_s += PARKED_TIMEOUT_S  # The first report after a restart may be lost, too.
        world.after_control = self.check_control

    # After every event of the controller.

    def check_control(self, event: Any) -> None:
        pool = self.world.pool
        assert pool is not None
        if self._epoch != self.world.epoch:
            self._epoch, self._admitted = self.world.epoch, 0
        while self._newest_lease < pool._next_lease:
            self._newest_lease = max(self._newest_lease + 1, pool.config.epoch << 40)
            lease = pool.ledger.leases.get(self._newest_lease)
            if lease is not None and not self.world.containers[lease.container.container_id].declared_dead:
                self._check_slots(self.world.containers[lease.container.container_id])
        if isinstance(event, ReportReceived | Ticked):
            admitted = sum(caller.admitted for _, caller in pool.callers)
            if admitted > self._admitted and self._knows_all:
                self._check_limits()
            self._admitted = admitted
        scaling, demand_before = pool.scaling, self._demand
        self._demand = pool.callers.demand
        if (
            self._demand > demand_before
            and not pool.ledger.containers
            and not scaling.failed_starts
            and not scaling.broken
        ):
            self._fail("6: demand, no container, and nothing was started in the very event")

    def _check_slots(self, container: SimContainer) -> None:
        """A slot is granted only when nobody can still use it.

        But for leases that the last controller gave out and the container had not met when this one asked.
        """
        world = self.world
        assert world.pool is not None
        oldest = world.pool.config.epoch << 40
        released = container.occupancy._released
        numbers = dict.fromkeys(world.pool.ledger.containers[container.container_id].leases)
        busy = container.occupancy.busy
        numbers.update((n, None) for n in busy if n >= oldest or n in container.busy_when_asked)
        for caller in world.callers.values():
            if caller.alive:
                for number, slot in caller.dispatch._slots.items():
                    if slot.lease.container_id == container.container_id and oldest <= number not in released:
                        numbers[number] = None
        if len(numbers) > container.slots:
            self._fail(f"3: {container.container_id} has leases {list(numbers)} for {container.slots} slots")

    def _check_limits(self) -> None:
        world, limits = self.world, self.world.scenario.limits
        assert world.pool is not None
        waiting = assigned = unseen = returned = 0
        for caller in world.callers.values():
            known = world.pool.callers.get(caller.name)
            if caller.alive and known is not None and not caller.spawned:
                waiting += caller.dispatch.waiting
                assigned += caller.dispatch.assigned
                unseen += max(0, known.admitted - caller.dispatch._tally.admitted)
                returned += _returned(caller)
        pending = waiting + unseen - returned - world.unstarted_batches
        if pending > limits.pending or pending + assigned > limits.total:
            self._fail(
                f"5: {waiting} waiting, {unseen} unseen, {assigned} assigned, {returned} returned, {limits}"
            )

    # After every event of the world.

    def check_event(self) -> None:
        world = self.world
        if world.starts_over_max:
            self._fail(f"4: {world.live} containers, max {world.settings.max_containers}")
        if world.needless_starts:
            self._fail("8: a container was started when nothing was left to do")
        if world.stopped_with_lease:
            self._fail("7: a container was stopped with a lease out")
        if world.bounces and world.scenario.is_calm:
            self._fail("10: a batch bounced without a fault")
        if world.now - self._looked_at >= LOOK_AT_WAITS_EVERY_S:
            self._looked_at = world.now
            self._waits(self._patience_s)

    def _waits(self, patience_s: float) -> None:
        world = self.world
        waits = any(c.alive and world.now >= c.paused_until and _demands(c) for c in world.callers.values())
        free = waits and any(
            c.alive and c.ready and not c.occupancy.busy and not world.reachable_holders(c)
            for c in world.containers.values()
        )
        self._beside_free_since = self._lasting(
            free, self._beside_free_since, patience_s, "6: waits beside a free slot"
        )
        lonely = waits and not world.live and not (world.pool is None or world.pool.scaling.failed_starts)
        self._stopped_in_time()
        self._unstarted_since = self._lasting(
            lonely, self._unstarted_since, patience_s, "6: waits, nothing is started"
        )

    def _stopped_in_time(self) -> None:
        world = self.world
        if any(c.alive and c.placed and not c.ready for c in world.containers.values()):
            return  # It was needed when it was started, and ends when it is ready.
        over = not world.open_inputs and world.now > world.over_after
        if world.is_steady and over and not world.a_node_left:
            last_at = max(world.settled_at, world.ready_at, world.ran_at)
            late_s = world.now - last_at - world.settings.scaledown_window
            if (
                late_s > STOPPED_WITHIN_S + (LINGER_S if world.overtaken else 0.0)
                and world.live > world.settings.min_containers
            ):
                self._fail(
                    f"8: {world.live} containers {late_s:.2f} s after the window that began at {last_at:.2f}"
                )

    def _lasting(self, condition: bool, since: float | None, patience_s: float, what: str) -> float | None:
        if not condition:
            return None
        since = self.world.now if since is None else since
        if self.world.now - max(since, self.world.lost_at) > patience_s:
            self._fail(f"{what} since {since:.2f}")
        return since

    # At the end.

    def check_end(self) -> None:
        world = self.world
        if world.queue is not None and (
            world.queue.open or world.queue.attempts or len(world.queue.recovery)
        ):
            self._fail(f"1: the call queue still has {list(world.queue.open)}")
        for truth in world.truth.values():
            if not truth.is_over:
                truth.fail("1: never settled")
        if not world.scenario.never_starts and world.live != world.settings.min_containers:
            self._fail(f"8: {world.live} containers at the end, min {world.settings.min_containers}")
        old = [c.container_id for c in world.containers.values() if c.alive and c.version < world.version]
        if old:
            self._fail(f"18: {old} run an earlier version at the end")
        for caller in world.callers.values():
            if caller.alive:
                self._check_memory_of(caller)
        self._check_memory_of_pool()
        for container in world.containers.values():
            if container.alive:
                self._check_memory_at(container)

    def _check_memory_of(self, caller: SimCaller) -> None:
        """A caller without inputs remembers nothing of those it had."""
        dispatch = caller.dispatch
        if not dispatch.is_idle:
            self._fail(f"8: {caller.name} is not idle at the end")
        dispatch._run_timers(self.world.now + LONG_AFTER_S)
        names = (
            "_queue _alone _suspects _whole _resting _batches _sent_open "
            "_slots _doubled _free _held_of _busy _attempts _losses _endings _overdue _repeats"
        )
        left = {name: getattr(dispatch, name) for name in names.split() if getattr(dispatch, name)}
        if left or dispatch._sizing._large or caller.handles:
            self._fail(f"{caller.name} remembers {left} {caller.handles}")

    def _check_memory_of_pool(self) -> None:
        pool = self.world.pool
        assert pool is not None
        pool.handle(Ticked(), self.world.now + FORGET_S + 1.0)
        callers = pool.callers
        sums = (
            callers.demand,
            callers.suspects,
            callers.assigned,
            callers.unseen_leases,
            callers.advance,
            callers.used.pending,
            callers.used.total,
            callers.spawned,
        )
        left = (
            len(callers),
            len(pool.ledger.leases),
            len(pool.ledger.orphans),
            len(pool.ledger.draining),
            len(pool.ledger.reserved),
            len(pool.ledger.outdated),
            pool.scaling.replacing,
            *sums,
        )
        if any(left):
            self._fail(f"the pool remembers {left}")

    def _check_memory_at(self, container: SimContainer) -> None:
        occupancy = container.occupancy
        if occupancy.busy:
            self._fail(f"{container.container_id} is busy at the end")
        later = self.world.now + KEEP_ANSWER_S + 1.0
        occupancy.arrive(("nobody", 1), 0, 1, later, oldest_open=1, again=False, at_most_once=False)
        if len(occupancy._works) > 1 or len(occupancy._answered):
            self._fail(f"{container.container_id} remembers {len(occupancy._works)} batches")

    def _fail(self, what: str) -> None:
        raise Violation(what)
