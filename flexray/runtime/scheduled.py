"""Runs functions by their schedules: the controller spawns them, as any caller could.

One rule: the call is named by its tick, so asking again after a restart is the same call; the tick is noted
after that.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

from ray.exceptions import RayError

from flexray.core.schedules import LATE_S, Due, Schedules
from flexray.core.status import Kept, SpawnedCall
from flexray.errors import ExecutionError
from flexray.runtime.head import find_call_queue
from flexray.runtime.store import Store
from flexray.runtime.wire import PoolSpec, decode, encode
from flexray.serialization import pack_lasting_call

logger = logging.getLogger("flexray")

FIRE_AGAIN_S = 1.0


class Clockwork:
    """The schedules of all apps; lives on the controller's event loop."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self.schedules = Schedules()
        self._store = store
        self._clock = clock
        self._specs: dict[str, PoolSpec] = {}
        self._firing: set[asyncio.Task[None]] = set()

    def start(
        self, specs: Iterable[PoolSpec], since: float, cursors: Mapping[str, float] | None = None
    ) -> None:
        """Run those of the functions that have a schedule: from their last ticks on, or from `since`."""
        for spec in specs:
            if spec.config.schedule is not None:
                self._specs[spec.pool_id] = spec
                self.schedules.set(
                    spec.pool_id, spec.config.schedule, (cursors or {}).get(spec.pool_id, since)
                )

    def stop(self, pool_id: str) -> None:
        """The function is scheduled no more."""
        self._specs.pop(pool_id, None)
        self.schedules.remove(pool_id)

    def run_due(self) -> None:
        """Fire what is due now; what nobody could fire in time is told."""
        for due in self.schedules.due(self._clock()):
            task = asyncio.get_running_loop().create_task(self._take(due))
            self._firing.add(task)
            task.add_done_callback(self._firing.discard)

    async def _take(self, due: Due) -> None:
        try:
            if due.missed:
                self._note_missed(due)
            else:
                await self._fire(due)
        except Exception:
            logger.exception("a tick of %s was lost", due.pool_id)

    async def _fire(self, due: Due) -> None:
        """Spawn the function; the call's id is that of the tick, so whatever happens there is one call."""
        while (spec := self._specs.get(due.pool_id)) is not None:
            try:
                await spawn_scheduled(spec, due.tick)
                self._note_tick(due)
            except (RayError, ExecutionError) as error:
                logger.warning("%s cannot be run by its schedule yet: %s", due.pool_id, error)
            else:
                return
            if self._clock() - due.tick > LATE_S:
                self._note_missed(due)
                return
            await asyncio.sleep(FIRE_AGAIN_S)

    def _note_tick(self, due: Due) -> None:
        """A restart goes on after this tick, or after a later one that was noted before."""
        if due.pool_id in self._specs:
            self._store.save_cursor(due.pool_id, due.tick)

    def _note_missed(self, due: Due) -> None:
        self._note_tick(due)
        at = datetime.fromtimestamp(due.tick, UTC).isoformat(timespec="seconds")
        logger.warning("%s was not run by its schedule at %s: nobody was there to do it", due.pool_id, at)


async def spawn_scheduled(spec: PoolSpec, tick: float) -> None:
    """Have the call queue keep one call without arguments; returns when it is on the disk.

    Raises:
        RayError: The call queue is away.
        ExecutionError: It cannot start, or cannot write.
    """
    queue = await asyncio.get_running_loop().run_in_executor(None, find_call_queue)
    call = SpawnedCall(call_id_of(spec.pool_id, tick), spec.function_name, is_whole=True, parent=None)
    request = (spec.pool_id, call, 0, [pack_lasting_call((), {})])
    added: Kept = decode(await queue.add.remote(encode(request)))
    while not added.is_known:
        await queue.open_pool.remote(encode((spec.pool_id, encode((spec.config, None)))))
        added = decode(await queue.add.remote(encode(request)))
    if not added.accepted:
        raise ExecutionError(
            f"{spec.function_name} has {added.waiting:,} of {added.limit:,} spawned inputs waiting",
            "raise limits=flexray.Limits(spawn_pending=...), or let it run less often",
        )


def call_id_of(pool_id: str, tick: float) -> str:
    """The id of the call that a tick makes."""
    return "fc-" + hashlib.sha256(f"{pool_id} {tick!r}".encode()).hexdigest()[:24]
