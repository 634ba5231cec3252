from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flexray.runtime.dispatcher import Dispatcher
from flexray.runtime.listening import Listener
from flexray.runtime.wire import decode, encode

NOW = "an incarnation"


class Queue:
    """A call queue that answers when the test says so, and the dispatcher that follows it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.takes: list[Callable[[Any], None]] = []
        self.news = SimpleNamespace(remote=self._asked)
        self.fails: Exception | None = None

    def _asked(self, request: bytes) -> None:
        if self.fails is not None:
            raise self.fails
        self.asked.append(decode(request))

    def follow(self, _: Any, take: Callable[[Any], None]) -> None:
        self.takes.append(take)

    def answer(self, told: list[tuple[str, int]] | None) -> None:
        self.takes.pop(0)(encode(told))

    def fail(self) -> None:
        self.takes.pop(0)(RuntimeError("it has died"))


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
def listener(queue: Queue) -> Listener:
    return Listener(cast(Dispatcher, queue))


def waiting(listener: Listener, *keys: tuple[str, int]) -> list[tuple[str, int]]:
    """What has been woken, as it is."""
    woken: list[tuple[str, int]] = []
    for key in keys:
        listener.begin(*key, lambda key=key: woken.append(key))  # type: ignore[misc]
    return woken


def test_one_request_waits_for_all(queue: Queue, listener: Listener) -> None:
    woken = waiting(listener, ("a", 0), ("a", 1), ("b", 0), ("a", 0))
    for _ in range(3):
        listener.ask(queue, NOW)
    assert queue.asked == [(listener.name, NOW)]
    queue.answer([("a", 0)])
    assert woken == [("a", 0)] * 2
    assert len(queue.asked) == 2, "others wait"


def test_news_that_nobody_waits_for_wakes_nobody_and_nothing_more_is_asked(
    queue: Queue, listener: Listener
) -> None:
    woken: list[str] = []

    def wake() -> None:
        woken.append("a")

    listener.begin("a", 0, wake)
    listener.ask(queue, NOW)
    listener.end("a", 0, wake)
    listener.end("a", 0, wake)  # Again is fine.
    queue.answer([("a", 0), ("b", 0)])
    assert (woken, len(queue.asked)) == ([], 1)
    listener.ask(queue, NOW)
    assert len(queue.asked) == 1


@pytest.mark.parametrize("tell", [lambda queue: queue.answer(None), Queue.fail])
def test_all_look_again_where_the_queue_knows_nothing_of_them(
    queue: Queue, listener: Listener, tell: Callable[[Queue], None]
) -> None:
    woken = waiting(listener, ("a", 0), ("b", 0))
    listener.ask(queue, NOW)
    tell(queue)
    assert woken == [("a", 0), ("b", 0)]
    assert len(queue.asked) == 1, "they ask when they have looked"
    listener.ask(queue, NOW)
    assert len(queue.asked) == 2


def test_whoever_listened_to_an_earlier_process_learns_it_though_a_later_one_is_asked(
    queue: Queue, listener: Listener
) -> None:
    woken = waiting(listener, ("a", 0), ("b", 0))
    listener.ask(queue, "later")
    listener.ask(queue, NOW)
    assert [incarnation for _, incarnation in queue.asked] == ["later", NOW]
    queue.takes.reverse()
    queue.answer(None)
    assert woken == [("a", 0), ("b", 0)]


def test_no_news_for_a_while_is_asked_again(queue: Queue, listener: Listener) -> None:
    woken = waiting(listener, ("a", 0))
    listener.ask(queue, NOW)
    queue.answer([])
    assert (woken, len(queue.asked)) == ([], 2)


def test_a_queue_that_cannot_be_asked_is_asked_by_the_next(queue: Queue, listener: Listener) -> None:
    waiting(listener, ("a", 0))
    queue.fails = ValueError("Ray was shut down")
    with pytest.raises(ValueError, match="shut down"):
        listener.ask(queue, NOW)
    queue.fails = None
    listener.ask(queue, NOW)
    assert len(queue.asked) == 1
