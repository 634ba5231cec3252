"""Runs a container's batches: sync code on threads, async code on one loop, gathered inputs in one call.

One rule: whoever runs an input settles it in its `Work`, once, and says when the batch is over; what was
answered for it meanwhile (too late, cancelled) counts, and not what it still does.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from types import CoroutineType
from typing import Any, cast

from flexray.config import FunctionConfig
from flexray.context import POSITIONS, RunningInput, current_input
from flexray.core.occupancy import Work
from flexray.core.status import CANCELLED, FAILED, OK, UNSTARTED, BatchKey
from flexray.errors import ExecutionError, FunctionTimeoutError
from flexray.runtime.output import current_dispatcher
from flexray.runtime.streams import Streams
from flexray.runtime.target import Kind, Target
from flexray.runtime.wire import BatchMessage, Resolved
from flexray.serialization import Parts, pack_exception, pack_result, unpack_call

logger = logging.getLogger("flexray")

BLOCKED_S = 2.0
"""An async input that is so much over its time blocks its loop, or it would have been cancelled."""


class Job:
    """A batch with what is needed to run it."""

    __slots__ = ("calls", "ended", "message", "objects", "running", "work")

    def __init__(self, message: BatchMessage, objects: tuple[Any, ...], work: Work) -> None:
        self.message = message
        self.work = work
        self.calls = message.calls
        self.objects = objects
        self.running = 0
        """Inputs of it that are under way in gathered calls."""
        self.ended = False


class _Worker:
    """What a thread, or a task of the loop, is at."""

    __slots__ = ("abandoned", "began", "entries", "future", "lock", "method", "paused_at", "task")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.entries: list[tuple[Job, int]] = []
        """(batch, position) of the inputs that run."""
        self.method = ""
        """Which of a class's methods runs."""
        self.began = 0.0
        self.paused_at: float | None = None
        """Since when it waits for whoever reads its results, which is not its own time."""
        self.abandoned = False
        """Its inputs were answered without it; what it still does counts for nothing."""
        self.task: asyncio.Task[None] | None = None
        self.future: Future[Any] | None = None
        """What a thread waits for, where its input runs on the loop."""

    @property
    def is_on_loop(self) -> bool:
        return self.task is not None or self.future is not None

    def pause(self) -> None:
        self.paused_at = time.perf_counter()

    def go_on(self) -> None:
        if self.paused_at is not None:
            self.began += time.perf_counter() - self.paused_at
            self.paused_at = None

    def step(self, job: Job, status: int | None = None, payload: Any = None) -> int | None:
        """Note the outcome of what ran, if anything did, and take the next position; None: nothing is left.

        Once its input was answered without it, nothing counts any more, and nothing is left.
        """
        now = time.perf_counter()
        work = job.work
        with self.lock:
            if self.abandoned:
                return None
            if status is not None:
                work.settle(self.entries[0][1], status, payload)
                if status != CANCELLED:
                    work.note_time(now - self.began)
            position = work.take()
            self.began = now  # Before the input, whose time is looked at without the lock.
            self.entries = [] if position is None else [(job, position)]
            return position

    def settle(self, outcomes: Iterable[tuple[int, Any]]) -> bool:
        """Note the outcomes of what ran, in order; False: they were answered without it."""
        seconds = time.perf_counter() - self.began
        with self.lock:
            if self.abandoned:
                return False
            for (job, position), (status, payload) in zip(self.entries, outcomes, strict=True):
                job.work.settle(position, status, payload)
                if status != CANCELLED:
                    job.work.note_time(seconds)
            self.entries = []
            return True


