"""Waits for what is not ready, on a thread or on an event loop.

One rule: whoever is asked never waits. It answers `WAIT`, and calls the `wake` that it was given once, from
any thread, when it is worth to ask again.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

WAIT: Any = object()
Wake = Callable[[], object]


def until(ask: Callable[[Wake], Any]) -> Any:
    """The answer, as soon as it is another than WAIT; blocks this thread."""
    while True:
        turn = threading.Lock()
        turn.acquire()
        answer = ask(turn.release)
        if answer is not WAIT:
            return answer
        turn.acquire()


async def until_async(ask: Callable[[Wake], Any]) -> Any:
    """The same for a coroutine."""
    loop = asyncio.get_running_loop()
    while True:
        turn: asyncio.Future[None] = loop.create_future()
        answer = ask(_waking(loop, turn))
        if answer is not WAIT:
            return answer
        await turn


def _waking(loop: asyncio.AbstractEventLoop, turn: asyncio.Future[None]) -> Wake:
    return lambda: loop.call_soon_threadsafe(_wake, turn)


def _wake(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
