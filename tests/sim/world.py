"""A cluster in virtual time: callers, one controller, containers and the network between them.

One rule: the world knows the truth (what runs where, who is alive) and tells the state machines only what
messages tell them; the checks in `invariants.py` compare the two after every event.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

from flexray.config import AutoscalerSettings
from flexray.core.events import (
    AnswerReport,
    ContainerLost,
    ContainerPlaced,
    ContainerReady,
    ControllerLost,
    DispatcherLost,
    LeaseReleased,
    NodeLeaving,
    Redeployed,
    ReleaseLease,
    ReplyReceived,
    ReportFailed,
    ReportReceived,
    ReportReleased,
    SettingsChanged,
    StartContainer,
    StartFailed,
    StopContainer,
    Ticked,
)
from flexray.core.ledger import State
from flexray.core.occupancy import Work
from flexray.core.pool import SHARING_TICK_S, TICK_S, Pool, PoolConfig
from tests.sim.actors import SimCaller, SimContainer
from tests.sim.queue import SimQueue
from tests.sim.scenarios import Scenario
from tests.sim.truth import Truth

REPORTED_WITHIN_S = 0.5
"""In a calm world the controller knows by then that an input has settled."""


LONGEST_PAUSE_S = 25.0


class World:
    """Virtual time, the network, Ray, and the controller with its restarts."""

    def __init__(self, scenario: Scenario) -> None:  # noqa: PLR0915  # All there is in a world.
        self.scenario = scenario
        self.random = random.Random(scenario.seed)
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.count = 0
        self.truth: dict[int, Truth] = {}
        self.open_inputs = 0
        """Inputs of living callers that have not settled."""
        self.settled_at = 0.0
        self.ran_at = 0.0
        """When the newest run ended; cancelled ones go on after they settled."""
        self.ready_at = 0.0
        """When the newest container became ready."""
        self.version = 1
        """The version of the function that is deployed."""
        self.outdated_below = 0
        """Number of the first container that could be of it."""
        self.slots, self.target_slots = scenario.slots, scenario.target_slots
        self.inputs_of: dict[int, tuple[tuple[int, ...], Work]] = {}
        """What a container works at, by the identity of the work."""
        self.containers: dict[str, SimContainer] = {}
        self.callers = {f"d{i}": SimCaller(self, f"d{i}") for i in range(scenario.callers)}
        self.queue = SimQueue(self) if scenario.spawned else None
        self.store: dict[str, None] = {}
        self.arrived: dict[str, int] = {}
        """Newest report of each caller that reached the controller."""
        self.overtaken = False
        """A report arrived after a newer one: how long the slots given back in it were idle is lost."""
        self.bounces = 0
        self.unstarted_batches = 0
        """Each may have turned a slot's one assigned input into a waiting one."""
        self.starts = 0
        self.lost_at = 0.0
        """When the newest message was lost: whoever waits for it waits from then on."""
        self.epoch = 0
        self.highest_container = 0
        self.paused_until = 0.0
        self.live = 0
        """Containers from the decision to start them until Ray says that they are dead."""
        self.placed = 0
        """Containers that Ray has a place for and that have not died."""
        self._changes: list[AutoscalerSettings] = []
        """Of settings, those that wait for a controller that stands still, in order."""
        self.known_dead: dict[str, None] = {}
        """Callers of whose death the controller was told."""
        self.starts_over_max = self.needless_starts = self.stopped_with_lease = 0
        self.settings = scenario.settings
        self.a_node_left = False
        """The last container of an active pool may have been replaced since."""
        self.is_steady = scenario.is_calm and not (scenario.settings_changes or scenario.redeploys)
        patience_s = LONGEST_PAUSE_S if scenario.faults.pause_caller else 10.0
        self.over_after = scenario.spread_s + 1.0 if self.is_steady else scenario.faults_until_s + patience_s
        self.trace: Callable[[str], None] | None = None
        self.after_control: Callable[[Any], None] = lambda _: None
        """Called with each event that the controller took in."""
        self.pool: Pool | None = self.new_pool()
        self.after(TICK_S, self.tick)

    # Time.

    def at(self, when: float, action: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.events, (when, self.count, action))

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self.at(self.now + seconds, action)

    def step(self) -> bool:
        if not self.events:
            return False
        when, _, action = heapq.heappop(self.events)
        self.now = max(self.now, when)
        action()
        return True

    @property
    def is_over(self) -> bool:
        """Everything planned has happened and every input of a living caller has settled."""
        return not self.open_inputs and self.pool is not None and self.now >= self.over_after

    @property
    def is_quiet(self) -> bool:
        """Nothing is left to happen but ticks: as many containers as wanted, and nobody holds anything."""
        return self.live == self.settings.min_containers and all(
            not caller.alive or caller.dispatch.is_idle for caller in self.callers.values()
        )

    # Chance.

    def chance(self, probability: float) -> bool:
        return (
            probability > 0 and self.now < self.scenario.faults_until_s and self.random.random() < probability
        )

    def delay(self) -> float:
        base = self.random.expovariate(1 / 0.0008) + 0.0002
        return base + (self.random.uniform(0.1, 2.0) if self.chance(self.scenario.faults.slow) else 0.0)

    def service_time(self) -> float:
        scenario = self.scenario
        if self.random.random() < 0.02 * scenario.service_spread:
            return scenario.service_s * 30
        return scenario.service_s * (1 + scenario.service_spread * (self.random.random() - 0.5))

    # Network: `deliver` is a Ray call or its answer (never lost, but for a death), `send` may lose.

    def deliver(self, action: Callable[[], None]) -> None:
        self.after(self.delay(), action)

    def send(self, action: Callable[[], None]) -> None:
        faults = self.scenario.faults
        if self.chance(faults.lose):
            self.lost_at = self.now
        else:
            self.deliver(action)
        if self.chance(faults.repeat):
            self.deliver(action)

    def send_report(self, caller: SimCaller, report: Any) -> None:
        epoch_at_send = self.epoch
        self.store[caller.name] = None

        def arrive() -> None:
            self.overtaken = self.overtaken or report.number < self.arrived.get(caller.name, 0)
            self.arrived[caller.name] = report.number
            if epoch_at_send != self.epoch or self.pool is None:
                self.deliver(lambda: caller.handle(ReportFailed(report.number)))
            else:
                self.control(ReportReceived(report))

        self.send(arrive)

    # The controller.

    def new_pool(self, found: tuple[str, ...] = ()) -> Pool:
        """A controller's life begins: an epoch of its own."""
        self.epoch += 1
        config = PoolConfig(
            name="f",
            epoch=self.epoch,
            settings=self.settings,
            limits=self.scenario.limits,
            slots=self.slots,
            target_slots=self.target_slots,
            version=self.version,
            outdated_below=self.outdated_below,
            single_use=self.scenario.single_use,
            startup_timeout_s=60.0,
            first_container=self.highest_container + 1,
            found=found,
            expected_dispatchers=tuple(self.store) if self.epoch > 1 else (),
        )
        return Pool(config, self.now)

    def control(self, event: Any) -> None:
        if self.now < self.paused_until:
            epoch = self.epoch
            self.at(self.paused_until, lambda: self.control(event) if epoch == self.epoch else None)
            return
        if self.pool is None:
            return
        if self.trace is not None and not isinstance(event, Ticked):
            self.trace(f"pool <- {event}")
        for effect in self.pool.handle(event, self.now):
            self.obey(effect)
        self.after_control(event)

    def tick(self) -> None:
        if self.now < self.paused_until:  # What stands still counts no time, rule 5.
            self.at(self.paused_until, self.tick)
            return
        self.control(Ticked())
        if self.pool is not None:
            for name in self.pool.silent():
                if name in self.known_dead:  # A report of it was on its way when the pool was told.
                    self.control(DispatcherLost(name))
        sharing = self.pool is not None and self.pool.is_sharing
        self.after(SHARING_TICK_S if sharing else TICK_S, self.tick)

    def obey(self, effect: Any) -> None:
        if self.trace is not None:
            self.trace(f"pool -> {effect}")
        match effect:
            case AnswerReport(dispatcher_id, report_number, reply):
                caller = self.callers[dispatcher_id]
                if reply is None:
                    self.send(lambda: caller.handle(ReportReleased(report_number)))
                else:
                    self.send(lambda: self.take_reply(caller, reply, report_number))
            case StartContainer(container_id):
                self.start_container(container_id)
            case StopContainer(container_id, placed):
                self.deliver(lambda: self.stop_container(container_id, placed=placed))
            case ReleaseLease(container_id, lease_number):
                container = self.containers[container_id]
                released = LeaseReleased(container_id, lease_number)
                self.send(
                    lambda: container.release(lease_number, lambda: self.send(lambda: self.control(released)))
                )
            case _:
                raise AssertionError(effect)

    def take_reply(self, caller: SimCaller, reply: Any, report_number: int) -> None:
        if caller.stands_still(lambda: self.take_reply(caller, reply, report_number)):
            return
        caller.handles.update(lease.container_id for lease in reply.leases)
        caller.handle(ReplyReceived(reply, report_number))
        if reply.version > caller.version:
            caller.version = reply.version
            self.deliver(lambda: self.tell_options(caller))

    def tell_options(self, caller: SimCaller) -> None:
        """It asked for the options of the new version."""
        scenario = self.scenario
        caller.dispatch.configure(
            retries=scenario.retries,
            at_most_once=scenario.at_most_once,
            single_use=scenario.single_use,
            slots=self.slots,
        )

    def restart_controller(self) -> None:
        """The controller is killed; Ray restarts it with its store and its containers."""
        if self.pool is None:
            return
        self.pool = None
        for caller in self.callers.values():
            self.after(self.random.uniform(0.0, 0.3), lambda c=caller: c.handle(ControllerLost()))
        self.after(self.random.uniform(0.2, 2.0), self.recover_controller)

    def recover_controller(self) -> None:
        found = [c for c in self.containers.values() if not c.declared_dead]
        self.pool = self.new_pool(tuple(c.container_id for c in found))
        self.paused_until = self.now
        for container in found:
            self.ask_state(container, self.epoch)
        for name in list(self.store):
            if not self.callers[name].alive:
                self.tell_caller_lost(name)

    def ask_state(self, container: SimContainer, epoch: int) -> None:
        def answer() -> None:
            if container.alive and container.ready and epoch == self.epoch:
                busy = container.busy_when_asked = container.occupancy.busy
                self.deliver(lambda: self.tell_ready(container, busy) if epoch == self.epoch else None)
            elif container.alive and epoch == self.epoch:
                self.after(0.2, answer)

        self.deliver(answer)

    def tell_ready(self, container: SimContainer, busy: tuple[int, ...] = ()) -> None:
        """What it said reaches the controller."""
        self.control(ContainerReady(container.container_id, busy, container.slots))

    # Ray.

    def start_container(self, container_id: str) -> None:
        assert container_id not in self.containers, "a container's name is used once"
        container = SimContainer(self, container_id)
        self.containers[container_id] = container
        self.live += 1
        self.starts += 1
        assert self.pool is not None
        over = not self.open_inputs and self.now - self.settled_at > REPORTED_WITHIN_S
        leaving = len(self.pool.ledger.draining) + self.pool.ledger.count(State.STOPPING)
        if (
            over
            and self.is_steady
            and not self.a_node_left
            and self.live - leaving > self.settings.min_containers
        ):
            self.needless_starts += 1
        maximum = self.pool.scaling.settings.max_containers
        outdated = sum(
            (c.version < self.version or c.is_leaving) and not c.declared_dead
            for c in self.containers.values()
        )
        if maximum is not None and self.live - outdated > maximum:
            self.starts_over_max += 1
        self.highest_container = max(self.highest_container, int(container_id.rpartition("#")[2]))
        self.after(self.random.uniform(0.01, 0.1), lambda: self.place(container))

    def place(self, container: SimContainer) -> None:
        if not container.alive:
            return
        if self.placed >= self.scenario.cluster_containers:
            self.after(0.2, lambda: self.place(container))
            return
        container.placed = True
        self.placed += 1
        self.deliver(lambda: self.control(ContainerPlaced(container.container_id)))
        if int(container.container_id.rpartition("#")[2]) in self.scenario.stuck:
            return
        cold = self.scenario.cold_start_s * self.random.uniform(0.7, 1.5)
        self.after(cold, lambda: self.load(container))

    def load(self, container: SimContainer) -> None:
        if not container.alive:
            return
        if self.scenario.never_starts or self.chance(self.scenario.faults.fail_start):
            failed = StartFailed(container.container_id, "import failed", self.scenario.permanent)
            self.deliver(lambda: self.control(failed))
            container.die()
            return
        container.ready = True
        self.ready_at = self.now
        self.deliver(lambda: self.tell_ready(container))

    def stop_container(self, container_id: str, *, placed: bool) -> None:
        container = self.containers[container_id]
        if placed and (container.running or self.holders(container)):
            self.stopped_with_lease += 1
        if container.alive:
            container.die()

    def reachable_holders(self, container: SimContainer) -> list[str]:
        """Those of its holders that are not standing still."""
        return [name for name in self.holders(container) if self.now >= self.callers[name].paused_until]

    def holders(self, container: SimContainer) -> list[str]:
        """Living callers that may still send under a lease of this container that it has not dropped."""
        return [
            caller.name
            for caller in self.callers.values()
            if caller.alive
            for slot in caller.dispatch._slots.values()
            if slot.lease.container_id == container.container_id
            and slot.lease.number not in container.occupancy._released
        ]

    def tell_lost(self, container_id: str) -> None:
        self.deliver(lambda: self.control(ContainerLost(container_id)))
        for caller in self.callers.values():
            self.deliver(lambda c=caller: c.handle(ContainerLost(container_id)))

    def kill_caller(self, caller: SimCaller) -> None:
        caller.alive = False
        for truth in self.truth.values():
            if truth.caller_id == caller.name and not truth.is_over:
                truth.abandoned = True
                self.open_inputs -= 1
        self.after(self.random.uniform(0.5, 6.0), lambda: self.tell_caller_lost(caller.name))

    def tell_caller_lost(self, name: str) -> None:
        self.store.pop(name, None)
        self.known_dead[name] = None
        self.control(DispatcherLost(name))

    def leave_node(self, choice: float) -> None:
        """The node of one of the containers that live will go: that is told, and nothing else happens yet."""
        alive = [c for c in self.containers.values() if not c.declared_dead]
        if alive:
            leaving = alive[int(choice * len(alive))]
            leaving.is_leaving = self.a_node_left = True
            self.control(NodeLeaving(leaving.container_id))

    def redeploy(self, slots: int, *, recreate: bool) -> None:
        """Another version: in the store at once, in force when the controller takes it in."""
        if self.now < self.paused_until:
            self.at(self.paused_until, lambda: self.redeploy(slots, recreate=recreate))
            return
        self.version += 1
        self.outdated_below = self.highest_container + 1
        self.slots, self.target_slots = slots, None
        event = Redeployed(
            self.version,
            self.settings,
            self.scenario.limits,
            slots,
            startup_timeout_s=60.0,
            recreate=recreate,
        )
        self.control(event)

    def change_settings(self, settings: AutoscalerSettings) -> None:
        """New settings, in force when the controller takes them in: two changes never overtake each other."""
        if self.now < self.paused_until:
            self._changes.append(settings)
            if len(self._changes) == 1:
                self.at(self.paused_until, self._take_changes)
            return
        self.settings = settings
        self.control(SettingsChanged(settings))

    def _take_changes(self) -> None:
        """The controller stood still, and perhaps still does."""
        changes, self._changes = self._changes, []
        for settings in changes:
            self.change_settings(settings)
