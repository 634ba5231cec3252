"""A spawned call: a handle to inputs that run whether or not anybody waits for them.

One rule: the handle is its id; every method asks the call queue, so any process of the cluster can use it.
Only `get` of what was over before `spawn` returned need not ask.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from flexray import backend
from flexray.context import POSITIONS, input_id_of
from flexray.core.status import CallInfo
from flexray.dual import Dual, DualIterable
from flexray.errors import InvalidError
from flexray.outcome import value_of

if TYPE_CHECKING:
    import asyncio

R = TypeVar("R")

ASK_S = 30.0
"""After so long without news it is asked again."""
MANY = 1000
"""Outcomes that one question brings, at most."""


@dataclass(frozen=True)
class InputInfo:
    """One input in a call graph."""

    input_id: str
    function_call_id: str
    function_name: str
    status: str
    """waiting, running, done, failed, cancelled or lost."""
    children: list[InputInfo] = field(default_factory=list)
    """Inputs of the calls that this one has spawned."""


class FunctionCall(Generic[R]):
    """A call that was spawned, with one input or many. Made by `spawn`, `spawn_map` and `from_id`.

    Its results are kept for 7 days after its last input is over, unless FLEXRAY_RESULTS_KEPT_DAYS on the head
    node says otherwise, and can be fetched any number of times by any process of the cluster.
    """

    gather: ClassVar[Dual[..., list[Any]]]
    """The results of several calls, in the order of the arguments; waits for all of them.

    Raises:
        Exception: The first failure to arrive.
    """

    _over: Callable[[], R] | None = None
    """Gives, or raises, the outcome of its one input, where that was over before `spawn` returned."""

    def __init__(self, object_id: str, over: Callable[[], R] | None = None) -> None:
        self._id = object_id
        if over is not None:
            self._over = over

    def __reduce__(self) -> tuple[Any, ...]:
        return FunctionCall, (self._id,)

    @property
    def object_id(self) -> str:
        """The id, `fc-...`, which `from_id` takes."""
        return self._id

    @staticmethod
    def from_id(function_call_id: Any) -> FunctionCall[Any]:
        """The call of that id; nothing is asked yet.

        Raises:
            InvalidError: This cannot be an id.
        """
        if not isinstance(function_call_id, str) or not function_call_id.startswith("fc-"):
            raise InvalidError(
                f"{function_call_id!r:.80} is not the id of a call",
                "ids look like fc-0123456789abcdef01234567: take the object_id of what spawn returned",
            )
        return FunctionCall(function_call_id)

    def __repr__(self) -> str:
        return f"FunctionCall({self._id!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FunctionCall) and other._id == self._id

    def __hash__(self) -> int:
        return hash(self._id)

    # Results.

    @property
    def get(self) -> Dual[..., R]:
        """The result of one input; waits for it.

        Args (keywords): `timeout` in seconds, None for as long as it takes, 0 to look once; `index` of the
        input in a `spawn_map`, from 0.

        Raises:
            TimeoutError: It is not there in time.
            OutputExpiredError: Results are no longer kept, nor known to this handle since `spawn` returned.
            NotFoundError: The cluster knows no such call.
            InvalidError: There is no input of that index.
            InputCancelledError: The call, or its app, was cancelled.
            Exception: Whatever the function raised, and what `remote` raises for lost inputs and the like.
        """
        return Dual(self._get, self._get_async)

    def _get(self, timeout: float | None = None, *, index: int = 0) -> R:
        steps = _Steps(self._id, timeout, index)
        if self._over is not None and index == 0:
            return self._over()
        while True:
            told = backend.connect().outcomes(self._id, index, 1, steps.wait_s())
            if steps.take(told):
                return cast(R, _value(*told))

    async def _get_async(self, timeout: float | None = None, *, index: int = 0) -> R:  # noqa: ASYNC109  # Part of the API.
        steps = _Steps(self._id, timeout, index)
        if self._over is not None and index == 0:
            return self._over()
        while True:
            connected = await _connected()
            told = await connected.outcomes_async(self._id, index, 1, steps.wait_s())
            if steps.take(told):
                return cast(R, _value(*told))

    @property
    def iter(self) -> DualIterable[[], R]:
        """The results in the order of the inputs, each as soon as it and those before it are there.

        Raises:
            Exception: As `get`, in the place of the result that failed.
        """
        return DualIterable(self._iter, self._iter_async, f"{self._id}.iter")

    def _iter(self) -> Iterator[R]:
        position = 0
        while True:
            info, outcomes = backend.connect().outcomes(self._id, position, MANY, ASK_S)
            for outcome in outcomes:
                yield cast(R, _value(info, [outcome]))
            position += len(outcomes)
            if info.size is not None and position >= info.size:
                return

    async def _iter_async(self) -> AsyncIterator[R]:
        position = 0
        connected = await _connected()
        while True:
            info, outcomes = await connected.outcomes_async(self._id, position, MANY, ASK_S)
            for outcome in outcomes:
                yield cast(R, _value(info, [outcome]))
            position += len(outcomes)
            if info.size is not None and position >= info.size:
                return

    # The call.

    @property
    def num_inputs(self) -> Dual[[], int]:
        """How many inputs the call has."""
        return Dual(lambda: _count(self._ask("info")), self._num_inputs_async)

    async def _num_inputs_async(self) -> int:
        return _count(await self._ask_async("info"))

    @property
    def cancel(self) -> Dual[..., None]:
        """End every input of the call that is not over: it gets `InputCancelledError` for an outcome.

        Async inputs are cancelled where they run; sync ones are given up, and their container ends when its
        other inputs are over. `terminate_containers=True` kills the containers instead: other inputs on them
        run again elsewhere. Of a finished call nothing changes.
        """
        return Dual(self._cancel, self._cancel_async)

    def _cancel(self, terminate_containers: bool = False) -> None:
        self._ask("cancel", terminate_containers)

    async def _cancel_async(self, terminate_containers: bool = False) -> None:
        await self._ask_async("cancel", terminate_containers)

    @property
    def get_call_graph(self) -> Dual[[], list[InputInfo]]:
        """The inputs of the call, each with those of the calls that it has spawned, and so on.

        Of one call the first 1,000 inputs are shown.
        """
        return Dual(lambda: _graph(self._ask("graph")), self._get_call_graph_async)

    async def _get_call_graph_async(self) -> list[InputInfo]:
        return _graph(await self._ask_async("graph"))

    def _ask(self, method: str, *args: Any) -> Any:
        return backend.connect().ask_queue(method, self._id, *args)

    async def _ask_async(self, method: str, *args: Any) -> Any:
        return await (await _connected()).ask_queue_async(method, self._id, *args)


class _Steps:
    """The questions of one `get`."""

    def __init__(self, call_id: str, timeout: Any, index: Any) -> None:
        if type(index) is not int or not 0 <= index < POSITIONS:
            raise InvalidError(f"index is {index!r:.60}", "it is the position of an input, 0 or more")
        if timeout is not None and (not isinstance(timeout, int | float) or not timeout >= 0):
            raise InvalidError(f"timeout is {timeout!r:.60}", "it is in seconds, 0 or more, or None")
        self._call_id = call_id
        self._timeout_s = timeout
        self._index = index
        self._until = None if timeout is None else time.monotonic() + timeout

    def wait_s(self) -> float:
        if self._until is None:
            return ASK_S
        return min(ASK_S, max(0.0, self._until - time.monotonic()))

    def take(self, told: tuple[CallInfo, list[tuple[int, Any]]]) -> bool:
        """Whether the outcome is there."""
        info, outcomes = told
        if outcomes:
            return True
        if info.size is not None and self._index >= info.size:
            inputs = "1 input" if info.size == 1 else f"{info.size:,} inputs"
            raise InvalidError(
                f"index is {self._index} and {self._call_id} has {inputs}",
                f"give an index from 0 to {info.size - 1}" if info.size else "there is nothing to get",
            )
        if self._until is not None and time.monotonic() >= self._until:
            raise TimeoutError(
                f"input {self._index} of {self._call_id} is not over after {self._timeout_s} s"
            )
        return False


def _value(info: CallInfo, outcomes: list[tuple[int, Any]]) -> Any:
    status, payload = outcomes[0]
    return value_of(info.function, info.at_most_once, None, status, payload)


def _count(info: CallInfo) -> int:
    return info.added if info.size is None else info.size


def _graph(told: list[tuple[CallInfo, list[str]]]) -> list[InputInfo]:
    """The inputs of the first call, with the others hung below them."""
    inputs: dict[tuple[str, int], InputInfo] = {}
    roots: list[InputInfo] = []
    for number, (info, statuses) in enumerate(told):
        for position, status in enumerate(statuses):
            one = InputInfo(input_id_of(info.call_id, position), info.call_id, info.function, status)
            inputs[info.call_id, position] = one
            above = inputs.get(info.parent) if info.parent is not None else None
            if number == 0:
                roots.append(one)
            elif above is not None:
                above.children.append(one)
    return roots


async def _connected() -> backend.Backend:
    """The cluster; joining it takes a while, and no event loop waits for that."""
    import asyncio  # noqa: PLC0415  # Whoever runs this has imported it already.

    return await asyncio.to_thread(backend.connect)


def _finished(coroutine: Coroutine[Any, Any, R]) -> R:
    """Its result, from a loop on a thread of its own: one may be running on this."""
    import asyncio  # noqa: PLC0415
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    loop = asyncio.new_event_loop()
    task = loop.create_task(coroutine)
    thread = ThreadPoolExecutor(1)
    try:
        result: R = thread.submit(_run_to_end, loop, task).result()
        return result  # noqa: TRY300
    except BaseException:  # Ctrl-C: what was asked is not waited for.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(task.cancel)
        raise
    finally:
        thread.shutdown(wait=False)


def _run_to_end(loop: asyncio.AbstractEventLoop, task: asyncio.Task[R]) -> R:
    try:
        result: R = loop.run_until_complete(task)
        return result
    finally:
        loop.close()


async def _gather(*calls: FunctionCall[Any]) -> list[Any]:
    import asyncio  # noqa: PLC0415  # Whoever runs this has imported it already.

    return list(await asyncio.gather(*[call.get.aio() for call in calls]))


FunctionCall.gather = Dual(lambda *calls: _finished(_gather(*calls)), _gather)
