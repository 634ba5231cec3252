"""What a caller has sent: batches, and the slots that they are on.

One rule: a slot has one batch under way and at most one ahead; an input of a batch is open until some
message has accounted for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from flexray.core.events import CancelInputs, Lease


@dataclass(slots=True)
class Batch:
    batch_id: int
    slot: Slot
    input_ids: tuple[int, ...]
    alone: bool
    """Sent by itself, since its input was lost before (rule 14)."""
    ends_at: float | None = None
    """When it should be over; None: an input of unknown length."""
    late_at: float | None = None
    """From then on nothing is sent behind it, and what is there is asked back for a slot that is free."""
    overdue_at: float | None = None
    """When its unstarted inputs are asked back in any case."""
    asked_back: bool = False
    accounted: bytearray | None = None
    """Position to 1 where an input has already moved on; None: none has."""
    cancels: list[int] = field(default_factory=list)
    """Positions that the caller gave up."""
    interrupts: list[int] = field(default_factory=list)
    """Of them, those to end where they run."""

    def is_open(self, position: int) -> bool:
        return self.accounted is None or not self.accounted[position]

    def account(self, position: int) -> None:
        if self.accounted is None:
            self.accounted = bytearray(len(self.input_ids))
        self.accounted[position] = 1

    def open_positions(self) -> Sequence[int]:
        if self.accounted is None:
            return range(len(self.input_ids))
        return [i for i, done in enumerate(self.accounted) if not done]

    @property
    def cancellation(self) -> CancelInputs:
        """What to tell the container about everything that was given up."""
        container_id = self.slot.lease.container_id
        return CancelInputs(self.batch_id, container_id, tuple(self.cancels), tuple(self.interrupts))

    @property
    def may_have_unstarted(self) -> bool:
        """Whether more is open than one input that runs; two batches may have overtaken each other."""
        return len(self.slot.batches) > 1 or len(self.open_positions()) > 1


@dataclass(slots=True)
class Slot:
    lease: Lease
    idle_since: float
    batches: list[Batch] = field(default_factory=list)
    """The batch under way and at most one ahead."""
    leaving: bool = False
    """No longer listed, or to be shared: given back when its batches are over."""
