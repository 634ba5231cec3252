"""The call queue: one detached actor on the head node, which keeps spawned calls and has them run.

One rule: what it has acknowledged is in the store, and it runs inputs as any caller does, through a
dispatcher (`spawned`). Requests come in on threads (`faces`) and are run on its event loop; the store is
written by one thread at a time; pools live on the dispatcher's thread, in whose place a request's thread acts
for an input that is alone.

```
spawn   -> [loop] -> [writer] inputs on the disk -> acknowledged
                         -> [dispatcher] SpawnedPool -> containers -> [writer] outcomes on the disk -> told
        -> [request's thread] input and batch on the disk, and sent; where it is alone and a container free
outcome -> [loop] looks -> [writer] read; whoever finds none listens, and looks again when it is told
```
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError, RayError, RayTaskError

from flexray.context import POSITIONS
from flexray.core.listeners import Listeners
from flexray.core.patience import Patience
from flexray.core.status import (
    CANCELLED,
    FAILED,
    LOST,
    OK,
    START_FAILED,
    CallInfo,
    Kept,
    SpawnedCall,
    is_to_come,
)
from flexray.errors import ExecutionError, InputCancelledError, NotFoundError, OutputExpiredError
from flexray.runtime import roster
from flexray.runtime.callstore import Call, CallStore, SentBatch
from flexray.runtime.database import state_file
from flexray.runtime.deaths import cause_of
from flexray.runtime.dispatcher import Dispatcher
from flexray.runtime.faces import PARKED_THREADS
from flexray.runtime.groupcommit import GroupCommit
from flexray.runtime.head import cluster_id, connection, find_controller
from flexray.runtime.liveness import process_id
from flexray.runtime.poolclient import laid_out
from flexray.runtime.spawned import News, SpawnedPool, travelling
from flexray.runtime.wire import (
    BatchMessage,
    decode,
    decode_answer,
    encode_batch,
)

logger = logging.getLogger("flexray")

R = TypeVar("R")

RESEND_S = 0.2
SWEEP_EVERY_S = 600.0
START_AGAIN_S = 1.0
READY_S = 30.0
"""Requests wait so long after its start for a queue that cannot go on yet."""
KEPT_DAYS = 7.0
"""How long results are kept, unless FLEXRAY_RESULTS_KEPT_DAYS on the head node says otherwise."""
SOON_S = 0.004
"""A short input that was sent at once is acknowledged with its outcome, if that comes within this time."""
GET_SOON_S = 0.010
"""Whoever asks within this time of a spawn waits to its end: news would take two requests more."""
FRESH_MAX = 4096
"""Calls of one input whose outcome is told without a look into the store."""
FRESH_BYTES = 1024
"""Larger outcomes are read from the store."""
LISTEN_S = 10.0
"""So long a process waits for news in one request."""
LISTEN_CROWDED_S = 0.5
"""The same where there are more than half as many processes as threads: each comes to its turn."""
DEAF_S = 120.0
"""A process that has not asked for news for so long is gone."""
ABANDONED_S = 86400.0
"""A call to which nothing was added for so long gets no more inputs: whoever spawned it is gone."""


@dataclass(slots=True)
class _Fresh:
    """A call of one input that was spawned lately: all about it is in memory."""

    call: Call
    outcome: tuple[int, Any] | None = None
    told: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there is news."""


