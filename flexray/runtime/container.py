"""What a container is: it holds the user's code and takes batches of inputs. `actors` makes Ray actors of it.

One rule: user code never runs on a thread or a loop of Ray's, so a container always answers control; and
every outcome is an envelope, so a user's exception is a result and not a Ray error.

Nothing here waits but `load` and `stop` (see `parking`). What is on a slot is decided by `core.occupancy`;
inputs are run by `runner`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from flexray.context import enter_container
from flexray.core.occupancy import HELLO_S, Arrival, Occupancy, Work
from flexray.core.status import FAILED, LOST, OK, BatchKey
from flexray.decorators import ENTER, EXIT
from flexray.errors import DeserializationError
from flexray.output import Written
from flexray.runtime.farewell import before_sigterm_ends
from flexray.runtime.journal import Journal
from flexray.runtime.output import Capture
from flexray.runtime.parking import WAIT, Wake
from flexray.runtime.runner import Job, Runner, start_thread
from flexray.runtime.shipping import apply_import_paths
from flexray.runtime.streams import Stream
from flexray.runtime.target import Target
from flexray.runtime.wire import (
    CONTROLLER_NAME,
    EXIT_GRACE_S,
    NAMESPACE,
    PINNED,
    AccountMessage,
    AnswerMessage,
    LoadAnswer,
    PoolSpec,
    decode,
    decode_batch,
    encode_answer,
)
from flexray.serialization import format_traceback, packed_size, register_reference_type, unpack_function

logger = logging.getLogger("flexray")

WATCH_S = 0.25
"""How often inputs are checked for having run too long."""
ANSWERS_BYTES = 1 << 20
"""Results in one answer to a bundle; what travels together stays in memory together."""
RETIRE_EVERY_S = 1.0
EXIT_AFTER_S = 2.0


@dataclass(slots=True, eq=False)
class Bundle:
    """Batches that were sent together, and whose answers are given together where they end together."""

    left: int
    """Batches that are not over."""
    over: list[tuple[int, Work | None]] = field(default_factory=list)
    """(id, batch) of those that are; None: it is not known here."""
    wake: Wake | None = None


class BaseContainer:
    """See the module. Any thread may call it."""

    def __init__(self, name: str, spec_data: bytes, slots: int, *, hide_gpus: bool) -> None:
        self.name = name
        self._spec_data = spec_data
        self._spec: PoolSpec | None = None
        self._runner: Runner | None = None
        self._lock = threading.Lock()
        self._slots = slots
        self._occupancy = Occupancy(slots, time.monotonic())
        self._jobs: dict[BatchKey, Job] = {}
        self._waiters: dict[BatchKey, list[Wake]] = {}
        self._bundles: dict[BatchKey, Bundle] = {}
        self._releases: dict[int, list[Wake]] = {}
        self._capture = Capture()
        self._journal: Journal | None = None
        self._runner_to_exit: Runner | None = None
        self._load_lock = threading.Lock()
        self._loaded: LoadAnswer | None = None
        self._attended: Wake | None = None
        register_reference_type(ray.ObjectRef)
        if hide_gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray hides nothing where num_gpus is 0.
        before_sigterm_ends(self._run_exit_hooks)
        start_thread(self._say_hello, "hello")

    # Life.

    def load(self) -> LoadAnswer:
        """Load the user's code; again after a controller's restart, when it tells the leases in use."""
        with self._load_lock:
            if self._loaded is None:
                self._loaded = self._load()
                if self._loaded.ready:
                    start_thread(self._watch_times, "watch")
        with self._lock:
            return self._loaded._replace(busy=self._occupancy.busy, slots=self._slots)

    def _load(self) -> LoadAnswer:
        try:
            spec: PoolSpec = decode(self._spec_data)
            os.environ.update(spec.config.env)
            apply_import_paths(spec.import_paths)
            if spec.is_logged:
                app = spec.app_id.partition(PINNED)[0]
                self._journal = Journal(app, spec.function_name, self.name)
            self._capture.install(self._journal)
            enter_container(spec.pool_id)
            code, config = unpack_function(spec.code), spec.config
            target = Target(code, spec.parameters, is_generator=config.is_generator)
            runner = Runner(target, config, self._end, self._retire, self._note_failure, self._is_outdated)
            runner.run_hooks(ENTER)
        except DeserializationError as error:
            self._close_journal(error.sentence())
            return LoadAnswer(ready=False, reason=error.sentence(), permanent=True)
        except BaseException as error:  # noqa: BLE001  # Importing the user's modules may raise anything.
            trace = _trace(error)
            self._close_journal(trace)
            return LoadAnswer(ready=False, reason=f"{type(error).__name__}: {error}", remote_traceback=trace)
        self._spec, self._runner, self._runner_to_exit = spec, runner, runner
        return LoadAnswer(ready=True)

    def _note_failure(self, error: BaseException) -> None:
        """An input has failed: whoever reads the logs sees it, though its caller may not look."""
        if self._journal is not None:
            with contextlib.suppress(Exception):  # A user's exception may raise when it is looked at.
                self._journal.write("failure", format_traceback(error) + "\n")

    def _close_journal(self, last: str = "") -> None:
        if self._journal is not None:
            self._capture.look(to_the_end=True)
            if last:
                self._journal.write("failure", last + "\n")
            self._journal.close()

    def attend(self, wake: Wake) -> None:
        """Whoever attends to this container is not woken before its end, or before somebody else attends."""
        with self._lock:
            former, self._attended = self._attended, wake
        if former is not None:
            former()

    def stop(self) -> None:
        """Run the exit hooks; only called when no lease is out, or when the app ends.

        Whoever called it kills this process then. Where that one is dead, it ends by itself.
        """
        self._run_exit_hooks()
        start_thread(_exit_soon, "exit")

    def _run_exit_hooks(self) -> None:
        """Once, and for 30 s at most; then the last lines are sent."""
        with self._lock:
            runner, self._runner_to_exit = self._runner_to_exit, None
        if runner is None:
            return
        hooks = threading.Thread(target=_run_exit_hooks, args=(runner,), daemon=True)
        hooks.start()
        hooks.join(EXIT_GRACE_S)
        self._close_journal()

    def _say_hello(self) -> None:
        """Exit when nothing has run for a while and the controller does not know this container.

        On a thread, from birth: one that nobody ever loads must not stay either.
        """
        while True:
            time.sleep(HELLO_S / 4)
            if not self._occupancy.asks_after_itself(time.monotonic()):
                continue
            known = self._is_known()
            with self._lock:
                if self._occupancy.is_left(time.monotonic(), known=known):
                    os._exit(0)

    def _is_known(self) -> bool:
        """What the controller says; no answer for a minute, in which it had time to restart, is a no."""
        until = time.monotonic() + HELLO_S
        while time.monotonic() < until:
            try:
                controller = ray.get_actor(CONTROLLER_NAME, namespace=NAMESPACE)
                return bool(ray.get(controller.hello.remote(self.name), timeout=HELLO_S))
            except (ValueError, ray.exceptions.RayError):
                time.sleep(HELLO_S / 12)
        return False

    # Batches.

    def arrive(self, data: bytes, objects: tuple[Any, ...]) -> Work:
        """Take in a batch. Idempotent by the batch's id."""
        message = decode_batch(data)
        key = (message.dispatcher_id, message.batch_id)
        now = time.monotonic()
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
            if arrival is Arrival.BEGINS or arrival is Arrival.FOLLOWS:
                self._jobs[key] = job = Job(message, objects, work)
                if arrival is Arrival.BEGINS:
                    self._begin(job)
        return work

    def answer(self, work: Work, wake: Wake) -> Any:
        """What accounts for every input of the batch, or WAIT until it is over."""
        with self._lock:
            if work.over_at is None:
                self._waiters.setdefault(work.key, []).append(wake)
                return WAIT
        return self._answer(work)

    def arrive_together(self, batches: Sequence[bytes]) -> Bundle:
        """Take in batches; each of them as `arrive` does."""
        return self._bundle([(work.key, work) for work in [self.arrive(data, ()) for data in batches]])

    def bundle_again(self, dispatcher_id: str, batch_ids: Sequence[int]) -> Bundle:
        """Those batches of a bundle whose answers have not been given."""
        keys = [(dispatcher_id, batch_id) for batch_id in batch_ids]
        return self._bundle([(key, self._occupancy.get(key)) for key in keys])

    def _bundle(self, works: Sequence[tuple[BatchKey, Work | None]]) -> Bundle:
        bundle = Bundle(0)
        with self._lock:
            for key, work in works:
                if work is None or work.over_at is not None:
                    bundle.over.append((key[1], work))
                else:
                    self._bundles[key] = bundle
                    bundle.left += 1
        return bundle

    def any_over(self, bundle: Bundle, wake: Wake) -> Any:
        """How many of its batches are not over; WAIT while none is."""
        with self._lock:
            if bundle.over or not bundle.left:
                return bundle.left
            bundle.wake = wake
            return WAIT

    def answers(self, bundle: Bundle) -> list[tuple[int, Any]]:
        """(id, answer) of batches that are over, up to about 1 MiB; the others stay to be asked for.

        None: it is not known here, and is to be sent again.
        """
        with self._lock:
            over, bundle.over = bundle.over, []
        answers: list[tuple[int, Any]] = []
        size = 0
        for number, work in over:
            answers.append((number, None if work is None else self._answer(work)))
            size += 0 if work is None else sum(map(_size, work.payloads))
            if size > ANSWERS_BYTES:
                break
        return answers

    def _begin(self, job: Job) -> None:
        assert self._runner is not None
        self._capture.begin(job.message.dispatcher_id)
        self._runner.begin(job)

    def _answer(self, work: Work) -> Any:
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
                self._capture.drain(work.key[0]),
            )
        )

    def _end(self, job: Job) -> None:
        """Called by whatever ran the batch, on its thread."""
        work = job.work
        assert self._spec is not None
        if self._journal is not None:
            self._journal.end_line()
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
            bundle = self._bundles.pop(work.key, None)
            if bundle is not None:
                bundle.left -= 1
                bundle.over.append((work.key[1], work))
                wake, bundle.wake = bundle.wake, None
                if wake is not None:
                    waiters.append(wake)
            if following is not None:
                self._begin(self._jobs[following.key])
            else:
                waiters += self._releases.pop(work.lease_number, [])
        for wake in waiters:
            wake()

    def _watch_times(self) -> None:
        """Answer inputs that ran too long, forget old answers, look for output, and tell of who retires."""
        assert self._spec is not None
        assert self._runner is not None
        every_s = min(WATCH_S, self._spec.config.timeout / 10)
        while True:
            time.sleep(every_s)
            with self._lock:
                self._occupancy.expire(time.monotonic())
            self._runner.expire()
            self._capture.look()
            if self._occupancy.retiring:  # Told again and again: the controller may be restarting.
                self._tell_retired()
                time.sleep(RETIRE_EVERY_S)

    def _tell_retired(self) -> None:
        with contextlib.suppress(ValueError, ray.exceptions.RayError):
            ray.get_actor(CONTROLLER_NAME, namespace=NAMESPACE).retire.remote(self.name)

    def _retire(self) -> None:
        """Something runs here that cannot be stopped: take nothing new (rule 13)."""
        with self._lock:
            self._occupancy.retiring = True

    def _is_outdated(self) -> bool:
        """Whether another version of the function has been deployed, as the controller says."""
        controller = ray.get_actor(CONTROLLER_NAME, namespace=NAMESPACE)
        return bool(ray.get(controller.is_outdated.remote(self.name), timeout=HELLO_S))

    # Control.

    def reclaim(self, dispatcher_id: str, batch_id: int) -> Any:
        """Take the batch's unstarted inputs out; None: not known here (yet)."""
        with self._lock:
            work = self._occupancy.reclaim((dispatcher_id, batch_id))
            if work is None:
                return None
            positions, statuses, payloads = work.account()
        if self._runner is not None:
            self._runner.poke()
        return encode_answer(AccountMessage(positions, statuses, payloads))

    def cancel(
        self, dispatcher_id: str, batch_id: int, positions: tuple[int, ...], interrupts: tuple[int, ...]
    ) -> None:
        """Drop these inputs of a batch where they have not begun; end `interrupts` where they run."""
        key = (dispatcher_id, batch_id)
        with self._lock:
            work = self._occupancy.cancel(key, positions)
        if work is not None and self._runner is not None:
            self._runner.interrupt(key, interrupts)
            self._runner.poke()

    def stream(self, dispatcher_id: str, batch_id: int, position: int) -> Stream | None:
        """The results of a generator; None: it has not begun, or was over long ago."""
        key = ((dispatcher_id, batch_id), position)
        return None if self._runner is None else self._runner.streams.get(key)

    def release(self, lease_number: int, wake: Wake) -> Any:
        """Drop the lease; WAIT while something of it runs."""
        with self._lock:
            if self._occupancy.release(lease_number):
                return None
            if self._runner is not None:
                self._runner.close_streams(self._occupancy.keys_of(lease_number))
                self._runner.poke()
            self._releases.setdefault(lease_number, []).append(wake)
        return WAIT

    def output(self, dispatcher_id: str) -> list[Written]:
        """What this dispatcher's inputs have printed since the last message to it."""
        self._capture.look()
        return self._capture.drain(dispatcher_id)


def _size(payload: Any) -> int:
    return 0 if payload is None else packed_size(payload)


def _exit_soon() -> None:
    time.sleep(EXIT_AFTER_S)
    os._exit(0)


def _run_exit_hooks(runner: Runner) -> None:
    try:
        runner.run_hooks(EXIT)
    except BaseException:  # It ends all the same.
        logger.exception("in an exit hook")


def _trace(error: BaseException) -> str:
    import traceback  # noqa: PLC0415  # Only a failing start needs it.

    return "".join(traceback.format_exception(error))
