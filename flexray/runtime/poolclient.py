"""One pool as one process uses it: performs what `core.dispatch` decides.

One rule: a blocking call that finds a free leased slot is sent and awaited on its own thread; everything else
is answered on the dispatcher's thread. Both go through the same `Dispatch`, under one lock.
"""

from __future__ import annotations

import copy
import itertools
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    GetTimeoutError,
    ObjectLostError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
)

from flexray import output
from flexray.config import FunctionConfig
from flexray.context import home_pool
from flexray.core.dispatch import Dispatch
from flexray.core.events import (
    BatchReclaimed,
    BatchReturned,
    BatchUnreached,
    CancelInputs,
    ContainerLost,
    ControllerLost,
    DispatchEffect,
    DispatchEvent,
    ForgetContainer,
    InputsCancelled,
    InputsSubmitted,
    ReclaimBatch,
    Reply,
    ReplyReceived,
    Report,
    ReportFailed,
    ReportReleased,
    SendBatch,
    SendReport,
    Settle,
    Ticked,
)
from flexray.core.status import CANCELLED, FAILED, PoolView, Sink
from flexray.errors import ExecutionError, NotFoundError
from flexray.runtime.deaths import cause_of
from flexray.runtime.head import shows_log_of
from flexray.runtime.sinks import Stream, Waiter
from flexray.runtime.wire import (
    FORGOTTEN,
    GONE,
    BatchMessage,
    Resolved,
    StoredCall,
    decode,
    decode_account,
    decode_answer,
    encode,
    encode_batch,
)
from flexray.serialization import LARGE_BYTES, Packed, Parts, pack_call, packed_size

if TYPE_CHECKING:
    from flexray.runtime.dispatcher import Dispatcher

ALONE_BYTES = 1 << 30
"""Size told of an input with references: Ray fails a whole call for one of them, so it travels alone."""
BUNDLE_SLOTS = 8
"""Batches for containers with so many slots are held until whatever has arrived is taken in."""
BUNDLE_MIN = 4
"""So many of them for one container travel in one call. An answer may wait a little for others then."""
BUNDLE_BYTES = 1 << 20
"""Packed arguments in one of these calls."""
OUTPUT_EVERY_S = 0.5
TELL_EVERY_S = 60.0

logger = logging.getLogger("flexray")

Prepared = Packed | StoredCall


@dataclass(slots=True)
class _UnderWay:
    """A batch that a container has."""

    container_id: str
    output_asked_at: float
    """When what its inputs print was last asked for."""


