"""The spawned inputs of one pool, on their way from the store through the dispatcher and back.

One rule: the store is written before anything is sent and before an outcome is told; so whoever restarts
finds every batch that a container may have, and no outcome that was told is missing (protocol rule 7).

Everything here happens on the dispatcher's thread or on one that acts in its place (`Dispatcher.borrowed`),
but for what is only looked at: any thread may see it a moment late. In memory is a window of the inputs that
wait.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import ray
from ray.exceptions import GetTimeoutError, ObjectStoreFullError, OutOfDiskError, RayError

from flexray.config import FunctionConfig
from flexray.context import POSITIONS
from flexray.core.events import (
    BatchReclaimed,
    BatchReturned,
    BatchUnreached,
    CancelInputs,
    ContainerLost,
    ControllerLost,
    DispatchEffect,
    DispatchEvent,
    InputsCancelled,
    InputsSubmitted,
    SendBatch,
    Settle,
    StoredChanged,
)
from flexray.core.recovery import Outcome, Recovery
from flexray.core.status import CANCELLED, FAILED, START_FAILED, UNSTARTED, SpawnedCall
from flexray.core.window import Window
from flexray.errors import ExecutionError, SerializationError
from flexray.runtime import roster
from flexray.runtime.callstore import Call, CallStore, SentBatch, Waiting
from flexray.runtime.dispatcher import Dispatcher
from flexray.runtime.groupcommit import GroupCommit
from flexray.runtime.poolclient import PoolClient, Prepared, stored_call
from flexray.runtime.wire import AnswerMessage
from flexray.serialization import LARGE_BYTES, Parts, pack_exception

logger = logging.getLogger("flexray")

R = TypeVar("R")

WINDOW = Window()
CALLS_READ = 256
"""Calls that one look at what is stored brings inputs of, at most."""
SHORT_S = 0.001
"""Of an input, where it is worth to wait for its end."""
TRY_AGAIN_S = 1.0
"""Pause before what could not be written is written again: the disk is full, say."""

News = dict[int, tuple[int, Any]]
"""Position in the call to (status, payload)."""


@dataclass(slots=True)
class _Progress:
    """How far the inputs of a call have been read."""

    call: Call
    read_to: int
    """Number of the last input that was brought into memory."""
    stored: int
    """Inputs after it."""
    open: int
    """Inputs without an outcome."""


class SentAtOnce(NamedTuple):
    """A call of one input that was kept and sent."""

    call: Call
    effect: SendBatch | None = None
    """None: its slot was given back in the same event, or sending failed; it waits for another."""
    answer: Any = None
    """What the container will say, as Ray's reference."""


class _Step(NamedTuple):
    """What follows from one event: what is to be written, and what is done once it is."""

    effects: list[DispatchEffect]
    outcomes: list[Outcome]
    sent: list[SentBatch]
    attempts: Mapping[int, int]
    over: int | None
    """The batch that was answered."""
    dead: str | None
    """The container that has died."""

    @property
    def changes_store(self) -> bool:
        is_any = self.outcomes or self.sent or self.attempts
        return bool(is_any) or self.over is not None or self.dead is not None


