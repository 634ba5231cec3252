"""The call queue of the simulated cluster: its disk, and the processes that run it one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flexray.core.events import (
    BatchReclaimed,
    BatchReturned,
    ContainerLost,
    InputsCancelled,
    InputsSubmitted,
    SendBatch,
    Settle,
    StoredChanged,
)
from flexray.core.recovery import BatchKey, Recovery
from flexray.core.status import CANCELLED
from flexray.core.window import Window
from tests.sim.actors import SimCaller
from tests.sim.truth import Truth

if TYPE_CHECKING:
    from tests.sim.world import World

WINDOW = Window(inputs=8, per_running=0)
LOOK_EVERY_S = 0.1


class SimQueue:
    """The disk: inputs without an outcome, their attempts, and the batches that containers may have."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.open: dict[int, None] = {}
        self.attempts: dict[int, int] = {}
        self.batches: dict[BatchKey, tuple[SimCaller, SendBatch, dict[int, int]]] = {}
        self.lives = 0
        self.recovery = Recovery()
        self.process = self._new_process("d0")

    def _new_process(self, name: str) -> QueueProcess:
        scenario = self.world.scenario
        self.recovery = Recovery(retries=scenario.retries, at_most_once=scenario.at_most_once)
        process = self.world.callers[name] = QueueProcess(self.world, name, self)
        return process

    def submit(self, input_ids: list[int]) -> None:
        """Spawn these inputs; whether anybody runs the queue at the moment or not."""
        world = self.world
        for input_id in input_ids:
            world.truth[input_id] = Truth(input_id, "queue", True, world.scenario)
        world.open_inputs += len(input_ids)
        self.open.update(dict.fromkeys(input_ids))
        self.process.stored.update(dict.fromkeys(input_ids))
        self.process.feed(len(input_ids))

    def cancel(self, input_ids: list[int]) -> None:
        """Give up those of them that are not over."""
        mine = [i for i in input_ids if i in self.open]
        sent = {i for _, effect, _ in self.batches.values() for i in effect.input_ids}
        for input_id in mine:
            truth = self.world.truth[input_id]
            truth.cancelled_at = self.world.now
            truth.withdrawn = input_id not in sent
        self.settle([(i, CANCELLED) for i in mine])
        self.process.give_up(mine)

    def settle(self, outcomes: list[tuple[int, int]]) -> None:
        """Write the outcomes of those that have none."""
        world = self.world
        for input_id, status in outcomes:
            if input_id in self.open:
                del self.open[input_id]
                self.attempts.pop(input_id, None)
                world.truth[input_id].settle(status, world.now)
                world.open_inputs -= 1
                world.settled_at = world.now

    def kill(self) -> None:
        """The process dies, and Ray starts another."""
        world, process = self.world, self.process
        if not process.alive:
            return
        process.alive = False
        world.after(world.random.uniform(0.5, 6.0), lambda: world.tell_caller_lost(process.name))
        world.after(world.random.uniform(0.2, 2.0), self.restart)

    def restart(self) -> None:
        """Another process goes on with what is on the disk."""
        self.lives += 1
        self.process = self._new_process(f"d0.{self.lives}")
        for key, (_, effect, _) in list(self.batches.items()):
            mine = [i for i in effect.input_ids if i in self.open]
            if mine:
                self.recovery.add(key, mine)
            else:
                del self.batches[key]
        self.process.stored.update({i: None for i in self.open if i not in self.recovery})
        for key in list(self.batches):
            self.send_again(key)
        self.process.feed(0)

    def send_again(self, key: BatchKey) -> None:
        """As often as it takes, until the container has answered or is dead."""
        world, process = self.world, self.process
        sender, effect, _ = self.batches[key]
        container = world.containers[effect.lease.container_id]
        again = SendBatch(effect.batch_id, effect.lease, effect.input_ids, again=True)

        def answered(answer: BatchReturned | None) -> None:
            if process.alive and key in self.batches:
                self.recovered(key, answer)

        def look() -> None:
            if container.declared_dead:
                answered(None)
            elif process.alive and key in self.batches:
                world.after(LOOK_EVERY_S, look)

        closed = tuple(p for p, i in enumerate(effect.input_ids) if i not in self.open)
        world.deliver(lambda: container.run(sender, again, lambda a: world.deliver(lambda: answered(a))))
        if closed:
            world.deliver(lambda: container.cancel(key, closed))
        look()

    def recovered(self, key: BatchKey, answer: BatchReturned | None) -> None:
        _, effect, attempts = self.batches.pop(key)
        statuses, payloads = (None, ()) if answer is None else (answer.statuses, answer.payloads)
        outcomes, again = self.recovery.take(
            key, effect.input_ids, attempts, statuses, payloads, noted=self.attempts
        )
        self.settle([(i, status) for i, status, _ in outcomes])
        mine = [(i, attempt) for i, attempt in again if i in self.open]
        self.attempts.update((i, attempt) for i, attempt in mine if attempt > 1)
        self.process.take(mine)