class PoolClient:
    """See the module. Any thread may call it."""

    def __init__(
        self, pool_id: str, config: FunctionConfig, dispatcher: Dispatcher, *, spawned: bool = False
    ) -> None:
        self.pool_id = pool_id
        self._name = config.name
        self._bundle_min = _bundle_min(config)
        self._held: list[SendBatch] = []
        self._dispatcher = dispatcher
        self._lock = threading.Lock()
        self._dispatch = Dispatch(
            dispatcher.process,
            spawned=spawned,
            home=home_pool(),
            **_dispatch_options(config),
        )
        self._version = 1
        """Of the function, as far as it is known: 1 is also that of one that was not deployed."""
        self._version_asked: int | None = None
        self._ids = itertools.count(1)
        self._inputs: dict[int, tuple[Prepared, Sink]] = {}
        self._handles: dict[str, Any] = {}
        self._outgoing: dict[int, tuple[Any, dict[int, int]]] = {}
        """Batch to (container's handle, attempts), from the decision to send it until it is sent."""
        self._under_way: dict[int, _UnderWay] = {}
        self._deferred: dict[int, None] = {}
        self.spec_data: bytes | None = None
        """What opens the pool again, which the controller forgets while it is idle; None: it never does."""
        self._gone: Exception | None = None
        self._told_at = float("-inf")
        self._kept: list[Any] = []
        """References that ended with Ray itself: see `farewell`."""

    # What callers do.

    def prepare(self, args: tuple[Any, ...], kwargs: dict[str, Any], method: str = "") -> Prepared:
        """Pack the arguments, for that method of a class; large ones go to the object store.

        Raises:
            SerializationError: An argument cannot be packed.
        """
        packed = pack_call(args, kwargs, method)
        if type(packed) is bytes and len(packed) <= LARGE_BYTES:
            return packed
        if self._gone is not None:
            raise copy.copy(self._gone)
        refs = [value for value in (*args, *kwargs.values()) if isinstance(value, ray.ObjectRef)]
        if refs:
            index = {id(ref): number for number, ref in enumerate(refs)}
            args = tuple([_stand_in(value, index) for value in args])
            kwargs = {name: _stand_in(value, index) for name, value in kwargs.items()}
            packed = pack_call(args, kwargs, method)
        return stored_call(packed, refs)

    def call(self, prepared: Prepared) -> tuple[int, Any]:
        """Run one input; blocks for its (status, payload)."""
        waiter = Waiter()
        input_id = next(self._ids)
        self._inputs[input_id] = (prepared, waiter)
        if self._gone is not None:
            self.close(self._gone)
            return self._await(input_id, waiter)
        if type(prepared) is not bytes and self._defer(input_id, prepared, patient=False):
            return self._await(input_id, waiter)
        own: SendBatch | None = None
        for effect in self._handle(InputsSubmitted((input_id,))):
            if type(effect) is SendBatch and effect.input_ids == (input_id,):
                own = effect
            else:
                self._perform(effect)
        if own is not None:
            self._send_and_wait(own)
        return self._await(input_id, waiter)

    def submit(self, prepared: Sequence[Prepared], sink: Sink, *, patient: bool) -> list[int]:
        """Run inputs; their outcomes go to the sink. Returns their ids, in order."""
        input_ids = list(itertools.islice(self._ids, len(prepared)))
        self._inputs.update(zip(input_ids, [(item, sink) for item in prepared], strict=True))
        if self._gone is not None:
            self.close(self._gone)
            return input_ids
        ready = input_ids
        if not all(type(item) is bytes for item in prepared):
            ready = [
                i
                for i, item in zip(input_ids, prepared, strict=True)
                if type(item) is bytes or not self._defer(i, item, patient=patient)
            ]
        if ready:
            self._take(InputsSubmitted(ready, patient=patient))
        return input_ids

    def stream(self, prepared: Prepared, changed: Callable[[], None]) -> Stream:
        """Run one input whose results are read one by one; `changed` is called when there may be news."""
        stream = Stream(self, changed)
        stream.input_id = input_id = next(self._ids)
        self._inputs[input_id] = (prepared, stream)
        if self._gone is not None:
            self.close(self._gone)
        elif type(prepared) is bytes or not self._defer(input_id, prepared, once=True):
            self._take(InputsSubmitted((input_id,), once=True))
        return stream

    def ask_results(self, handle: Any, batch_id: int, received: int) -> Any:
        """A reference to what a generator has given after the first `received` results."""
        return handle.read.remote(self._dispatcher.process, batch_id, 0, received)

    def cancel(self, input_ids: Sequence[int], *, interrupt: bool = True) -> None:
        """Settle these inputs as cancelled, unless they are settled; end them where they run, or let them."""
        waiting = [i for i in input_ids if i in self._inputs]
        deferred = [i for i in waiting if self._deferred.pop(i, 0) is None]
        self._take(InputsCancelled(waiting, interrupt))
        for input_id in deferred:  # The core never heard of them.
            self._settle(Settle((input_id,), bytes([CANCELLED]), (None,)))

    def cancel_sink(self, sink: Sink) -> None:
        """Settle whatever this sink still waits for as cancelled; what runs may finish."""
        self.cancel([i for i, entry in list(self._inputs.items()) if entry[1] is sink], interrupt=False)

    @property
    def view(self) -> PoolView:
        """The pool as the newest reply told it."""
        reply = self._dispatch.last_reply
        return PoolView() if reply is None else reply.view

    @property
    def notice(self) -> str | None:
        """Why inputs wait, where that takes more than time."""
        reply = self._dispatch.last_reply
        return None if reply is None else reply.notice

    @property
    def counts(self) -> tuple[int, int, int]:
        """(waiting, running, held back for room) of this process's inputs."""
        dispatch = self._dispatch
        return dispatch.waiting, dispatch.assigned, dispatch.held_back

    # What the dispatcher's thread does.

    @property
    def is_idle(self) -> bool:
        return self._gone is not None or (self._dispatch.is_idle and not self._under_way)

    def tick(self, now: float) -> None:
        """Run what is due, and fetch the output of what has been running for a while."""
        self._take(Ticked())
        if self._gone is not None:
            return
        for batch in list(self._under_way.values()):
            if now - batch.output_asked_at >= OUTPUT_EVERY_S:
                batch.output_asked_at = now
                handle = self._handles.get(batch.container_id)
                if handle is not None:
                    ref = handle.output.remote(self._dispatcher.process)
                    self._dispatcher.follow(ref, partial(self._relay, handle))

    def controller_lost(self) -> None:
        self._take(ControllerLost())

    def close(self, reason: Exception) -> None:
        """Fail whatever waits here: the pool is gone."""
        self._gone = reason  # First: whoever adds an input from now on finds it afterwards.
        inputs = list(self._inputs)
        count = len(inputs)
        if count:
            self._settle(Settle(inputs, bytes([FAILED]) * count, [reason] * count))

    def give_up(self, reason: Exception) -> None:
        """There is no controller, or none that understands this process."""
        self.close(reason)
        self._dispatcher.forget(self)

    @property
    def is_gone(self) -> bool:
        """The pool has ended, and nothing here can run any more."""
        return self._gone is not None

    def _is_gone(self) -> bool:
        """A method, for it changes meanwhile, which a type checker believes of no attribute."""
        return self._gone is not None

    # Through the core.

    def _handle(self, event: DispatchEvent, handles: Mapping[str, Any] = {}) -> list[DispatchEffect]:
        """Take in one event, with the handles that came along; what depends on order is under the lock."""
        with self._lock:
            self._handles.update(handles)
            effects = self._dispatch.handle(event, time.monotonic())
            for effect in effects:
                if type(effect) is SendBatch:
                    handle = self._handles[effect.lease.container_id]
                    self._outgoing[effect.batch_id] = (
                        handle,
                        self._dispatch.later_attempts(effect.input_ids),
                    )
                elif type(effect) is ForgetContainer:
                    self._handles.pop(effect.container_id, None)
        self._dispatcher.wake(self)
        return effects

    def _take(self, event: DispatchEvent, handles: Mapping[str, Any] = {}) -> None:
        self._perform_all(self._handle(event, handles))

    def _perform_all(self, effects: list[DispatchEffect]) -> None:
        """On the dispatcher's thread what goes to many slots is held until all that arrived is taken in."""
        batches: list[SendBatch] = []
        for effect in effects:
            if self._bundle_min and type(effect) is SendBatch and not effect.again:
                batches.append(effect)
            else:
                self._perform(effect)
        if batches and self._dispatcher.send_soon(self):
            self._held += batches
        else:
            self._send_all(batches)

    def send(self) -> None:
        """Send what was held."""
        held, self._held = self._held, []
        self._send_all(held)

    def _send_all(self, batches: Sequence[SendBatch]) -> None:
        """Those for one container in one call, where they are enough for that to be worth it."""
        bundles: dict[str, list[SendBatch]] = {}
        for effect in batches:
            bundles.setdefault(effect.lease.container_id, []).append(effect)
        for bundle in bundles.values():
            small = [effect for effect in bundle if self._is_small(effect)]
            if not self._bundle_min or len(small) < self._bundle_min:
                small = []
            self._send_bundle(small)
            for effect in bundle if not small else [e for e in bundle if not self._is_small(e)]:
                self._perform(effect)

    def _perform(self, effect: DispatchEffect) -> None:
        if self._gone is not None and type(effect) is not Settle:
            return  # Whatever it was for is settled.
        match effect:
            case Settle():
                self._settle(effect)
            case SendBatch():
                try:
                    ref = self._send(effect)
                except RayError as error:  # The object store is full, say.
                    self._take(self._event_of_failure(effect, error))
                    return
                self._dispatcher.follow(ref, lambda result: self._take_answer(effect, result))
            case SendReport(report):
                ref = self._dispatcher.controller.report.remote(self.pool_id, encode(report))
                self._dispatcher.follow(ref, lambda result: self._take_reply(report, result))
            case ReclaimBatch(batch_id, container_id):
                self._reclaim(batch_id, container_id)
            case CancelInputs(batch_id, container_id, positions, interrupts):
                handle = self._handles.get(container_id)
                if handle is not None:
                    handle.cancel.remote(self._dispatcher.process, batch_id, positions, interrupts)
            case ForgetContainer():
                pass  # Done under the lock.

    def _settle(self, effect: Settle) -> None:
        input_ids, pop = effect.input_ids, self._inputs.pop
        if len(input_ids) == 1:
            entry = pop(input_ids[0], None)
            if entry is not None:
                entry[1].settle(input_ids, effect.statuses, effect.payloads)
            return
        sinks = [entry[1] if (entry := pop(i, None)) is not None else None for i in input_ids]
        first = sinks[0]
        if first is not None and sinks.count(first) == len(sinks):
            first.settle(input_ids, effect.statuses, effect.payloads)
            return
        for position, sink in enumerate(sinks):
            if sink is not None:
                status = effect.statuses[position : position + 1]
                sink.settle((input_ids[position],), status, (effect.payloads[position],))

    # To containers.

    def _is_small(self, effect: SendBatch) -> bool:
        """Whether nothing of it travels beside the message, and its results are not read one by one."""
        entries = [self._inputs.get(input_id) for input_id in effect.input_ids]
        return all(e is None or (type(e[0]) is bytes and type(e[1]) is not Stream) for e in entries)

    def _send_bundle(self, batches: Sequence[SendBatch]) -> None:
        left: dict[int, SendBatch] = {}
        messages: list[bytes] = []
        size = 0
        for effect in batches:
            if self._gone is not None:
                return
            handle, message, _ = self._message(effect)
            self._note_sent(effect)
            left[effect.batch_id] = effect
            messages.append(message)
            size += len(message)
            if size > BUNDLE_BYTES or effect is batches[-1]:
                self._follow_bundle(handle, left, partial(handle.run_bundle.remote, messages))
                left, messages, size = {}, [], 0

    def _follow_bundle(self, handle: Any, left: dict[int, SendBatch], ask: Callable[[], Any]) -> None:
        """Take in the answers as they come: those of batches that end at about the same time together."""
        try:
            ref = ask()
        except RayError as error:
            self._take_answers(handle, left, error)
        else:
            self._dispatcher.follow(ref, partial(self._take_answers, handle, left))

    def _take_answers(self, handle: Any, left: dict[int, SendBatch], result: Any) -> None:
        answers = [(number, result) for number in left] if isinstance(result, BaseException) else result
        effects: list[DispatchEffect] = []
        for batch_id, answer in answers:
            effects += self._handle(self._event_of_answer(left.pop(batch_id), answer))
        self._perform_all(effects)
        if left and self._gone is None:
            batch_ids = list(left)
            self._follow_bundle(handle, left, lambda: handle.rest.remote(self._dispatcher.process, batch_ids))

    def _send(self, effect: SendBatch) -> Any:
        handle, message, objects = self._message(effect)
        ref = handle.run.remote(message, *objects)
        self._note_sent(effect)
        return ref

    def _note_sent(self, effect: SendBatch) -> None:
        self._under_way[effect.batch_id] = _UnderWay(effect.lease.container_id, time.monotonic())

    def _message(self, effect: SendBatch) -> tuple[Any, bytes, list[Any]]:
        """(container's handle, packed batch, what travels beside it)."""
        handle, attempts = self._outgoing.pop(effect.batch_id)
        entries = [self._inputs.get(input_id) for input_id in effect.input_ids]
        calls, objects = laid_out([None if entry is None else entry[0] for entry in entries])
        if entries[0] is not None and type(entries[0][1]) is Stream:
            entries[0][1].begin(handle, effect.batch_id)  # It travels alone: its position is 0.
        message = BatchMessage(
            self._dispatcher.process,
            effect.batch_id,
            effect.lease.number,
            effect.again,
            effect.oldest_open,
            effect.input_ids,
            attempts,
            calls,
            self._call_ids(effect.input_ids),
        )
        return handle, encode_batch(message), objects

    def _call_ids(self, input_ids: Sequence[int]) -> dict[int, str]:
        """Of the calls that have spawned these inputs, by number; see `BatchMessage`."""
        return {}

    def _send_and_wait(self, effect: SendBatch) -> None:
        if self._is_gone():
            return
        result: Any
        try:
            ref = self._send(effect)
        except RayError as error:
            self._take_answer(effect, error)
            return
        try:
            result = ray.get(ref)
        except RayError as error:
            result = error
        except BaseException:  # Ctrl-C: somebody else must take the answer in.
            self._dispatcher.follow(ref, lambda late: self._take_answer(effect, late))
            self.cancel(effect.input_ids)
            raise
        if self._is_gone():
            self._kept.append(ref)
        self._take_answer(effect, result)

    def _await(self, input_id: int, waiter: Waiter) -> tuple[int, Any]:
        try:
            return waiter.wait()
        except BaseException:
            self.cancel([input_id])
            raise

    def _take_answer(self, effect: SendBatch, result: Any) -> None:
        self._take(self._event_of_answer(effect, result))

    def _event_of_answer(self, effect: SendBatch, result: Any) -> DispatchEvent:
        self._under_way.pop(effect.batch_id, None)
        if isinstance(result, BaseException):
            return self._event_of_failure(effect, result)
        if result is None:
            return BatchUnreached(effect.batch_id)  # The container forgot that it had it.
        answer = decode_answer(result)
        if answer.output:
            self._relay(self._handles.get(effect.lease.container_id), answer.output)
        return BatchReturned(
            effect.batch_id,
            answer.statuses,
            answer.payloads,
            answer.sample_s,
            answer.busy_s,
            answer.ran,
            answer.bounced,
        )

    def _event_of_failure(self, effect: SendBatch, error: BaseException) -> DispatchEvent:
        """A call of `run` that failed.

        | error | means |
        |---|---|
        | ActorDiedError, OutOfMemoryError | Ray's word that the container is dead |
        | ActorUnavailableError, GetTimeoutError | not reached, or the answer was lost: send again |
        | ObjectLostError, no argument being by reference | the answer was lost with its node: the same |
        | anything else | an argument that Ray had to resolve failed: these inputs fail with it |
        """
        if isinstance(error, ActorDiedError | OutOfMemoryError):
            return ContainerLost(effect.lease.container_id, cause_of(error))
        if isinstance(error, ActorUnavailableError | GetTimeoutError):
            return BatchUnreached(effect.batch_id)
        if isinstance(error, ObjectLostError) and not self._has_references(effect):
            return BatchUnreached(effect.batch_id)
        count = len(effect.input_ids)
        return BatchReturned(effect.batch_id, bytes([FAILED]) * count, [error] * count)

    def _has_references(self, effect: SendBatch) -> bool:
        entries = [self._inputs.get(input_id) for input_id in effect.input_ids]
        return any(entry is not None and isinstance(entry[0], StoredCall) for entry in entries)

    def _reclaim(self, batch_id: int, container_id: str) -> None:
        handle = self._handles.get(container_id)
        if handle is None:
            return

        def take(result: Any) -> None:
            if result is not None and not isinstance(result, BaseException):
                account = decode_account(result)
                self._take(BatchReclaimed(batch_id, account.positions, account.statuses, account.payloads))

        self._dispatcher.follow(handle.reclaim.remote(self._dispatcher.process, batch_id), take)

    # To the controller.

    def _take_reply(self, report: Report, result: Any) -> None:
        if isinstance(result, RayTaskError) and isinstance(result.cause, ExecutionError):
            self._tell(f"the controller cannot work: {result.cause.sentence()}")  # It may be able to later.
            self._take(ReportFailed(report.number))
        elif isinstance(result, RayTaskError):
            self._take(ReportReleased(report.number))
            self.give_up(
                ExecutionError(
                    f"the controller cannot read what this process reports: {cause_of(result)}",
                    "the head node needs the same version of flexray as this process; a controller that was "
                    "started by another version ends with ray.kill of the actor flexray:controller",
                )
            )
        elif isinstance(result, BaseException):
            self._take(ReportFailed(report.number))
        elif result is None:
            self._take(ReportReleased(report.number))
        elif result == FORGOTTEN and self.spec_data is not None:
            opened = self._dispatcher.controller.open_pool.remote(self.spec_data)
            self._dispatcher.follow(opened, lambda result: self._take_opened(report, result))
        elif result in (GONE, FORGOTTEN):
            self._take(ReportReleased(report.number))
            self._end_with_app()
        else:
            data, handles = result if isinstance(result, tuple) else (result, {})
            reply: Reply = decode(data)
            self._take(ReplyReceived(reply, report.number), handles)
            if reply.version != self._version:
                self._take_version(reply.version)
            if reply.notice is not None and home_pool() is None:
                self._tell(reply.notice)

    def _take_version(self, version: int) -> None:
        """Another version of the function was deployed, perhaps with other options."""
        if self._version_asked == version:
            return
        self._version_asked = version

        def take(config: Any) -> None:
            self._version_asked = None
            if isinstance(config, FunctionConfig):
                self._version = version
                self._bundle_min = _bundle_min(config)
                with self._lock:
                    self._dispatch.configure(**_dispatch_options(config))

        self._dispatcher.follow(self._dispatcher.controller.pool_config.remote(self.pool_id), take)

    def _tell(self, notice: str) -> None:
        """A call has no bar to say why it waits: the log does, once a minute, for the reason may vanish."""
        now = time.monotonic()
        if now - self._told_at >= TELL_EVERY_S:
            self._told_at = now
            logger.warning("inputs of %s wait: %s", self._name, notice)

    def _take_opened(self, report: Report, result: Any) -> None:
        if isinstance(result, RayTaskError) and isinstance(result.cause, NotFoundError):
            self._take(ReportReleased(report.number))
            self._end_with_app()  # What it was made of is gone.
        else:
            self._take(ReportFailed(report.number))

    def _end_with_app(self) -> None:
        """The pool is gone, and nothing here can run any more."""
        self.close(
            ExecutionError(
                f"{self._name} has no containers any more: its app has ended",
                "call it inside `with app.run():`, or start the program with `flexray run`",
            )
        )
        self._dispatcher.forget(self)

    # ObjectRef arguments: an input whose arguments are not ready is neither sent nor demand (rule 15).

    def _defer(self, input_id: int, prepared: Prepared, *, patient: bool = False, once: bool = False) -> bool:
        """Note a large input's size; returns whether it is submitted later, when its references are ready."""
        if type(prepared) is not StoredCall:
            return False
        refs = prepared.objects[len(prepared.objects) - prepared.resolved :]
        with self._lock:
            self._dispatch.set_size(input_id, ALONE_BYTES)
        if not prepared.resolved or len(ray.wait(refs, num_returns=len(refs), timeout=0)[1]) == 0:
            return False
        self._deferred[input_id] = None
        missing = [len(refs)]

        def one_ready(_: Any) -> None:
            missing[0] -= 1
            if not missing[0] and self._deferred.pop(input_id, 0) is None:
                self._take(InputsSubmitted((input_id,), patient=patient, once=once))

        for ref in refs:
            self._dispatcher.follow(ref, one_ready)
        return True

    def _relay(self, handle: Any, result: list[output.Written] | BaseException) -> None:
        for stream, text, is_logged in _value_or(result, []):
            if not (is_logged and handle is not None and shows_log_of(handle)):
                output.relay(self._name, text, stream)


