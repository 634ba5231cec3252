"""A cluster in virtual time: callers, one controller, containers and the network between them.

One rule: the world knows the truth (what runs where, who is alive) and tells the state machines only what
messages tell them; the checks in `invariants.py` compare the two after every event.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from flexray.config import AutoscalerSettings, Limits, Retries
from flexray.core.dispatch import Dispatch
from flexray.core.events import (
    CANCELLED,
    FAILED,
    OK,
    REFUSED,
    AnswerReport,
    BatchReclaimed,
    BatchReturned,
    BatchUnreached,
    CancelInputs,
    ContainerLost,
    ContainerPlaced,
    ContainerReady,
    ControllerLost,
    DispatcherLost,
    ForgetContainer,
    InputsCancelled,
    InputsSubmitted,
    LeaseReleased,
    ReclaimBatch,
    ReleaseLease,
    ReplyReceived,
    ReportFailed,
    ReportReceived,
    ReportReleased,
    SendBatch,
    SendReport,
    SettingsChanged,
    Settle,
    StartContainer,
    StartFailed,
    StopContainer,
    Ticked,
)
from flexray.core.occupancy import Arrival, Occupancy, Work
from flexray.core.pool import SHARING_TICK_S, TICK_S, Pool, PoolConfig

CALLER_TICK_S = 0.05
ANSWER_MARGIN_S = 1e-9


@dataclass(frozen=True)
class Faults:
    """How often things go wrong; rates per second of virtual time, chances per message."""

    lose: float = 0.0
    repeat: float = 0.0
    unreached: float = 0.0
    slow: float = 0.0
    kill_container: float = 0.0
    kill_caller: float = 0.0
    stall_caller: float = 0.0
    restart_controller: float = 0.0
    stall_controller: float = 0.0
    fail_start: float = 0.0


@dataclass(frozen=True)
class Scenario:
    """One run: everything that a seed decides."""

    seed: int
    callers: int = 2
    inputs: int = 60
    service_s: float = 0.05
    service_spread: float = 0.5
    slots: int = 1
    settings: AutoscalerSettings = field(default_factory=AutoscalerSettings)
    limits: Limits = field(default_factory=Limits)
    retries: Retries | None = None
    at_most_once: bool = False
    fail_chance: float = 0.0
    cancel_chance: float = 0.0
    cold_start_s: float = 0.8
    cluster_containers: int = 16
    """How many containers Ray can place at once."""
    spread_s: float = 3.0
    """Inputs are submitted within this time."""
    patient_share: float = 0.5
    faults: Faults = Faults()
    faults_until_s: float = 8.0
    settings_changes: tuple[tuple[float, AutoscalerSettings], ...] = ()
    ends_s: float = 3000.0
    """Nobody waits longer than this for the last input to settle."""


@dataclass
class Truth:
    """What really happened to one input."""

    input_id: int
    caller_id: str
    patient: bool
    submitted_at: float
    settled: list[int] = field(default_factory=list)
    settled_at: float | None = None
    running_on: dict[str, int] = field(default_factory=dict)
    runs: int = 0


class SimContainer:
    """A container: an Occupancy whose inputs take virtual time."""

    def __init__(self, world: World, container_id: str) -> None:
        self.world = world
        self.container_id = container_id
        self.alive = True
        self.placed = False
        self.ready = False
        self.declared_dead = False
        self.stopped = False
        self.occupancy = Occupancy(world.scenario.slots)
        self.waiters: dict[Any, list[Callable[[], None]]] = {}
        self.release_waiters: dict[int, list[Callable[[], None]]] = {}
        self.running: dict[Work, tuple[str, int]] = {}

    def run(self, caller: SimCaller, effect: SendBatch, answer: Callable[[BatchReturned], None]) -> None:
        if not self.alive:
            return
        world = self.world
        key = (caller.name, effect.batch_id)
        arrival, work = self.occupancy.arrive(
            key,
            effect.lease.number,
            len(effect.input_ids),
            world.now,
            again=effect.again,
            at_most_once=world.scenario.at_most_once,
        )
        if arrival is Arrival.BOUNCES:
            world.bounces += 1
        world.works[id(work)] = (caller, effect.input_ids, work)

        def reply() -> None:
            answer(self.answer_of(work, effect))

        if work.over_at is not None:
            reply()
            return
        self.waiters.setdefault(key, []).append(reply)
        if arrival is Arrival.BEGINS:
            self.begin_next(caller, effect.input_ids, work)

    def answer_of(self, work: Work, effect: SendBatch) -> BatchReturned:
        statuses = bytes([s or 0 for s in work.statuses])
        ran = sum(s in (OK, FAILED) for s in statuses)
        took = [p for p in work.payloads if isinstance(p, float)]
        return BatchReturned(
            effect.batch_id,
            statuses,
            list(work.payloads),
            sample_s=tuple(took[:8]),
            busy_s=sum(took),
            ran=ran,
            bounced=work.bounced,
        )

    def begin_next(self, caller: SimCaller, input_ids: tuple[int, ...], work: Work) -> None:
        if not self.alive:
            return
        position = work.take()
        if position is None:
            self.end(work)
            return
        world = self.world
        input_id = input_ids[position]
        truth = world.truth[input_id]
        truth.running_on[self.container_id] = truth.running_on.get(self.container_id, 0) + 1
        truth.runs += 1
        world.touched.append(truth)
        self.running[work] = (caller.name, input_id)
        took = world.service_time()
        status = FAILED if world.random.random() < world.scenario.fail_chance else OK

        def finish() -> None:
            if not self.alive:
                return
            truth.running_on.pop(self.container_id, None)
            self.running.pop(work, None)
            work.settle(position, status, took)
            self.begin_next(caller, input_ids, work)

        world.after(took, finish)

    def end(self, work: Work) -> None:
        following = self.occupancy.end(work, self.world.now)
        for reply in self.waiters.pop(work.key, []):
            reply()
        if following is not None:
            caller, input_ids, _ = self.world.works[id(following)]
            self.begin_next(caller, input_ids, following)
        elif work.lease_number not in self.occupancy.busy:
            for reply in self.release_waiters.pop(work.lease_number, []):
                reply()

    def release(self, lease_number: int, answer: Callable[[], None]) -> None:
        if self.alive:
            if self.occupancy.release(lease_number):
                answer()
            else:
                self.release_waiters.setdefault(lease_number, []).append(answer)

    def die(self) -> None:
        if not self.alive:
            return
        self.alive = False
        self.world.after(self.world.random.uniform(0.01, 0.3), self.declare)

    def declare(self) -> None:
        """Ray says that it is dead, to whoever has a call under way there."""
        self.declared_dead = True
        self.world.live -= 1
        for _, input_id in self.running.values():
            self.world.truth[input_id].running_on.pop(self.container_id, None)
        self.running.clear()
        self.world.tell_lost(self.container_id)


class SimCaller:
    """A process that calls the function: a Dispatch and its inputs."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.stalled_until = 0.0
        scenario = world.scenario
        self.dispatch = Dispatch(name, retries=scenario.retries, at_most_once=scenario.at_most_once)
        self.handles: set[str] = set()
        self.ticking = False

    def submit(self, input_ids: list[int], *, patient: bool) -> None:
        world = self.world
        for input_id in input_ids:
            world.truth[input_id] = Truth(input_id, self.name, patient, world.now)
        self.handle(InputsSubmitted(input_ids, patient=patient))

    def handle(self, event: Any) -> None:
        if not self.alive:
            return
        if self.world.now < self.stalled_until:
            self.world.at(self.stalled_until, lambda: self.handle(event))
            return
        for effect in self.dispatch.handle(event, self.world.now):
            self.perform(effect)
        if not self.ticking and not self.dispatch.is_idle:
            self.ticking = True
            self.world.after(CALLER_TICK_S, self.tick)

    def tick(self) -> None:
        self.ticking = False
        self.handle(Ticked())

    def perform(self, effect: Any) -> None:
        world = self.world
        match effect:
            case SendReport(report):
                world.send_report(self, report)
            case SendBatch():
                self.send_batch(effect)
            case ReclaimBatch(batch_id, container_id):
                world.send(lambda: self.reclaim(batch_id, container_id))
            case CancelInputs(batch_id, container_id, positions):
                world.send(lambda: world.containers[container_id].occupancy.cancel((self.name, batch_id), positions))
            case Settle(input_ids, statuses, _):
                for input_id, status in zip(input_ids, statuses, strict=True):
                    truth = world.truth[input_id]
                    truth.settled.append(status)
                    world.touched.append(truth)
                    truth.settled_at = world.now
            case ForgetContainer(container_id):
                self.handles.discard(container_id)
            case _:
                raise AssertionError(effect)

    def send_batch(self, effect: SendBatch) -> None:
        world, container = self.world, self.world.containers[effect.lease.container_id]
        assert effect.lease.container_id in self.handles, "a batch for a container without a handle"
        if world.chance(world.scenario.faults.unreached):
            arrives = world.chance(0.5)
            if arrives:
                world.deliver(lambda: container.run(self, effect, lambda _: None))
            world.after(world.delay(), lambda: self.handle(BatchUnreached(effect.batch_id)))
        else:
            world.deliver(lambda: container.run(self, effect, self.take_answer))
        if container.declared_dead:
            world.deliver(lambda: self.handle(ContainerLost(container.container_id)))

    def take_answer(self, answer: BatchReturned) -> None:
        self.world.deliver(lambda: self.handle(answer))

    def reclaim(self, batch_id: int, container_id: str) -> None:
        container = self.world.containers[container_id]
        work = container.occupancy.reclaim((self.name, batch_id)) if container.alive else None
        if work is not None:
            event = BatchReclaimed(batch_id, *work.account())
            self.world.send(lambda: self.handle(event))


