"""What a container is busy with: the truth about its own slots.

One rule: a lease has one slot, `slots` of them are in use at most, and whatever does not fit, or comes under
a lease that was released, goes back unstarted (protocol rules 2, 7, 8). Running inputs is somebody else's.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from flexray.core.status import CANCELLED, LOST, UNSTARTED, BatchKey

KEEP_ANSWER_S = 600.0
SAMPLES_MAX = 8
"""Service times told per batch."""
HELLO_S = 60.0
"""A container that was used by nobody for so long asks the controller whether it is known (rule 12)."""
LEASES_KEPT = 4096
"""Leases, of those that came here, of which something is remembered."""


class Arrival(Enum):
    BEGINS = "begins"
    """Its lease was free: run it now."""
    FOLLOWS = "follows"
    """Its lease is busy: it runs when the batch before it is over."""
    KNOWN = "known"
    """Sent before: its caller joins whatever answer there is or will be."""
    BOUNCES = "bounces"
    """Nothing of it was begun, nor will be."""


@dataclass(slots=True, eq=False)
class Work:
    """One batch at the container. A runner takes positions and settles them; both are safe across threads."""

    key: BatchKey
    lease_number: int
    count: int
    todo: deque[int]
    """Positions not begun."""
    statuses: list[int | None]
    """By position; None: not begun or running."""
    payloads: list[object]
    cancelled: set[int] = field(default_factory=set)
    """Positions that the caller gave up: dropped when their turn comes."""
    bounced: bool = False
    over_at: float | None = None
    busy_s: float = 0.0
    """How long its inputs have run, together."""
    sample_s: list[float] = field(default_factory=list)
    """How long some of them ran."""

    def take(self) -> int | None:
        """The next position to run; None: nothing is left to begin."""
        while self.todo:
            try:
                position = self.todo.popleft()
            except IndexError:
                return None  # A reclaim on another thread was faster.
            if position not in self.cancelled:
                return position
            self.settle(position, CANCELLED)
        return None

    def note_time(self, seconds: float) -> None:
        """An input ran for so long."""
        self.busy_s += seconds
        if len(self.sample_s) < SAMPLES_MAX:
            self.sample_s.append(seconds)

    def settle(self, position: int, status: int, payload: object = None) -> None:
        self.payloads[position] = payload  # Before the status, which says that it is there.
        self.statuses[position] = status

    def account(self) -> tuple[tuple[int, ...], bytes, list[object]]:
        """(positions, statuses, payloads) of everything that is neither begun nor running."""
        positions = [p for p, status in enumerate(self.statuses) if status is not None]
        statuses = bytes([self.statuses[p] or 0 for p in positions])
        return tuple(positions), statuses, [self.payloads[p] for p in positions]

    def drop_todo(self, status: int) -> None:
        """Settle whatever has not begun with this status."""
        while (position := self.take()) is not None:
            self.settle(position, status)


class Occupancy:
    """The slots of one container and the batches on them."""

    def __init__(self, slots: int, now: float = 0.0) -> None:
        self.slots = slots
        self._used_at = now
        self.retiring = False
        """Nothing new is taken; what runs may finish."""
        self._works: dict[BatchKey, Work] = {}
        self._lines: dict[int, deque[Work]] = {}
        self._answered: dict[BatchKey, Work] = {}  # The longest over first.
        self._answered_of: dict[str, deque[Work]] = {}  # By dispatcher.
        self._released: dict[int, None] = {}
        self._oldest_open: dict[str, int] = {}
        # By dispatcher: batches with lower ids have been answered, and their answers have arrived.

    @property
    def busy(self) -> tuple[int, ...]:
        """Leases under which something is here."""
        return tuple(self._lines)

    @property
    def unfinished(self) -> int:
        """Batches that are not over."""
        return sum(len(line) for line in self._lines.values())

    def get(self, key: BatchKey) -> Work | None:
        return self._works.get(key)

    def arrive(
        self,
        key: BatchKey,
        lease_number: int,
        count: int,
        now: float,
        *,
        oldest_open: int = 0,
        again: bool,
        at_most_once: bool,
    ) -> tuple[Arrival, Work]:
        """Take in a batch, or a repeat of it.

        | batch | lease | arrival |
        |---|---|---|
        | known | any | KNOWN |
        | its answer has arrived long ago (a late repeat) | any | BOUNCES |
        | sent again, at most once, not known | any | BOUNCES, its inputs LOST |
        | new | released, or container retiring | BOUNCES |
        | new | has a batch under way | FOLLOWS |
        | new | none, all slots in use | BOUNCES |
        | new | none, a slot free | BEGINS |
        """
        self._used_at = now
        known = self._works.get(key)
        if known is not None:
            return Arrival.KNOWN, known
        self._forget_answered(key[0], oldest_open, now)
        work = Work(key, lease_number, count, deque(range(count)), [None] * count, [None] * count)
        lost = again and at_most_once
        line = self._lines.get(lease_number)
        full = line is None and len(self._lines) >= self.slots
        late = key[1] < self._oldest_open[key[0]]
        if lost or late or full or self.retiring or lease_number in self._released:
            work.drop_todo(LOST if lost else UNSTARTED)
            work.bounced = True
            self._works[key] = work
            self._keep_answer(work, now)
            return Arrival.BOUNCES, work
        self._works[key] = work
        if line is not None:
            line.append(work)
            return Arrival.FOLLOWS, work
        self._lines[lease_number] = deque([work])
        return Arrival.BEGINS, work

    def end(self, work: Work, now: float) -> Work | None:
        """The batch under way is over; returns the one that follows it under its lease.

        While the container is retiring, nothing of that one is begun.
        """
        self._used_at = now
        self._keep_answer(work, now)
        line = self._lines[work.lease_number]
        line.remove(work)
        if line:
            if self.retiring:
                line[0].drop_todo(UNSTARTED)
                line[0].bounced = True
            return line[0]
        del self._lines[work.lease_number]
        return None

    def reclaim(self, key: BatchKey) -> Work | None:
        """Take the unstarted inputs out; the work's account says which. None: not known here (yet)."""
        work = self._works.get(key)
        if work is not None:
            work.drop_todo(UNSTARTED)
        return work

    def cancel(self, key: BatchKey, positions: tuple[int, ...]) -> Work | None:
        """Drop these inputs where they have not begun, and note them where they may be running."""
        work = self._works.get(key)
        if work is None or work.over_at is not None:
            return None
        work.cancelled.update(positions)
        return work

    def release(self, lease_number: int) -> bool:
        """Drop the lease for good; returns whether nothing of it runs (any more)."""
        self._released[lease_number] = None
        _keep_newest(self._released)
        for work in self._lines.get(lease_number, ()):
            work.drop_todo(UNSTARTED)
        return lease_number not in self._lines

    def asks_after_itself(self, now: float) -> bool:
        """Whether it is time to ask the controller if this container is known (rule 12)."""
        return not self._lines and now - self._used_at >= HELLO_S

    def is_left(self, now: float, *, known: bool) -> bool:
        """Whether to exit after that question: nobody knows it, and nobody has used it since."""
        if known:
            self._used_at = now
        return self.asks_after_itself(now)

    def keys_of(self, lease_number: int) -> list[BatchKey]:
        """The batches of a lease that are not over."""
        return [work.key for work in self._lines.get(lease_number, ())]

    def _keep_answer(self, work: Work, now: float) -> None:
        work.over_at = now
        self._answered[work.key] = work
        self._answered_of.setdefault(work.key[0], deque()).append(work)

    def _forget_answered(self, dispatcher_id: str, oldest_open: int, now: float) -> None:
        """Drop the answers that have arrived at this dispatcher, and whatever is too old."""
        oldest_open = max(oldest_open, self._oldest_open.pop(dispatcher_id, 0))
        self._oldest_open[dispatcher_id] = oldest_open
        _keep_newest(self._oldest_open)
        mine = self._answered_of.get(dispatcher_id)
        while mine and mine[0].key[1] < oldest_open:
            self._forget(mine[0])
        self.expire(now)

    def expire(self, now: float) -> None:
        """Forget answers that nobody has asked for again in ten minutes."""
        while self._answered:
            oldest = next(iter(self._answered.values()))
            if oldest.over_at is None or now - oldest.over_at <= KEEP_ANSWER_S:
                break
            self._forget(oldest)

    def _forget(self, work: Work) -> None:
        del self._works[work.key]
        del self._answered[work.key]
        mine = self._answered_of[work.key[0]]
        mine.remove(work)
        if not mine:
            del self._answered_of[work.key[0]]


def _keep_newest(memory: dict[Any, Any]) -> None:
    if len(memory) > LEASES_KEPT:
        del memory[next(iter(memory))]