class QueueProcess(SimCaller):
    """One life of the call queue."""

    def __init__(self, world: World, name: str, queue: SimQueue) -> None:
        super().__init__(world, name, spawned=True)
        self.queue = queue
        self.stored: dict[int, None] = {}
        self.memory: dict[int, None] = {}
        self._before: tuple[int, ...] = ()

    def handle(self, event: Any) -> None:
        answered = isinstance(event, BatchReturned | BatchReclaimed)
        self._before = tuple(self.dispatch.inputs_of(event.batch_id)) if answered else ()
        super().handle(event)

    def keeps(self, event: Any, effects: list[Any]) -> bool:
        """Write first; then it may be killed before it has performed anything."""
        queue = self.queue
        queue.attempts.update(self.dispatch.later_attempts(self._before))
        for effect in effects:
            if isinstance(effect, Settle):
                queue.settle(list(zip(effect.input_ids, effect.statuses, strict=True)))
                for input_id in effect.input_ids:
                    self.memory.pop(input_id, None)
        if isinstance(event, BatchReturned):
            queue.batches.pop((self.name, event.batch_id), None)
        if isinstance(event, ContainerLost):
            mine = [k for k, (_, e, _) in queue.batches.items() if k[0] == self.name]
            for key in mine:
                if queue.batches[key][1].lease.container_id == event.container_id:
                    del queue.batches[key]
        for effect in effects:
            if isinstance(effect, SendBatch) and not effect.again:
                attempts = self.dispatch.later_attempts(effect.input_ids)
                queue.batches[self.name, effect.batch_id] = (self, effect, attempts)
        if effects and self.world.chance(self.world.scenario.faults.kill_queue / 50):
            queue.kill()
            return False
        if any(isinstance(effect, Settle) for effect in effects):
            self.world.after(0.0, lambda: self.feed(0))
        return True

    def perform(self, effect: Any) -> None:
        if not isinstance(effect, Settle):  # That was done when it was written.
            super().perform(effect)

    def feed(self, arrived: int) -> None:
        """Bring stored inputs into memory where there is room."""
        if not self.alive:
            return
        assigned = self.dispatch.assigned
        count = WINDOW.to_read(len(self.memory), 0, stored=len(self.stored), assigned=assigned)
        if count:
            some = list(self.stored)[:count]
            for input_id in some:
                del self.stored[input_id]
            self.take([(i, self.queue.attempts.get(i, 1)) for i in some])
        self.handle(StoredChanged(len(self.stored), arrived))

    def take(self, inputs: list[tuple[int, int]]) -> None:
        """Run these, with the attempts they are on."""
        if inputs and self.alive:
            self.memory.update((i, None) for i, _ in inputs)
            later = tuple((i, attempt) for i, attempt in inputs if attempt > 1)
            self.handle(InputsSubmitted([i for i, _ in inputs], attempts=later))

    def give_up(self, input_ids: list[int]) -> None:
        """They are cancelled on the disk."""
        self.queue.recovery.drop(input_ids)
        for input_id in input_ids:
            self.stored.pop(input_id, None)
        mine = [i for i in input_ids if i in self.memory]
        if mine:
            self.handle(InputsCancelled(mine))
        self.feed(0)
