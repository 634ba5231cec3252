"""Who is told of which outcomes; how inputs run is in test_spawned.py."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from flexray.context import POSITIONS
from flexray.core.status import OK, Kept, SpawnedCall
from flexray.errors import ExecutionError
from flexray.runtime import callqueue
from flexray.runtime.callqueue import CallQueue
from flexray.runtime.callstore import Call
from flexray.runtime.spawned import SentAtOnce
from tests.waiting import wait_until

R = TypeVar("R")


class Queue(CallQueue):
    """A call queue in which nothing runs: the test writes outcomes."""

    def __init__(self) -> None:
        super().__init__()
        self.number = self.write(lambda: self._store.add_pool("a/f", b"record"))
        config = SimpleNamespace(at_most_once=False)
        self._pools[self.number] = SimpleNamespace(pool_id="a/f", config=config, is_short=False)  # type: ignore[assignment]

    async def _start(self) -> None:
        self._started.set()

    def write(self, operation: Callable[[], R]) -> R:
        return self._writer.submit(operation).result(10)

    def ask(self, coroutine: Coroutine[Any, Any, R]) -> Future[R]:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def spawn(self, call_id: str, inputs: int, *, closed: bool = True) -> Call:
        def write() -> Call:
            call = self._store.add_call(SpawnedCall(call_id, "f", True, None), self.number, 1.0)
            self._store.add_inputs(call, 0, [b"x"] * inputs)
            if closed:
                self._store.close_call(call, 1.0)
            return call

        return self.write(write)

    def keep(self, call: Call, position: int) -> None:
        outcomes = [(call.number * POSITIONS + position, OK, b"%d" % position)]
        self.write(lambda: self._store.settle(outcomes, 2.0))

    def settle(self, call: Call, position: int) -> None:
        """The outcome is on the disk, and those who listen are told."""
        self.keep(call, position)
        self._tell_soon({call.number: {position: (OK, b"%d" % position)}})

    def look(self, call: Call, position: int, listener: str | None = "p") -> list[tuple[int, Any]]:
        """What `outcomes` finds."""
        return self.ask(self.outcomes(call.id, position, 1, listener)).result(10)[1]

    def listen(self, listener: str = "p") -> Future[Any]:
        return self.ask(self.news(listener, self._incarnation))


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    monkeypatch.setattr(callqueue, "state_file", lambda *_: tmp_path / "calls.sqlite")
    monkeypatch.setattr(callqueue, "cluster_id", lambda: "cluster")
    queue = Queue()
    yield queue
    for parked in list(queue._parked.values()):
        queue.loop.call_soon_threadsafe(callqueue._release, parked)
    queue.loop.call_soon_threadsafe(queue.loop.stop)
    wait_until(lambda: not queue.loop.is_running())
    queue.loop.close()


def test_whoever_finds_nothing_is_told_of_what_it_looked_for_and_of_nothing_else(queue: Queue) -> None:
    call, other = queue.spawn("fc-1", 3), queue.spawn("fc-2", 1)
    assert queue.look(call, 1) == queue.look(other, 0) == []
    told = queue.listen()
    queue.settle(call, 0)
    queue.settle(call, 1)
    assert told.result(10) == [("fc-1", 1)]
    assert queue.look(call, 1) == [(OK, b"1")]
    queue.settle(other, 0)
    assert queue.listen().result(10) == [("fc-2", 0)], "kept until it is asked for"
    assert queue._listeners.is_empty


def test_whoever_finds_it_at_the_second_look_ends_nobody_elses_waiting(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = queue.spawn("fc-1", 6)
    assert queue.look(call, 5) == []
    looked = queue._look

    async def look(call_id: str, first: int, limit: int) -> Any:
        found = await looked(call_id, first, limit)
        await asyncio.to_thread(queue.keep, call, first)  # Written, and not told yet.
        return found

    monkeypatch.setattr(queue, "_look", look)
    assert queue.look(call, 3) == [(OK, b"3")]
    monkeypatch.setattr(queue, "_look", looked)
    queue.settle(call, 3)
    queue.settle(call, 5)
    told: set[tuple[str, int]] = set()
    while ("fc-1", 5) not in told:
        told.update(queue.listen().result(10))
    assert told == {("fc-1", 3), ("fc-1", 5)}


def test_a_call_that_ends_is_news_of_all_its_inputs(queue: Queue) -> None:
    call = queue.spawn("fc-1", 2, closed=False)
    assert queue.look(call, 0) == queue.look(call, 7) == []
    told = queue.listen()
    queue.ask(queue.close("fc-1")).result(10)
    assert set(told.result(10)) == {("fc-1", 0), ("fc-1", 7)}


def test_nobody_listens_for_what_will_never_be(queue: Queue) -> None:
    call = queue.spawn("fc-1", 2)
    assert queue.look(call, 2) == []
    assert queue._listeners.is_empty


def test_a_look_without_a_listener_leaves_nothing(queue: Queue) -> None:
    assert queue.look(queue.spawn("fc-1", 1), 0, listener=None) == []
    assert queue._listeners.is_empty


def test_whoever_listened_to_an_earlier_process_or_is_forgotten_must_look_again(queue: Queue) -> None:
    call = queue.spawn("fc-1", 1)
    assert queue.listen().result(10) is None
    queue.look(call, 0)
    assert queue.ask(queue.news("p", "earlier")).result(10) is None
    queue.loop.call_soon_threadsafe(queue._listeners.forget, time.monotonic() + 1.0)
    assert queue.listen().result(10) is None
    assert queue._listeners.is_empty


def test_a_newer_request_for_news_takes_the_place_of_an_older_one(queue: Queue) -> None:
    call = queue.spawn("fc-1", 1)
    queue.look(call, 0)
    older = queue.listen()
    wait_until(lambda: "p" in queue._parked)
    newer = queue.listen()
    assert older.result(10) == []
    queue.settle(call, 0)
    assert newer.result(10) == [("fc-1", 0)]


def test_where_many_listen_none_holds_a_thread_for_long(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callqueue, "PARKED_THREADS", 6)
    monkeypatch.setattr(callqueue, "LISTEN_CROWDED_S", 0.01)
    call = queue.spawn("fc-1", 1)
    for name in "abc":
        queue.look(call, 0, listener=name)
    quiet = [queue.listen(name) for name in "ab"]
    wait_until(lambda: queue._parked.keys() == {"a", "b"})
    assert queue.listen("c").result(10) == []
    assert not any(one.done() for one in quiet)
    queue.settle(call, 0)
    assert [one.result(10) for one in quiet] == [[("fc-1", 0)]] * 2


def test_a_get_that_comes_right_after_the_spawn_waits_a_moment_and_leaves_nothing(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callqueue, "GET_SOON_S", 10.0)  # However busy this machine is.
    queue._pools[queue.number].is_short = True  # type: ignore[misc]
    call = queue.spawn("fc-1", 1)._replace(created_at=time.time(), size=1, added=1)
    queue.loop.call_soon_threadsafe(queue._note_fresh, call)
    looking = queue.ask(queue.outcomes(call.id, 0, 1, "p"))
    queue.settle(call, 0)
    assert looking.result(10)[1] == [(OK, b"0")]
    assert queue._listeners.is_empty


def test_a_get_of_what_does_not_end_soon_is_told_later(queue: Queue) -> None:
    queue._pools[queue.number].is_short = True  # type: ignore[misc]
    call = queue.spawn("fc-1", 1)._replace(created_at=time.time(), size=1, added=1)
    queue.loop.call_soon_threadsafe(queue._note_fresh, call)
    assert queue.look(call, 0) == []
    queue.settle(call, 0)
    assert queue.listen().result(10) == [("fc-1", 0)]
    assert queue.look(call, 0) == [(OK, b"0")]


class Pool:
    """A pool with a free slot, whose answer comes when the test says so."""

    pool_id, is_short, waiting, is_gone = "a/f", True, 0, False
    config = SimpleNamespace(limits=SimpleNamespace(spawn_pending=10))

    def __init__(self, queue: Queue, answer: Callable[[Call], None]) -> None:
        self.queue = queue
        self.answer = answer
        self.later = 0

    def spawn_at_once(self, spawned: SpawnedCall, _: bytes) -> SentAtOnce:
        return SentAtOnce(self.queue.spawn(spawned.call_id, 1))

    def is_open(self, _: Call) -> bool:
        return True

    def take_soon(self, sent: SentAtOnce, wait_s: float) -> None:
        assert 0 <= wait_s <= callqueue.SOON_S
        self.answer(sent.call)

    def take_later(self, _: SentAtOnce) -> None:
        self.later += 1


def add_at_once(queue: Queue, answer: Callable[[Call], None], call_id: str = "fc-1") -> tuple[Pool, Kept]:
    pool = Pool(queue, answer)
    queue._pool_of["a/f"] = pool  # type: ignore[assignment]
    wait_until(queue._started.is_set)  # Until then nothing is added at once.
    queue._dispatcher = SimpleNamespace(borrowed=lambda: contextlib.nullcontext(True))  # type: ignore[assignment]
    return pool, queue.add("a/f", SpawnedCall(call_id, "f", True, None), 0, [b"x"])


def test_what_is_over_soon_is_acknowledged_with_its_outcome(queue: Queue) -> None:
    pool, kept = add_at_once(queue, lambda call: queue.settle(call, 0))
    assert (kept.accepted, kept.over, pool.later) == (1, (OK, b"0"), 0)
    assert not queue._told_at_once


def test_a_large_outcome_is_not_carried_along(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callqueue, "FRESH_BYTES", 0)
    _, kept = add_at_once(queue, lambda call: queue.settle(call, 0))
    assert (kept.accepted, kept.over) == (1, None)


def test_what_is_not_over_soon_is_waited_for_every_other_time(queue: Queue) -> None:
    waited: list[Call] = []
    for number in range(4):
        pool, kept = add_at_once(queue, waited.append, f"fc-{number}")
        assert (kept.accepted, kept.over) == (1, None)
        assert (len(waited), pool.later) == [(1, 0), (1, 1), (2, 0), (2, 1)][number]


def test_what_was_sent_is_kept_whatever_becomes_of_its_answer(queue: Queue) -> None:
    def fail(_: Call) -> None:
        raise ValueError("not a Ray error")

    pool, kept = add_at_once(queue, fail)
    assert (kept.accepted, kept.over, pool.later) == (1, None, 1)
    assert not queue._told_at_once


def test_requests_of_a_queue_that_cannot_go_on_end_together(queue: Queue) -> None:
    queue._started.clear()
    queue._failure = ExecutionError("the disk is full")
    queue._ready_by -= callqueue.READY_S - 0.2
    threads = [threading.Thread(target=lambda: errors.append(error_of(queue))) for _ in range(5)]
    errors: list[str] = []
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert len(errors) == 5
    assert "the disk is full" in error_of(queue)


def error_of(queue: Queue) -> str:
    with pytest.raises(ExecutionError) as caught:
        queue.ask(queue.info("fc-1")).result(10)
    return str(caught.value)
