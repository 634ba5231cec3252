"""May these inputs wait here.

One rule: at each admission the inputs of all callers stay within both limits; what was admitted is never
refused later, and while returned inputs exceed a limit nothing new is admitted (protocol rule 4).
"""

from __future__ import annotations

from dataclasses import dataclass

from flexray.config import Limits

ROOM_FRACTION = 0.9
"""Maps ask only below this part of the pending limit, so that they never starve single calls."""


@dataclass(slots=True)
class Occupied:
    """Inputs that count towards the limits: of one dispatcher, or of all of them together."""

    pending: int = 0
    total: int = 0


def occupied(*, waiting: int, unseen: int, assigned: int, idle_slots: int) -> Occupied:
    """What one dispatcher occupies.

    `unseen`: admitted inputs that its last report did not know of. An idle leased slot may be filled without
    asking, so it counts in the total as one input.
    """
    pending = waiting + unseen
    return Occupied(pending, assigned + max(pending, idle_slots))


def admissible(open_asks: int, used: Occupied, limits: Limits) -> int:
    """How many of `open_asks` fit within both limits, beside what is `used`."""
    return max(0, min(open_asks, limits.pending - used.pending, limits.total - used.total))


def has_room(used: Occupied, limits: Limits) -> bool:
    """Whether maps may ask."""
    return used.pending < ROOM_FRACTION * limits.pending and used.total < ROOM_FRACTION * limits.total
