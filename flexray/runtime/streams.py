"""Results that a generator gives one by one, on their way from where they are made to who reads them.

One rule: a result is kept until the reader says that it has it, and the generator is at most 16 ahead.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from flexray.core.status import BatchKey
from flexray.runtime.parking import WAIT, Wake, until, until_async

AHEAD_MAX = 16
GATHER_S = 0.0005
"""A reader that finds few results waits so long for more: a message costs more than that."""
FINISHED_KEPT = 256
"""Streams that are over, kept for a reader whose answer was lost."""

StreamKey = tuple[BatchKey, int]
Results = tuple[list[Any], bool]
"""Some results, and whether they are the last."""


class Stream:
    """The results of one input. One producer and one reader, each on a thread or on a loop of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: deque[Any] = deque()
        self._received = 0
        """How many results the reader has."""
        self._parked: list[Wake] = []
        self.closed = False
        """Nobody reads any more."""
        self._over = False
        self._all_read = False

    def put(self, item: Any) -> bool:
        """Add a result; blocks while 16 are not read. False: nobody wants more."""
        return bool(until(lambda wake: self._try_put(item, wake)))

    async def put_async(self, item: Any) -> bool:
        """The same for a coroutine."""
        return bool(await until_async(lambda wake: self._try_put(item, wake)))

    def _try_put(self, item: Any, wake: Wake) -> Any:
        with self._lock:
            if self.closed:
                return False
            if len(self._items) >= AHEAD_MAX:
                self._parked.append(wake)
                return WAIT
            self._items.append(item)
            if len(self._items) == 1 or len(self._items) >= AHEAD_MAX:
                self._wake()
            return True

    def wait_until_read(self) -> bool:
        """Until the reader has the last result, for an idle container may end. False: nobody reads."""
        return bool(until(self._try_end))

    async def wait_until_read_async(self) -> bool:
        """The same for a coroutine."""
        return bool(await until_async(self._try_end))

    def _try_end(self, wake: Wake) -> Any:
        with self._lock:
            if self.closed or self._all_read:
                return not self.closed
            self._parked.append(wake)
            return WAIT

    def finish(self) -> None:
        """No result follows."""
        with self._lock:
            self._over = True
            self._wake()

    def close(self) -> None:
        """Nobody reads any more: the generator is to end."""
        with self._lock:
            self.closed = True
            self._items.clear()
            self._wake()

    def read(self, received: int, wake: Wake) -> Any:
        """The `Results` after the first `received`; WAIT while there are none.

        Where there are few (`is_few`), whoever reads waits for `GATHER_S` and reads again.
        """
        with self._lock:
            while self._received < received and self._items:
                self._items.popleft()
                self._received += 1
            self._wake()
            ended = self._over or self.closed
            if ended and not self._all_read:
                self._all_read = True
                self._wake()
            if self._items or ended:
                return list(self._items), ended
            self._parked.append(wake)
            return WAIT

    def _wake(self) -> None:
        parked, self._parked = self._parked, []
        for wake in parked:
            wake()


def is_few(results: Results) -> bool:
    """More may come in a moment."""
    items, ended = results
    return not ended and len(items) < AHEAD_MAX


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
