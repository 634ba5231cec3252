"""What this process waits for at the call queue: one parked request for all of it.

One rule: whoever waits listens first and looks then, so that no news falls in between; and is woken rather
once too often, for it looks again.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from flexray.runtime.dispatcher import Dispatcher
from flexray.runtime.parking import Wake
from flexray.runtime.wire import decode, encode


class Listener:
    """Any thread may call it."""

    def __init__(self, dispatcher: Dispatcher, find_queue: Callable[[], Any]) -> None:
        self.name = secrets.token_hex(8)
        """Its identity at the call queue."""
        self._dispatcher = dispatcher
        self._find_queue = find_queue
        self._lock = threading.Lock()
        self._waiting: dict[str, list[Wake]] = {}
        """By the id of a call, who waits for news of it."""
        self._is_asking = False

    def begin(self, call_id: str, wake: Wake) -> None:
        """From now on `wake` is called when there may be news of that call, from another thread."""
        with self._lock:
            self._waiting.setdefault(call_id, []).append(wake)

    def end(self, call_id: str, wake: Wake) -> None:
        """It is not called any more."""
        with self._lock:
            wakes = self._waiting.get(call_id, [])
            if wake in wakes:
                wakes.remove(wake)
            if not wakes:
                self._waiting.pop(call_id, None)

    def ask(self) -> None:
        """See that the queue is being asked for news; it must have been told to what this process listens."""
        self._ask(self._find_queue())

    def wake_all(self) -> None:
        """Nothing will be told any more: whoever waits sees why."""
        with self._lock:
            wakes = [wake for of_call in self._waiting.values() for wake in of_call]
        for wake in wakes:
            wake()

    def _ask(self, queue: Any) -> None:
        with self._lock:
            if self._is_asking or not self._waiting:
                return
            self._is_asking = True
        try:
            asked = queue.news.remote(encode((self.name,)))
        except BaseException:
            self._is_asking = False
            raise
        self._dispatcher.follow(asked, partial(self._take, queue))

    def _take(self, queue: Any, result: Any) -> None:
        """Wake those of whose calls there is news; all, where nothing is known of it: they look again."""
        told: list[str] | None = None if isinstance(result, BaseException) else decode(result)
        self._is_asking = False
        if told is None:
            self.wake_all()
            return
        with self._lock:
            wakes = [wake for call_id in told for wake in self._waiting.get(call_id, ())]
        for wake in wakes:
            wake()
        self._ask(queue)
