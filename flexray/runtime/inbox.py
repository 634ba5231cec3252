"""A place to which anything may be given at any moment, in the middle of anything.

One rule: giving never waits. A finalizer that prints runs wherever the collector happens to run, also on a
thread that has any lock one could name; what it gives is taken in by whoever has this one, or by itself.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Inbox(Generic[T]):
    """Gives each item to `take`, one at a time, in the order in which they came."""

    def __init__(self, take: Callable[[T], None]) -> None:
        self._take = take
        self._items: deque[T] = deque()
        self._lock = threading.Lock()

    def put(self, item: T) -> None:
        """Have it taken in, by this thread where nobody else does so now."""
        self._items.append(item)
        self._work()

    @contextmanager
    def held(self) -> Iterator[None]:
        """All that has come is taken in, and nothing is meanwhile. Not for finalizers: it waits."""
        try:
            with self._lock:
                self._take_all()
                yield
        finally:
            self._work()

    def _work(self) -> None:
        while self._items and self._lock.acquire(blocking=False):
            try:
                self._take_all()
            finally:
                self._lock.release()

    def _take_all(self) -> None:
        while True:
            try:
                item = self._items.popleft()
            except IndexError:
                return
            self._take(item)
