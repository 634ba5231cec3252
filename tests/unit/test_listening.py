from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flexray.runtime.dispatcher import Dispatcher
from flexray.runtime.listening import Listener
from flexray.runtime.wire import decode, encode


class Queue:
    """A call queue that answers when the test says so, and the dispatcher that follows it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.takes: list[Callable[[Any], None]] = []
        self.news = SimpleNamespace(remote=self._asked)
        self.fails: Exception | None = None

    def _asked(self, request: bytes) -> None:
        if self.fails is not None:
            raise self.fails
        self.asked += decode(request)

    def follow(self, _: Any, take: Callable[[Any], None]) -> None:
        self.takes.append(take)

    def answer(self, told: list[str] | None) -> None:
        self.takes.pop()(encode(told))

    def fail(self) -> None:
        self.takes.pop()(RuntimeError("it has died"))


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
def listener(queue: Queue) -> Listener:
    return Listener(cast(Dispatcher, queue), lambda: queue)


def waiting(listener: Listener, *call_ids: str) -> list[str]:
    """What has been woken, as it is."""
    woken: list[str] = []
    for call_id in call_ids:
        listener.begin(call_id, lambda call_id=call_id: woken.append(call_id))  # type: ignore[misc]
    return woken


def test_one_request_waits_for_all(queue: Queue, listener: Listener) -> None:
    woken = waiting(listener, "a", "b", "a")
    for _ in range(3):
        listener.ask()
    assert queue.asked == [listener.name]
    queue.answer(["a"])
    assert woken == ["a", "a"]
    assert len(queue.asked) == 2, "others wait"


def test_news_that_nobody_waits_for_wakes_nobody_and_nothing_more_is_asked(
    queue: Queue, listener: Listener
) -> None:
    woken: list[str] = []

    def wake() -> None:
        woken.append("a")

    listener.begin("a", wake)
    listener.ask()
    listener.end("a", wake)
    listener.end("a", wake)  # Again is fine.
    queue.answer(["a", "b"])
    assert (woken, len(queue.asked)) == ([], 1)
    listener.ask()
    assert len(queue.asked) == 1


@pytest.mark.parametrize("tell", [lambda queue: queue.answer(None), Queue.fail])
def test_all_look_again_where_the_queue_knows_nothing_of_them(
    queue: Queue, listener: Listener, tell: Callable[[Queue], None]
) -> None:
    woken = waiting(listener, "a", "b")
    listener.ask()
    tell(queue)
    assert woken == ["a", "b"]
    assert len(queue.asked) == 1, "they ask when they have looked"
    listener.ask()
    assert len(queue.asked) == 2


def test_no_news_for_a_while_is_asked_again(queue: Queue, listener: Listener) -> None:
    woken = waiting(listener, "a")
    listener.ask()
    queue.answer([])
    assert (woken, len(queue.asked)) == ([], 2)


def test_a_queue_that_cannot_be_asked_is_asked_by_the_next(queue: Queue, listener: Listener) -> None:
    waiting(listener, "a")
    queue.fails = ValueError("Ray was shut down")
    with pytest.raises(ValueError, match="shut down"):
        listener.ask()
    queue.fails = None
    listener.ask()
    assert len(queue.asked) == 1