class CallQueue:
    """See the module. Its public methods are what others may ask: `faces.CallQueue` names them."""

    def __init__(self) -> None:
        self._kept_s = _kept_days() * 86400.0
        self._store = CallStore(state_file(cluster_id(), "calls"))
        self._writer = GroupCommit(self._store)
        self._pools: dict[int, SpawnedPool] = {}
        self._pool_of: dict[str, SpawnedPool] = {}
        self._listeners = Listeners()
        self._parked: dict[str, asyncio.Future[None]] = {}
        """Requests of listeners for which there is no news."""
        self._told_at_once: dict[int, list[tuple[int, Any]]] = {}
        """By the number of a call whose request waits for it, its outcome, when there is one."""
        self._incarnation = secrets.token_hex(4)
        """Of this process: it knows nothing of those that listened to an earlier one."""
        self._ready_by = time.monotonic() + READY_S
        self._patience = Patience()
        self._fresh: dict[int, _Fresh] = {}
        """By the call's number, the oldest first."""
        self._fresh_number: dict[str, int] = {}
        """By the call's id."""
        self._added_at: dict[int, float] = {}
        """Calls that get more inputs, with when they last did."""
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="flexray-calls", daemon=True).start()
        self._dispatcher: Dispatcher | None = None
        self._started = asyncio.Event()
        self._failure: Exception | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._run_soon(self._start())

    async def _start(self) -> None:
        """Go on with what is stored, as soon as that can be read and there is a controller."""
        while True:
            try:
                await self._go_on()
            except Exception as error:
                logger.exception("the call queue cannot go on yet")
                self._failure = error
                await asyncio.sleep(START_AGAIN_S)
            else:
                break
        self._started.set()
        self._run(self._sweep())

    async def _ready(self) -> None:
        """Raise why the queue cannot go on, if it does not within a while."""
        if self._started.is_set():
            return
        try:
            await asyncio.wait_for(self._started.wait(), max(0.0, self._ready_by - time.monotonic()))
        except TimeoutError:
            raise ExecutionError(
                f"the call queue cannot go on: {self._failure or 'it is reading what is stored'}",
                "the log of the actor flexray:call-queue on the head node may say more",
            ) from None

    async def _go_on(self) -> None:
        batches = await self._write(self._store.batches)
        is_current = _connection()
        if self._dispatcher is None:
            self._dispatcher = await self.loop.run_in_executor(
                None, lambda: Dispatcher(process_id(), find_controller, is_current)
            )
        for number, (pool_id, record) in (await self._write(self._store.pools)).items():
            self._add_pool(number, pool_id, record)
        calls = await self._write(self._store.open_calls)
        restored = []
        for number, pool in self._pools.items():
            mine = [call for call in calls if call.pool == number]
            sent = [batch for batch in batches if batch.pool == number]
            if mine or sent:
                restored.append(self._restore(pool, mine, sent))
        await asyncio.gather(*restored)  # First, or the limit of what is added would see too much room.

    def _restore(
        self, pool: SpawnedPool, calls: Sequence[Call], sent: Sequence[SentBatch]
    ) -> asyncio.Future[None]:
        restored: asyncio.Future[None] = self.loop.create_future()

        def restore() -> None:
            try:
                still_open = pool.open_among(sent)
                pool.restore(calls, sent, still_open)
                for batch in sent:
                    self._run_soon(self._recover(pool, batch, still_open))
            finally:
                self.loop.call_soon_threadsafe(restored.set_result, None)

        self._soon(restore)
        return restored

    async def _recover(self, pool: SpawnedPool, batch: SentBatch, still_open: set[int]) -> None:
        """Send a batch of an earlier process again, under its old name: its container knows it, or not."""
        wanted = [number for number in batch.inputs if number in still_open]
        answer = None
        cause = "its container died while the call queue restarted"
        while wanted and answer is None:
            try:
                listed = await self.loop.run_in_executor(None, roster.find, batch.container)
                if listed is None:
                    break
                arguments = await self._write(lambda: self._store.arguments(wanted))
                call_ids = await self._write(lambda: self._call_ids(wanted))
                answer = await _send_again(listed.handle, batch, arguments, call_ids)
            except (ActorDiedError, OutOfMemoryError) as error:
                cause = cause_of(error)
                break
            except (RayError, ExecutionError) as error:  # It lives, and what failed may do so no more.
                logger.warning("a batch of %s is not sent again yet: %s", pool.config.name, error)
                await asyncio.sleep(START_AGAIN_S)
        self._soon(lambda: pool.recovered(batch, answer, cause))

    def _call_ids(self, numbers: Iterable[int]) -> dict[int, str]:
        calls = [self._store.call_at(number) for number in {n // POSITIONS for n in numbers}]
        return {call.number: call.id for call in calls if call is not None}

    # Spawning.

    async def open_pool(self, pool_id: str, record: bytes) -> None:
        """Make a pool known: its options, and what opens it again where the controller forgets it."""
        await self._ready()
        number = await self._write(lambda: self._store.add_pool(pool_id, record))
        if number not in self._pools or pool_id not in self._pool_of:
            self._add_pool(number, pool_id, record)

    def _add_pool(self, number: int, pool_id: str, record: bytes) -> None:
        config, spec_data = decode(record)
        assert self._dispatcher is not None
        pool = SpawnedPool(
            number, pool_id, config, self._dispatcher, self._store, self._writer, self._tell_soon
        )
        pool.spec_data = spec_data
        self._pools[number] = self._pool_of[pool_id] = pool
        self._dispatcher.add(pool)

    def add(
        self,
        pool_id: str,
        spawned: SpawnedCall,
        first: int,
        arguments: Sequence[bytes],
    ) -> Kept:
        """Keep inputs of a call, from that position on; asked again, it keeps nothing twice.

        A whole call is kept or refused as one; of a part, as much is accepted as there is room for.
        """
        if spawned.is_whole and len(arguments) == 1 and self._started.is_set():
            pool = self._pool_of.get(pool_id)
            added = None if pool is None else self._add_at_once(pool, spawned, arguments[0])
            if added is not None:
                return added
        adding = self._add(pool_id, spawned, first, arguments)
        return asyncio.run_coroutine_threadsafe(adding, self.loop).result()

    def _add_at_once(self, pool: SpawnedPool, spawned: SpawnedCall, arguments: bytes) -> Kept | None:
        """On this thread, where nothing else is to be written and a container is free; None: it is not so.

        Two turns of threads would take as long as the write (see `SpawnedPool.spawn_at_once`).
        """
        until = time.monotonic() + SOON_S
        assert self._dispatcher is not None
        with self._dispatcher.borrowed() as is_mine:
            sent = pool.spawn_at_once(spawned, arguments) if is_mine else None
            if sent is None:
                return None
            call = sent.call
            if pool.is_open(call):  # Before there can be news of it; or it could not be sent, and there was.
                self.loop.call_soon_threadsafe(self._note_fresh, call)
        if not (pool.is_short and self._patience.is_worth()):
            pool.take_later(sent)
            return Kept(1, pool.waiting, pool.config.limits.spawn_pending)
        told = self._told_at_once[call.number] = []
        try:
            pool.take_soon(sent, max(0.0, until - time.monotonic()))
        except Exception:  # It is kept: whoever has spawned it is told so.
            logger.exception("an answer to the call queue is taken in again")
            pool.take_later(sent)
        finally:
            del self._told_at_once[call.number]
        self._patience.waited(in_vain=not told or time.monotonic() > until)
        over = told[0] if told and _is_small(told[0][1]) else None
        return Kept(1, pool.waiting, pool.config.limits.spawn_pending, over=over)

    async def _add(self, pool_id: str, spawned: SpawnedCall, first: int, arguments: Sequence[bytes]) -> Kept:
        await self._ready()
        pool = self._pool_of.get(pool_id)
        if pool is None:
            return Kept(0, 0, 0, is_known=False)
        if pool.is_gone:
            await self._check_is_back(pool)
            return Kept(0, 0, 0, is_known=False)
        limit, call_id = pool.config.limits.spawn_pending, spawned.call_id
        now = time.time()
        expected = 0

        def expect(count: int) -> None:
            nonlocal expected
            pool.expect(count - expected)
            expected = count

        def write() -> tuple[Call | None, int, int]:
            expect(0)  # It runs twice where another of its group fails.
            call = self._store.call(call_id)
            known = 0 if call is None else max(0, call.added - first)
            room = max(0, limit - pool.waiting)
            accepted = min(len(arguments), known + room)
            if accepted < len(arguments) and spawned.is_whole:
                return None, 0, 0
            if call is None:
                call = self._store.add_call(spawned, pool.number, now)
            if call.size is not None and first + accepted > call.added:
                raise InputCancelledError(
                    f"call {call_id} takes no more inputs: it was cancelled, or nothing was added for a day"
                )
            new = self._store.add_inputs(call, first, arguments[:accepted])
            expect(new)
            if spawned.is_whole:
                self._store.close_call(call, now)
            return call, accepted, new

        def hand_over(written: Future[tuple[Call | None, int, int]]) -> None:
            """On the writer's thread, in the order of the writes."""
            if written.cancelled() or written.exception() is not None:
                expect(0)
                return
            call, accepted, new = written.result()
            if call is not None and new:
                start = first + accepted - new
                mine = arguments[accepted - new : accepted]
                if spawned.is_whole and new == 1:  # Noted before there can be news of it.
                    self.loop.call_soon_threadsafe(self._note_fresh, call)
                self._soon(lambda: pool.added(call, start, mine))

        writing = self._writer.submit(write)
        writing.add_done_callback(hand_over)
        call, accepted, _ = await asyncio.wrap_future(writing)
        if call is not None and not spawned.is_whole:
            self._added_at[call.number] = time.monotonic()
        return Kept(accepted, pool.waiting, limit)

    async def _check_is_back(self, pool: SpawnedPool) -> None:
        """The pool ended; forget it if one of its name has come since."""
        assert self._dispatcher is not None
        controller = self._dispatcher.controller
        try:
            if pool.spec_data is not None:  # It may only have been forgotten.
                await controller.open_pool.remote(pool.spec_data)
            else:
                await controller.pool_config.remote(pool.pool_id)
        except RayTaskError as error:
            if not isinstance(error.cause, NotFoundError):
                raise
            raise InputCancelledError(
                f"{pool.config.name} cannot be spawned: its app has ended", "start it, or deploy it, again"
            ) from None
        except RayError as error:
            raise ExecutionError(
                f"{pool.config.name} cannot be spawned now: {cause_of(error)}",
                "try it again in a few seconds",
            ) from None
        if self._pool_of.get(pool.pool_id) is pool:
            del self._pool_of[pool.pool_id]

    async def close(self, call_id: str) -> None:
        """No input follows."""
        call = await self._known(call_id)
        self._added_at.pop(call.number, None)
        await self._write(lambda: self._store.close_call(call, time.time()))
        self._tell({call.number: {}})

    # Asking.

    async def info(self, call_id: str) -> CallInfo:
        """What is known of the call."""
        return await self._info(await self._known(call_id))

    async def outcomes(
        self, call_id: str, first: int, limit: int, listener: str | None = None
    ) -> tuple[CallInfo, list[tuple[int, Any]], str]:
        """The outcomes of inputs from that position on, as far as they are there without a gap.

        Where the first is not there, and may be later, `news` of this incarnation tells the listener of it.
        """
        fresh = self._fresh.get(self._fresh_number.get(call_id, 0))
        if fresh is not None and first == 0:
            if listener is not None and fresh.outcome is None:
                await self._wait_soon(fresh)
            if fresh.outcome is not None:
                return await self._info(fresh.call), [fresh.outcome], self._incarnation
            if not fresh.told.is_set():
                if listener is not None:
                    self._listen(listener, fresh.call, first)
                return await self._info(fresh.call), [], self._incarnation
        call, found = await self._look(call_id, first, limit)
        ready = _without_gap(found)
        if listener is not None and not ready and is_to_come(call.size, first):
            self._listen(listener, call, first)  # First that, then another look: it may have come in between.
            call, found = await self._look(call_id, first, limit)
            ready = _without_gap(found)
            if ready or not is_to_come(call.size, first):
                self._wake_listeners(call.number, [first])
        return await self._info(call), ready, self._incarnation

    async def _wait_soon(self, fresh: _Fresh) -> None:
        """Until there is news of a call that was spawned just now, where its input is short."""
        left_s = fresh.call.created_at + GET_SOON_S - time.time()
        if left_s > 0 and self._pools[fresh.call.pool].is_short:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(fresh.told.wait(), min(left_s, GET_SOON_S))

    async def news(self, listener: str, incarnation: str) -> list[tuple[str, int]] | None:
        """(call, position) of what it listens to and there is news of; None: nothing is known, so look again.

        Waits a while for any. A newer request of the same listener takes the place of an older one.
        """
        if incarnation != self._incarnation or not self._listeners.ask(listener, time.monotonic()):
            return None
        _release(self._parked.pop(listener, None))
        if not self._listeners.has_news(listener):
            parked = self._parked[listener] = self.loop.create_future()
            alarm = self.loop.call_later(self._listen_s(), _release, parked)
            await parked
            alarm.cancel()
            if self._parked.get(listener) is not parked:
                return []  # What there is belongs to the newer one.
            del self._parked[listener]
        return self._listeners.take_news(listener)

    def _listen_s(self) -> float:
        """Less where many wait: each has a thread, and none is to be left without one for long."""
        return LISTEN_S if len(self._parked) < PARKED_THREADS // 2 else LISTEN_CROWDED_S

    def _listen(self, listener: str, call: Call, position: int) -> None:
        self._listeners.listen(listener, call.number, call.id, position, time.monotonic())

    def _wake_listeners(self, number: int, positions: Collection[int]) -> None:
        """There is news of these positions of a call; of all, where there are none."""
        for listener in self._listeners.tell(number, positions):
            _release(self._parked.get(listener))

    def _note_fresh(self, call: Call) -> None:
        self._fresh[call.number] = _Fresh(call._replace(size=1, added=1))
        self._fresh_number[call.id] = call.number
        if len(self._fresh) > FRESH_MAX:
            self._forget_fresh(next(iter(self._fresh)))

    def _forget_fresh(self, number: int) -> None:
        fresh = self._fresh.pop(number, None)
        if fresh is not None:
            self._fresh_number.pop(fresh.call.id, None)

    async def _look(self, call_id: str, first: int, limit: int) -> tuple[Call, list[tuple[int | None, Any]]]:
        await self._ready()
        call, found = await self._write(
            lambda: (
                call := self._store.call(call_id),
                self._store.outcomes(call, first, limit) if call else [],
            )
        )
        if call is None:
            raise _unknown(call_id)
        if call.expired:
            raise OutputExpiredError(call_id, self._kept_s / 86400)
        return call, found

    async def cancel(self, call_id: str, terminate: bool) -> None:
        """End every input of the call that has no outcome yet."""
        call = await self._known(call_id)
        pool = self._pools[call.pool]

        def write() -> None:
            self._store.settle_rest(call, CANCELLED, None, time.time())
            self._store.close_call(call, time.time())

        writing = self._writer.submit(write)
        writing.add_done_callback(
            lambda _: (
                self._soon(lambda: pool.cancel_call(call, terminate=terminate))
                if writing.exception() is None
                else None
            )
        )
        await asyncio.wrap_future(writing)
        self._tell({call.number: {}})

    async def graph(self, call_id: str) -> list[tuple[CallInfo, list[str]]]:
        """The call and every call that its inputs have spawned, each with what its inputs are at."""
        calls = [await self._known(call_id)]
        found = []
        while calls:
            call = calls.pop(0)
            statuses, children = await self._write(
                lambda call=call: (self._store.statuses(call, GRAPH_INPUTS_MAX), self._store.children(call))  # type: ignore[misc]
            )
            sent = set(self._pools[call.pool].sent)
            words = [
                _word(status, is_sent=call.first + position in sent)
                for position, status in enumerate(statuses)
            ]
            found.append((await self._info(call), words))
            calls += children
        return found

    async def newest(self, limit: int) -> list[CallInfo]:
        """The newest calls."""
        await self._ready()
        return [await self._info(call) for call in await self._write(lambda: self._store.newest_calls(limit))]

    async def _known(self, call_id: str) -> Call:
        await self._ready()
        call = await self._write(lambda: self._store.call(call_id))
        if call is None:
            raise _unknown(call_id)
        return call

    async def _info(self, call: Call) -> CallInfo:
        pool = self._pools[call.pool]
        parent = None
        if call.parent is not None:
            number = call.parent
            above = await self._write(lambda: self._store.call_at(number // POSITIONS))
            parent = None if above is None else (above.id, number % POSITIONS)
        return CallInfo(
            call.id,
            call.function,
            pool.pool_id,
            pool.config.at_most_once,
            call.created_at,
            call.size,
            call.added,
            call.done,
            call.over_at,
            parent,
        )

    # News.

    def _tell(self, news: Mapping[int, News]) -> None:
        for number, outcomes in news.items():
            fresh = self._fresh.get(number)
            if fresh is not None:
                fresh.outcome = outcomes.get(0)
                fresh.told.set()
                if fresh.outcome is None or not _is_small(fresh.outcome[1]):
                    self._forget_fresh(number)  # It ended otherwise: the store knows how.
            self._wake_listeners(number, outcomes)

    def _tell_soon(self, news: Mapping[int, News]) -> None:
        """From another thread."""
        for number, outcomes in news.items():
            told = self._told_at_once.get(number)
            if told is not None and 0 in outcomes:
                told.append(outcomes[0])
        self.loop.call_soon_threadsafe(self._tell, news)

    # Time.

    async def _sweep(self) -> None:
        while True:
            now = time.monotonic()
            for number in list(self._fresh):  # What expires is not to be told from memory.
                self._forget_fresh(number)
            self._listeners.forget(now - DEAF_S)
            try:
                await self._write(lambda: self._store.expire(time.time() - self._kept_s))
                for call in await self._write(self._store.growing_calls):
                    if now - self._added_at.setdefault(call.number, now) > ABANDONED_S:
                        await self.close(call.id)
            except ExecutionError:  # The disk is full, say.
                logger.exception("results were not swept")
            await asyncio.sleep(SWEEP_EVERY_S)

    # Threads.

    def _soon(self, act: Callable[[], None]) -> None:
        assert self._dispatcher is not None
        self._dispatcher.call_soon(act)

    async def _write(self, operation: Callable[[], R]) -> R:
        return await asyncio.wrap_future(self._writer.submit(operation))

    def _run_soon(self, coroutine: Any) -> None:
        """From another thread."""
        self.loop.call_soon_threadsafe(self._run, coroutine)

    def _run(self, coroutine: Any) -> None:
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("in the call queue", exc_info=task.exception())


WORDS = {OK: "done", FAILED: "failed", START_FAILED: "failed", CANCELLED: "cancelled", LOST: "lost"}
"""What an input that is over is called."""
GRAPH_INPUTS_MAX = 1000
"""Inputs of one call that a call graph shows."""


def _release(parked: asyncio.Future[None] | None) -> None:
    if parked is not None and not parked.done():
        parked.set_result(None)


def _is_small(payload: Any) -> bool:
    return payload is None or (type(payload) is bytes and len(payload) <= FRESH_BYTES)


def _without_gap(found: Iterable[tuple[int | None, Any]]) -> list[tuple[int, Any]]:
    ready = []
    for status, payload in found:
        if status is None:
            break
        ready.append((status, payload))
    return ready


def _unknown(call_id: str) -> NotFoundError:
    return NotFoundError(
        f"there is no call {call_id!r:.80} on this cluster",
        "take the object_id of what spawn returned; `flexray call list` shows the newest",
    )


def _word(status: int | None, *, is_sent: bool) -> str:
    if status is None:
        return "running" if is_sent else "waiting"
    return WORDS[status]


async def _send_again(
    handle: Any, batch: SentBatch, arguments: dict[int, bytes], call_ids: dict[int, str]
) -> Any:
    """What its container answers; raises Ray's word of its death."""
    packed = [arguments.get(number) for number in batch.inputs]
    calls, objects = laid_out([None if each is None else travelling(each) for each in packed])
    message = BatchMessage(
        batch.dispatcher,
        batch.number,
        batch.lease,
        True,
        0,
        batch.inputs,
        batch.attempts,
        calls,
        call_ids,
    )
    while True:
        try:
            return decode_answer(await handle.run.remote(encode_batch(message), *objects))
        except ActorUnavailableError:
            await asyncio.sleep(RESEND_S)


def _connection() -> Callable[[], bool]:
    """Whether Ray is still the one that this process is connected to."""
    mine = connection()
    return lambda: connection() is mine


def _kept_days() -> float:
    given = os.environ.get("FLEXRAY_RESULTS_KEPT_DAYS", "")
    try:
        return float(given) if given else KEPT_DAYS
    except ValueError:
        raise ExecutionError(
            f"FLEXRAY_RESULTS_KEPT_DAYS is {given!r}, which is no number", "give days, as in 7 or 0.5"
        ) from None
