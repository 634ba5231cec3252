"""How a process waits for the outcomes of spawned inputs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from flexray.errors import ExecutionError
from flexray.runtime import session
from flexray.runtime.session import Session

OPEN = (SimpleNamespace(size=1), [], "an incarnation")
OVER = (SimpleNamespace(size=1), [(0, b"x")], "an incarnation")


class Listener:
    """Wakes when the test says so."""

    name = "p"

    def __init__(self) -> None:
        self.wakes: list[Any] = []
        self.asked = 0
        self.when_asked: Callable[[], object] = lambda: None

    def begin(self, _: str, __: int, wake: Any) -> None:
        self.wakes.append(wake)

    def end(self, _: str, __: int, wake: Any) -> None:
        self.wakes.remove(wake)

    def ask(self, _: Any, __: str) -> None:
        self.asked += 1
        self.when_asked()

    def wake(self) -> None:
        for wake in list(self.wakes):
            wake()


class Waiting(Session):
    """A session whose queue says what the test wants, look by look."""

    def __init__(self, *looks: Any) -> None:
        self.looks = list(looks)
        self.listener = Listener()
        self._listener = self.listener  # type: ignore[assignment]
        self._queue = object()
        self._connection = session.connection()

    def ask_queue(self, *_: Any) -> Any:
        look = self.looks.pop(0)
        return look() if callable(look) else look

    async def ask_queue_async(self, *args: Any) -> Any:
        return self.ask_queue(*args)


@pytest.fixture(autouse=True)
def connected(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = object()
    monkeypatch.setattr(session, "connection", lambda: connection)


def test_whoever_is_woken_looks_again() -> None:
    waiting = Waiting(OPEN, OVER)
    waiting.listener.when_asked = waiting.listener.wake
    assert waiting.outcomes("fc-1", 0, 1, 30.0) == OVER[:2]
    assert not waiting.listener.wakes


def test_time_that_is_up_ends_with_a_look() -> None:
    assert Waiting(OPEN, OVER).outcomes("fc-1", 0, 1, 0.01) == OVER[:2]
    assert Waiting(OPEN, OPEN).outcomes("fc-1", 0, 1, 0.01) == OPEN[:2]
    assert asyncio.run(Waiting(OPEN, OVER).outcomes_async("fc-1", 0, 1, 0.01)) == OVER[:2]


def test_a_look_without_time_does_not_wait() -> None:
    waiting = Waiting(OPEN)
    assert waiting.outcomes("fc-1", 0, 1, 0.0) == OPEN[:2]
    assert not waiting.listener.asked


@pytest.mark.parametrize(
    "get",
    [
        lambda waiting: waiting.outcomes("fc-1", 0, 1, 30.0),
        lambda waiting: asyncio.run(waiting.outcomes_async("fc-1", 0, 1, 30.0)),
    ],
)
def test_nothing_is_asked_of_ray_once_it_was_shut_down(get: Callable[[Waiting], Any]) -> None:
    def shut_down() -> Any:
        waiting._connection = None
        return OPEN

    waiting = Waiting(shut_down)
    with pytest.raises(ExecutionError, match="shut down"):
        get(waiting)
    assert not waiting.listener.asked
    assert not waiting.listener.wakes


@pytest.mark.parametrize("turns", range(4))
def test_a_cancellation_that_comes_with_news_is_not_lost(turns: int) -> None:
    async def main() -> None:
        waiting = Waiting(OPEN, OPEN, OPEN)
        asked = asyncio.Event()
        waiting.listener.when_asked = asked.set
        task = asyncio.ensure_future(waiting.outcomes_async("fc-1", 0, 1, 30.0))
        await asked.wait()
        await asyncio.sleep(0)  # It waits.
        waiting.listener.wake()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)
        assert task.cancelled()
        assert not waiting.listener.wakes

    asyncio.run(main())
