"""Many inputs at once: what runs `map`, `starmap` and `for_each`.

One rule: the user's iterators run on the caller's thread or loop and nowhere else; inputs are read only while
the caller waits for outputs, at most 1,000 of them outstanding.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from flexray.backend import Client
from flexray.core.status import FAILED, OK
from flexray.errors import DeserializationError, InvalidError, SerializationError
from flexray.outcome import exception_of
from flexray.progress import MapProgress, shown_by_default
from flexray.serialization import unpack_result

logger = logging.getLogger("flexray")

OUTSTANDING_MAX = 1000
"""Inputs of one map that are not over; the guide's limit."""
CHUNK = OUTSTANDING_MAX // 4
"""Inputs are read where there is room for so many, so that one ask does for all of them..."""
CHUNK_S = 0.003
"""...or this long after the last ones, where no output is ready."""
READ_S = 0.002
"""How long inputs are read before outputs are looked at again, so that a slow iterator delays nothing."""
LOOK_EVERY_S = 0.2


@dataclass(slots=True)
class MapOptions:
    """What a map was asked for."""

    kwargs: dict[str, Any] = field(default_factory=dict)
    ordered: bool = True
    return_exceptions: bool = False
    progress: bool | None = None
    method: str = ""
    """Of a class."""


def zipped(iterators: tuple[Any, ...]) -> tuple[Iterator[tuple[Any, ...]], int | None]:
    """The argument tuples of a map, the shortest iterator wins; and how many, where all of them say.

    Raises:
        InvalidError: No iterator, or one that cannot be iterated.
    """
    check_iterators(iterators)
    return zip(*iterators, strict=False), _length(iterators)


def check_iterators(iterators: tuple[Any, ...]) -> None:
    """Refuse what a map cannot run over.

    Raises:
        InvalidError: No iterator, or one that cannot be iterated.
    """
    if not iterators:
        raise InvalidError("map needs one iterator per argument and got none", "as in f.map([1, 2, 3])")
    for position, iterator in enumerate(iterators, start=1):
        if not isinstance(iterator, Iterable):
            raise InvalidError(
                f"map needs iterators, and number {position} is {_shown(iterator)}",
                "give a list or a generator with that argument's values; fixed ones go into kwargs={...}",
            )


def spread(iterator: Any) -> tuple[Iterator[tuple[Any, ...]], int | None]:
    """The argument tuples of a starmap.

    Raises:
        InvalidError: It cannot be iterated.
    """
    if not isinstance(iterator, Iterable):
        raise InvalidError(
            f"starmap needs an iterator of tuples and got {_shown(iterator)}",
            "as in f.starmap([(1, 2), (3, 4)])",
        )
    return (arguments_in(item) for item in iterator), _length((iterator,))


def arguments_in(item: Any) -> tuple[Any, ...]:
    """The arguments in one item of a starmap.

    Raises:
        InvalidError: It cannot be iterated.
    """
    if not isinstance(item, Iterable):
        raise InvalidError(
            f"starmap needs tuples of arguments and got {_shown(item)}",
            "use .map for functions of one argument",
        )
    return tuple(item)


def _shown(value: Any) -> str:
    return f"{value!r:.80}, of type {type(value).__name__}"


def _length(iterators: tuple[Any, ...]) -> int | None:
    lengths = [len(iterator) for iterator in iterators if hasattr(iterator, "__len__")]
    return min(lengths) if lengths and len(lengths) == len(iterators) else None