class Runner:
    """See the module. `over` is called with each batch that is over, `retire` when a thread goes on.

    `is_outdated` is asked where an input is for a method that is not here.
    """

    def __init__(
        self,
        target: Target,
        config: FunctionConfig,
        over: Callable[[Job], None],
        retire: Callable[[], None],
        note_failure: Callable[[BaseException], None],
        is_outdated: Callable[[], bool],
    ) -> None:
        self.streams = Streams()
        self._target = target
        self._name = config.name
        self._timeout_s = config.timeout
        self._batching = config.batching
        self._over = over
        self._retire = retire
        self._note_failure = note_failure
        self._is_outdated = is_outdated
        self._workers: dict[_Worker, None] = {}
        self._queue: SimpleQueue[Job | Callable[[], None]] = SimpleQueue()
        self._has_one_thread = config.slots == 1 and not target.is_async
        self._idle = threading.Semaphore(0)
        self._gathered = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._finished: list[Job] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        if target.needs_loop:
            self._loop = asyncio.new_event_loop()
            start_thread(self._run_loop, "user-loop")
        if self._batching is not None:
            for _ in range(config.concurrency.max_inputs):
                start_thread(self._gather, "batches")

    def run_hooks(self, role: str) -> None:
        """Call the enter or exit hooks and wait for them; raises what they raise.

        Where inputs run on one thread, so do the hooks: what they open there may be bound to it.
        """
        if not self._has_one_thread:
            self._target.run_hooks(role, self._wait_for)
            return
        done: Future[None] = Future()

        def run() -> None:
            try:
                self._target.run_hooks(role, self._wait_for)
                done.set_result(None)
            except BaseException as error:  # noqa: BLE001  # Raised by whoever waits.
                done.set_exception(error)

        self._put(run)
        done.result()

    def begin(self, job: Job) -> None:
        """Run this batch; returns at once."""
        if self._batching is not None:
            with self._gathered:
                self._waiting.append(job)
                self._gathered.notify_all()
        elif self._target.is_async:
            assert self._loop is not None
            if threading.get_ident() == self._loop_thread:  # What follows another: no need to wake the loop.
                self._loop.call_soon(self._start_task, job)
            else:
                self._loop.call_soon_threadsafe(self._start_task, job)
        else:
            self._put(job)

    def _put(self, work: Job | Callable[[], None]) -> None:
        """To a thread that is idle, or to a new one."""
        self._queue.put(work)
        if not self._idle.acquire(blocking=False):
            start_thread(self._serve, "slot")

    def poke(self) -> None:
        """Inputs were taken out of a batch: it may be over by that."""
        with self._gathered:
            self._gathered.notify_all()

    # Ending what runs.

    def expire(self) -> None:
        """Answer inputs that have run too long; threads cannot be stopped, nor can a loop that is blocked."""
        now = time.perf_counter()
        for worker in list(self._workers):
            limit_s = self._timeout_s + (BLOCKED_S if worker.is_on_loop else 0.0)
            entries = worker.entries
            if entries and worker.paused_at is None and now - worker.began > limit_s:
                late = self._failed(self._too_late(worker.method))[1]
                self._abandon(worker, entries, FAILED, late)

    def _too_late(self, method: str) -> FunctionTimeoutError:
        return FunctionTimeoutError(f"{self._name}.{method}" if method else self._name, self._timeout_s)

    def interrupt(self, key: BatchKey, positions: Iterable[int]) -> None:
        """End these inputs where they run: a generator at its next result, a coroutine where it waits."""
        wanted = set(positions)
        for worker in list(self._workers):
            for job, position in worker.entries:
                if job.work.key != key or position not in wanted:
                    continue
                is_stream = self.streams.close((key, position))
                if (is_stream and not worker.is_on_loop) or len(worker.entries) > 1:
                    break  # A thread sees it at its next result; others are not ended with it.
                future = worker.future
                if worker.task is not None and self._loop is not None:
                    self._loop.call_soon_threadsafe(_cancel, worker, job, position)
                elif future is not None:
                    future.cancel()
                else:
                    self._abandon(worker, [(job, position)], CANCELLED, None)
                break

    def close_streams(self, keys: Iterable[BatchKey]) -> None:
        """The readers of these batches are dead."""
        dead = set(keys)
        for worker in list(self._workers):
            for job, position in worker.entries:
                if job.work.key in dead:
                    self.streams.close((job.work.key, position))

    def _abandon(self, worker: _Worker, entries: list[tuple[Job, int]], status: int, payload: Any) -> None:
        with worker.lock:
            if worker.abandoned or worker.entries != entries:
                return  # It has just come to its end.
            if any(job.work.statuses[position] is not None for job, position in entries):
                return
            worker.abandoned = True
            self._workers.pop(worker, None)
        self._retire()
        for job, position in entries:
            job.work.settle(position, status, payload)
            job.work.drop_todo(UNSTARTED)
            self._over(job)
        with self._gathered:  # Who gathers may be the one that was given up.
            for job in self._waiting:
                job.work.drop_todo(UNSTARTED)
            self._drop_empty()
        self._tell_over()

    # Threads.

    def _serve(self) -> None:
        worker = _Worker()
        self._workers[worker] = None
        while not worker.abandoned:
            job = self._queue.get()
            if not isinstance(job, Job):
                job()
                self._idle.release()
                continue
            self._run(worker, job)
            if not worker.abandoned:
                self._idle.release()  # First: what follows is this thread's, and not a new one's.
                self._over(job)

    def _run(self, worker: _Worker, job: Job) -> None:
        position = worker.step(job)
        while position is not None:
            outcome: tuple[int, Any] = (CANCELLED, None)
            if job.calls[position] is not None:  # In a context of its own: what it sets there ends with it.
                outcome = copy_context().run(self._run_one, worker, job, position)
            position = worker.step(job, *outcome)

    def _run_one(self, worker: _Worker, job: Job, position: int) -> tuple[int, Any]:
        current_dispatcher.set(job.message.dispatcher_id)
        current_input.set(_running(job.message, position))
        target = self._target
        try:
            args, kwargs, worker.method = arguments(job, position)
            if worker.method not in target.methods and self._is_outdated():
                self._retire()  # A newer version has it: the input runs there.
                return UNSTARTED, None
            method, kind = target.methods[worker.method], target.kinds[worker.method]
            if kind is Kind.SYNC:
                result = method(*args, **kwargs)
                if type(result) is CoroutineType:  # Of an async function that a decorator wraps.
                    result = self._wait_on_loop(worker, self._in_time(result, worker.method))
                return OK, pack_result(result)
            if kind is Kind.GENERATOR:
                return self._drain(worker, job, position, method(*args, **kwargs))
            return cast("tuple[int, Any]", self._wait_on_loop(worker, self._outcome(worker, job, position)))
        except BaseException as error:  # noqa: BLE001  # Whatever user code raises is its outcome.
            if position in job.work.cancelled:
                return CANCELLED, None
            return self._failed(error)

    def _failed(self, error: BaseException) -> tuple[int, bytes]:
        self._note_failure(error)
        return FAILED, pack_exception(error)

    def _drain(self, worker: _Worker, job: Job, position: int, results: Any) -> tuple[int, Any]:
        key = (job.work.key, position)
        stream = self.streams.open(key)
        try:
            for result in results:
                packed = pack_result(result)
                worker.pause()
                wanted = stream.put(packed)
                worker.go_on()
                if not wanted:
                    results.close()
                    return CANCELLED, None
        finally:
            self.streams.finish(key)
        worker.pause()
        read = stream.wait_until_read()
        worker.go_on()
        return (OK, pack_result(None)) if read else (CANCELLED, None)

    def _wait_on_loop(self, worker: _Worker, coroutine: Any) -> Any:
        assert self._loop is not None
        over = threading.Event()
        worker.future = asyncio.run_coroutine_threadsafe(_telling(coroutine, over), self._loop)
        try:
            return worker.future.result()
        finally:
            over.wait()  # A cancelled one may still be at its end, and the slot is one input's.
            worker.future = None

    def _wait_for(self, coroutine: Any) -> Any:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    # The loop.

    def _run_loop(self) -> None:
        assert self._loop is not None
        asyncio.set_event_loop(self._loop)
        self._loop_thread = threading.get_ident()
        while True:
            try:
                self._loop.run_forever()
            except BaseException:  # SystemExit in a task of the user's leaves the loop; others go on.
                logger.exception("in a task of %s", self._name)

    def _start_task(self, job: Job) -> None:
        assert self._loop is not None
        worker = _Worker()
        self._workers[worker] = None
        worker.task = self._loop.create_task(self._run_async(worker, job))
        worker.task.add_done_callback(lambda _: self._end_task(worker, job))

    def _end_task(self, worker: _Worker, job: Job) -> None:
        self._workers.pop(worker, None)
        if not worker.abandoned:
            self._over(job)

    async def _run_async(self, worker: _Worker, job: Job) -> None:
        current_dispatcher.set(job.message.dispatcher_id)
        position = worker.step(job)
        while position is not None:
            if job.calls[position] is None:
                outcome: tuple[int, Any] = (CANCELLED, None)
            else:
                current_input.set(_running(job.message, position))
                try:
                    outcome = await self._outcome(worker, job, position)
                except BaseException as error:  # noqa: BLE001  # Whatever user code raises is its outcome.
                    if position not in job.work.cancelled:
                        outcome = self._failed(error)
                    else:
                        outcome = CANCELLED, None
                        if worker.task is not None:
                            worker.task.uncancel()
            position = worker.step(job, *outcome)

    async def _outcome(self, worker: _Worker, job: Job, position: int) -> tuple[int, Any]:
        """Run an async input to its end, or to the end of its time."""
        args, kwargs, name = arguments(job, position)
        called = self._target.methods[name](*args, **kwargs)
        if self._target.kinds[name] is Kind.ASYNC_GENERATOR:
            return await self._drain_async(worker, job, position, called, name)
        return OK, pack_result(await self._in_time(called, name))

    async def _in_time(self, awaitable: Any, method: str) -> Any:
        scope = asyncio.timeout(self._timeout_s)
        try:
            async with scope:
                return await awaitable
        except TimeoutError:
            if scope.expired():
                raise self._too_late(method) from None
            raise

    async def _drain_async(
        self, worker: _Worker, job: Job, position: int, results: Any, method: str
    ) -> tuple[int, Any]:
        key = (job.work.key, position)
        stream = self.streams.open(key)
        scope = asyncio.timeout(self._timeout_s)
        try:
            async with scope:
                try:
                    async for result in results:
                        with _paused(worker, scope):
                            wanted = await stream.put_async(pack_result(result))
                        if not wanted:
                            return CANCELLED, None
                finally:
                    await results.aclose()
                    self.streams.finish(key)
                with _paused(worker, scope):
                    read = await stream.wait_until_read_async()
                return (OK, pack_result(None)) if read else (CANCELLED, None)
        except TimeoutError:
            if scope.expired():
                raise self._too_late(method) from None
            raise

    # Gathered inputs.

    def _gather(self) -> None:
        worker = _Worker()
        self._workers[worker] = None
        (name,) = self._target.methods
        worker.method = name
        kind = self._target.kinds[name]
        signature = inspect.signature(self._target.methods[name])
        while not worker.abandoned:
            entries = self._next_batch()
            if entries:
                self._run_gathered(worker, entries, signature, is_async=kind.is_async)

    def _next_batch(self) -> list[tuple[Job, int]]:
        """Wait for a first input, then for a full batch or the end of the wait; the inputs taken."""
        assert self._batching is not None
        most, wait_s = self._batching.max_batch_size, self._batching.wait_ms / 1000
        until: float | None = None
        while True:
            self._tell_over()
            with self._gathered:
                count = self._drop_empty()
                if self._finished:
                    continue
                if not count:
                    until = None
                    self._gathered.wait()
                    continue
                now = time.monotonic()
                until = now + wait_s if until is None else until
                if count >= most or now >= until:
                    return self._take_gathered(most)
                self._gathered.wait(until - now)

    def _take_gathered(self, most: int) -> list[tuple[Job, int]]:
        entries: list[tuple[Job, int]] = []
        while self._waiting and len(entries) < most:
            job = self._waiting[0]
            position = job.work.take()
            if position is None:
                self._leave(self._waiting.popleft())
            elif job.calls[position] is None:
                job.work.settle(position, CANCELLED)
            else:
                job.running += 1
                entries.append((job, position))
        return entries

    def _drop_empty(self) -> int:
        """Inputs that wait; batches without any are over."""
        for job in [job for job in self._waiting if not job.work.todo]:
            self._waiting.remove(job)
            self._leave(job)
        return sum(len(job.work.todo) for job in self._waiting)

    def _leave(self, job: Job) -> None:
        if not job.running and not job.work.todo:
            self._finished.append(job)

    def _tell_over(self) -> None:
        """Say which batches are over; never under the lock, for whoever is told may begin the next."""
        with self._gathered:
            finished, self._finished = self._finished, []
        for job in finished:
            self._over(job)

    def _run_gathered(
        self,
        worker: _Worker,
        entries: list[tuple[Job, int]],
        signature: inspect.Signature,
        *,
        is_async: bool,
    ) -> None:
        bound: list[dict[str, Any]] = []
        failed: list[tuple[tuple[Job, int], bytes]] = []
        for entry in list(entries):
            try:
                args, kwargs, _ = arguments(*entry)
                call = signature.bind(*args, **kwargs)
                call.apply_defaults()
                bound.append(dict(call.arguments))
            except BaseException as error:  # noqa: BLE001  # Arguments that do not fit, or do not unpack.
                failed.append((entry, self._failed(error)[1]))
                entries.remove(entry)
        for (job, position), payload in failed:
            job.work.settle(position, FAILED, payload)
        if entries:
            with worker.lock:
                worker.began, worker.entries = time.perf_counter(), list(entries)
            run = partial(self._outcomes, worker.method, bound, entries[0], is_async=is_async)
            worker.settle(copy_context().run(run))
        if worker.abandoned:
            return
        self._return([entry for entry, _ in failed] + entries)

    def _return(self, entries: list[tuple[Job, int]]) -> None:
        with self._gathered:
            for job, _ in entries:
                job.running -= 1
            for job in dict.fromkeys(job for job, _ in entries):
                if job not in self._waiting:
                    self._leave(job)
        self._tell_over()

    def _outcomes(
        self, method: str, bound: list[dict[str, Any]], first: tuple[Job, int], *, is_async: bool
    ) -> list[tuple[int, Any]]:
        current_dispatcher.set(first[0].message.dispatcher_id)
        current_input.set(_running(first[0].message, first[1]))
        lists = {name: [call[name] for call in bound] for name in bound[0]}
        try:
            results = self._target.methods[method](**lists)
            if is_async:
                results = self._wait_for(self._in_time(results, method))
            if not isinstance(results, list) or len(results) != len(bound):
                told = f"{len(results)} results" if isinstance(results, list) else type(results).__name__
                raise ExecutionError(
                    f"{self._name} is batched and returned {told} for {len(bound)} inputs",
                    "return a list with one result for each input, in order",
                )
            return [_packed(result) for result in results]
        except BaseException as error:  # noqa: BLE001  # Every error reaches every input of the batch.
            return [self._failed(error)] * len(bound)


