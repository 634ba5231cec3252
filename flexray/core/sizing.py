"""How many inputs travel together, and when they should be over.

One rule: a batch is about 10 ms of work, so that a message's cost is spread over tiny inputs and long ones
travel alone; a batch that takes four times its time is overdue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

BATCH_S = 0.010
"""Work in one batch. A message costs about 1 ms, so a tenth of it at most is overhead."""
BATCH_MAX = 512
BATCH_BYTES = 1 << 20
"""Packed arguments in one batch."""
SMALL_BYTES = BATCH_BYTES // BATCH_MAX // 2
"""Inputs up to this size need no accounting: 512 of them are half a batch's bytes."""
AHEAD_S = 0.050
"""A batch is sent ahead when the one under way should be over within this time."""
LATE_SHARE = 0.25
"""A batch is late when it takes this part more than its time, 10 ms at least."""
OVERDUE_FACTOR = 4
MESSAGE_S = 0.003
"""Work for which a batch is not split in two to have one ahead: a message costs about 1 ms of processors."""
_MEMORY = 0.8
"""What remains of the older batches' weight in the mean when a new batch has returned."""


class BatchSizing:
    """Learns the mean service time of one caller's inputs and sizes its batches by it."""

    __slots__ = ("_count", "_large", "_mean_s", "_total_s")

    def __init__(self) -> None:
        self._count = 0.0
        self._total_s = 0.0
        self._mean_s: float | None = None
        self._large: dict[int, int] = {}

    @property
    def mean_s(self) -> float | None:
        """Mean service time; None while nothing has finished."""
        return self._mean_s

    def add(self, count: int, total_s: float) -> None:
        """A batch returned in which `count` inputs ran for `total_s` together."""
        self._count = self._count * _MEMORY + count
        self._total_s = self._total_s * _MEMORY + total_s
        self._mean_s = self._total_s / self._count

    def set_size(self, input_id: int, size_bytes: int) -> None:
        """Remember an input whose packed arguments are not small."""
        if size_bytes > SMALL_BYTES:
            self._large[input_id] = size_bytes

    def forget(self, input_ids: Iterable[int]) -> None:
        """These inputs are over."""
        if self._large:
            for input_id in input_ids:
                self._large.pop(input_id, None)

    def inputs(self, queue: deque[int], sent: int, slots: int) -> int:
        """How many inputs from the front of `queue` make the next batch; at least 1."""
        size = min(len(queue), self.share(len(queue) + sent, slots))
        return self._within_bytes(queue, size) if self._large and size > 1 else size

    def share(self, total: int, slots: int) -> int:
        """How many inputs a batch should have when `total` are queued or sent; at least 1.

        Never more than an even share of what is queued or sent over the slots and the batches ahead of them:
        1,000 inputs of 10 us on 2 slots travel as 4 batches of 250, so that no slot waits for an answer;
        inputs of 1 us as 2 of 500, for such a wait costs less than the messages.
        """
        mean_s = self._mean_s
        if mean_s is None:
            return 1
        size = BATCH_MAX if mean_s * BATCH_MAX <= BATCH_S else max(1, int(BATCH_S / mean_s))
        slots = max(1, slots)
        share = -(-total // slots)
        if mean_s <= AHEAD_S and share * mean_s > MESSAGE_S:
            share = -(-total // (2 * slots))
        return max(1, min(size, share))

    def _within_bytes(self, queue: deque[int], size: int) -> int:
        total_bytes = 0
        for position in range(size):
            total_bytes += self._large.get(queue[position], SMALL_BYTES)
            if total_bytes > BATCH_BYTES:
                return max(1, position)
        return size

    def times(self, inputs: int, begins_at: float) -> tuple[float | None, float | None, float | None]:
        """When a batch that begins then should be over, is late, and is overdue; None while unknown."""
        if self._mean_s is None:
            return None, None, None
        expected_s = inputs * self._mean_s
        ends_at = begins_at + expected_s
        late_at = ends_at + max(BATCH_S, LATE_SHARE * expected_s)
        return ends_at, late_at, begins_at + OVERDUE_FACTOR * max(expected_s, BATCH_S)
