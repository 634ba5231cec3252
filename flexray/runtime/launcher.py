"""Makes and ends the actors that are containers.

One rule: what waits for Ray's head happens on a thread of its own, one by one; and pools take turns, so that
one that wants hundreds does not hold up one that wants one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray

from flexray.errors import ExecutionError
from flexray.runtime import roster
from flexray.runtime.actors import ACTORS, actor_class
from flexray.runtime.nodetypes import known_nodes
from flexray.runtime.placement import actor_options, gpu_choice, hidden_gpus
from flexray.runtime.roster import Listed
from flexray.runtime.wire import NAMESPACE, PoolSpec

Handle = Any
"""A Ray actor handle; Ray has no type for one that mypy could use."""
Turn = asyncio.Future[None]


class Launcher:
    """Starts containers one after another, off the event loop on which it is used."""

    def __init__(self, use_number: Callable[[str, int], None]) -> None:
        self._use_number = use_number
        """Called with a pool and the number of a container of it, before that is started."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="flexray-launcher")
        self._thread.submit(_export)
        # Hundreds may die at once, with a node, and those that take their places need not wait for this.
        self._forgetting = ThreadPoolExecutor(1, thread_name_prefix="flexray-roster")
        self._turns: dict[str, deque[Turn]] = {}
        """By pool, the launches that wait; the pool whose turn it is comes first."""
        self._is_busy = False

    async def start(self, container_id: str, spec: PoolSpec, spec_data: bytes, slots: int) -> Listed:
        """A new container; Ray may place it whenever it can.

        Raises:
            ExecutionError: Its number or its handle cannot be kept.
        """
        await self._turn(spec.pool_id)
        try:
            self._use_number(spec.pool_id, int(container_id.rpartition("#")[2]))
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, _create, container_id, spec, spec_data, slots)
        finally:
            self._is_busy = False
            self._next()

    async def kill(self, handle: Handle) -> None:
        """End it now; withdraws its demand where Ray has not placed it."""
        await asyncio.get_running_loop().run_in_executor(self._thread, ray.kill, handle)

    async def forget(self, container_id: str) -> None:
        """It is dead: nobody need find it."""
        await asyncio.get_running_loop().run_in_executor(self._forgetting, roster.drop, container_id)

    async def _turn(self, pool_id: str) -> None:
        turn: Turn = asyncio.get_running_loop().create_future()
        self._turns.setdefault(pool_id, deque()).append(turn)
        self._next()
        await turn

    def _next(self) -> None:
        """Let one go on: of the pool that has waited longest since its last turn."""
        if self._is_busy or not self._turns:
            return
        pool_id = next(iter(self._turns))
        turns = self._turns.pop(pool_id)
        self._is_busy = True
        turns.popleft().set_result(None)
        if turns:
            self._turns[pool_id] = turns


def _export() -> None:
    """Hand the actor classes to Ray now, so that the first container need not wait 0.2 s for it.

    Ray does it by itself at the first creation and has no public call for it.
    """
    with contextlib.suppress(Exception):
        from ray._private.worker import global_worker  # noqa: PLC0415  # May move in a later Ray.

        manager: Any = global_worker.function_actor_manager
        for actor in ACTORS:
            meta = actor.__ray_metadata__
            manager.export_actor_class(
                meta.modified_class, meta.actor_creation_function_descriptor, meta.method_meta.methods.keys()
            )
            meta.last_export_cluster_and_job = global_worker.current_cluster_and_job


def _create(container_id: str, spec: PoolSpec, spec_data: bytes, slots: int) -> Listed:
    resources = spec.config.resources
    nodes = known_nodes() if resources.gpu else ()
    options: Mapping[str, Any] = actor_options(resources, nodes)
    if spec.runtime_env:
        options = {**options, "runtime_env": spec.runtime_env}
    actor, max_concurrency = actor_class(slots)
    container = actor.options(
        namespace=NAMESPACE,
        lifetime="detached",
        max_concurrency=max_concurrency,
        enable_task_events=False,
        **options,
    )
    handle = container.remote(container_id, spec_data, slots, hide_gpus=hidden_gpus(resources))
    made = Listed(handle, gpu_choice(resources, nodes))
    try:
        roster.add(container_id, made)
    except Exception as error:
        ray.kill(handle)
        raise ExecutionError(f"Ray's head does not keep its handle: {error}") from error
    return made