def _dispatch_options(config: FunctionConfig) -> dict[str, Any]:
    return {
        "retries": config.retries,
        "at_most_once": config.at_most_once,
        "single_use": config.single_use_containers,
        "slots": config.slots,
    }


def _bundle_min(config: FunctionConfig) -> int:
    """How many batches for one container travel in one call, at least; 0: none do.

    Gathered inputs always do, for they run together. What may run only once travels by itself: in a bundle
    what has ended may wait in its container to be asked for, and would be lost with it.
    """
    if config.at_most_once:
        return 0
    if config.batching is not None:
        return 2
    return BUNDLE_MIN if config.slots >= BUNDLE_SLOTS else 0


def laid_out(prepared: Sequence[Prepared | None]) -> tuple[list[Any], list[Any]]:
    """(calls, objects) of a message: what stands in it, and what travels beside; None: cancelled since."""
    calls: list[Any] = []
    objects: list[Any] = []
    for call in prepared:
        if type(call) is StoredCall:
            calls.append((call.packed, len(objects), len(call.objects), call.resolved))
            objects += call.objects
        else:
            calls.append(call)
    return calls, objects


def stored_call(packed: Packed, refs: Sequence[Any] = ()) -> StoredCall:
    """Large arguments into the object store, references beside the message: those to resolve last."""
    passed_on: list[Any] = []
    if isinstance(packed, Parts):
        passed_on = [[ref] for ref in packed.references]
        packed = Parts(packed.data, packed.buffers, [])
    if packed_size(packed) > LARGE_BYTES:
        return StoredCall(None, [ray.put(packed), *passed_on, *refs], len(refs))
    return StoredCall(packed, [*passed_on, *refs], len(refs))


def _stand_in(value: Any, index: dict[int, int]) -> Any:
    return Resolved(index[id(value)]) if id(value) in index else value


def _value_or(result: Any, default: Any) -> Any:
    return default if isinstance(result, BaseException) else result
