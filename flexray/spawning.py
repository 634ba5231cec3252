"""Bringing the inputs of one spawned call to the call queue.

One rule: a call that could not be brought there whole is cancelled: nobody has its id.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from flexray.backend import Backend
from flexray.call import FunctionCall
from flexray.config import FunctionConfig
from flexray.context import current_input
from flexray.core.status import Kept, SpawnedCall
from flexray.errors import Error, ResourceExhaustedError, SerializationError
from flexray.outcome import value_of
from flexray.serialization import pack_lasting_call

if TYPE_CHECKING:
    import asyncio

logger = logging.getLogger("flexray")

R = TypeVar("R")

CHUNK = 1000
"""Inputs in one request, at most..."""
CHUNK_BYTES = 1 << 20
"""...and about so many bytes..."""
CHUNK_S = 0.5
"""...or what could be read in this time: inputs of a slow iterator run while it goes on."""
FULL_PAUSE_S = 0.25
"""Before inputs for which there was no room are sent again."""
TELL_EVERY_S = 30.0


def needs_wait(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether an argument has to be resolved first."""
    return any(_is_reference(value) for value in (*args, *kwargs.values()))


def lasting(args: tuple[Any, ...], kwargs: Mapping[str, Any], method: str) -> bytes:
    """The arguments as bytes that hold everything; references are resolved, which may take a while."""
    if needs_wait(args, kwargs):
        args = tuple([_resolved(value) for value in args])
        kwargs = {name: _resolved(value) for name, value in kwargs.items()}
    return pack_lasting_call(args, kwargs, method)


def _is_reference(value: Any) -> bool:
    kind = type(value)
    return kind.__name__ == "ObjectRef" and kind.__module__.partition(".")[0] == "ray"


def _resolved(value: Any) -> Any:
    return value.future().result() if _is_reference(value) else value


