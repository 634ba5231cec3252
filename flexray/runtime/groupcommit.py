"""Writes to a database by one thread: whatever comes while one write is under way shares the next.

One rule: an operation is answered after its write is on the disk. One that fails takes none of the others of
its group with it. This module knows no Ray.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from flexray.runtime.database import Database

R = TypeVar("R")
Operation = Callable[[], Any]

GROUP_MAX = 1000


class GroupCommit:
    """Runs operations on the database, in the order in which they came."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queue: SimpleQueue[tuple[Operation, Future[Any]]] = SimpleQueue()
        threading.Thread(target=self._run, name="flexray-writer", daemon=True).start()

    def submit(self, operation: Callable[[], R]) -> Future[R]:
        """Its result, or what it raised, once it is on the disk."""
        future: Future[R] = Future()
        self._queue.put((operation, future))
        return future

    def run(self, operation: Callable[[], R]) -> R:
        """The same, waited for."""
        return self.submit(operation).result()

    def _run(self) -> None:
        while True:
            group = [self._queue.get()]
            while len(group) < GROUP_MAX:
                try:
                    group.append(self._queue.get_nowait())
                except Empty:
                    break
            self._write(group)

    def _write(self, group: list[tuple[Operation, Future[Any]]]) -> None:
        results = []
        try:
            with self._database.transaction():
                for operation, _ in group:
                    results.append(operation())  # What ran before a failure is not kept.
        except Exception as error:  # noqa: BLE001  # It belongs to whoever asked.
            if len(group) == 1:
                group[0][1].set_exception(error)
                return
            for one in group:
                self._write([one])
            return
        for (_, future), result in zip(group, results, strict=True):
            future.set_result(result)
