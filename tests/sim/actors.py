"""The processes of the simulated cluster that are not the controller: containers and callers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flexray.core.dispatch import Dispatch
from flexray.core.events import (
    BatchReclaimed,
    BatchReturned,
    BatchUnreached,
    CancelInputs,
    ContainerLost,
    ContainerRetired,
    ForgetContainer,
    InputsCancelled,
    InputsSubmitted,
    ReclaimBatch,
    SendBatch,
    SendReport,
    Settle,
    Ticked,
)
from flexray.core.occupancy import HELLO_S, Arrival, Occupancy, Work
from flexray.core.status import CANCELLED, FAILED, OK, UNSTARTED
from tests.sim.truth import Truth, Violation

if TYPE_CHECKING:
    from tests.sim.world import World

CALLER_TICK_S = 0.05
RETIRED_EVERY_S = 1.0
CANCEL_REACHES_S = 2.0
"""In a calm world a cancellation has reached the batch by then, though it may overtake it."""


class SimContainer:
    """A container: an Occupancy whose inputs take virtual time."""

    def __init__(self, world: World, container_id: str) -> None:
        self.world = world
        self.container_id = container_id
        self.alive = True
        self.placed = False
        self.ready = False
        self.declared_dead = False
        self.is_leaving = False
        """Its node will go."""
        self.version, self.slots = world.version, world.slots
        self.occupancy = Occupancy(self.slots, world.now)
        world.after(HELLO_S / 4, self.say_hello)
        self.waiters: dict[Any, list[Callable[[], None]]] = {}
        self.release_waiters: dict[int, list[Callable[[], None]]] = {}
        self.running: dict[Work, tuple[Truth, int, Callable[[int], None]]] = {}
        """(input, its position, what to call with the status when it is over) of each batch under way."""
        self.begun = 0
        self.whole: set[int] = set()
        """Leases, of those used here, that are of all slots."""
        self.busy_when_asked: tuple[int, ...] = ()
        """What it told the newest controller."""

    def run(self, caller: SimCaller, effect: SendBatch, answer: Callable[[BatchReturned], None]) -> None:
        if not self.alive:
            return
        world = self.world
        if effect.lease.whole:
            self.whole.add(effect.lease.number)
        key = (caller.name, effect.batch_id)
        arrival, work = self.occupancy.arrive(
            key,
            effect.lease.number,
            len(effect.input_ids),
            world.now,
            oldest_open=effect.oldest_open,
            again=effect.again,
            at_most_once=world.scenario.at_most_once,
        )
        if arrival is Arrival.BOUNCES:
            world.bounces += 1
        world.inputs_of[id(work)] = (effect.input_ids, work)

        def reply() -> None:
            answer(self.answer_of(work, effect))

        if work.over_at is not None:
            reply()
            return
        self.waiters.setdefault(key, []).append(reply)
        if arrival is Arrival.BEGINS:
            self.begin(effect.input_ids, work)

    @property
    def is_whole(self) -> bool:
        """Whether something runs here under a lease of the whole container."""
        return any(work.lease_number in self.whole for work in self.running)

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

    def begin(self, input_ids: tuple[int, ...], work: Work) -> None:
        if self.occupancy.retiring and work.todo:
            raise Violation(f"13: {self.container_id} takes nothing new and begins a batch")
        self.begin_next(input_ids, work)

    def begin_next(self, input_ids: tuple[int, ...], work: Work) -> None:
        if not self.alive:
            return
        position = work.take()
        if position is None:
            self.end(work)
            return
        world = self.world
        truth = world.truth[input_ids[position]]
        truth.begin(self.container_id, world.now)
        self.begun += 1
        if world.scenario.single_use and self.begun > 1:
            truth.fail(f"{self.container_id} is for one input and begins another")
        took = world.service_time()

        def finish(status: int) -> None:
            if self.alive and self.running.get(work) is entry:
                del self.running[work]
                self.finish(truth, status)
                work.settle(position, status, took)
                self.begin_next(input_ids, work)

        entry = (truth, position, finish)
        self.running[work] = entry
        if len(self.running) > self.slots:
            raise Violation(f"3: {self.container_id} runs {len(self.running)} inputs")
        if len(self.running) > 1 and self.is_whole and not world.scenario.faults.restart_controller:
            raise Violation(f"14: {self.container_id} is for one input and runs {len(self.running)}")
        status = FAILED if world.random.random() < world.scenario.fail_chance else OK
        if truth.poison:
            world.after(took / 2, self.die)
        world.after(took, lambda: finish(status))

    def finish(self, truth: Truth, status: int) -> None:
        world = self.world
        truth.end(self.container_id, status, world.now)
        world.ran_at = world.now
        if world.scenario.is_calm and world.now - (truth.cancelled_at or world.now) > CANCEL_REACHES_S:
            truth.fail("8: runs on long after it was cancelled")

    def cancel(self, key: Any, positions: tuple[int, ...]) -> None:
        """Drop these inputs, and interrupt the one that runs."""
        work = self.occupancy.cancel(key, positions) if self.alive else None
        if work is not None and work in self.running:
            _, position, finish = self.running[work]
            if position in positions:
                if self.world.scenario.stubborn:  # Its thread goes on.
                    self.retire()
                    work.drop_todo(UNSTARTED)
                finish(CANCELLED)

    def retire(self) -> None:
        if not self.occupancy.retiring:
            self.occupancy.retiring = True
            self.tell_retired()

    def say_hello(self) -> None:
        """Ask whether this container is known; no answer within a minute is a no (rule 12)."""
        if not self.alive:
            return
        if self.occupancy.asks_after_itself(self.world.now):
            self.ask_for_itself(self.world.now + HELLO_S)
        else:
            self.world.after(HELLO_S / 4, self.say_hello)

    def ask_for_itself(self, until: float) -> None:
        world = self.world
        if not self.alive:
            return
        if world.now >= until or world.pool is not None:
            known = world.pool is not None and self.container_id in world.pool.ledger.containers
            if self.occupancy.is_left(world.now, known=known):
                self.die()
            world.after(HELLO_S / 4, self.say_hello)
        else:
            world.after(HELLO_S / 12, lambda: self.ask_for_itself(until))

    def end(self, work: Work) -> None:
        if self.world.scenario.single_use:
            work.bounced = True
            self.retire()
        following = self.occupancy.end(work, self.world.now)
        for reply in self.waiters.pop(work.key, []):
            reply()
        if following is not None:
            self.begin(*self.world.inputs_of[id(following)])
        elif work.lease_number not in self.occupancy.busy:
            for reply in self.release_waiters.pop(work.lease_number, []):
                reply()

    def tell_retired(self) -> None:
        """Again and again: the controller may be restarting."""
        if self.alive:
            self.world.send(lambda: self.world.control(ContainerRetired(self.container_id)))
            self.world.after(RETIRED_EVERY_S, self.tell_retired)

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
        self.world.placed -= self.placed
        self.world.after(self.world.random.uniform(0.01, 0.3), self.declare)

    def declare(self) -> None:
        """Ray says that it is dead, to whoever has a call under way there."""
        self.declared_dead = True
        self.world.live -= 1
        for truth, _, _ in self.running.values():
            truth.cut(self.container_id)
        self.running.clear()
        self.world.tell_lost(self.container_id)


class SimCaller:
    """A process that calls the function: a Dispatch and its inputs."""

    def __init__(self, world: World, name: str, *, spawned: bool = False) -> None:
        self.world = world
        self.name = name
        self.spawned = spawned
        self.alive = True
        self.paused_until = 0.0
        scenario = world.scenario
        self.dispatch = Dispatch(
            name,
            retries=scenario.retries,
            at_most_once=scenario.at_most_once,
            single_use=scenario.single_use,
            slots=world.slots,
            spawned=spawned,
        )
        self.version = world.version
        self.missed: list[Callable[[], None]] = []
        """What arrived while it was stopped."""
        self.handles: set[str] = set()
        self.ticking = False
        self.bounced_leases: set[int] = set()
        self.open_leases: dict[int, int] = {}
        """Lease number to batches sent under it and not answered, for at-most-once inputs."""
        self.reports_sent = 0

    def stands_still(self, action: Callable[[], None]) -> bool:
        """Whether the process is stopped; if so, the action follows when it goes on, in order of arrival."""
        if self.world.now >= self.paused_until:
            return False
        if not self.missed:
            self.world.at(self.paused_until, self.go_on)
        self.missed.append(action)
        return True

    def go_on(self) -> None:
        if self.world.now < self.paused_until:
            self.world.at(self.paused_until, self.go_on)
            return
        missed, self.missed = self.missed, []
        for action in missed:
            action()

    def submit(
        self,
        input_ids: list[int],
        *,
        patient: bool,
        poison: frozenset[int] = frozenset(),
        once: bool = False,
    ) -> None:
        world = self.world
        if not self.alive:
            return
        if self.stands_still(lambda: self.submit(input_ids, patient=patient, poison=poison, once=once)):
            return
        for input_id in input_ids:
            bad = input_id in poison
            world.truth[input_id] = Truth(input_id, self.name, patient, world.scenario, bad, once=once)
        world.open_inputs += len(input_ids)
        self.handle(InputsSubmitted(input_ids, patient=patient, once=once))

    def cancel(self, input_ids: list[int]) -> None:
        """Give up those of them that are not over."""
        if not self.alive:
            return
        if self.stands_still(lambda: self.cancel(input_ids)):
            return
        truths = [self.world.truth[i] for i in input_ids if i in self.world.truth]
        wanted = [truth for truth in truths if not truth.is_over]
        for truth in wanted:
            truth.cancelled_at = self.world.now
        in_batches = {i for batch in self.dispatch._batches.values() for i in batch.input_ids}
        for truth in wanted:
            truth.withdrawn = truth.input_id not in in_batches
        if wanted:
            self.handle(InputsCancelled([truth.input_id for truth in wanted]))

    def handle(self, event: Any) -> None:
        if not self.alive:
            return
        world = self.world
        if self.stands_still(lambda: self.handle(event)):
            return
        if world.trace is not None and not isinstance(event, Ticked):
            world.trace(f"{self.name} <- {event}")
        effects = self.dispatch.handle(event, world.now)
        if self.keeps(event, effects):
            for effect in effects:
                self.perform(effect)
        if not self.ticking and not self.dispatch.is_idle:
            self.ticking = True
            world.after(CALLER_TICK_S, self.tick)

    def keeps(self, event: Any, effects: list[Any]) -> bool:
        """Whether it lives on to perform the effects; the call queue writes them down first."""
        return True

    def tick(self) -> None:
        self.ticking = False
        self.handle(Ticked())

    def perform(self, effect: Any) -> None:
        world = self.world
        if world.trace is not None:
            world.trace(f"{self.name} -> {effect}")
        match effect:
            case SendReport(report):
                self.reports_sent += 1
                world.send_report(self, report)
            case SendBatch():
                self.send_batch(effect)
            case ReclaimBatch(batch_id, container_id):
                world.send(lambda: self.reclaim(batch_id, container_id))
            case CancelInputs(batch_id, container_id, positions):
                world.send(lambda: world.containers[container_id].cancel((self.name, batch_id), positions))
            case Settle(input_ids, statuses, _):
                for input_id, status in zip(input_ids, statuses, strict=True):
                    world.truth[input_id].settle(status, world.now)
                world.open_inputs -= len(input_ids)
                world.settled_at = world.now
            case ForgetContainer(container_id):
                self.handles.discard(container_id)
            case _:
                raise AssertionError(effect)

    def send_batch(self, effect: SendBatch) -> None:
        world, container = self.world, self.world.containers[effect.lease.container_id]
        self._check_batch(effect)
        if world.chance(world.scenario.faults.unreached):
            arrives = world.chance(0.5)
            if arrives:
                world.deliver(lambda: container.run(self, effect, lambda _: None))
            world.after(world.delay(), lambda: self.handle(BatchUnreached(effect.batch_id)))
        else:
            world.deliver(
                lambda: container.run(self, effect, lambda answer: self.take_answer(effect, answer))
            )
        if container.declared_dead:
            world.deliver(lambda: self.handle(ContainerLost(container.container_id)))

    def _check_batch(self, effect: SendBatch) -> None:
        lease = effect.lease
        if lease.container_id not in self.handles:
            raise Violation(f"1: {self.name} sends to {lease.container_id} without a handle")
        if lease.number in self.bounced_leases and not effect.again:
            raise Violation(
                f"2: {self.name} sends under lease {lease.number}, of which a batch came back unstarted"
            )
        once = self.world.scenario.at_most_once or self.world.truth[effect.input_ids[0]].once
        if (once or any(self.world.truth[i].once for i in effect.input_ids)) and not effect.again:
            ahead = self.open_leases.get(lease.number, 0)
            if ahead or len(effect.input_ids) > 1:
                raise Violation(
                    f"14: {self.name} sends {len(effect.input_ids)} at-most-once inputs behind {ahead}"
                )
        if not effect.again:
            self.open_leases[lease.number] = self.open_leases.get(lease.number, 0) + 1

    def take_answer(self, effect: SendBatch, answer: BatchReturned) -> None:
        def take() -> None:
            if self.stands_still(take):
                return
            self.open_leases[effect.lease.number] = self.open_leases.get(effect.lease.number, 1) - 1
            if answer.bounced:
                self.bounced_leases.add(effect.lease.number)
            if UNSTARTED in answer.statuses:
                self.world.unstarted_batches += 1
            self.handle(answer)

        self.world.deliver(take)

    def reclaim(self, batch_id: int, container_id: str) -> None:
        container = self.world.containers[container_id]
        work = container.occupancy.reclaim((self.name, batch_id)) if container.alive else None
        if work is not None:
            event = BatchReclaimed(batch_id, *work.account())
            self.world.send(lambda: self.handle(event))
