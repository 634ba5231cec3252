"""A container: one Ray actor that holds the user's code and takes batches of inputs.

One rule: user code never runs on either event loop of the actor, so the container always answers control;
and every outcome is an envelope, so a user's exception is a result and not a Ray error.

`run` is in the default concurrency group; everything else is in `control`, which has its own event loop. What
is on a slot is decided by `core.occupancy`; inputs are run by `runner`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from typing import Any

import ray

from flexray.context import enter_container
from flexray.core.occupancy import Arrival, BatchKey, Occupancy, Work
from flexray.core.status import FAILED, LOST, OK
from flexray.decorators import ENTER, EXIT
from flexray.errors import DeserializationError
from flexray.output import Stream
from flexray.runtime.farewell import before_sigterm_ends
from flexray.runtime.output import Capture
from flexray.runtime.runner import Job, Runner, start_thread
from flexray.runtime.shipping import apply_import_paths
from flexray.runtime.target import Target
from flexray.runtime.wire import (
    CONTROLLER_NAME,
    EXIT_GRACE_S,
    NAMESPACE,
    AccountMessage,
    AnswerMessage,
    LoadAnswer,
    PoolSpec,
    ResultsMessage,
    decode,
    decode_batch,
    encode_answer,
)
from flexray.serialization import register_reference_type, unpack_function

logger = logging.getLogger("flexray")

WATCH_S = 0.25
"""How often inputs are checked for having run too long."""
RETIRE_EVERY_S = 1.0
HELLO_S = 60.0
"""A container that has run nothing for this long asks the controller whether it is known (rule 12)."""

RUNS_MAX = 100_000
"""Calls of `run` under way: far more than two batches per slot can be."""
CONTROL_MAX = 10_000


class Container:
    """See the module. `ContainerActor` is this class as Ray runs it; workers import this one by its name."""

    def __init__(self, name: str, spec_data: bytes, slots: int, *, hide_gpus: bool) -> None:
        self._name = name
        self._spec_data = spec_data
        self._spec: PoolSpec | None = None
        self._runner: Runner | None = None
        self._lock = threading.Lock()
        self._occupancy = Occupancy(slots)
        self._jobs: dict[BatchKey, Job] = {}
        self._waiters: dict[BatchKey, list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]]] = {}
        self._releases: dict[int, list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]]] = {}
        self._capture = Capture()
        self._runner_to_exit: Runner | None = None
        self._ran_at = time.monotonic()
        self._loading: asyncio.Task[LoadAnswer] | None = None
        register_reference_type(ray.ObjectRef)
        if hide_gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray hides nothing where num_gpus is 0.
        before_sigterm_ends(self._run_exit_hooks)
        start_thread(self._say_hello, "hello")

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
            self._watch = loop.create_task(self._watch_times())
        return loaded

    def _load(self) -> LoadAnswer:
        try:
            spec: PoolSpec = decode(self._spec_data)
            os.environ.update(spec.config.env)
            apply_import_paths(spec.import_paths)
            self._capture.install()
            enter_container()
            target = Target(unpack_function(spec.code), spec.parameters)
            runner = Runner(target, spec.config, self._end, self._retire)
            runner.run_hooks(ENTER)
        except DeserializationError as error:
            return LoadAnswer(ready=False, reason=error.sentence(), permanent=True)
        except BaseException as error:  # noqa: BLE001  # Importing the user's modules may raise anything.
            return LoadAnswer(
                ready=False, reason=f"{type(error).__name__}: {error}", remote_traceback=_trace(error)
            )
        self._spec, self._runner, self._runner_to_exit = spec, runner, runner
        return LoadAnswer(ready=True)

    @ray.method(concurrency_group="control")
    async def attend(self) -> None:
        """Park until this process dies; the error of this call is Ray's word of that."""
        await asyncio.Event().wait()

    @ray.method(concurrency_group="control")
    async def stop(self) -> None:
        """Run the exit hooks and exit; only called when no lease is out, or when the app ends."""
        await asyncio.get_running_loop().run_in_executor(None, self._run_exit_hooks)
        ray.actor.exit_actor()  # type: ignore[no-untyped-call]

    def _run_exit_hooks(self) -> None:
        """Once, and for 30 s at most."""
        with self._lock:
            runner, self._runner_to_exit = self._runner_to_exit, None
        if runner is None:
            return
        hooks = threading.Thread(target=_run_exit_hooks, args=(runner,), daemon=True)
        hooks.start()
        hooks.join(EXIT_GRACE_S)

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
        spec = self._spec
        assert spec is not None  # Leases exist only after it said that it is ready.
        with self._lock:
            arrival, work = self._occupancy.arrive(
                key,
                message.lease_number,
                len(message.calls),
                now,
                again=message.again,
                oldest_open=message.oldest_open,
                at_most_once=spec.config.at_most_once or spec.config.is_generator,
            )
            if work.over_at is not None:
                return self._answer(work, message.dispatcher_id)
            waiter = loop.create_future()
            self._waiters.setdefault(key, []).append((loop, waiter))
            if arrival is not Arrival.KNOWN:
                self._jobs[key] = job = Job(message, objects, work)
                if arrival is Arrival.BEGINS:
                    self._begin(job)
        await waiter
        return self._answer(work, message.dispatcher_id)

    def _begin(self, job: Job) -> None:
        assert self._runner is not None
        self._capture.begin(job.message.dispatcher_id)
        self._runner.begin(job)

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

    def _end(self, job: Job) -> None:
        """Called by whatever ran the batch, on its thread."""
        work = job.work
        assert self._spec is not None
        with self._lock:
            if job.ended:
                return
            job.ended = True
            self._capture.end(job.message.dispatcher_id)
            if self._spec.config.single_use_containers:
                work.bounced = self._occupancy.retiring = True
            following = self._occupancy.end(work, time.monotonic())
            del self._jobs[work.key]
            waiters = self._waiters.pop(work.key, [])
            if following is not None:
                self._begin(self._jobs[following.key])
            else:
                waiters += self._releases.pop(work.lease_number, [])
        for loop, waiter in waiters:
            loop.call_soon_threadsafe(_wake, waiter)

    async def _watch_times(self) -> None:
        """Answer inputs that ran too long, forget old answers, and tell of a container that retires."""
        assert self._spec is not None
        assert self._runner is not None
        every_s = min(WATCH_S, self._spec.config.timeout / 10)
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(every_s)
            with self._lock:
                self._occupancy.expire(time.monotonic())
            self._runner.expire()
            if self._occupancy.retiring:  # Told again and again: the controller may be restarting.
                await loop.run_in_executor(None, self._tell_retired)
                await asyncio.sleep(RETIRE_EVERY_S)

    def _tell_retired(self) -> None:
        with contextlib.suppress(ValueError, ray.exceptions.RayError):
            ray.get_actor(CONTROLLER_NAME, namespace=NAMESPACE).retire.remote(self._name)

    def _retire(self) -> None:
        """Something runs here that cannot be stopped: take nothing new (rule 13)."""
        with self._lock:
            self._occupancy.retiring = True

    # Control.

    @ray.method(concurrency_group="control")
    async def reclaim(self, dispatcher_id: str, batch_id: int) -> Any:
        """Take the batch's unstarted inputs out; None: not known here (yet)."""
        with self._lock:
            work = self._occupancy.reclaim((dispatcher_id, batch_id))
            if work is None:
                return None
            positions, statuses, payloads = work.account()
        if self._runner is not None:
            self._runner.poke()
        return encode_answer(AccountMessage(positions, statuses, payloads))

    @ray.method(concurrency_group="control")
    async def cancel(
        self, dispatcher_id: str, batch_id: int, positions: tuple[int, ...], interrupts: tuple[int, ...]
    ) -> None:
        """Drop these inputs of a batch where they have not begun; end `interrupts` where they run."""
        key = (dispatcher_id, batch_id)
        with self._lock:
            work = self._occupancy.cancel(key, positions)
        if work is not None and self._runner is not None:
            self._runner.interrupt(key, interrupts)
            self._runner.poke()

    @ray.method(concurrency_group="control")
    async def read(self, dispatcher_id: str, batch_id: int, position: int, received: int) -> Any:
        """Results of a generator after the first `received`, and whether they are the last; None: unknown."""
        key = ((dispatcher_id, batch_id), position)
        stream = None if self._runner is None else self._runner.streams.get(key)
        if stream is None:
            return None
        results, ended = await stream.read(received)
        return encode_answer(ResultsMessage(results, ended))

    @ray.method(concurrency_group="control")
    async def release(self, lease_number: int) -> None:
        """Drop the lease; return when nothing of it runs any more."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._occupancy.release(lease_number):
                return
            if self._runner is not None:
                self._runner.close_streams(self._occupancy.keys_of(lease_number))
                self._runner.poke()
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


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _run_exit_hooks(runner: Runner) -> None:
    try:
        runner.run_hooks(EXIT)
    except BaseException:  # It ends all the same.
        logger.exception("in an exit hook")


def _trace(error: BaseException) -> str:
    import traceback  # noqa: PLC0415  # Only a failing start needs it.

    return "".join(traceback.format_exception(error))
