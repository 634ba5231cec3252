"""A container: one Ray actor that holds the user's code and runs batches of inputs.

One rule: user code never runs on either event loop of the actor, so the container always answers control;
and every outcome is an envelope, so a user's exception is a result and not a Ray error.

`run` is in the default concurrency group, `load`, `reclaim`, `cancel`, `release`, `output`, `stop` and
`attend` in `control`, which has its own event loop. What is on a slot is decided by `core.occupancy`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any

import ray

from flexray.context import RunningInput, current_input, enter_container
from flexray.core.occupancy import Arrival, BatchKey, Occupancy, Work
from flexray.core.status import CANCELLED, FAILED, LOST, OK, UNSTARTED
from flexray.errors import DeserializationError, FunctionTimeoutError
from flexray.output import Stream
from flexray.runtime.output import Capture, current_dispatcher
from flexray.runtime.shipping import apply_import_paths
from flexray.runtime.wire import (
    CONTROLLER_NAME,
    NAMESPACE,
    AccountMessage,
    AnswerMessage,
    BatchMessage,
    LoadAnswer,
    PoolSpec,
    Resolved,
    decode,
    decode_batch,
    encode_answer,
)
from flexray.serialization import (
    Parts,
    pack_exception,
    pack_result,
    register_reference_type,
    unpack_call,
    unpack_function,
)

logger = logging.getLogger("flexray")

WATCH_S = 0.25
"""How often inputs are checked for having run too long."""
RETIRE_EVERY_S = 1.0
HELLO_S = 60.0
"""A container that has run nothing for this long asks the controller whether it is known (rule 12)."""

RUNS_MAX = 100_000
"""Calls of `run` under way: far more than two batches per slot can be."""
CONTROL_MAX = 10_000


class _Job:
    """A batch with what is needed to run it."""

    __slots__ = ("calls", "ended", "message", "objects", "work")

    def __init__(self, message: BatchMessage, objects: tuple[Any, ...], work: Work) -> None:
        self.ended = False
        self.message = message
        self.work = work
        self.calls = message.calls
        self.objects = objects


class _Slot:
    """What a slot's thread is at, for the watch over timeouts."""

    __slots__ = ("abandoned", "began", "job", "position")

    def __init__(self) -> None:
        self.job: _Job | None = None
        self.position = 0
        self.began = 0.0
        self.abandoned = False
        """Its input took too long and was answered without it; what it still does counts for nothing."""


