"""Containers as Ray actors: one on threads, for few slots, and one on event loops, for many.

One rule: a call that has to wait parks on its thread or loop, in a group in which nothing else waits for it:
`run` in the default group, short calls in `control`, those that wait in `parked`.

Ray answers a call on a thread a quarter faster than one on a loop (seen: 0.80 ms, 1.07 ms), but each that
waits needs one, so containers with many slots are on loops.
"""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import ray

from flexray.output import Written
from flexray.runtime.parking import until, until_async
from flexray.runtime.streams import GATHER_S, is_few
from flexray.runtime.wire import LoadAnswer, ResultsMessage, encode_answer

if TYPE_CHECKING:
    from flexray.runtime.container import Bundle

SLOTS_ON_THREADS = 16
"""The most slots of a container on threads."""
RUN_THREADS = 4 * SLOTS_ON_THREADS
"""Two batches per slot, and as many that are sent again where the first answer was lost."""
THREADS = {"control": 4, "parked": 4 * SLOTS_ON_THREADS}
TOGETHER_S = 0.001
"""Where one batch of a bundle is over, its answer waits so long for others: a message costs about as much."""
LOOP_CALLS_MAX = 100_000
"""Calls under way on a loop: no bound that could ever be met."""
CALLS_ON_LOOPS = {"control": LOOP_CALLS_MAX, "parked": LOOP_CALLS_MAX}

_control = ray.method(concurrency_group="control")
_parked = ray.method(concurrency_group="parked")


class _Calls:
    """The calls that are the same in both."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Here, for whoever is given a container's handle imports this module.
        from flexray.runtime.container import BaseContainer  # noqa: PLC0415

        self._container = BaseContainer(*args, **kwargs)

    def __repr__(self) -> str:
        """What Ray shows for it, in its dashboard and before what it prints."""
        return self._container.name

    @_control
    def placed(self) -> str:
        """The id of its node, as soon as there is a process."""
        return str(ray.get_runtime_context().get_node_id())

    @_control
    def reclaim(self, dispatcher_id: str, batch_id: int) -> Any:
        """See `BaseContainer`."""
        return self._container.reclaim(dispatcher_id, batch_id)

    @_control
    def cancel(
        self, dispatcher_id: str, batch_id: int, positions: tuple[int, ...], interrupts: tuple[int, ...]
    ) -> None:
        """See `BaseContainer`."""
        self._container.cancel(dispatcher_id, batch_id, positions, interrupts)

    @_control
    def output(self, dispatcher_id: str) -> list[Written]:
        """See `BaseContainer`."""
        return self._container.output(dispatcher_id)


class Container(_Calls):
    """On threads."""

    def run(self, data: bytes, *objects: Any) -> Any:
        """Run a batch; the answer accounts for every input of it."""
        work = self._container.arrive(data, objects)
        return until(lambda wake: self._container.answer(work, wake))

    def run_bundle(self, batches: list[bytes]) -> list[tuple[int, Any]]:
        """Run batches; (id, answer) of the first that are over. `rest` gives the others."""
        return self._answers(self._container.arrive_together(batches))

    def rest(self, dispatcher_id: str, batch_ids: list[int]) -> list[tuple[int, Any]]:
        """The same of batches that were sent together, as soon as there are any."""
        return self._answers(self._container.bundle_again(dispatcher_id, batch_ids))

    def _answers(self, bundle: Bundle) -> list[tuple[int, Any]]:
        if until(partial(self._container.any_over, bundle)):
            time.sleep(TOGETHER_S)
        return self._container.answers(bundle)

    @_parked
    def load(self) -> LoadAnswer:
        """See `BaseContainer`."""
        return self._container.load()

    @_parked
    def attend(self) -> None:
        """Park until this process dies; the error of this call is Ray's word of that."""
        woken = threading.Event()
        self._container.attend(woken.set)
        woken.wait()

    @_parked
    def stop(self) -> None:
        """See `BaseContainer`."""
        self._container.stop()

    @_parked
    def read(self, dispatcher_id: str, batch_id: int, position: int, received: int) -> Any:
        """Results of a generator after the first `received`, and whether they are the last; None: unknown."""
        stream = self._container.stream(dispatcher_id, batch_id, position)
        if stream is None:
            return None
        results = until(lambda wake: stream.read(received, wake))
        if is_few(results):
            time.sleep(GATHER_S)
            results = until(lambda wake: stream.read(received, wake))
        return encode_answer(ResultsMessage(*results))

    @_parked
    def release(self, lease_number: int) -> None:
        """Drop the lease; return when nothing of it runs any more."""
        until(lambda wake: self._container.release(lease_number, wake))


class LoopContainer(_Calls):
    """On event loops, one per group."""

    async def run(self, data: bytes, *objects: Any) -> Any:
        """See `Container`, as for the others."""
        work = self._container.arrive(data, objects)
        return await until_async(lambda wake: self._container.answer(work, wake))

    async def run_bundle(self, batches: list[bytes]) -> list[tuple[int, Any]]:
        """See `Container`."""
        return await self._answers(self._container.arrive_together(batches))

    async def rest(self, dispatcher_id: str, batch_ids: list[int]) -> list[tuple[int, Any]]:
        """See `Container`."""
        return await self._answers(self._container.bundle_again(dispatcher_id, batch_ids))

    async def _answers(self, bundle: Bundle) -> list[tuple[int, Any]]:
        if await until_async(partial(self._container.any_over, bundle)):
            await asyncio.sleep(TOGETHER_S)
        return self._container.answers(bundle)

    @_parked
    async def load(self) -> LoadAnswer:
        """See `Container`."""
        return await asyncio.get_running_loop().run_in_executor(None, self._container.load)

    @_parked
    async def attend(self) -> None:
        """See `Container`."""
        loop, woken = asyncio.get_running_loop(), asyncio.Event()
        self._container.attend(lambda: loop.call_soon_threadsafe(woken.set))
        await woken.wait()

    @_parked
    async def stop(self) -> None:
        """See `Container`."""
        await asyncio.get_running_loop().run_in_executor(None, self._container.stop)

    @_parked
    async def read(self, dispatcher_id: str, batch_id: int, position: int, received: int) -> Any:
        """See `Container`."""
        stream = self._container.stream(dispatcher_id, batch_id, position)
        if stream is None:
            return None
        results = await until_async(lambda wake: stream.read(received, wake))
        if is_few(results):
            await asyncio.sleep(GATHER_S)
            results = await until_async(lambda wake: stream.read(received, wake))
        return encode_answer(ResultsMessage(*results))

    @_parked
    async def release(self, lease_number: int) -> None:
        """See `Container`."""
        await until_async(lambda wake: self._container.release(lease_number, wake))


def _as_actor(container: type, groups: dict[str, int]) -> Any:
    return ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0, concurrency_groups=groups)(container)  # type: ignore[call-overload]


_on_threads, _on_loops = _as_actor(Container, THREADS), _as_actor(LoopContainer, CALLS_ON_LOOPS)
ACTORS = (_on_threads, _on_loops)


def actor_class(slots: int) -> tuple[Any, int]:
    """The actor class for a container of so many slots, and its `max_concurrency`."""
    if slots <= SLOTS_ON_THREADS:
        return _on_threads, RUN_THREADS
    return _on_loops, LOOP_CALLS_MAX