class World:
    """Virtual time, the network, Ray, and the controller with its restarts."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.random = random.Random(scenario.seed)
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.count = 0
        self.truth: dict[int, Truth] = {}
        self.touched: list[Truth] = []
        """Inputs that began or settled since the last check."""
        self.works: dict[int, tuple[SimCaller, tuple[int, ...], Work]] = {}
        self.containers: dict[str, SimContainer] = {}
        self.callers = {f"d{i}": SimCaller(self, f"d{i}") for i in range(scenario.callers)}
        self.store: dict[str, None] = {}
        self.bounces = 0
        self.epoch = 0
        self.highest_container = 0
        self.stalled_until = 0.0
        self.live = 0
        """Containers from the decision to start them until Ray has said, to this controller, that they are dead."""
        self.starts_over_max = 0
        self.stopped_with_lease = 0
        self.settings = scenario.settings
        self.trace: list[tuple[float, str]] = []
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
        if self.now < max(self.scenario.faults_until_s, self.scenario.spread_s) + 10.0 or self.pool is None:
            return False
        return all(t.settled for t in self.truth.values())

    # Chance.

    def chance(self, probability: float) -> bool:
        return probability > 0 and self.now < self.scenario.faults_until_s and self.random.random() < probability

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
        if not self.chance(faults.lose):
            self.deliver(action)
        if self.chance(faults.repeat):
            self.deliver(action)

    def send_report(self, caller: SimCaller, report: Any) -> None:
        epoch_at_send = self.epoch
        self.store[caller.name] = None

        def arrive() -> None:
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
            slots=self.scenario.slots,
            startup_timeout_s=60.0,
            first_container=self.highest_container + 1,
            found=found,
            expected_dispatchers=tuple(self.store) if self.epoch > 1 else (),
        )
        return Pool(config, self.now)

    def control(self, event: Any) -> None:
        if self.now < self.stalled_until:
            epoch = self.epoch
            self.at(self.stalled_until, lambda: self.control(event) if epoch == self.epoch else None)
            return
        if self.pool is not None:
            for effect in self.pool.handle(event, self.now):
                self.obey(effect)

    def tick(self) -> None:
        self.control(Ticked())
        sharing = self.pool is not None and self.pool.is_sharing
        self.after(SHARING_TICK_S if sharing else TICK_S, self.tick)

    def obey(self, effect: Any) -> None:
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
                self.send(lambda: container.release(lease_number, lambda: self.send(lambda: self.control(released))))
            case _:
                raise AssertionError(effect)

    def take_reply(self, caller: SimCaller, reply: Any, report_number: int) -> None:
        if self.now < caller.stalled_until:
            self.at(caller.stalled_until, lambda: self.take_reply(caller, reply, report_number))
            return
        caller.handles.update(lease.container_id for lease in reply.leases)
        caller.handle(ReplyReceived(reply, report_number))

    def restart_controller(self) -> None:
        """kill -9 of the controller; Ray restarts it with its store and its named actors."""
        if self.pool is None:
            return
        self.pool = None
        for caller in self.callers.values():
            self.after(self.random.uniform(0.0, 0.3), lambda c=caller: c.handle(ControllerLost()))
        self.after(self.random.uniform(0.2, 2.0), self.recover_controller)

    def recover_controller(self) -> None:
        found = [c for c in self.containers.values() if not c.declared_dead]
        self.pool = self.new_pool(tuple(c.container_id for c in found))
        self.stalled_until = self.now
        for container in found:
            self.ask_state(container, self.epoch)
        for name in list(self.store):
            if not self.callers[name].alive:
                self.tell_caller_lost(name)

    def ask_state(self, container: SimContainer, epoch: int) -> None:
        def answer() -> None:
            if container.alive and container.ready and epoch == self.epoch:
                event = ContainerReady(container.container_id, container.occupancy.busy)
                self.deliver(lambda: self.control(event) if epoch == self.epoch else None)
            elif container.alive and epoch == self.epoch:
                self.after(0.2, answer)

        self.deliver(answer)

    # Ray.

    def start_container(self, container_id: str) -> None:
        assert container_id not in self.containers, "a container's name is used once"
        container = SimContainer(self, container_id)
        self.containers[container_id] = container
        self.live += 1
        assert self.pool is not None
        maximum = self.pool.scaling.settings.max_containers
        if maximum is not None and self.live > maximum:
            self.starts_over_max += 1
        self.highest_container = max(self.highest_container, int(container_id.rpartition("#")[2]))
        self.after(self.random.uniform(0.01, 0.1), lambda: self.place(container))

    def place(self, container: SimContainer) -> None:
        if not container.alive:
            return
        if sum(c.placed and c.alive for c in self.containers.values()) >= self.scenario.cluster_containers:
            self.after(0.2, lambda: self.place(container))
            return
        container.placed = True
        self.deliver(lambda: self.control(ContainerPlaced(container.container_id)))
        cold = self.scenario.cold_start_s * self.random.uniform(0.7, 1.5)
        self.after(cold, lambda: self.load(container))

    def load(self, container: SimContainer) -> None:
        if not container.alive:
            return
        if self.chance(self.scenario.faults.fail_start):
            self.deliver(lambda: self.control(StartFailed(container.container_id, "import failed")))
            container.die()
            return
        container.ready = True
        self.deliver(lambda: self.control(ContainerReady(container.container_id)))

    def stop_container(self, container_id: str, *, placed: bool) -> None:
        container = self.containers[container_id]
        if placed and (container.running or self.holders(container)):
            self.stopped_with_lease += 1
        if container.alive:
            container.stopped = True
            container.die()

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
            if truth.caller_id == caller.name and not truth.settled:
                truth.settled.append(CANCELLED)
        self.after(self.random.uniform(0.5, 6.0), lambda: self.tell_caller_lost(caller.name))

    def tell_caller_lost(self, name: str) -> None:
        self.store.pop(name, None)
        self.control(DispatcherLost(name))

    def change_settings(self, settings: AutoscalerSettings) -> None:
        self.settings = settings
        self.control(SettingsChanged(settings))

    def refused(self) -> int:
        return sum(REFUSED in t.settled for t in self.truth.values())


def plan(world: World) -> None:
    """Schedule the scenario's inputs, cancellations, settings and faults."""
    scenario, rng = world.scenario, world.random
    next_id = 0
    for caller in world.callers.values():
        left = scenario.inputs
        while left > 0:
            patient = rng.random() < scenario.patient_share
            count = min(left, rng.randint(1, 40) if patient else 1)
            input_ids = list(range(next_id, next_id + count))
            next_id += count
            left -= count
            when = rng.uniform(0.0, scenario.spread_s)
            world.at(when, lambda c=caller, i=input_ids, p=patient: c.submit(i, patient=p) if c.alive else None)
            if rng.random() < scenario.cancel_chance:
                world.at(when + rng.uniform(0.0, 1.0), lambda c=caller, i=input_ids: cancel(world, c, i))
    for when, settings in scenario.settings_changes:
        world.at(when, lambda s=settings: world.change_settings(s))
    _plan_faults(world)


