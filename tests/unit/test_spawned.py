"""Spawned inputs between the store, the dispatcher and the containers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    GetTimeoutError,
    ObjectStoreFullError,
    RayError,
)

from flexray.config import Retries, check_options
from flexray.context import POSITIONS
from flexray.core.dispatch import RESEND_S
from flexray.core.events import Lease, Reply, Report
from flexray.core.retry import LOSSES_MAX
from flexray.core.status import CANCELLED, FAILED, LOST, OK, START_FAILED, UNSTARTED, SpawnedCall
from flexray.core.window import BYTES as WINDOW_BYTES
from flexray.core.window import INPUTS as WINDOW
from flexray.errors import ExecutionError, SerializationError
from flexray.runtime import poolclient, spawned
from flexray.runtime.callstore import Call, CallStore, SentBatch
from flexray.runtime.dispatcher import Dispatcher
from flexray.runtime.groupcommit import GroupCommit
from flexray.runtime.roster import Listed
from flexray.runtime.spawned import News, SpawnedPool
from flexray.runtime.wire import (
    GONE,
    AnswerMessage,
    BatchMessage,
    decode,
    decode_batch,
    encode,
    encode_answer,
)
from flexray.serialization import Parts, pack_exception, unpack_exception
from tests.waiting import wait_until

ONE, TWO = Lease(1, "f#1"), Lease(2, "f#2")


class Method:
    """A method of an actor: each call is recorded and gives an object to follow."""

    def __init__(self, called: Callable[..., None] = lambda *_: None) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.refs: list[object] = []
        self.raises: list[RayError] = []
        """What the next calls raise at once, in order."""
        self._called = called

    def remote(self, *args: Any) -> object:
        if self.raises:
            raise self.raises.pop(0)
        self._called(*args)
        self.calls.append(args)
        self.refs.append(object())
        return self.refs[-1]


class Handle:
    """A container or the controller, as far as it is called here."""

    def __init__(self, sent: Callable[..., None] = lambda *_: None) -> None:
        self.run = Method(sent)
        self.report, self.cancel, self.reclaim, self.output = Method(), Method(), Method(), Method()

    @property
    def batches(self) -> list[BatchMessage]:
        return [decode_batch(args[0]) for args in self.run.calls]

    @property
    def reports(self) -> list[Report]:
        return [decode(args[1]) for args in self.report.calls]


class Inbox:
    """Stands for the dispatcher: what is followed comes to something when the test says so."""

    def __init__(self, process: str) -> None:
        self.process = process
        self.controller = Handle()
        self.followed: dict[object, Callable[[Any], None]] = {}
        self.is_idle = True
        self.later: list[Callable[[], None]] = []

    def follow(self, ref: object, take: Callable[[Any], None]) -> None:
        self.followed[ref] = take

    @contextmanager
    def borrowed(self, _: float) -> Iterator[bool]:
        yield self.is_idle

    def call_soon(self, act: Callable[[], None]) -> None:
        self.later.append(act)

    def wake(self, client: Any) -> None:
        pass

    def forget(self, client: Any) -> None:
        pass


class Queue:
    """A pool of spawned inputs driven by hand, with containers f#1 and f#2, as one process has it."""

    def __init__(self, path: Path, process: str = "d", clock: float = 0.0, **options: Any) -> None:
        self.now = clock
        self.store = CallStore(path)
        self.store._connection.execute("PRAGMA synchronous = OFF")  # No power is lost here.
        self.writer = GroupCommit(self.store)
        self.inbox = Inbox(process)
        self.containers = {lease.container_id: Handle(self._check_sent) for lease in (ONE, TWO)}
        self.told: dict[int, News] = {}
        """By call: what waiters were told of its positions."""
        self.wakes: list[int] = []
        """Calls whose waiters were woken, in order."""
        self.replies = 0
        number = self.store.add_pool("a/f", b"record")
        config = check_options("f", options)
        dispatcher = cast(Dispatcher, self.inbox)
        self.pool = SpawnedPool(number, "a/f", config, dispatcher, self.store, self.writer, self._tell)

    def _check_sent(self, data: bytes, *_: Any) -> None:
        """The rule: nothing is sent before its batch is in the store."""
        batch = decode_batch(data)
        noted = {(b.dispatcher, b.pool, b.number): b for b in self.store.batches()}
        note = noted[self.inbox.process, self.pool.number, batch.batch_id]
        assert (note.inputs, note.lease, note.attempts) == (
            batch.input_ids,
            batch.lease_number,
            batch.attempts,
        )

    def _tell(self, news: Mapping[int, News]) -> None:
        """The rule: an outcome is in the store before it is told."""
        for number, outcomes in news.items():
            self.wakes.append(number)
            call = self.store.call_at(number)
            assert call is not None
            for position, (status, payload) in outcomes.items():
                ((kept_status, kept),) = self.store.outcomes(call, position, 1)
                assert kept_status == status
                assert isinstance(payload, Parts) or kept == payload
                assert not self.store._connection.in_transaction
                told = self.told.setdefault(number, {})
                assert position not in told, "told twice"
                told[position] = (status, payload)

    # What the call queue does.

    def write(self, call_id: str, *arguments: bytes, closed: bool = True) -> tuple[Call, int]:
        """Put inputs on the disk; the pool has not heard of them."""
        with self.store.transaction():
            one = SpawnedCall(call_id, "f", is_whole=closed, parent=None)
            call = self.store.add_call(one, self.pool.number, 10.0)
            self.store.add_inputs(call, call.added, arguments)
            self.pool.expect(len(arguments))
            if closed:
                self.store.close_call(call, 10.0)
        return self.call(call_id), call.added

    def spawn(self, call_id: str, *arguments: bytes, closed: bool = True) -> Call:
        call, first = self.write(call_id, *arguments, closed=closed)
        self.pool.added(call, first, arguments)
        return call

    def cancel_on_disk(self, call: Call) -> None:
        with self.store.transaction():
            self.store.settle_rest(call, CANCELLED, None, 20.0)
            self.store.close_call(call, 20.0)

    def restore(self) -> list[SentBatch]:
        """Go on with what an earlier process has left; its batches, the oldest first."""
        batches = self.store.batches()
        still_open = self.store.open_among(number for batch in batches for number in batch.inputs)
        self.pool.restore(self.store.open_calls(), batches, still_open)
        return batches

    # What others do.

    def come(self, method: Method, result: Any) -> None:
        """The last call of this method comes to this, value or error."""
        self.inbox.followed.pop(method.refs[-1])(result)

    def reply(self, *leases: Lease, failure: object = None) -> None:
        """The controller answers a report and lists these leases."""
        self.replies += 1
        reply = Reply(self.replies, leases, decided=0, admitted=0, room=True, failure=failure)
        handles = {lease.container_id: self.of(lease) for lease in leases}
        self.come(self.inbox.controller.report, (encode(reply), handles))

    def of(self, lease: Lease) -> Handle:
        return self.containers[lease.container_id]

    def answer(self, lease: Lease, *outcomes: tuple[int, Any]) -> None:
        """The container answers its last batch."""
        self.come(self.of(lease).run, encode_answer(answer(*outcomes)))

    def dies(self, lease: Lease) -> None:
        self.come(self.of(lease).run, ActorDiedError())

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.pool.tick(self.now)

    # What can be asked.

    def call(self, call_id: str) -> Call:
        call = self.store.call(call_id)
        assert call is not None
        return call

    def outcomes(self, call: Call, count: int = 100) -> list[tuple[int | None, Any]]:
        return self.store.outcomes(call, 0, count)

    def sent_to(self, lease: Lease) -> list[int]:
        """Positions, batch after batch."""
        return [n % POSITIONS for batch in self.of(lease).batches for n in batch.input_ids]

    def drain(self, lease: Lease) -> list[int]:
        """Answer whatever is sent, until nothing is; the inputs, in their order."""
        ran: list[int] = []
        while numbers := self.answer_oldest(lease):
            ran += numbers
        return ran

    def answer_oldest(self, lease: Lease) -> tuple[int, ...]:
        """All of the oldest batch that has no answer comes out well; its inputs, none where there is none."""
        run = self.of(lease).run
        for ref, (data, *_) in zip(run.refs, run.calls, strict=True):
            if ref in self.inbox.followed:
                numbers = decode_batch(data).input_ids
                result = encode_answer(answer(*[(OK, b"%d" % number) for number in numbers]))
                self.inbox.followed.pop(ref)(result)
                return numbers
        return ()