class Spawning(Generic[R]):
    """One call while its inputs are being added."""

    def __init__(
        self, connected: Backend, pool_id: str, function: str, config: FunctionConfig, *, is_whole: bool
    ) -> None:
        self._backend = connected
        self._pool_id = pool_id
        self._function = function
        self._config = config
        running = current_input.get()
        parent = None if running is None or running[3] is None else running[1]
        self._call = SpawnedCall("fc-" + secrets.token_hex(12), function, is_whole, parent)
        self._added = 0
        self._told_at = float("-inf")

    # One input.

    def add_whole(self, arguments: bytes) -> Kept:
        """Add the one input; `finish` takes what this returns."""
        return self._backend.add_inputs(self._pool_id, self._config, self._call, 0, [arguments])

    async def add_whole_async(self, arguments: bytes) -> Kept:
        """The same for a coroutine."""
        return await self._backend.add_inputs_async(self._pool_id, self._config, self._call, 0, [arguments])

    def finish(self, added: Kept) -> FunctionCall[R]:
        """The call.

        Raises:
            ResourceExhaustedError: There was no room.
        """
        if not added.accepted:
            raise ResourceExhaustedError(self._function, added.waiting, added.limit, "spawn_pending")
        over = None
        if added.over is not None:
            over = partial(value_of, self._function, self._config.at_most_once, None, *added.over)
        return FunctionCall(self._call.call_id, over)

    # Many inputs.

    def run(self, inputs: Iterator[tuple[Any, ...]], kwargs: dict[str, Any], method: str) -> FunctionCall[R]:
        """Add all inputs."""
        try:
            self._add([])
            while chunk := self._chunk(inputs, kwargs, method):
                rest = self._add(chunk)
                while rest:
                    time.sleep(FULL_PAUSE_S)
                    rest = self._add(rest)
            self._backend.ask_queue("close", self._call.call_id)
        except BaseException:
            with contextlib.suppress(Error):  # It may not even be there.
                self._backend.ask_queue("cancel", self._call.call_id, False)
            raise
        return FunctionCall(self._call.call_id)

    async def run_async(self, inputs: Any, kwargs: dict[str, Any], method: str) -> FunctionCall[R]:
        """Add all inputs; `inputs` may be an async iterator."""
        import asyncio  # noqa: PLC0415  # Whoever runs this has imported it already.

        reader = None if hasattr(inputs, "__next__") else _Reader(inputs)
        try:
            await self._add_async([])
            read = inputs if reader is None else iter(())
            while True:
                chunk = self._chunk(read, kwargs, method)
                if not chunk and reader is not None:  # A chunk may leave some of what was read.
                    read = iter(await reader.some())
                    chunk = self._chunk(read, kwargs, method)
                if not chunk:
                    break
                rest = await self._add_async(chunk)
                while rest:  # There is no event to wait for: the room is elsewhere.
                    await asyncio.sleep(FULL_PAUSE_S)
                    rest = await self._add_async(rest)
            await self._backend.ask_queue_async("close", self._call.call_id)
        except BaseException:
            if reader is not None:
                reader.close()
            with contextlib.suppress(Error):
                await self._backend.ask_queue_async("cancel", self._call.call_id, False)
            raise
        return FunctionCall(self._call.call_id)

    def _chunk(self, inputs: Iterator[tuple[Any, ...]], kwargs: dict[str, Any], method: str) -> list[bytes]:
        chunk: list[bytes] = []
        size = 0
        until = time.monotonic() + CHUNK_S
        for args in islice(inputs, CHUNK):
            try:
                chunk.append(lasting(args, kwargs, method))
            except SerializationError as error:
                position = self._added + len(chunk)
                raise SerializationError(
                    f"input {position} of the spawn_map of {self._function} cannot be packed, so the call is "
                    f"cancelled, the {position} inputs before it included: {error.args[0]}",
                    error.hint,
                ) from error
            size += len(chunk[-1])
            if size > CHUNK_BYTES or time.monotonic() > until:
                break
        return chunk

    def _add(self, chunk: Sequence[bytes]) -> Sequence[bytes]:
        """Add as many as there is room for; returns the rest."""
        added = self._backend.add_inputs(self._pool_id, self._config, self._call, self._added, chunk)
        return self._rest(chunk, added)

    async def _add_async(self, chunk: Sequence[bytes]) -> Sequence[bytes]:
        added = await self._backend.add_inputs_async(
            self._pool_id, self._config, self._call, self._added, chunk
        )
        return self._rest(chunk, added)

    def _rest(self, chunk: Sequence[bytes], added: Kept) -> Sequence[bytes]:
        self._added += added.accepted
        rest = chunk[added.accepted :]
        now = time.monotonic()
        if rest and now - self._told_at >= TELL_EVERY_S:
            self._told_at = now
            logger.warning(
                "spawn_map of %s waits: %s of %s spawned inputs are waiting, and %s of this call are kept",
                self._function,
                f"{added.waiting:,}",
                f"{added.limit:,}",
                f"{self._added:,}",
            )
        return rest


class _Reader:
    """Reads an async iterator by chunks, which end after a while: inputs of a slow one run meanwhile."""

    def __init__(self, inputs: AsyncIterator[tuple[Any, ...]]) -> None:
        self._inputs = inputs
        self._next: asyncio.Future[tuple[Any, ...]] | None = None
        """The input that is being waited for: a chunk that ends first leaves it to the next."""

    async def some(self) -> list[tuple[Any, ...]]:
        """The next inputs, one at least; none: that was all."""
        import asyncio  # noqa: PLC0415  # Whoever runs this has imported it already.

        found: list[tuple[Any, ...]] = []
        until = time.monotonic() + CHUNK_S
        while len(found) < CHUNK:
            if self._next is None:
                self._next = asyncio.ensure_future(anext(self._inputs))
            left_s = max(0.0, until - time.monotonic()) if found else None
            await asyncio.wait([self._next], timeout=left_s)
            if not self._next.done():
                break
            ended, self._next = self._next, None
            try:
                found.append(ended.result())
            except StopAsyncIteration:
                break
        return found

    def close(self) -> None:
        """Nobody waits for the next one any more."""
        if self._next is not None:
            self._next.cancel()