class Container:
    """See the module. `ContainerActor` is this class as Ray runs it; workers import this one by its name."""

    def __init__(self, name: str, spec_data: bytes, slots: int, *, hide_gpus: bool) -> None:
        self._name = name
        self._spec_data = spec_data
        self._spec: PoolSpec | None = None
        self._slots = slots
        self._function: Callable[..., Any] = _not_loaded
        self._is_async = False
        self._function_name, self._timeout_s = name, 0.0
        self._lock = threading.Lock()
        self._occupancy = Occupancy(slots)
        self._jobs: dict[BatchKey, _Job] = {}
        self._waiters: dict[BatchKey, list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]]] = {}
        self._releases: dict[int, list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]]] = {}
        self._capture = Capture()
        self._queue: SimpleQueue[_Job] = SimpleQueue()
        self._threads = [_Slot() for _ in range(slots)]
        self._user_loop: asyncio.AbstractEventLoop | None = None
        self._ran_at = time.monotonic()
        self._loading: asyncio.Task[LoadAnswer] | None = None
        register_reference_type(ray.ObjectRef)
        if hide_gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray hides nothing where num_gpus is 0.
        self._start_thread(self._say_hello, "hello")

    # Life.

    @ray.method(concurrency_group="control")
    async def placed(self) -> None:
        """Return as soon as there is a process."""

    @ray.method(concurrency_group="control")
    async def load(self) -> LoadAnswer:
        """Load the user's code; again after a controller's restart, when it tells the leases in use."""
        if self._loading is None:
            self._loading = asyncio.get_running_loop().create_task(self._load_once())
        loaded = await asyncio.shield(self._loading)
        with self._lock:
            return loaded._replace(busy=self._occupancy.busy)

    async def _load_once(self) -> LoadAnswer:
        loop = asyncio.get_running_loop()
        loaded = await loop.run_in_executor(None, self._load)
        if loaded.ready:
            self._watch = loop.create_task(self._watch_timeouts())
        return loaded

    def _load(self) -> LoadAnswer:
        try:
            spec: PoolSpec = decode(self._spec_data)
            os.environ.update(spec.config.env)
            apply_import_paths(spec.import_paths)
            self._capture.install()
            enter_container()
            self._function = unpack_function(spec.code)
        except DeserializationError as error:
            return LoadAnswer(ready=False, reason=error.sentence(), permanent=True)
        except BaseException as error:  # noqa: BLE001  # Importing the user's modules may raise anything.
            return LoadAnswer(
                ready=False, reason=f"{type(error).__name__}: {error}", remote_traceback=_trace(error)
            )
        self._spec = spec
        self._function_name, self._timeout_s = spec.function_name, spec.config.timeout
        self._is_async = inspect.iscoroutinefunction(self._function)
        if self._is_async:
            self._user_loop = asyncio.new_event_loop()
            self._start_thread(self._run_user_loop, "user-loop")
        else:
            for number, slot in enumerate(self._threads):
                self._start_thread(partial(self._serve_slot, slot), f"slot-{number}")
        return LoadAnswer(ready=True)

    def _start_thread(self, target: Callable[[], None], name: str) -> None:
        threading.Thread(target=target, name=f"flexray-{name}", daemon=True).start()

    @ray.method(concurrency_group="control")
    async def attend(self) -> None:
        """Park until this process dies; the error of this call is Ray's word of that."""
        await asyncio.Event().wait()

    @ray.method(concurrency_group="control")
    async def stop(self) -> None:
        """Exit; only called when no lease is out."""
        ray.actor.exit_actor()  # type: ignore[no-untyped-call]

    def _say_hello(self) -> None:
        """Exit when nothing has run for a while and the controller does not know this container.

        On a thread, from birth: one that nobody ever loads must not stay either.
        """
        while True:
            time.sleep(HELLO_S / 4)
            if self._has_run_lately:
                continue
            known = self._is_known()
            if not known and not self._has_run_lately:
                os._exit(0)
            self._ran_at = time.monotonic()

    @property
    def _has_run_lately(self) -> bool:
        return time.monotonic() - self._ran_at < HELLO_S or bool(self._occupancy.busy)

    def _is_known(self) -> bool:
        """What the controller says; no answer for a minute, in which it had time to restart, is a no."""
        until = time.monotonic() + HELLO_S
        while time.monotonic() < until:
            try:
                controller = ray.get_actor(CONTROLLER_NAME, namespace=NAMESPACE)
                return bool(ray.get(controller.hello.remote(self._name), timeout=HELLO_S))
            except (ValueError, ray.exceptions.RayError):
                time.sleep(HELLO_S / 12)
        return False

    # Batches.

    async def run(self, data: bytes, *objects: Any) -> Any:
        """Run a batch; the answer accounts for every input of it. Idempotent by the batch's id."""
        message = decode_batch(data)
        key = (message.dispatcher_id, message.batch_id)
        loop = asyncio.get_running_loop()
        self._ran_at = now = time.monotonic()
        assert self._spec is not None  # Leases exist only after it said that it is ready.
        with self._lock:
            arrival, work = self._occupancy.arrive(
                key,
                message.lease_number,
                len(message.calls),
                now,
                again=message.again,
                oldest_open=message.oldest_open,
                at_most_once=self._spec.config.at_most_once,
            )
            if work.over_at is not None:
                return self._answer(work, message.dispatcher_id)
            waiter = loop.create_future()
            self._waiters.setdefault(key, []).append((loop, waiter))
            if arrival is not Arrival.KNOWN:
                self._jobs[key] = job = _Job(message, objects, work)
                if arrival is Arrival.BEGINS:
                    self._begin(job)
        await waiter
        return self._answer(work, message.dispatcher_id)

    def _begin(self, job: _Job) -> None:
        if self._user_loop is not None:
            self._user_loop.call_soon_threadsafe(self._start_async_job, job)
        else:
            self._queue.put(job)

    def _answer(self, work: Work, dispatcher_id: str) -> Any:
        statuses = bytes([LOST if status is None else status for status in work.statuses])
        ran = statuses.count(OK) + statuses.count(FAILED)
        return encode_answer(
            AnswerMessage(
                statuses,
                list(work.payloads),
                tuple(work.sample_s),
                work.busy_s,
                ran,
                work.bounced,
                self._capture.drain(dispatcher_id),
            )
        )

    def _end(self, job: _Job) -> None:
        """Called by whatever ran the batch, on its thread."""
        work = job.work
        with self._lock:
            if job.ended:
                return
            job.ended = True
            self._capture.end(job.message.dispatcher_id)
            following = self._occupancy.end(work, time.monotonic())
            del self._jobs[work.key]
            waiters = self._waiters.pop(work.key, [])
            if following is not None:
                self._begin(self._jobs[following.key])
            else:
                waiters += self._releases.pop(work.lease_number, [])
        for loop, waiter in waiters:
            loop.call_soon_threadsafe(_wake, waiter)

    # Running user code: one thread per slot, or one loop for async functions.

    def _serve_slot(self, slot: _Slot) -> None:
        while not slot.abandoned:
            job = self._queue.get()
            try:
                self._run_job(job, slot)
            finally:
                slot.job = None
                self._end(job)

    def _run_job(self, job: _Job, slot: _Slot) -> None:
        work, calls, function, clock = job.work, job.calls, self._function, time.perf_counter
        dispatcher_id, input_ids, attempts = (
            job.message.dispatcher_id,
            job.message.input_ids,
            job.message.attempts,
        )
        current_dispatcher.set(dispatcher_id)
        self._capture.begin(dispatcher_id)
        slot.began = clock()  # Before the job, which the watch looks for.
        slot.job = job
        while (position := work.take()) is not None:
            if calls[position] is None:
                work.settle(position, CANCELLED)
                continue
            input_id = input_ids[position]
            current_input.set((dispatcher_id, input_id, attempts.get(input_id, 1)))
            slot.position, slot.began = position, (began := clock())
            try:
                args, kwargs = _arguments(job, position)
                status, payload = OK, pack_result(function(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001  # Whatever user code raises is its outcome.
                status, payload = FAILED, pack_exception(error)
            if slot.abandoned:
                return
            work.settle(position, status, payload)
            work.note_time(clock() - began)

    def _run_user_loop(self) -> None:
        assert self._user_loop is not None
        asyncio.set_event_loop(self._user_loop)
        while True:
            try:
                self._user_loop.run_forever()
            except (
                BaseException
            ):  # SystemExit in a task that user code started leaves the loop; others go on.
                logger.exception("in a task of %s", self._function_name)

    def _start_async_job(self, job: _Job) -> None:
        assert self._user_loop is not None
        task = self._user_loop.create_task(self._run_async_job(job))
        task.add_done_callback(lambda _: self._end(job))

    async def _run_async_job(self, job: _Job) -> None:
        work, clock, timeout_s = job.work, time.perf_counter, self._timeout_s
        dispatcher_id = job.message.dispatcher_id
        current_dispatcher.set(dispatcher_id)
        self._capture.begin(dispatcher_id)
        while (position := work.take()) is not None:
            if job.calls[position] is None:
                work.settle(position, CANCELLED)
                continue
            current_input.set(_running(job.message, position))
            began, scope = clock(), asyncio.timeout(timeout_s)
            try:
                args, kwargs = _arguments(job, position)
                async with scope:
                    value = await self._function(*args, **kwargs)
                status, payload = OK, pack_result(value)
            except TimeoutError as error:
                late = FunctionTimeoutError(self._function_name, timeout_s) if scope.expired() else error
                status, payload = FAILED, pack_exception(late)
            except BaseException as error:  # noqa: BLE001  # Whatever user code raises is its outcome.
                status, payload = FAILED, pack_exception(error)
            work.settle(position, status, payload)
            work.note_time(clock() - began)

    async def _watch_timeouts(self) -> None:
        """Answer inputs that ran too long; a thread cannot be stopped, so its container retires (rule 13)."""
        every_s = min(WATCH_S, self._timeout_s / 10)
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(every_s)
            with self._lock:
                self._occupancy.expire(time.monotonic())
            now = time.perf_counter()
            for slot in self._threads:
                job = slot.job
                if job is not None and not slot.abandoned and now - slot.began > self._timeout_s:
                    self._abandon(slot, job)
            if self._occupancy.retiring:  # Told again and again: the controller may be restarting.
                await loop.run_in_executor(None, self._tell_retired)
                await asyncio.sleep(RETIRE_EVERY_S)

    def _tell_retired(self) -> None:
        with contextlib.suppress(ValueError, ray.exceptions.RayError):
            ray.get_actor(CONTROLLER_NAME, namespace=NAMESPACE).retire.remote(self._name)

    def _abandon(self, slot: _Slot, job: _Job) -> None:
        with self._lock:
            slot.abandoned = True
            self._occupancy.retiring = True
            late = FunctionTimeoutError(self._function_name, self._timeout_s)
            job.work.settle(slot.position, FAILED, pack_exception(late))
            job.work.drop_todo(UNSTARTED)
        self._end(job)

    # Control.

    @ray.method(concurrency_group="control")
    async def reclaim(self, dispatcher_id: str, batch_id: int) -> Any:
        """Take the batch's unstarted inputs out; None: not known here (yet)."""
        with self._lock:
            work = self._occupancy.reclaim((dispatcher_id, batch_id))
            if work is None:
                return None
            positions, statuses, payloads = work.account()
        return encode_answer(AccountMessage(positions, statuses, payloads))

    @ray.method(concurrency_group="control")
    async def cancel(self, dispatcher_id: str, batch_id: int, positions: tuple[int, ...]) -> None:
        """Drop these inputs of a batch where they have not begun."""
        with self._lock:
            self._occupancy.cancel((dispatcher_id, batch_id), positions)

    @ray.method(concurrency_group="control")
    async def release(self, lease_number: int) -> None:
        """Drop the lease; return when nothing of it runs any more."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._occupancy.release(lease_number):
                return
            waiter = loop.create_future()
            self._releases.setdefault(lease_number, []).append((loop, waiter))
        await waiter

    @ray.method(concurrency_group="control")
    async def output(self, dispatcher_id: str) -> list[tuple[Stream, str]]:
        """What this dispatcher's inputs have printed since the last message to it."""
        return self._capture.drain(dispatcher_id)


ContainerActor: Any = ray.remote(  # type: ignore[call-overload]  # Ray types no concurrency_groups.
    num_cpus=0, max_restarts=0, max_task_retries=0, concurrency_groups={"control": CONTROL_MAX}
)(Container)


def _running(message: BatchMessage, position: int) -> RunningInput:
    input_id = message.input_ids[position]
    return message.dispatcher_id, input_id, message.attempts.get(input_id, 1)


def _arguments(job: _Job, position: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The call's arguments; what travelled beside the message is put where it stood."""
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
    args, kwargs = unpack_call(packed)
    if resolved:
        values = objects[passed_on:]
        args = tuple([_resolve(value, values) for value in args])
        kwargs = {name: _resolve(value, values) for name, value in kwargs.items()}
    return args, kwargs


def _resolve(value: Any, objects: tuple[Any, ...]) -> Any:
    return objects[value.number] if type(value) is Resolved else value


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _not_loaded() -> None:
    raise AssertionError("an input came before the container was ready")


def _trace(error: BaseException) -> str:
    import traceback  # noqa: PLC0415  # Only a failing start needs it.

    return "".join(traceback.format_exception(error))
