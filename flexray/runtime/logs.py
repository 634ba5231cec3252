"""The logs of deployed apps: one detached actor on the head node, started when the first line is printed.

One rule: containers wait until what they printed is on the disk, and readers until there is something new.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from flexray.errors import ExecutionError
from flexray.runtime.database import state_file
from flexray.runtime.groupcommit import GroupCommit
from flexray.runtime.head import cluster_id
from flexray.runtime.logstore import KEPT_S, LogStore, Printed, Wanted

WAIT_S = 10.0
"""A reader that follows is answered after so long, whatever has come."""
SWEEP_EVERY_S = 3600.0


class Logs:
    """See the module. Its public methods are what others may ask: `faces.Logs` names them."""

    def __init__(self) -> None:
        self._store = LogStore(state_file(cluster_id(), "logs"))
        self._writer = GroupCommit(self._store)
        self._changed = asyncio.Event()
        self._sweeping = asyncio.get_event_loop().create_task(self._sweep())

    async def add(self, lines: list[Printed]) -> None:
        """Keep these lines; returns when they are on the disk."""
        await asyncio.wrap_future(self._writer.submit(lambda: self._store.add(lines)))
        self._changed.set()
        self._changed = asyncio.Event()

    async def newest(self, wanted: tuple[Any, ...], limit: int) -> list[tuple[int, Printed]]:
        """See `LogStore`."""
        return await asyncio.to_thread(self._store.newest, Wanted(*wanted), limit)

    async def after(self, wanted: tuple[Any, ...], number: int, limit: int) -> list[tuple[int, Printed]]:
        """See `LogStore`; waits for the first of them for a while."""
        until = time.monotonic() + WAIT_S
        while True:
            changed = self._changed
            lines = await asyncio.to_thread(self._store.after, Wanted(*wanted), number, limit)
            left_s = until - time.monotonic()
            if lines or left_s <= 0:
                return lines
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), left_s)

    async def apps(self) -> list[str]:
        """Of which something is kept."""
        return await asyncio.to_thread(self._store.apps)

    async def _sweep(self) -> None:
        while True:
            with contextlib.suppress(ExecutionError):  # The disk is full, say: the next time, then.
                await asyncio.wrap_future(
                    self._writer.submit(lambda: self._store.drop_before(time.time() - KEPT_S))
                )
            await asyncio.sleep(SWEEP_EVERY_S)
