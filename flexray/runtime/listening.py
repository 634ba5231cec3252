"""What this process waits for at the call queue: one parked request for all of it.

One rule: whoever waits listens first and looks then, so that no news falls in between; and is woken rather
once too often, for it looks again.
"""

from __future__ import annotations

import secrets
import threading
from functools import partial
from typing import Any

from flexray.runtime.dispatcher import Dispatcher
from flexray.runtime.parking import Wake
from flexray.runtime.wire import decode, encode


class Listener:
    """Any thread may call it."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.name = secrets.token_hex(8)
        """Its identity at the call queue."""
        self._dispatcher = dispatcher
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, int], list[Wake]] = {}
        """By (call, position), who waits for that outcome."""
        self._asked: set[str] = set()
        """Incarnations of the queue that are being asked."""

    def begin(self, call_id: str, position: int, wake: Wake) -> None:
        """From now on `wake` is called when there may be news of that input, from another thread."""
        with self._lock:
            self._waiting.setdefault((call_id, position), []).append(wake)

    def end(self, call_id: str, position: int, wake: Wake) -> None:
        """It is not called any more."""
        with self._lock:
            wakes = self._waiting.get((call_id, position), [])
            if wake in wakes:
                wakes.remove(wake)
            if not wakes:
                self._waiting.pop((call_id, position), None)

    def ask(self, queue: Any, incarnation: str) -> None:
        """See that the queue is being asked for news: the one that was told to what this process listens."""
        with self._lock:
            if incarnation in self._asked or not self._waiting:
                return
            self._asked.add(incarnation)
        try:
            asked = queue.news.remote(encode((self.name, incarnation)))
        except BaseException:
            self._asked.discard(incarnation)
            raise
        self._dispatcher.follow(asked, partial(self._take, queue, incarnation))

    def wake_all(self) -> None:
        """Nothing is known of what they wait for: all look themselves."""
        with self._lock:
            wakes = [wake for of_one in self._waiting.values() for wake in of_one]
        for wake in wakes:
            wake()

    def _take(self, queue: Any, incarnation: str, result: Any) -> None:
        self._asked.discard(incarnation)
        told: list[tuple[str, int]] | None = None if isinstance(result, BaseException) else decode(result)
        if told is None:
            self.wake_all()
            return
        with self._lock:
            wakes = [wake for one in told for wake in self._waiting.get(one, ())]
        for wake in wakes:
            wake()
        self.ask(queue, incarnation)
