"""Where a caller waits for the outcome of one input: a thread for a value, a loop over results.

One rule: an outcome may come on any thread; whoever waits takes it in on its own.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import ActorUnavailableError, RayError

from flexray.core.status import FAILED, LOST, OK
from flexray.runtime.wire import ResultsMessage, decode_results

if TYPE_CHECKING:
    from flexray.runtime.poolclient import PoolClient

PAUSE_S = 0.005
"""Before results are asked for again where there were none: the input has not begun."""


class Waiter:
    """A sink for one input, on which a thread blocks."""

    __slots__ = ("_settled", "outcome")

    def __init__(self) -> None:
        self.outcome: tuple[int, Any] | None = None
        self._settled = threading.Lock()
        self._settled.acquire()

    def settle(self, input_ids: Sequence[int], statuses: bytes, payloads: Sequence[Any]) -> None:
        self.outcome = (statuses[0], payloads[0])
        self._settled.release()

    def wait(self) -> tuple[int, Any]:
        if self.outcome is None:
            self._settled.acquire()
        assert self.outcome is not None
        return self.outcome


class Stream:
    """A sink for one input whose results are read one by one, on one thread or loop."""

    def __init__(self, client: PoolClient, changed: Callable[[], None]) -> None:
        self.input_id = 0
        self.outcome: tuple[int, Any] | None = None
        self._client = client
        self._changed = changed
        self._source: tuple[Any, int] | None = None
        """(container, batch) that gives the results, once it has been sent there."""
        self._received = 0
        self._ended = False
        self._asked_late = False
        """The outcome was known when results were last asked for."""

    def begin(self, handle: Any, batch_id: int) -> None:
        """The input is on its way to this container."""
        self._source = (handle, batch_id)
        self._changed()

    def settle(self, input_ids: Sequence[int], statuses: bytes, payloads: Sequence[Any]) -> None:
        """See `core.status.Sink`."""
        self.outcome = (statuses[0], payloads[0])
        self._changed()

    @property
    def is_readable(self) -> bool:
        """Whether results can be asked for, or none will come."""
        return self._source is not None or self.outcome is not None

    @property
    def must_ask(self) -> bool:
        """Whether results may be left in the container."""
        lost = self.outcome is not None and self.outcome[0] not in (OK, FAILED)
        return not (self._ended or lost or self._source is None)

    def fetch(self) -> list[Any]:
        """The next packed results; blocks until there are some, or news of another kind."""
        answer: Any
        try:
            answer = ray.get(self.ask())
        except RayError as error:
            answer = error
        results = self.take(answer)
        if not (results or self._ended):
            time.sleep(PAUSE_S)
        return results

    async def fetch_async(self) -> list[Any]:
        """The same for a coroutine."""
        answer: Any
        try:
            answer = await self.ask()
        except RayError as error:
            answer = error
        results = self.take(answer)
        if not (results or self._ended):
            await asyncio.sleep(PAUSE_S)
        return results

    def ask(self) -> Any:
        """A reference to the next results."""
        assert self._source is not None
        self._asked_late = self.outcome is not None
        return self._client.ask_results(*self._source, self._received)

    def take(self, answer: Any) -> list[Any]:
        """The packed results in an answer, or in the error that came instead."""
        if isinstance(answer, RayError):
            self._ended = not isinstance(answer, ActorUnavailableError)
            if self._ended and self.outcome is not None and self.outcome[0] == OK:
                self.outcome = (LOST, "its container ended before all results were read")
            return []
        if answer is None:  # It has not begun there; or ended before it gave anything.
            self._ended = self._asked_late
            return []
        message: ResultsMessage = decode_results(answer)
        self._ended = message.ended
        self._received += len(message.payloads)
        return message.payloads

    def close(self) -> None:
        """Nobody reads any more: the generator is to end."""
        if self.outcome is None:
            self._client.cancel([self.input_id])