def cancel(world: World, caller: SimCaller, input_ids: list[int]) -> None:
    wanted = [i for i in input_ids if i in world.truth and not world.truth[i].settled]
    if wanted and caller.alive:
        caller.handle(InputsCancelled(wanted))


def _plan_faults(world: World) -> None:
    faults, rng, until = world.scenario.faults, world.random, world.scenario.faults_until_s

    def repeatedly(rate: float, action: Callable[[], None]) -> None:
        when = 0.0
        while rate > 0:
            when += rng.expovariate(rate)
            if when > until:
                return
            world.at(when, action)

    def kill_container() -> None:
        alive = [c for c in world.containers.values() if c.alive and c.placed]
        if alive:
            rng.choice(alive).die()

    def kill_caller() -> None:
        alive = [c for c in world.callers.values() if c.alive]
        if len(alive) > 1:
            world.kill_caller(rng.choice(alive))

    def stall_caller() -> None:
        caller = rng.choice(list(world.callers.values()))
        caller.stalled_until = world.now + rng.uniform(0.5, 9.0)

    def stall_controller() -> None:
        world.stalled_until = world.now + rng.uniform(0.2, 3.0)

    repeatedly(faults.kill_container, kill_container)
    repeatedly(faults.kill_caller, kill_caller)
    repeatedly(faults.stall_caller, stall_caller)
    repeatedly(faults.stall_controller, stall_controller)
    repeatedly(faults.restart_controller, world.restart_controller)


def scaled(scenario: Scenario, **changes: Any) -> Scenario:
    return replace(scenario, **changes)