def arguments(job: Job, position: int) -> tuple[tuple[Any, ...], dict[str, Any], str]:
    """(args, kwargs, method) of an input; what travelled beside the message is put where it stood."""
    call = job.calls[position]
    if isinstance(call, bytes):
        return unpack_call(call)
    packed, first, count, resolved = call
    objects = job.objects[first : first + count]
    if packed is None:
        packed, objects = objects[0], objects[1:]
    passed_on = len(objects) - resolved
    if isinstance(packed, Parts):
        packed.references = [box[0] for box in objects[:passed_on]]
    args, kwargs, method = unpack_call(packed)
    if resolved:
        values = objects[passed_on:]
        args = tuple([_resolve(value, values) for value in args])
        kwargs = {name: _resolve(value, values) for name, value in kwargs.items()}
    return args, kwargs, method


@contextmanager
def _paused(worker: _Worker, scope: asyncio.Timeout) -> Iterator[None]:
    """The time inside is not that of the input."""
    ends_at = scope.when()
    scope.reschedule(None)
    worker.pause()
    began = time.perf_counter()
    try:
        yield
    finally:
        worker.go_on()
        if ends_at is not None:
            scope.reschedule(ends_at + time.perf_counter() - began)


async def _telling(coroutine: Any, over: threading.Event) -> Any:
    try:
        return await coroutine
    finally:
        over.set()


def _cancel(worker: _Worker, job: Job, position: int) -> None:
    """On the loop: end this input, if it still is what the task is at."""
    if worker.task is not None and worker.entries == [(job, position)]:
        worker.task.cancel()


def _packed(result: Any) -> tuple[int, Any]:
    try:
        return OK, pack_result(result)
    except Exception as error:  # noqa: BLE001  # This one's failure only.
        return FAILED, pack_exception(error)


def _resolve(value: Any, objects: tuple[Any, ...]) -> Any:
    return objects[value.number] if type(value) is Resolved else value


def _running(message: BatchMessage, position: int) -> RunningInput:
    input_id = message.input_ids[position]
    call_id = message.call_ids.get(input_id // POSITIONS) if message.call_ids else None
    return message.dispatcher_id, input_id, message.attempts.get(input_id, 1), call_id


def start_thread(target: Callable[[], None], name: str) -> None:
    """Run it on a daemon thread of that name."""
    threading.Thread(target=target, name=f"flexray-{name}", daemon=True).start()