class SpawnedPool(PoolClient):
    """One pool as the call queue uses it; a sink of its own inputs."""

    def __init__(
        self,
        number: int,
        pool_id: str,
        config: FunctionConfig,
        dispatcher: Dispatcher,
        store: CallStore,
        writer: GroupCommit,
        told: Callable[[Mapping[int, News]], None],
    ) -> None:
        super().__init__(pool_id, config, dispatcher, spawned=True)
        self.number = number
        self.config = config
        self._store = store
        self._writer = writer
        self._told = told
        """Called with the news of calls, by their numbers."""
        self._calls: dict[int, _Progress] = {}
        self._unread: dict[int, _Progress] = {}
        """Of the calls, those of which anything is only stored, the oldest first."""
        self._stored = 0
        """Their inputs that are only stored."""
        self._feeding = False
        self._told_stored = 0
        self._sizes: dict[int, int] = {}
        """Bytes of the arguments in memory, by input."""
        self._bytes = 0
        self._unfinished = 0
        """Steps that could not be written yet."""
        self._unplaced_lock = threading.Lock()
        self._unplaced = 0
        """Inputs on the disk of which the dispatcher's thread has not heard yet."""
        self._recovery = Recovery(retries=config.retries, at_most_once=config.at_most_once)
        self._recovering: list[SentBatch] = []
        """Batches of an earlier process of which it is not known what became of them."""

    @property
    def waiting(self) -> int:
        """Inputs that no slot is busy with; the limit on spawned ones counts them."""
        return self._dispatch.waiting + self._unplaced

    @property
    def sent(self) -> list[int]:
        """Inputs that containers have, running or not."""
        return [*self._dispatch.sent, *self._recovery]

    @property
    def is_short(self) -> bool:
        """Whether inputs take less than a message does, as far as that is known."""
        mean_s = self._dispatch.mean_s
        return mean_s is not None and mean_s <= SHORT_S

    def is_open(self, call: Call) -> bool:
        """Whether an input of it, which is in memory, has no outcome."""
        return call.number in self._calls

    def expect(self, count: int) -> None:
        """So many inputs are being written; on any thread. `added` follows, or the same with less than 0."""
        with self._unplaced_lock:
            self._unplaced += count

    # Inputs come.

    def open_among(self, batches: Iterable[SentBatch]) -> set[int]:
        """The inputs of these batches that have no outcome."""
        numbers = [number for batch in batches for number in batch.inputs]
        return self._until_written(lambda: self._store.open_among(numbers))

    def restore(self, calls: Iterable[Call], batches: Iterable[SentBatch], still_open: set[int]) -> None:
        """After a restart: what is open, and what containers may have of it."""
        for batch in batches:
            mine = [number for number in batch.inputs if number in still_open]
            self._recovery.add((batch.dispatcher, batch.number), mine)
            self._recovering.append(batch)
        for call in calls:
            self._calls[call.number] = _Progress(call, call.first - 1, call.open, call.open)
            self._stored += call.open
        self._stored -= len(self._recovery)
        for number in self._recovery:
            self._calls[number // POSITIONS].stored -= 1
        self._unread.update((number, p) for number, p in self._calls.items() if p.stored)
        self._feed(0)

    @property
    def can_send(self) -> bool:
        """Whether an input that comes now would be sent at once: all that came before is done with."""
        is_first = not (self.waiting or self._recovery or self._unfinished)
        return is_first and self._dispatch.has_free_slot and not self.is_gone

    def spawn_at_once(self, spawned: SpawnedCall, arguments: bytes) -> SentAtOnce | None:
        """Keep a call of one input and send it, with one write for both; None: it is to be added as others.

        `take_soon` or `take_later` must follow.

        Raises:
            ExecutionError: It cannot be written. Nothing of it is kept, and nothing was sent.
        """
        if not self.can_send or len(arguments) > LARGE_BYTES:
            return None
        begun: list[tuple[Call, list[DispatchEffect]]] = []

        def write() -> Call | None:
            self._undo(begun)  # It runs twice where another of its group fails.
            call = self._store.add_single(spawned, self.number, arguments, time.time())
            if call is None:
                return None  # Asked again.
            effects = self._begin(call, arguments)
            begun.append((call, effects))
            self._store.add_batches([self._sent(effect) for effect in effects if type(effect) is SendBatch])
            return call

        try:
            call = self._writer.run(write)
        except BaseException:
            self._undo(begun)
            raise
        if call is None:
            return None
        own: SendBatch | None = None
        ((_, effects),) = begun
        for effect in effects:
            if type(effect) is SendBatch and effect.input_ids == (call.first,):
                own = effect
            else:
                self._perform(effect)
        sent = SentAtOnce(call) if own is None else self._send_at_once(call, own)
        try:
            self._take(StoredChanged(self._stored, 1))
        except Exception:  # It was sent, and its answer must be taken in.
            logger.exception("in pool %s", self.pool_id)
        return sent

    def _send_at_once(self, call: Call, effect: SendBatch) -> SentAtOnce:
        try:
            return SentAtOnce(call, effect, self._send(effect))
        except RayError as failure:
            error = failure
        self._dispatcher.call_soon(lambda: self._take_answer(effect, error))
        return SentAtOnce(call)

    def take_soon(self, sent: SentAtOnce, wait_s: float) -> None:
        """Take its answer in on this thread, which acts for nobody, if that can be done within that time.

        That saves two turns of threads. The dispatcher's thread does what is left, and what can't be written.
        """
        effect, until = sent.effect, time.monotonic() + wait_s
        if effect is None:
            return
        result: Any
        try:
            result = ray.get(sent.answer, timeout=wait_s)
        except GetTimeoutError:
            self.take_later(sent)
            return
        except RayError as error:
            result = error
        with self._dispatcher.borrowed(until - time.monotonic()) as is_mine:
            if not is_mine:
                self._dispatcher.call_soon(lambda: self._take_answer(effect, result))
                return
            step = self._step(self._event_of_answer(effect, result))
            try:
                late = self._writer.run(lambda: self._write(step))
            except ExecutionError:
                self._unfinished += 1
                self._dispatcher.call_soon(lambda: self._finish_late(step))
                return
            self._carry_out(step, late)
            if self._stored:
                self._dispatcher.call_soon(self._feed)

    def _finish_late(self, step: _Step) -> None:
        try:
            self._finish(step)
        finally:
            self._unfinished -= 1

    def take_later(self, sent: SentAtOnce) -> None:
        """Have the dispatcher's thread take its answer in."""
        effect = sent.effect
        if effect is not None:
            self._dispatcher.follow(sent.answer, lambda late: self._take_answer(effect, late))

    def _begin(self, call: Call, arguments: bytes) -> list[DispatchEffect]:
        number = call.first
        self._calls[call.number] = _Progress(call, number, 0, 1)
        self._sizes[number] = len(arguments)
        self._bytes += len(arguments)
        self._inputs[number] = (arguments, self)
        return self._handle(InputsSubmitted((number,)))

    def _undo(self, begun: list[tuple[Call, list[DispatchEffect]]]) -> None:
        """Nothing of it was written or sent: it never was."""
        for call, effects in begun:
            after = self._handle(InputsCancelled((call.first,), interrupt=False))
            for effect in effects:
                if type(effect) is SendBatch and effect.input_ids == (call.first,):
                    self._outgoing.pop(effect.batch_id)
                    after += self._handle(BatchReturned(effect.batch_id, bytes([UNSTARTED]), (None,)))
                else:
                    self._perform(effect)
            for effect in after:
                if type(effect) is not CancelInputs:
                    self._perform(effect)
            self._count([(call.first, CANCELLED, None)])
        begun.clear()

    def added(self, call: Call, first: int, arguments: Sequence[bytes]) -> None:
        """These inputs of the call are on the disk, from that position on."""
        self.expect(-len(arguments))
        if self.is_gone:
            self._end_calls([call])
            return
        progress = self._calls.get(call.number)
        if progress is None:
            progress = self._calls[call.number] = _Progress(call, call.first - 1, 0, 0)
        progress.open += len(arguments)
        start = call.first + first
        size = sum(map(len, arguments))
        in_memory = len(self._inputs)
        if not self._stored and WINDOW.has_room(in_memory, self._bytes, more=len(arguments), more_size=size):
            progress.read_to = start + len(arguments) - 1
            self._submit([Waiting(start + i, 1, value) for i, value in enumerate(arguments)])
            self._take(StoredChanged(0, len(arguments)))
        else:
            progress.stored += len(arguments)
            self._stored += len(arguments)
            self._unread[call.number] = progress
            self._feed(len(arguments))

    def _feed(self, arrived: int = 0) -> None:
        """Bring inputs into memory, the oldest call's first, as far as the window has room."""
        if self._feeding:
            return  # What is submitted below is sent, and more is wanted: the loop sees it.
        self._feeding = True
        try:
            while (count := self._to_read()) > 0:
                self._read_more(count)
        finally:
            self._feeding = False
        if arrived or self._stored != self._told_stored:
            self._told_stored = self._stored
            self._take(StoredChanged(self._stored, arrived))

    def _to_read(self) -> int:
        assigned = self._dispatch.assigned
        return WINDOW.to_read(len(self._inputs), self._bytes, stored=self._stored, assigned=assigned)

    def _read_more(self, count: int) -> None:
        wanted: list[tuple[_Progress, int]] = []
        for progress in self._unread.values():
            wanted.append((progress, min(count, progress.stored)))  # What follows is not placed yet.
            count -= progress.stored
            if count <= 0 or len(wanted) == CALLS_READ:
                break
        for (progress, _), rows in zip(wanted, self._read(wanted), strict=False):
            progress.read_to = rows[-1].number if rows else progress.call.first + POSITIONS
            mine = [r for r in rows if r.number not in self._recovery and r.number not in self._inputs]
            self._note_read(progress, len(mine) if rows else progress.stored)
            self._submit(mine)

    def _note_read(self, progress: _Progress, count: int) -> None:
        count = min(count, progress.stored)
        progress.stored -= count
        self._stored -= count
        if not progress.stored:
            self._unread.pop(progress.call.number, None)

    def _read(self, wanted: Sequence[tuple[_Progress, int]]) -> list[list[Waiting]]:
        questions = [(progress.call, progress.read_to, limit) for progress, limit in wanted]
        return self._until_written(lambda: self._store.waiting(questions))

    def _submit(self, inputs: Sequence[Waiting]) -> None:
        if not inputs:
            return
        prepared: list[Prepared] = []
        for each in inputs:
            prepared.append(self._travelling(each.arguments))
            self._sizes[each.number] = len(each.arguments)
            self._bytes += len(each.arguments)
            if len(each.arguments) > LARGE_BYTES:
                self._dispatch.set_size(each.number, len(each.arguments))
        numbers = [each.number for each in inputs]
        self._inputs.update(zip(numbers, [(item, self) for item in prepared], strict=True))
        attempts = tuple((each.number, each.attempt) for each in inputs if each.attempt > 1)
        self._take(InputsSubmitted(numbers, attempts=attempts))

    def _travelling(self, arguments: bytes) -> Prepared:
        try:
            return travelling(arguments)
        except RayError as error:  # The object store is full, and so is its disk.
            logger.warning("an argument of %s travels by itself: %s", self.config.name, error)
            return arguments

    def _event_of_failure(self, effect: SendBatch, error: BaseException) -> DispatchEvent:
        """Where there is no room in the object store now, there may be in a moment."""
        if isinstance(error, ObjectStoreFullError | OutOfDiskError):
            return BatchUnreached(effect.batch_id)
        return super()._event_of_failure(effect, error)

    # The store first.

    def _take(self, event: DispatchEvent, handles: Mapping[str, Any] = {}) -> None:
        self._finish(self._step(event, handles))

    def _step(self, event: DispatchEvent, handles: Mapping[str, Any] = {}) -> _Step:
        """What follows from an event; `_finish` must follow, or both of its halves."""
        answered = type(event) in (BatchReturned, BatchReclaimed)
        moved = self._dispatch.inputs_of(event.batch_id) if answered else ()  # type: ignore[union-attr]
        effects = self._handle(event, handles)
        outcomes: list[Outcome] = []
        sent: list[SentBatch] = []
        for effect in effects:
            if type(effect) is Settle:
                outcomes += map(_storable, effect.input_ids, effect.statuses, effect.payloads)
            elif type(effect) is SendBatch and not effect.again:
                sent.append(self._sent(effect))
        over = event.batch_id if type(event) is BatchReturned else None
        dead = event.container_id if type(event) is ContainerLost else None
        return _Step(effects, outcomes, sent, self._dispatch.later_attempts(moved), over, dead)

    def _finish(self, step: _Step) -> None:
        """Write it and carry it out; where it cannot be written, that is tried again until it can."""
        late = self._until_written(lambda: self._write(step)) if step.changes_store else set()
        self._carry_out(step, late)
        if step.outcomes or (step.sent and self._stored):
            self._feed()

    def _carry_out(self, step: _Step, late: set[int]) -> None:
        """What has been written, but for inputs that had an outcome before: they were cancelled, say."""
        failure = next((outcome for outcome in step.outcomes if outcome[1] == START_FAILED), None)
        if failure is not None:
            self._fail_stored(failure[2])
        for effect in step.effects:
            self._perform(effect)
        if step.outcomes:
            self._told(_news(step.outcomes, late))
            self._count(step.outcomes)

    def _count(self, outcomes: Iterable[Outcome]) -> None:
        """These inputs are over; calls of which nothing is open are not kept in mind."""
        for number, _, _ in outcomes:
            self._bytes -= self._sizes.pop(number, 0)
            progress = self._calls.get(number // POSITIONS)
            if progress is not None:
                progress.open -= 1
                if not progress.open:
                    del self._calls[progress.call.number]

    def _sent(self, effect: SendBatch) -> SentBatch:
        _, attempts = self._outgoing[effect.batch_id]
        lease = effect.lease
        return SentBatch(
            self._dispatcher.process,
            effect.batch_id,
            self.number,
            lease.container_id,
            lease.number,
            effect.input_ids,
            attempts,
        )

    def _write(self, step: _Step) -> set[int]:
        """Belongs into a write; returns inputs that had an outcome before."""
        store, process = self._store, self._dispatcher.process
        late = store.settle(step.outcomes, time.time())
        if step.over is not None:
            store.delete_batch(process, self.number, step.over)
        if step.dead is not None:
            store.delete_batches_of(process, step.dead)
        if step.attempts:
            store.set_attempts(step.attempts)
        if step.sent:
            store.add_batches(step.sent)
        return late

    def _until_written(self, write: Callable[[], R]) -> R:
        while True:
            try:
                return self._writer.run(write)
            except ExecutionError as error:
                logger.error("%s; trying again", error)  # noqa: TRY400  # It says what it is.
                time.sleep(TRY_AGAIN_S)

    def _fail_stored(self, failure: Any) -> None:
        """No container can start: what has not been read fails with the start's error, too."""
        for progress in list(self._unread.values()):
            while progress.stored:
                (rows,) = self._read([(progress, min(WINDOW.inputs, progress.stored))])
                numbers = [row.number for row in rows if row.number not in self._recovery]
                outcomes: list[Outcome] = [(number, START_FAILED, failure) for number in numbers]
                self._until_written(lambda outcomes=outcomes: self._store.settle(outcomes, time.time()))  # type: ignore[misc]
                progress.read_to = rows[-1].number if rows else progress.read_to
                self._note_read(progress, len(numbers) if rows else progress.stored)
                self._told(_news(outcomes))
                self._count(outcomes)

    # Outcomes.

    def settle(self, input_ids: Sequence[int], statuses: bytes, payloads: Sequence[Any]) -> None:
        """See `Sink`; the store has been told."""

    def cancel_call(self, call: Call, *, terminate: bool) -> None:
        """All of it that had no outcome is cancelled in the store: stop what runs, drop what waits."""
        progress = self._calls.pop(call.number, None)
        if progress is not None:
            self._note_read(progress, progress.stored)
            self._told_stored = self._stored
        mine = [number for number in self._inputs if number // POSITIONS == call.number]
        handles = self._handles_of(set(mine)) if terminate else []
        handles += self._cancel_recovering({n for n in self._recovery if n // POSITIONS == call.number})
        self.cancel(mine)
        self._take(StoredChanged(self._stored))
        for handle in handles if terminate else ():
            ray.kill(handle)

    def _cancel_recovering(self, numbers: set[int]) -> list[Any]:
        """End inputs that an earlier process had sent; returns the containers that may run them."""
        self._recovery.drop(numbers)
        handles = []
        for batch in self._recovering:
            positions = tuple(p for p, number in enumerate(batch.inputs) if number in numbers)
            listed = roster.find(batch.container) if positions else None
            if listed is not None:
                listed.handle.cancel.remote(batch.dispatcher, batch.number, positions, positions)
                handles.append(listed.handle)
        return handles

    def _handles_of(self, numbers: set[int]) -> list[Any]:
        """The containers that have any of these inputs."""
        containers = self._dispatch.containers_of(numbers)
        return [self._handles[container] for container in containers if container in self._handles]

    def close(self, reason: Exception) -> None:
        """This process ends; its successor goes on with what is stored."""
        self._gone = reason

    def give_up(self, reason: Exception) -> None:
        """What is kept is kept: it waits for a controller."""
        logger.error("spawned inputs of %s wait: %s", self.config.name, reason)
        self._take(ControllerLost())

    def _end_with_app(self) -> None:
        super()._end_with_app()
        calls = [progress.call for progress in self._calls.values()]
        self._stored = self._bytes = 0
        self._recovery.drop(self._recovery)
        for memory in (self._calls, self._unread, self._inputs, self._sizes):
            memory.clear()
        self._end_calls(calls)

    def _end_calls(self, calls: Sequence[Call]) -> None:
        def write() -> None:
            for call in calls:
                self._store.settle_rest(call, CANCELLED, None, time.time())
                self._store.close_call(call, time.time())

        self._until_written(write)
        self._told({call.number: {} for call in calls})

    # After a restart.

    def recovered(self, batch: SentBatch, answer: AnswerMessage | None, cause: str = "") -> None:
        """What became of a batch that was sent before the restart; None: its container is dead."""
        key = (batch.dispatcher, batch.number)
        self._recovering.remove(batch)
        statuses, payloads = (None, []) if answer is None else (answer.statuses, answer.payloads)
        noted = self._until_written(lambda: self._store.later_attempts(batch.inputs))
        told, again = self._recovery.take(
            key, batch.inputs, batch.attempts, statuses, payloads, cause, noted=noted
        )
        outcomes = [_storable(*outcome) for outcome in told]

        def write() -> tuple[set[int], dict[int, bytes]]:
            late = self._store.settle(outcomes, time.time())
            self._store.delete_batch(batch.dispatcher, self.number, batch.number)
            self._store.set_attempts({number: attempt for number, attempt in again if attempt > 1})
            return late, self._store.arguments(number for number, _ in again)

        late, arguments = self._until_written(write)
        self._count(outcomes)
        self._submit([Waiting(n, attempt, arguments[n]) for n, attempt in again if n in arguments])
        self._told(_news(outcomes, late))
        self._feed()

    def _call_ids(self, input_ids: Sequence[int]) -> dict[int, str]:
        numbers = {number // POSITIONS for number in input_ids}
        return {n: self._calls[n].call.id for n in numbers if n in self._calls}


def travelling(arguments: bytes) -> Prepared:
    """The arguments as they travel: large ones through the object store."""
    return stored_call(arguments) if len(arguments) > LARGE_BYTES else arguments


def _news(outcomes: Iterable[Outcome], late: Collection[int] = ()) -> dict[int, News]:
    """What waiters are told; of a late outcome only that there is one, for an earlier one counts."""
    news: dict[int, News] = {}
    for number, status, payload in outcomes:
        of_call = news.setdefault(number // POSITIONS, {})
        if number not in late:
            of_call[number % POSITIONS] = (status, payload)
    return news


def _storable(number: int, status: int, payload: Any) -> Outcome:
    """The outcome as it can be kept: without shared memory, and without Ray's references."""
    if isinstance(payload, Parts):
        if payload.references:
            error = SerializationError(
                "the result holds an ObjectRef, which ends with its owner, and the result of a spawned call "
                "is kept for days",
                "return the value itself, or write it to storage and return its path",
            )
            return number, FAILED, pack_exception(error)
        return number, status, Parts(payload.data, [bytes(buffer) for buffer in payload.buffers], [])
    if status == FAILED and isinstance(payload, BaseException):
        return number, status, pack_exception(payload)
    return number, status, payload
