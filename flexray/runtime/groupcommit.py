"""Writes to a database, many at once: whatever comes while one write is under way shares the next.

One rule: an operation is answered after its write is on the disk. One that fails takes none of the others of
its group with it. This module knows no Ray.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from flexray.runtime.database import Database

R = TypeVar("R")
Operation = tuple[Callable[[], Any], Future[Any]]

GROUP_MAX = 1000


class GroupCommit:
    """Runs operations on the database, in the order in which they came. Any thread may call it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pending: deque[Operation] = deque()
        self._writing = threading.Lock()
        self._come = threading.Semaphore(0)
        threading.Thread(target=self._serve, name="flexray-writer", daemon=True).start()

    def submit(self, operation: Callable[[], R]) -> Future[R]:
        """Its result, or what it raised, once it is on the disk; never blocks."""
        future: Future[R] = Future()
        self._pending.append((operation, future))
        self._come.release()
        return future

    def run(self, operation: Callable[[], R]) -> R:
        """The same, waited for; where nobody writes, this thread does, which saves two turns of threads."""
        future: Future[R] = Future()
        self._pending.append((operation, future))
        with self._writing:
            while not future.done():
                self._write_group()
        return future.result()

    def _serve(self) -> None:
        while True:
            self._come.acquire()
            with self._writing:
                self._write_group()

    def _write_group(self) -> None:
        group: list[Operation] = []
        while self._pending and len(group) < GROUP_MAX:
            one = self._pending.popleft()
            if one[1].set_running_or_notify_cancel():  # From here on it cannot be cancelled.
                group.append(one)
        if group:
            self._write(group)

    def _write(self, group: list[Operation]) -> None:
        results: list[Any] = []
        try:
            with self._database.transaction():
                for operation, _ in group:
                    results.append(operation())  # A failure ends the loop.
        except Exception as error:  # noqa: BLE001  # It belongs to whoever asked.
            if len(group) == 1:
                group[0][1].set_exception(error)
                return
            for one in group:
                self._write([one])
            return
        for (_, future), result in zip(group, results, strict=True):
            future.set_result(result)