Make = Callable[..., Queue]


@pytest.fixture(autouse=True)
def no_container(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of an earlier process lives; a test says so where one does."""
    monkeypatch.setattr(spawned.roster, "find", {}.get)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Make the queue of one process; that of the process before it is closed."""
    queues: list[Queue] = []

    def make(process: str = "d", **options: Any) -> Queue:
        for queue in queues:
            queue.store.close()
        queues.append(Queue(tmp_path / "calls.sqlite", process, **options))
        return queues[-1]

    monkeypatch.setattr(poolclient, "time", SimpleNamespace(monotonic=lambda: queues[-1].now))
    monkeypatch.setattr(spawned, "TRY_AGAIN_S", 0)
    yield make
    for queue in queues:
        queue.store.close()


@pytest.fixture
def queue(make: Make) -> Queue:
    return make()


def answer(*outcomes: tuple[int, Any]) -> AnswerMessage:
    statuses, payloads = bytes([status for status, _ in outcomes]), [payload for _, payload in outcomes]
    count = len(outcomes)
    return AnswerMessage(statuses, payloads, (), 0.00001 * count, count, bounced=False, output=[])


def many(count: int, size: int = 1) -> Sequence[bytes]:
    return [b"x" * size] * count


def raising(error: Exception) -> Callable[..., Any]:
    def act(*_: object, **__: object) -> None:
        raise error

    return act


# Running. That the store comes first is checked with whatever is sent and told: see `Queue`.


def test_an_input_is_sent_and_its_outcome_is_kept_and_told(queue: Queue) -> None:
    call = queue.spawn("fc-1", b"x")
    queue.reply(ONE)
    (batch,) = queue.of(ONE).batches
    assert (batch.input_ids, batch.calls, batch.call_ids) == ((call.first,), [b"x"], {call.number: "fc-1"})
    assert queue.pool.sent == [call.first]
    assert not queue.told
    queue.answer(ONE, (OK, b"y"))
    assert queue.told == {call.number: {0: (OK, b"y")}}
    assert queue.outcomes(call) == [(OK, b"y")]
    assert queue.call("fc-1").over_at is not None
    assert queue.store.batches() == []


def test_an_outcome_and_the_end_of_its_batch_are_one_write(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.spawn("fc-1", b"x", b"y")
    queue.reply(ONE)
    writes: list[str] = []
    queue.store._connection.set_trace_callback(writes.append)
    queue.answer(ONE, (OK, b"x"))
    begins = [number for number, write in enumerate(writes) if write.startswith("BEGIN")]
    assert len(begins) == 1, "with the next batch, too"
    assert len(queue.store.batches()) == 1


def test_what_was_sent_to_a_container_that_died_is_noted_again_with_its_next_batch(queue: Queue) -> None:
    call = queue.spawn("fc-1", b"x", b"y")
    queue.reply(ONE)
    assert queue.sent_to(ONE) == [0]
    queue.dies(ONE)
    assert queue.store.batches() == []
    queue.reply(TWO)
    assert [batch.inputs for batch in queue.store.batches()] == [(call.first,)]


def test_no_outcome_is_told_twice_or_lost_over_a_long_queue(queue: Queue) -> None:
    call = queue.spawn("fc-1", *many(3000))
    queue.reply(ONE)
    assert sorted(queue.drain(ONE)) == list(range(call.first, call.first + 3000))
    assert len(queue.told[call.number]) == 3000
    assert queue.call("fc-1").over_at is not None
    assert (queue.pool.waiting, queue.pool._bytes, queue.pool._calls, queue.pool._inputs) == (0, 0, {}, {})


def test_a_failure_is_retried_and_its_attempt_is_kept(make: Make) -> None:
    queue = make(retries=2)
    call = queue.spawn("fc-1", b"x")
    queue.reply(ONE)
    queue.answer(ONE, (FAILED, b"first"))
    assert not queue.told
    assert queue.store.waiting([(call, 0, 1)])[0][0].attempt == 2
    queue.wait(1.5)
    queue.reply(TWO)
    (again,) = queue.of(TWO).batches or queue.of(ONE).batches[1:]
    assert again.attempts == {call.first: 2}


def test_an_exception_that_ray_raised_is_kept_as_the_functions_own(queue: Queue) -> None:
    queue.of(ONE).run.raises.append(RayError("the object store is full"))
    call = queue.spawn("fc-1", b"x")
    queue.reply(ONE)
    ((status, payload),) = queue.outcomes(call)
    assert status == FAILED
    assert "the object store is full" in str(unpack_exception(payload))


def test_a_result_with_an_object_ref_becomes_an_error(queue: Queue) -> None:
    call = queue.spawn("fc-1", b"x")
    queue.reply(ONE)
    queue.answer(ONE, (OK, Parts(b"data", [], ["a reference"])))
    ((status, payload),) = queue.outcomes(call)
    error = unpack_exception(payload)
    assert status == FAILED
    assert isinstance(error, SerializationError)
    assert "ObjectRef" in str(error)
    assert "hint: return the value itself" in str(error)


def test_a_large_result_is_kept_without_the_memory_that_it_came_in(queue: Queue) -> None:
    memory = bytearray(b"r" * 200_000)
    call = queue.spawn("fc-1", b"x")
    queue.reply(ONE)
    queue.answer(ONE, (OK, Parts(b"data", [memoryview(memory)], [])))
    memory[:] = b"?" * len(memory)
    ((status, payload),) = queue.outcomes(call)
    assert (status, payload.data, payload.buffers) == (OK, b"data", [b"r" * 200_000])


# Windows.


def test_inputs_in_memory_are_bounded_by_their_count(queue: Queue) -> None:
    calls = [queue.spawn(f"fc-{number}", *many(1000)) for number in range(20)]
    assert queue.pool.waiting == 20_000
    assert len(queue.pool._inputs) <= WINDOW
    queue.reply(ONE)
    most = 0

    def note(news: Mapping[int, News]) -> None:
        nonlocal most
        most = max(most, len(queue.pool._inputs))

    queue.pool._told = note
    ran = queue.drain(ONE)
    assert sorted(ran) == [n for call in calls for n in range(call.first, call.first + 1000)]
    assert WINDOW / 2 <= most <= WINDOW
    assert queue.pool.waiting == 0
    assert queue.store.open_calls() == []


def test_one_request_for_more_than_a_window_is_read_in_windows(queue: Queue) -> None:
    call = queue.spawn("fc-1", *many(2 * WINDOW + 5))
    assert len(queue.pool._inputs) == WINDOW
    assert queue.pool.waiting == 2 * WINDOW + 5
    queue.reply(ONE)
    assert queue.drain(ONE) == list(range(call.first, call.first + 2 * WINDOW + 5))


@pytest.mark.parametrize("in_one", [True, False])
def test_inputs_in_memory_are_bounded_by_their_bytes(queue: Queue, in_one: bool) -> None:
    size, count = 100_000, 500
    arguments = many(count, size)
    for number, part in enumerate([arguments] if in_one else [[one] for one in arguments]):
        queue.spawn(f"fc-{number}", *part)
    assert WINDOW_BYTES / 2 < queue.pool._bytes <= 2 * WINDOW_BYTES
    assert queue.pool._bytes == size * len(queue.pool._inputs)
    assert queue.pool.waiting == count
    queue.reply(ONE)
    assert len(queue.drain(ONE)) == count
    assert queue.pool._bytes == 0


def test_what_is_read_before_the_pool_hears_of_it_runs_once(queue: Queue) -> None:
    call = queue.spawn("fc-1", *many(WINDOW), closed=False)
    queue.spawn("fc-1", *many(10), closed=False)
    _, first = queue.write("fc-1", *many(10), closed=True)
    queue.reply(ONE)
    ran: list[int] = []
    while len(queue.pool._inputs) > 100:
        ran += queue.answer_oldest(ONE)
    queue.pool.added(queue.call("fc-1"), first, many(10))
    ran += queue.drain(ONE)
    assert ran == list(range(call.first, call.first + WINDOW + 20))
    assert queue.pool.waiting == 0


def test_inputs_are_waiting_from_their_write_on(queue: Queue) -> None:
    call, first = queue.write("fc-1", b"x", b"y")
    assert queue.pool.waiting == 2
    queue.pool.added(call, first, [b"x", b"y"])
    assert queue.pool.waiting == 2
    queue.reply(ONE)
    assert queue.pool.waiting == 1


def test_the_controller_is_told_of_what_is_stored(queue: Queue) -> None:
    queue.spawn("fc-1", *many(3 * WINDOW))
    queue.reply()
    queue.wait(1.0)
    report = queue.inbox.controller.reports[-1]
    assert (report.waiting, report.arrived, report.spawned) == (3 * WINDOW, 3 * WINDOW, True)


# The disk is full.


def test_an_outcome_that_cannot_be_written_is_written_when_it_can_and_told_only_then(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    call = queue.spawn("fc-1", b"x")
    queue.reply(ONE)
    settle = queue.store.settle
    refused: list[dict[int, News]] = []

    def full(*args: Any) -> set[int]:
        if len(refused) < 3:
            refused.append(dict(queue.told))
            raise ExecutionError("the disk is full", "free space")
        return settle(*args)

    monkeypatch.setattr(queue.store, "settle", full)
    with caplog.at_level(logging.ERROR, "flexray"):
        queue.answer(ONE, (OK, b"y"))
    assert refused == [{}] * 3
    assert "the disk is full" in caplog.text
    assert queue.told == {call.number: {0: (OK, b"y")}}


def test_a_batch_that_cannot_be_written_is_not_sent_until_it_is(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_batches = queue.store.add_batches
    sent: list[int] = []

    def full(batches: Any) -> None:
        if len(sent) < 2:
            sent.append(len(queue.of(ONE).run.calls))
            raise ExecutionError("the disk is full", "free space")
        add_batches(batches)

    monkeypatch.setattr(queue.store, "add_batches", full)
    queue.spawn("fc-1", b"x")
    queue.reply(ONE)
    assert sent == [0, 0]
    assert len(queue.of(ONE).batches) == 1


# Cancelling.


def test_a_cancelled_call_is_told_and_what_runs_of_it_is_stopped(queue: Queue) -> None:
    call, other = queue.spawn("fc-1", b"x", b"y"), queue.spawn("fc-2", b"z")
    queue.reply(ONE)
    queue.cancel_on_disk(call)
    queue.pool.cancel_call(call, terminate=False)
    assert queue.outcomes(call) == [(CANCELLED, None)] * 2
    assert call.number in queue.wakes
    (cancel,) = queue.of(ONE).cancel.calls
    assert cancel == ("d", 1, (0,), (0,))
    queue.answer(ONE, (CANCELLED, None))
    assert queue.drain(ONE) == [other.first]
    assert queue.outcomes(call) == [(CANCELLED, None)] * 2


def test_an_answer_that_comes_after_the_cancellation_was_written_is_not_told(queue: Queue) -> None:
    """The first outcome that is written is the outcome: no two who ask get different ones."""
    call = queue.spawn("fc-1", b"x")
    queue.reply(ONE)
    queue.cancel_on_disk(call)
    queue.answer(ONE, (OK, b"late"))
    assert queue.told.get(call.number, {}) == {}
    assert call.number in queue.wakes, "whoever waits looks again"
    queue.pool.cancel_call(call, terminate=False)
    assert queue.outcomes(call) == [(CANCELLED, None)]
    assert (queue.pool.waiting, queue.pool._inputs) == (0, {})


def test_cancelling_a_stored_call_leaves_the_others(queue: Queue) -> None:
    first, second, third = (queue.spawn(f"fc-{number}", *many(WINDOW)) for number in range(3))
    queue.cancel_on_disk(second)
    queue.pool.cancel_call(second, terminate=False)
    assert queue.pool.waiting == 2 * WINDOW
    queue.reply(ONE)
    assert {number // POSITIONS for number in queue.drain(ONE)} == {first.number, third.number}
    assert queue.pool.waiting == 0


def test_cancelling_what_is_in_memory_lets_in_what_is_stored(queue: Queue) -> None:
    first, second = queue.spawn("fc-1", *many(WINDOW)), queue.spawn("fc-2", *many(WINDOW))
    queue.cancel_on_disk(first)
    queue.pool.cancel_call(first, terminate=False)
    assert {number // POSITIONS for number in queue.pool._inputs} == {second.number}
    assert queue.pool.waiting == WINDOW


def test_terminating_kills_the_containers_that_have_inputs_of_the_call(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[Any] = []
    monkeypatch.setattr(spawned, "ray", SimpleNamespace(kill=killed.append))
    call = queue.spawn("fc-1", b"x")
    queue.spawn("fc-2", b"y")
    queue.reply(ONE, TWO)
    mine = ONE if queue.of(ONE).batches[0].input_ids == (call.first,) else TWO
    queue.cancel_on_disk(call)
    queue.pool.cancel_call(call, terminate=True)
    assert killed == [queue.of(mine)]


def test_cancelling_a_call_that_nobody_knows_does_nothing(queue: Queue) -> None:
    call = queue.spawn("fc-1", b"x")
    queue.reply(ONE)
    queue.answer(ONE, (OK, b"y"))
    queue.pool.cancel_call(call, terminate=True)
    assert queue.outcomes(call) == [(OK, b"y")]


# The end of the app, and of hope.


def test_the_end_of_the_app_cancels_what_is_stored_and_what_comes(queue: Queue) -> None:
    over, call = queue.spawn("fc-1", b"x", closed=False), queue.spawn("fc-2", *many(2 * WINDOW), closed=False)
    late, first = queue.write("fc-3", b"z", closed=False)
    queue.reply(ONE)
    queue.answer(ONE, (OK, b"y"))
    queue.wait(1.0)
    queue.come(queue.inbox.controller.report, GONE)
    queue.pool.added(late, first, [b"z"])
    assert queue.pool.is_gone
    assert queue.outcomes(over) == [(OK, b"y")]
    assert set(queue.store.statuses(call, 3 * WINDOW)) == {CANCELLED}
    assert queue.outcomes(late) == [(CANCELLED, None)]
    assert (queue.call("fc-2").size, queue.call("fc-3").size) == (2 * WINDOW, 1)
    assert {call.number, late.number} <= set(queue.wakes)
    assert queue.pool._unplaced == 0


def test_a_process_that_ends_leaves_what_is_stored_to_its_successor(queue: Queue) -> None:
    call = queue.spawn("fc-1", b"x", b"y")
    queue.reply(ONE)
    queue.pool.close(ExecutionError("Ray has ended", ""))
    assert queue.outcomes(call) == [(None, None)] * 2


def test_where_no_container_can_start_what_is_stored_fails_too(queue: Queue) -> None:
    calls = [queue.spawn(f"fc-{number}", *many(WINDOW + 100)) for number in range(3)]
    queue.reply(failure=["no such module"])
    for call in calls:
        assert set(map(repr, queue.outcomes(call, 2 * WINDOW))) == {repr((START_FAILED, ["no such module"]))}
        assert queue.call(call.id).over_at is not None
        assert len(queue.told[call.number]) == WINDOW + 100
    assert (queue.pool.waiting, queue.pool._bytes, queue.pool._calls) == (0, 0, {})
    again = queue.spawn("fc-9", b"x")
    queue.wait(1.0)
    queue.reply(ONE)
    assert queue.drain(ONE) == [again.first]


def test_what_fails_as_no_container_can_start_is_not_what_the_pool_has_not_heard_of(queue: Queue) -> None:
    queue.spawn("fc-1", *many(2 * WINDOW - 10), closed=False)
    _, first = queue.write("fc-1", b"new", closed=True)
    queue.reply(failure=["no such module"])
    queue.pool.added(queue.call("fc-1"), first, [b"new"])
    queue.wait(1.0)
    queue.reply(ONE)
    assert queue.drain(ONE) == [queue.call("fc-1").first + first]
    assert queue.told[1][first][0] == OK


def test_the_start_failure_reaches_what_is_stored_though_the_disk_was_full(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = queue.spawn("fc-1", *many(2 * WINDOW))
    settle, turns = queue.store.settle, iter([False, True, True, False, True] + [False] * 100)

    def sometimes_full(*args: Any) -> set[int]:
        late = settle(*args)
        if next(turns):
            raise ExecutionError("the disk is full", "free space")
        return late

    monkeypatch.setattr(queue.store, "settle", sometimes_full)
    queue.reply(failure=["no such module"])
    assert set(queue.store.statuses(call, 3 * WINDOW)) == {START_FAILED}


# After a restart.


def before_restart(make: Make, *arguments: bytes, **options: Any) -> Call:
    """A process sends batches of one input each to f#1 and f#2 and dies."""
    queue = make("before", **options)
    call = queue.spawn("fc-1", *arguments)
    queue.reply(ONE, TWO)
    return call


def test_what_was_sent_before_the_restart_is_not_sent_to_another_container(make: Make) -> None:
    call = before_restart(make, b"x", b"y", b"z")
    queue = make("after")
    batches = queue.restore()
    assert sorted(n for batch in batches for n in batch.inputs) == [call.first, call.first + 1]
    assert sorted(queue.pool.sent) == [call.first, call.first + 1]
    assert queue.pool.waiting == 1
    queue.reply(ONE)
    assert queue.drain(ONE) == [call.first + 2]


@pytest.mark.parametrize(
    ("options", "outcome", "result"),
    [
        ({}, (OK, b"y"), (OK, b"y")),
        ({}, (FAILED, b"why"), (FAILED, b"why")),
        ({"at_most_once": True}, (LOST, "it was begun"), (LOST, "it was begun")),
        ({}, (CANCELLED, None), (CANCELLED, None)),
        ({"at_most_once": True}, None, (LOST, "it died")),
    ],
)
def test_the_answer_to_a_batch_of_before_the_restart_is_its_outcome(
    make: Make, options: dict[str, Any], outcome: tuple[int, Any] | None, result: tuple[int, Any]
) -> None:
    call = before_restart(make, b"x", **options)
    queue = make("after", **options)
    (batch,) = queue.restore()
    queue.pool.recovered(batch, None if outcome is None else answer(outcome), "it died")
    assert queue.told == {call.number: {0: result}}
    assert queue.outcomes(call) == [result]
    assert queue.call("fc-1").over_at is not None
    assert queue.store.batches() == []
    assert (queue.pool.sent, queue.pool.waiting, queue.pool._calls) == ([], 0, {})


@pytest.mark.parametrize(
    ("options", "outcome", "attempts"),
    [
        ({}, (UNSTARTED, None), [{}]),
        ({"at_most_once": True}, (UNSTARTED, None), [{}]),
        ({"retries": 1}, (FAILED, b"why"), [{0: 2}]),
        ({}, None, [{}]),
    ],
)
def test_what_the_batch_of_before_the_restart_did_not_end_runs_again(
    make: Make, options: dict[str, Any], outcome: tuple[int, Any] | None, attempts: list[dict[int, int]]
) -> None:
    call = before_restart(make, b"x", **options)
    queue = make("after", **options)
    (batch,) = queue.restore()
    queue.pool.recovered(batch, None if outcome is None else answer(outcome))
    assert not queue.told
    assert [b for b in queue.store.batches() if b.dispatcher == "before"] == []
    assert (queue.pool.sent, queue.pool.waiting) == ([], 1)
    queue.wait(1.5)
    queue.reply(ONE)
    sent = [{n % POSITIONS: attempt for n, attempt in b.attempts.items()} for b in queue.of(ONE).batches]
    assert sent == attempts
    queue.answer(ONE, (OK, b"y"))
    assert queue.outcomes(call) == [(OK, b"y")]


def test_attempts_go_on_over_restarts(make: Make) -> None:
    before_restart(make, b"x", retries=2)
    queue = make("after", retries=2)
    (batch,) = queue.restore()
    queue.pool.recovered(batch, answer((FAILED, b"first")))
    queue = make("later", retries=2)
    assert queue.restore() == [], "it was resting"
    queue.wait(10.0)
    queue.reply(ONE)
    (sent,) = queue.of(ONE).batches
    assert list(sent.attempts.values()) == [2]
    queue.answer(ONE, (FAILED, b"second"))
    queue.wait(10.0)
    queue.reply(TWO)
    (sent,) = queue.of(TWO).batches
    assert list(sent.attempts.values()) == [3]
    queue.answer(TWO, (FAILED, b"third"))
    assert list(queue.told[1].values()) == [(FAILED, b"third")]


def test_what_a_container_gave_back_goes_on_with_its_newest_attempt(make: Make) -> None:
    before_restart(make, b"x", retries=2)
    queue = make("after", retries=2)
    (batch,) = queue.restore()
    queue.store.set_attempts({batch.inputs[0]: 2})  # It failed in another batch since, which is over.
    queue.pool.recovered(batch, answer((UNSTARTED, None)))
    queue.wait(10.0)
    queue.reply(ONE)
    (sent,) = queue.of(ONE).batches
    assert list(sent.attempts.values()) == [2]


def test_of_two_batches_with_the_same_input_only_the_newest_counts(make: Make) -> None:
    queue = make("before")
    call = queue.spawn("fc-1", b"x", b"y")
    older = SentBatch("before", 1, queue.pool.number, "f#1", 1, (call.first, call.first + 1), {})
    newer = SentBatch("before", 2, queue.pool.number, "f#2", 2, (call.first + 1,), {})
    queue.store.add_batches([older, newer])
    queue = make("after")
    assert queue.restore() == [older, newer]
    queue.pool.recovered(older, answer((OK, b"X"), (UNSTARTED, None)))
    assert queue.told == {call.number: {0: (OK, b"X")}}
    assert queue.pool.sent == [call.first + 1]
    queue.pool.recovered(newer, answer((OK, b"Y")))
    assert queue.outcomes(call) == [(OK, b"X"), (OK, b"Y")]


def test_of_batches_of_two_processes_only_that_of_the_later_counts(make: Make) -> None:
    """Names of processes are random: their order says nothing."""
    queue = make("after")
    call = queue.spawn("fc-1", b"x")
    older = SentBatch("z", 9, queue.pool.number, "f#1", 1, (call.first,), {})
    newer = SentBatch("a", 1, queue.pool.number, "f#2", 2, (call.first,), {})
    queue.store.add_batches([newer, older])
    queue = make("later")
    assert queue.restore() == [older, newer]
    queue.pool.recovered(older, answer((UNSTARTED, None)))
    assert (queue.pool.waiting, queue.pool.sent) == (0, [call.first])
    queue.pool.recovered(newer, answer((OK, b"y")))
    assert queue.outcomes(call) == [(OK, b"y")]


def test_what_ended_before_the_restart_is_not_waited_for(make: Make) -> None:
    queue = make("before")
    call = queue.spawn("fc-1", b"x", b"y")
    queue.reply(ONE, TWO)
    with queue.store.transaction():
        queue.store.settle([(call.first, OK, b"X")], 20.0)
    queue = make("after")
    batches = queue.restore()
    assert queue.pool.sent == [call.first + 1]
    for batch in batches:
        queue.pool.recovered(batch, answer((OK, b"again")))
    assert queue.outcomes(call) == [(OK, b"X"), (OK, b"again")]
    assert queue.told == {call.number: {1: (OK, b"again")}}


def test_a_call_that_is_cancelled_while_its_batch_is_asked_for_stays_cancelled(make: Make) -> None:
    call = before_restart(make, b"x")
    queue = make("after")
    (batch,) = queue.restore()
    queue.cancel_on_disk(call)
    queue.pool.cancel_call(call, terminate=False)
    assert queue.pool.sent == []
    queue.pool.recovered(batch, answer((OK, b"late")))
    assert queue.outcomes(call) == [(CANCELLED, None)]
    assert not queue.told
    assert (queue.pool.sent, queue.store.batches()) == ([], [])


def test_an_answer_after_the_cancellation_was_written_is_not_told_after_a_restart_either(make: Make) -> None:
    call = before_restart(make, b"x")
    queue = make("after")
    (batch,) = queue.restore()
    queue.cancel_on_disk(call)
    queue.pool.recovered(batch, answer((OK, b"late")))
    assert not queue.told
    assert queue.outcomes(call) == [(CANCELLED, None)]


def test_the_end_of_the_app_cancels_what_was_sent_before_the_restart(make: Make) -> None:
    call = before_restart(make, b"x", b"y", b"z")
    queue = make("after")
    batches = queue.restore()
    queue.come(queue.inbox.controller.report, GONE)
    for batch in batches:
        queue.pool.recovered(batch, answer((OK, b"late")))
    assert queue.outcomes(call) == [(CANCELLED, None)] * 3


def test_a_backlog_is_read_in_windows_after_a_restart_and_each_input_runs_once(make: Make) -> None:
    queue = make("before")
    calls = [queue.spawn(f"fc-{number}", *many(3000)) for number in range(4)]
    newest = calls[-1]
    sent = [
        SentBatch("before", number, queue.pool.number, "f#1", 1, tuple(range(start, start + 500)), {})
        for number, start in enumerate([newest.first, newest.first + 2000, calls[0].first + 10])
    ]
    queue.store.add_batches(sent)
    queue = make("after")
    assert queue.restore() == sent
    assert queue.pool.waiting == 12_000 - 1500
    assert len(queue.pool._inputs) <= WINDOW
    queue.pool.recovered(sent[0], None)
    queue.pool.recovered(sent[1], answer(*[(OK, b"")] * 500))
    assert queue.pool.waiting == 12_000 - 1000
    later = queue.spawn("fc-4", *many(WINDOW))
    queue.reply(ONE)
    ran = queue.drain(ONE)
    queue.pool.recovered(sent[2], answer(*[(UNSTARTED, None)] * 500))
    ran += queue.drain(ONE)
    expected = [n for call in calls for n in range(call.first, call.first + 3000)]
    expected += range(later.first, later.first + WINDOW)
    assert sorted(ran) == sorted(set(expected) - set(sent[1].inputs))
    assert (queue.pool.waiting, queue.pool.sent, queue.store.open_calls()) == (0, [], [])


def test_what_runs_again_after_a_restart_is_not_read_a_second_time(make: Make) -> None:
    queue = make("before")
    first = queue.spawn("fc-1", *many(WINDOW - 1500))
    second = queue.spawn("fc-2", *many(1500), closed=False)
    numbers = tuple(range(second.first, second.first + 1500))
    queue.store.add_batches([SentBatch("before", 1, queue.pool.number, "f#1", 1, numbers, {})])
    queue = make("after")
    (batch,) = queue.restore()
    queue.pool.recovered(batch, None)
    queue.spawn("fc-2", *many(200))
    assert queue.pool.waiting == WINDOW + 200
    queue.reply(ONE)
    ran = queue.drain(ONE)
    assert len(ran) == len(set(ran)) == WINDOW + 200
    assert {number // POSITIONS for number in ran} == {first.number, second.number}


def test_the_death_of_a_container_leaves_what_an_earlier_process_had_sent_there(make: Make) -> None:
    """It is lost where it may run once only; only `recovered` says so."""
    call = before_restart(make, b"x", at_most_once=True)
    queue = make("after", at_most_once=True)
    (batch,) = queue.restore()
    queue.spawn("fc-2", b"y")
    queue.reply(Lease(9, batch.container))
    queue.come(queue.containers[batch.container].run, ActorDiedError())
    assert queue.store.batches() == [batch]
    queue.pool.recovered(batch, None, "it died")
    assert queue.outcomes(call) == [(LOST, "it died")]


def test_a_batch_that_was_not_reached_is_sent_again_and_noted_once(queue: Queue) -> None:
    from ray.exceptions import ActorUnavailableError

    call = queue.spawn("fc-1", b"x")
    queue.reply(ONE)
    queue.come(queue.of(ONE).run, ActorUnavailableError("gone for a moment", None))
    queue.wait(RESEND_S)
    first, again = queue.of(ONE).batches
    assert (first.again, again.again, again.batch_id) == (False, True, first.batch_id)
    assert len(queue.store.batches()) == 1
    queue.answer(ONE, (OK, b"y"))
    assert queue.outcomes(call) == [(OK, b"y")]


def test_an_input_that_kills_its_containers_is_lost(queue: Queue) -> None:
    call = queue.spawn("fc-1", b"x")
    for number in range(1, 2 + LOSSES_MAX):
        assert queue.outcomes(call) == [(None, None)]
        lease = Lease(number, f"g#{number}")
        queue.containers[lease.container_id] = Handle(queue._check_sent)
        queue.reply(lease)
        queue.dies(lease)
    ((status, _),) = queue.outcomes(call)
    assert status == LOST
    assert queue.store.batches() == []


def test_exceptions_are_kept_as_they_were_packed(queue: Queue) -> None:
    packed = pack_exception(ValueError("wrong"))
    call = queue.spawn("fc-1", b"x")
    queue.reply(ONE)
    queue.answer(ONE, (FAILED, packed))
    assert queue.outcomes(call) == [(FAILED, packed)]


# What is large, many, or in the way.


def test_large_arguments_are_read_for_every_free_slot(queue: Queue) -> None:
    leases = [Lease(number, "f#1") for number in range(1, 401)]
    queue.spawn("fc-1", *many(400, 100_000))
    queue.reply(*leases)
    assert len(queue.of(ONE).batches) == 400


def test_many_calls_of_one_input_are_read_many_at_a_time(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    waiting = queue.store.waiting

    def count(wanted: Any) -> Any:
        nonlocal reads
        reads += 1
        return waiting(wanted)

    monkeypatch.setattr(queue.store, "waiting", count)
    calls = [queue.spawn(f"fc-{number}", b"x") for number in range(WINDOW + 1000)]
    queue.reply(ONE)
    assert queue.drain(ONE) == [call.first for call in calls]
    assert 1 <= reads <= 1000 / spawned.CALLS_READ + 2
    assert (queue.pool.waiting, queue.pool._stored, queue.pool._unread) == (0, 0, {})


def test_without_a_controller_what_is_kept_waits_for_one(queue: Queue) -> None:
    call = queue.spawn("fc-1", b"x")
    queue.pool.give_up(ExecutionError("none can start"))
    assert not queue.pool.is_gone
    queue.wait(1.0)
    queue.reply(ONE)
    queue.answer(ONE, (OK, b"1"))
    assert queue.outcomes(call) == [(OK, b"1")]


def test_where_the_object_store_is_full_an_argument_travels_by_itself(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(arguments: bytes) -> Any:
        raise ObjectStoreFullError

    monkeypatch.setattr(spawned, "travelling", full)
    queue.spawn("fc-1", b"x" * 200_000)
    queue.reply(ONE)
    assert queue.sent_to(ONE) == [0]


def test_a_batch_for_which_there_is_no_room_now_is_sent_again(queue: Queue) -> None:
    call = queue.spawn("fc-1", b"x")
    queue.of(ONE).run.raises = [ObjectStoreFullError()]
    queue.reply(ONE)
    assert queue.outcomes(call) == [(None, None)]
    queue.wait(1.0)
    queue.answer(ONE, (OK, b"1"))
    assert queue.outcomes(call) == [(OK, b"1")]


@pytest.mark.parametrize("terminate", [False, True])
def test_what_an_earlier_process_had_sent_is_ended_where_it_runs(
    make: Make, monkeypatch: pytest.MonkeyPatch, terminate: bool
) -> None:
    first = make("before")
    call = first.spawn("fc-1", b"x", b"y")
    first.reply(ONE)
    first.answer(ONE, (OK, b"1"), (UNSTARTED, None))
    second = make("after")
    handle, killed = second.of(ONE), []
    monkeypatch.setattr(spawned.roster, "find", {"f#1": Listed(handle)}.get)
    monkeypatch.setattr(spawned.ray, "kill", killed.append)
    (batch,) = second.restore()
    second.cancel_on_disk(call)
    second.pool.cancel_call(second.call("fc-1"), terminate=terminate)
    positions = tuple(range(len(batch.inputs)))
    assert handle.cancel.calls == [("before", batch.number, positions, positions)]
    assert killed == ([handle] if terminate else [])
    second.pool.recovered(batch, None)
    assert second.pool.sent == []


def hold(queue: Queue) -> None:
    """A container has answered, and its slot is free."""
    queue.spawn("fc-0", b"x")
    queue.reply(ONE)
    queue.answer(ONE, (OK, b"y"))


def spawn_at_once(queue: Queue, call_id: str = "fc-1", soon: Any = None) -> Call | None:
    """What the container answers `soon`, or is raised then; by default that is later, as the test says."""
    call = SpawnedCall(call_id, "f", is_whole=True, parent=None)
    sent = queue.pool.spawn_at_once(call, b"now")
    if sent is None:
        return None
    ended: Any = GetTimeoutError() if soon is None else soon
    look = raising(ended) if isinstance(ended, Exception) else lambda *_, **__: ended
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spawned.ray, "get", look)
        queue.pool.take_soon(sent, 1.0)
    return sent.call


def test_an_answer_that_comes_soon_is_taken_in_by_whoever_has_spawned(queue: Queue) -> None:
    hold(queue)
    call = spawn_at_once(queue, soon=encode_answer(answer((OK, b"soon"))))
    assert call is not None
    assert queue.told[call.number] == {0: (OK, b"soon")}
    assert queue.of(ONE).run.refs[-1] not in queue.inbox.followed
    assert spawn_at_once(queue, "fc-2", soon=encode_answer(answer((OK, b"next")))) is not None


def test_an_answer_that_cannot_be_taken_in_soon_is_left_to_the_dispatchers_thread(queue: Queue) -> None:
    hold(queue)
    queue.inbox.is_idle = False
    call = spawn_at_once(queue, soon=encode_answer(answer((OK, b"soon"))))
    assert call is not None
    assert call.number not in queue.told
    queue.inbox.later.pop()()
    assert queue.told[call.number] == {0: (OK, b"soon")}


def test_an_outcome_that_cannot_be_written_soon_holds_up_nobody(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(queue)
    with monkeypatch.context() as full:
        full.setattr(queue.store, "settle", raising(ExecutionError("the disk is full")))
        call = spawn_at_once(queue, soon=encode_answer(answer((OK, b"soon"))))
    assert call is not None
    assert call.number not in queue.told
    assert not queue.pool.can_send, "before that is written"
    queue.inbox.later.pop()()
    assert queue.told[call.number] == {0: (OK, b"soon")}
    assert queue.pool.can_send
    assert not queue.pool._calls
    assert not queue.store.batches()


def test_a_container_that_dies_soon_is_known_to_be_dead(queue: Queue) -> None:
    hold(queue)
    call = spawn_at_once(queue, soon=ActorDiedError())
    assert call is not None
    assert call.number not in queue.told
    queue.reply(TWO)
    queue.answer(TWO, (OK, b"again"))
    assert queue.told[call.number] == {0: (OK, b"again")}


def test_what_cannot_be_sent_at_once_is_sent_again(queue: Queue) -> None:
    hold(queue)
    queue.of(ONE).run.raises = [ActorUnavailableError("for a moment", None)]
    call = spawn_at_once(queue, soon=AssertionError("nothing is waited for"))
    assert call is not None
    queue.inbox.later.pop()()
    queue.wait(RESEND_S)
    queue.answer(ONE, (OK, b"done"))
    assert queue.told[call.number] == {0: (OK, b"done")}


def test_a_call_of_one_input_is_kept_and_sent_with_one_write_where_a_slot_is_free(queue: Queue) -> None:
    assert spawn_at_once(queue) is None  # Nobody has a slot.
    queue.spawn("fc-0", b"x")
    queue.reply(ONE)
    assert spawn_at_once(queue) is None  # It is busy.
    queue.answer(ONE, (OK, b"y"))
    statements: list[str] = []
    queue.store._connection.set_trace_callback(statements.append)
    call = spawn_at_once(queue)
    assert call is not None
    assert statements.count("COMMIT") == 1
    assert queue.call("fc-1") == call
    assert queue.of(ONE).batches[-1].calls == [b"now"]
    assert queue.of(ONE).batches[-1].call_ids == {call.number: "fc-1"}
    queue.answer(ONE, (OK, b"done"))
    assert queue.told[call.number] == {0: (OK, b"done")}
    assert queue.call("fc-1").over_at is not None
    assert not queue.pool._calls
    assert not queue.pool._bytes


def test_a_call_that_is_asked_for_again_is_neither_kept_nor_sent_twice(queue: Queue) -> None:
    hold(queue)
    assert spawn_at_once(queue) is not None
    queue.answer(ONE, (OK, b"done"))
    sent = len(queue.of(ONE).batches)
    assert spawn_at_once(queue) is None
    assert len(queue.of(ONE).batches) == sent


def test_what_cannot_be_written_at_once_is_not_sent_and_its_slot_serves_the_next(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(queue)
    sent = len(queue.of(ONE).batches)
    with monkeypatch.context() as full:
        full.setattr(queue.store, "add_batches", raising(ExecutionError("the disk is full")))
        with pytest.raises(ExecutionError, match="the disk is full"):
            spawn_at_once(queue)
    assert len(queue.of(ONE).batches) == sent
    assert queue.store.call("fc-1") is None
    assert not queue.pool._calls
    assert not queue.pool._inputs
    assert not queue.pool._outgoing
    assert (queue.pool.waiting, queue.pool._bytes) == (0, 0)
    call = spawn_at_once(queue, "fc-2")
    assert call is not None
    queue.answer(ONE, (OK, b"done"))
    assert queue.told[call.number] == {0: (OK, b"done")}


def test_what_is_written_at_once_outlives_another_of_its_group_that_fails(queue: Queue) -> None:
    hold(queue)
    with ThreadPoolExecutor(1) as threads:
        with queue.writer._writing:  # Both come while something is written: they share the next write.
            spawning = threads.submit(spawn_at_once, queue)
            wait_until(lambda: len(queue.writer._pending) == 1)
            failing = queue.writer.submit(raising(ExecutionError("not this one")))
        call = spawning.result(10)
    assert isinstance(failing.exception(10), ExecutionError)
    assert call is not None
    assert [batch.calls for batch in queue.of(ONE).batches[1:]] == [[b"now"]]
    assert len(queue.store.batches()) == 1
    queue.answer(ONE, (OK, b"done"))
    assert queue.told[call.number] == {0: (OK, b"done")}
    assert not queue.pool._calls


def test_nothing_is_sent_at_once_while_an_input_rests(make: Make) -> None:
    queue = make(retries=Retries(max_retries=1, initial_delay=1.0))
    queue.spawn("fc-0", b"x")
    queue.reply(ONE)
    queue.answer(ONE, (FAILED, b"once more"))
    assert queue.pool._dispatch.has_free_slot
    assert not queue.pool.can_send


def test_where_what_is_spawned_at_once_cannot_be_written_other_batches_go_on(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(queue)
    queue.reply(ONE, TWO)
    queue.spawn("fc-2", b"z")
    (busy,) = [lease for lease in (ONE, TWO) if any(b.calls == [b"z"] for b in queue.of(lease).batches)]
    queue.come(queue.of(busy).run, ActorUnavailableError("for a moment", None))
    queue.now += RESEND_S  # It is sent again in the very event that brings the other.
    monkeypatch.setattr(queue.store, "add_batches", raising(ExecutionError("the disk is full")))
    with pytest.raises(ExecutionError, match="the disk is full"):
        spawn_at_once(queue)
    assert queue.of(busy).batches[-1].again
    queue.answer(busy, (OK, b"done"))
    assert queue.told[queue.call("fc-2").number] == {0: (OK, b"done")}
