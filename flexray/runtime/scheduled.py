"""Runs a function by its schedule: the controller spawns it, as any caller could.

One rule: the call is named by its tick, so asking again after a restart is the same call.
"""

from __future__ import annotations

import asyncio
import hashlib

from flexray.core.status import SpawnedCall
from flexray.errors import ExecutionError
from flexray.runtime.head import find_call_queue
from flexray.runtime.wire import Added, PoolSpec, encode
from flexray.serialization import pack_lasting_call


async def spawn_scheduled(spec: PoolSpec, tick: float) -> None:
    """Have the call queue keep one call without arguments; returns when it is on the disk.

    Raises:
        RayError: The call queue is away.
        ExecutionError: It cannot start, or cannot write.
    """
    queue = await asyncio.get_running_loop().run_in_executor(None, find_call_queue)
    call = SpawnedCall(call_id_of(spec.pool_id, tick), spec.function_name, is_whole=True, parent=None)
    request = (spec.pool_id, call, 0, [pack_lasting_call((), {})])
    added: Added = await queue.add.remote(*request)
    while not added.is_known:
        await queue.open_pool.remote(spec.pool_id, encode((spec.config, None)))
        added = await queue.add.remote(*request)
    if not added.accepted:
        raise ExecutionError(
            f"{spec.function_name} has {added.waiting:,} of {added.limit:,} spawned inputs waiting",
            "raise limits=flexray.Limits(spawn_pending=...), or let it run less often",
        )


def call_id_of(pool_id: str, tick: float) -> str:
    """The id of the call that a tick makes."""
    return "fc-" + hashlib.sha256(f"{pool_id} {tick!r}".encode()).hexdigest()[:24]
