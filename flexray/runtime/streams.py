"""Results that a generator gives one by one, on their way from where they are made to who reads them.

One rule: a result is kept until the reader says that it has it, and the generator is at most 16 ahead.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import Any

from flexray.core.occupancy import BatchKey

AHEAD_MAX = 16
GATHER_S = 0.0005
"""A reader that finds few results waits so long for more: a message costs more than that."""
FINISHED_KEPT = 256
"""Streams that are over, kept for a reader whose answer was lost."""

StreamKey = tuple[BatchKey, int]
Waiter = tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]


class Stream:
    """The results of one input. One producer, on a thread or a loop; one reader, on another loop."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._items: deque[Any] = deque()
        self._received = 0
        """How many results the reader has."""
        self._waiters: list[Waiter] = []
        self.closed = False
        """Nobody reads any more."""
        self._over = False

    def put(self, item: Any) -> bool:
        """Add a result; blocks while 16 are not read. False: nobody wants more."""
        with self._changed:
            while len(self._items) >= AHEAD_MAX and not self.closed:
                self._changed.wait()
            self._add(item)
            return not self.closed

    async def put_async(self, item: Any) -> bool:
        """The same for a coroutine."""
        while True:
            with self._changed:
                if len(self._items) < AHEAD_MAX or self.closed:
                    self._add(item)
                    return not self.closed
                waiter = self._new_waiter()
            await waiter

    def finish(self) -> None:
        """No result follows."""
        with self._changed:
            self._over = True
            self._wake()

    def close(self) -> None:
        """Nobody reads any more: the generator is to end."""
        with self._changed:
            self.closed = True
            self._items.clear()
            self._wake()

    async def read(self, received: int) -> tuple[list[Any], bool]:
        """The results after the first `received`, as soon as there is one; and whether these are the last."""
        gathered = False
        while True:
            with self._changed:
                while self._received < received and self._items:
                    self._items.popleft()
                    self._received += 1
                self._wake()
                ended = self._over or self.closed
                if ended or len(self._items) >= AHEAD_MAX or (self._items and gathered):
                    return list(self._items), ended
                waiter = None if self._items else self._new_waiter()
            if waiter is None:
                await asyncio.sleep(GATHER_S)
                gathered = True
            else:
                await waiter

    def _add(self, item: Any) -> None:
        if not self.closed:
            self._items.append(item)
            if len(self._items) == 1 or len(self._items) >= AHEAD_MAX:
                self._wake()

    def _new_waiter(self) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiters.append((loop, future))
        return future

    def _wake(self) -> None:
        self._changed.notify_all()
        waiters, self._waiters = self._waiters, []
        for loop, future in waiters:
            loop.call_soon_threadsafe(_set, future)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Streams:
    """The streams of one container. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[StreamKey, Stream] = {}
        self._finished: dict[StreamKey, Stream] = {}

    def open(self, key: StreamKey) -> Stream:
        with self._lock:
            stream = self._open[key] = Stream()
            return stream

    def get(self, key: StreamKey) -> Stream | None:
        """The stream of an input that has begun; None: it has not, or was over long ago."""
        with self._lock:
            return self._open.get(key) or self._finished.get(key)

    def finish(self, key: StreamKey) -> None:
        """No result follows; what is there can still be read."""
        with self._lock:
            stream = self._open.pop(key)
            self._finished[key] = stream
            if len(self._finished) > FINISHED_KEPT:
                del self._finished[next(iter(self._finished))]
        stream.finish()

    def close(self, key: StreamKey) -> bool:
        """Nobody reads this one any more; whether its generator was still at work."""
        with self._lock:
            self._finished.pop(key, None)
            stream = self._open.get(key)
        if stream is not None:
            stream.close()
        return stream is not None