class Map:
    """One map under way. A sink: outcomes arrive on any thread and are taken in where outputs are read."""

    def __init__(
        self, client: Client, name: str, at_most_once: bool, options: MapOptions, total: int | None
    ) -> None:
        self._client = client
        self._name = name
        self._at_most_once = at_most_once
        self._options = options
        self._arrived: deque[tuple[Sequence[int], bytes, Sequence[Any]]] = deque()
        self._order: deque[int] = deque()
        self._outcomes: dict[int, tuple[int, Any]] = {}
        self._ready: deque[tuple[int, Any]] = deque()
        self._outstanding = 0
        self._done = 0
        self._local_ids = 0
        self._exhausted = False
        self._fed_at = float("-inf")
        self.wake: Callable[[], None] = lambda: None
        """Called when outcomes have arrived."""
        self._total = total
        self._progress: MapProgress | None = None

    # Outcomes in.

    def settle(self, input_ids: Sequence[int], statuses: bytes, payloads: Sequence[Any]) -> None:
        """See `backend.Sink`."""
        self._arrived.append((input_ids, statuses, payloads))
        self.wake()

    def _absorb(self) -> None:
        """Take in what has arrived; raises the first failure as soon as it is there."""
        while self._arrived:
            input_ids, statuses, payloads = self._arrived.popleft()
            self._outstanding -= len(input_ids)
            self._done += len(input_ids)
            if any(statuses) and not self._options.return_exceptions:
                position = next(p for p, status in enumerate(statuses) if status != OK)
                raise self._exception(statuses[position], payloads[position])
            if self._options.ordered:
                self._outcomes.update(zip(input_ids, zip(statuses, payloads, strict=True), strict=True))
            else:
                self._ready.extend(zip(statuses, payloads, strict=True))
        if self._options.ordered:
            order, outcomes, ready = self._order, self._outcomes, self._ready
            while order and order[0] in outcomes:
                ready.append(outcomes.pop(order.popleft()))

    def _exception(self, status: int, payload: Any) -> BaseException:
        return exception_of(self._name, self._at_most_once, self._client, status, payload)

    def _output(self, status: int, payload: Any) -> Any:
        if status == OK:
            try:
                return unpack_result(payload)
            except DeserializationError as error:  # Not Ctrl-C, which is nobody's output.
                failure: BaseException = error
        else:
            failure = self._exception(status, payload)
        if self._options.return_exceptions:
            return failure
        raise failure

    # Inputs out.

    @property
    def _room(self) -> int:
        return OUTSTANDING_MAX - self._outstanding

    @property
    def _wants_inputs(self) -> bool:
        if self._exhausted or not self._room:
            return False
        late = not self._ready and time.perf_counter() - self._fed_at >= CHUNK_S
        return late or self._room >= CHUNK

    @property
    def _must_wait(self) -> bool:
        """Nothing to give and nothing to read."""
        return not (self._ready or self._over or self._wants_inputs)

    @property
    def _patience_s(self) -> float:
        """How long to wait for outcomes before looking at the inputs again."""
        return LOOK_EVERY_S if self._exhausted or not self._room else CHUNK_S

    @property
    def _over(self) -> bool:
        return self._exhausted and not self._outstanding and not self._ready and not self._arrived

    def _feed(self, inputs: Iterator[tuple[Any, ...]]) -> None:
        """Read inputs for a moment and submit them."""
        prepared: list[Any] = []
        prepare, kwargs, clock = self._client.prepare, self._options.kwargs, time.perf_counter
        method = self._options.method
        room, read, until = self._room, 0, clock() + READ_S
        try:
            for args in islice(inputs, room):
                read += 1
                try:
                    prepared.append(prepare(args, kwargs, method))
                except SerializationError as error:
                    self._take_unpackable(error, prepared)
                if clock() > until:
                    break
            else:
                self._exhausted = read < room
        finally:
            self._submit(prepared)
            self._fed_at = clock()

    def _take_unpackable(self, error: SerializationError, prepared: list[Any]) -> None:
        """Arguments that cannot be packed are that input's failure."""
        if not self._options.return_exceptions:
            raise error
        self._submit(prepared)
        prepared.clear()
        self._local_ids -= 1
        self._note_submitted([self._local_ids])
        self._arrived.append(((self._local_ids,), bytes([FAILED]), (error,)))

    def _submit(self, prepared: list[Any]) -> None:
        if prepared:
            self._note_submitted(self._client.submit(prepared, self, patient=True))

    def _note_submitted(self, input_ids: Sequence[int]) -> None:
        self._outstanding += len(input_ids)
        if self._options.ordered:
            self._order.extend(input_ids)

    # The two loops.

    def _begin(self) -> None:
        """Show progress from the first read on: outputs that are never read have nobody to end it."""
        shown = shown_by_default() if self._options.progress is None else self._options.progress
        self._progress = MapProgress(self._name, self._total) if shown else None

    def outputs(self, inputs: Iterator[tuple[Any, ...]]) -> Iterator[Any]:
        """The outputs, on this thread."""
        arrived = threading.Event()
        self.wake = arrived.set
        finished = False
        try:
            self._begin()
            while not self._over:
                arrived.clear()
                if self._wants_inputs:
                    self._feed(inputs)
                self._absorb()
                if self._must_wait:
                    arrived.wait(self._patience_s)
                    self._absorb()
                self._show()
                while self._ready:
                    yield self._output(*self._ready.popleft())
                    if not self._ready and self._arrived:
                        self._absorb()
                    if self._wants_inputs:
                        break
            finished = True
        finally:
            self._close(finished=finished)

    async def outputs_async(self, inputs: Any) -> AsyncIterator[Any]:
        """The outputs, on this event loop; `inputs` may be an async iterator."""
        import asyncio  # noqa: PLC0415  # Whoever runs this has imported it already.

        loop, arrived = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # The loop was closed, and nobody reads any more.
                loop.call_soon_threadsafe(arrived.set)

        self.wake = wake
        reader = _AsyncReader(inputs) if hasattr(inputs, "__anext__") else None
        finished = False
        try:
            self._begin()
            while not self._over:
                arrived.clear()
                if self._wants_inputs:
                    self._feed(inputs) if reader is None else self._feed_from(reader)
                self._absorb()
                if reader is not None and not self._ready and not self._over:
                    wanted = reader if self._wants_inputs else None
                    await _first_of(arrived, wanted, LOOK_EVERY_S if wanted else self._patience_s)
                    self._absorb()
                elif self._must_wait:
                    await _first_of(arrived, None, self._patience_s)
                    self._absorb()
                self._show()
                while self._ready:
                    yield self._output(*self._ready.popleft())
                    if self._wants_inputs and reader is None:
                        break
                await asyncio.sleep(0)
            finished = True
        finally:
            if reader is not None:
                await reader.close()
            self._close(finished=finished)

    def _feed_from(self, reader: _AsyncReader) -> None:
        prepared: list[Any] = []
        for args in reader.take(self._room):
            try:
                options = self._options
                prepared.append(self._client.prepare(args, options.kwargs, options.method))
            except SerializationError as error:
                self._take_unpackable(error, prepared)
        self._submit(prepared)
        self._exhausted = reader.exhausted

    def _show(self) -> None:
        if self._progress is not None:
            waiting, running, held_back = self._client.counts
            view, notice = self._client.view, self._client.notice
            if held_back and notice is None:
                notice = f"{view.waiting:,} of {view.pending_limit:,} waiting: the rest waits for room"
            self._progress.update(self._done, running, waiting + held_back, view.ready, view.starting, notice)

    def _close(self, *, finished: bool) -> None:
        self.wake = lambda: None
        if self._progress is not None:
            self._show()
            self._progress.close(failed=not finished)
        if self._outstanding:
            self._client.cancel_sink(self)


class _AsyncReader:
    """Reads an async iterator one item ahead of need, so that outputs need not wait for it."""

    def __init__(self, inputs: Any) -> None:
        self._inputs = inputs
        self._task: Any = None
        self.exhausted = False

    @property
    def task(self) -> Any:
        import asyncio  # noqa: PLC0415

        if self._task is None and not self.exhausted:
            self._task = asyncio.ensure_future(self._inputs.__anext__())
        return self._task

    def take(self, room: int) -> list[tuple[Any, ...]]:
        taken: list[tuple[Any, ...]] = []
        while len(taken) < room and self.task is not None and self.task.done():
            task, self._task = self._task, None
            try:
                taken.append(task.result())
            except StopAsyncIteration:
                self.exhausted = True
        return taken

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()


async def _first_of(arrived: Any, reader: _AsyncReader | None, patience_s: float) -> None:
    """Wait for outcomes, for the next input if one is wanted, or for the time to look."""
    import asyncio  # noqa: PLC0415

    waits = {asyncio.ensure_future(arrived.wait())}
    if reader is not None and reader.task is not None:
        waits.add(reader.task)
    _, pending = await asyncio.wait(waits, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
    for wait in pending:
        if reader is None or wait is not reader.task:
            wait.cancel()
