"""The ten invariants of the protocol, against the world's truth.

Each function raises `Violation`; `check_event` runs after every event, `check_end` when nothing is left to do.
"""

from __future__ import annotations

from tests.sim.world import SimCaller, World

BESIDE_FREE_SLOT_S = 1.5
CUT_OFF_S = 16.0


class Violation(AssertionError):
    """The state machines broke a promise; the message has the time and what was seen."""


def _demands(caller: SimCaller) -> bool:
    """Whether an input waits for a slot and not for the end of its back-off."""
    return caller.dispatch.waiting > len(caller.dispatch._resting)


class Checks:
    """Checks one world. Inputs are looked at when they change, so that an event costs little."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._beside_free_since: float | None = None
        self._unstarted_since: float | None = None
        self._checked_at = 0.0

    def check_event(self) -> None:
        world = self.world
        self._inputs()
        for container in world.containers.values():
            if len(container.running) > world.scenario.slots:
                self._fail(f"3: {container.container_id} runs {len(container.running)} inputs")
        if world.starts_over_max:
            self._fail(f"4: {world.live} containers, max {world.settings.max_containers}")
        if world.stopped_with_lease:
            self._fail("7: a container was stopped with a lease out")
        calm = world.scenario.faults == type(world.scenario.faults)()
        if calm and world.bounces:
            self._fail("10: a batch bounced without a fault")
        if calm and world.scenario.retries is None:
            self._limits()
        if world.now - self._checked_at >= 0.1:
            self._checked_at = world.now
            self._waits(CUT_OFF_S if not calm else BESIDE_FREE_SLOT_S)

    def _inputs(self) -> None:
        for truth in self.world.touched:
            if len(truth.settled) > 1:
                self._fail(f"1: input {truth.input_id} settled {truth.settled}")
            if sum(truth.running_on.values()) > 1:
                self._fail(f"2: input {truth.input_id} runs on {truth.running_on}")
        self.world.touched.clear()

    def _limits(self) -> None:
        limits = self.world.scenario.limits
        dispatches = [c.dispatch for c in self.world.callers.values() if c.alive]
        waiting = sum(d.waiting for d in dispatches)
        total = waiting + sum(d.assigned for d in dispatches)
        if waiting > limits.pending or total > limits.total:
            self._fail(f"5: {waiting} waiting, {total} in all, limits {limits}")

    def _waits(self, patience_s: float) -> None:
        world = self.world
        waits = any(c.alive and world.now >= c.stalled_until and _demands(c) for c in world.callers.values())
        free = waits and any(
            c.alive and c.ready and not c.occupancy.busy and not world.holders(c) for c in world.containers.values()
        )
        self._beside_free_since = self._lasting(free, self._beside_free_since, patience_s, "6: waits beside a free slot")
        some = any(not c.declared_dead for c in world.containers.values())
        refused = world.pool is None or world.pool.scaling.failed_starts
        lonely = waits and not some and not refused
        self._unstarted_since = self._lasting(lonely, self._unstarted_since, patience_s, "6: waits, nothing is started")

    def _lasting(self, condition: bool, since: float | None, patience_s: float, what: str) -> float | None:
        if not condition:
            return None
        since = self.world.now if since is None else since
        if self.world.now - since > patience_s:
            self._fail(f"{what} since {since:.2f}")
        return since

    def check_end(self) -> None:
        world = self.world
        for truth in world.truth.values():
            if len(truth.settled) != 1 and world.callers[truth.caller_id].alive:
                self._fail(f"1: input {truth.input_id} settled {truth.settled}")
        live = sum(not c.declared_dead for c in world.containers.values())
        if live != world.settings.min_containers:
            self._fail(f"8: {live} containers at the end, min {world.settings.min_containers}")
        leases = sum(len(c.dispatch._slots) for c in world.callers.values() if c.alive)
        if leases:
            self._fail(f"8: {leases} leases held at the end")

    def _fail(self, what: str) -> None:
        msg = f"seed {self.world.scenario.seed} at {self.world.now:.3f} s: {what}"
        raise Violation(msg)
