"""How an input ends, who is told of it, and what a caller may know of the pool.

One rule: the few words that the API shares with the state machines; small, for `import flexray` takes it in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

OK, FAILED, UNSTARTED, CANCELLED, LOST = range(5)
"""Status of one input in an answer; one byte each, so that the answer to a batch is a `bytes`.

FAILED: the function raised. UNSTARTED: the container did not begin it. LOST: an at-most-once input that may
have run on a container which no longer knows it, or died with it.
"""

START_FAILED = 5
"""Status given by the dispatcher alone: no container could start."""

REFUSED = 6
"""Status given by the dispatcher alone: the pool is at its limits; the input never ran."""

BatchKey = tuple[str, int]
"""(dispatcher id, batch id): a batch has an id for ever."""


class Sink(Protocol):
    """Whoever waits for inputs, at the other end of Settle."""

    def settle(self, input_ids: Sequence[int], statuses: bytes, payloads: Sequence[Any]) -> None:
        """These inputs are over; each is named once, on any thread."""


@dataclass(frozen=True, slots=True)
class PoolView:
    """What a caller may be told about the pool while it waits; rides along with replies, wakes nobody."""

    ready: int = 0
    starting: int = 0
    waiting: int = 0
    pending_limit: int = 0
    total: int = 0
    """Waiting and running inputs, idle leased slots included."""
    total_limit: int = 0
    max_containers: int | None = None


class SpawnedCall(NamedTuple):
    """A call whose inputs are kept by the call queue."""

    call_id: str
    function: str
    is_whole: bool
    """Its one request brings all of its inputs; False: more may follow."""
    parent: int | None
    """Number of the spawned input that spawned it; None: something else did."""


class Kept(NamedTuple):
    """What became of inputs that were given to the call queue."""

    accepted: int
    """How many of them, from the first on, are on the disk."""
    waiting: int
    limit: int
    """How many may wait."""
    over: tuple[int, Any] | None = None
    """(status, payload) of a call's one input, where that was over at once."""
    is_known: bool = True
    """False: the queue does not know the pool yet."""


def is_to_come(size: int | None, position: int) -> bool:
    """Whether a call has such an input or may have it later; its size is None while inputs are added."""
    return size is None or position < size


class CallInfo(NamedTuple):
    """What may be asked of a call."""

    call_id: str
    function: str
    pool_id: str
    at_most_once: bool
    created_at: float
    size: int | None
    """None: inputs are still being added."""
    added: int
    done: int
    over_at: float | None
    parent: tuple[str, int] | None
    """(call, position) of the input that spawned it."""
