"""May these inputs wait here.

One rule: at each admission the inputs of all callers stay within both limits; what was admitted is never
refused later, and while returned inputs exceed a limit nothing new is admitted (protocol rule 4).
"""

from __future__ import annotations

from dataclasses import dataclass

from flexray.config import Limits

ROOM_FRACTION = 0.9
"""Maps ask only below this part of the pending limit, so that they never starve single calls."""

ADVANCE_MAX = 512
"""Inputs that one dispatcher may let in without asking: a few milliseconds of the busiest caller."""
ADVANCE_MIN = 16


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


def admissible(calls: int, patient: int, used: Occupied, limits: Limits) -> int:
    """How many inputs may wait beside what is `used`: calls first, then those of maps.

    `patient` inputs, those of maps, fill nine tenths of a limit at most, for a map waits and a call does not.
    With a limit of 20 and 15 waiting, 10 patient inputs and 1 call give 3: the call and 2 of the map.
    """
    free = min(limits.pending - used.pending, limits.total - used.total)
    for_maps = min(_for_maps(limits.pending) - used.pending, _for_maps(limits.total) - used.total)
    admitted = max(0, min(calls, free))
    return admitted + max(0, min(patient, for_maps - admitted))


def advance(used: Occupied, own: int, limits: Limits) -> int:
    """How many inputs one dispatcher may let in without asking, where it has `own` of them unused already.

    Half of the room at most, so that others get some, too; none where limits are small or near.
    """
    room = min(_for_maps(limits.pending) - used.pending, _for_maps(limits.total) - used.total)
    most = min(ADVANCE_MAX, (room + own) // 2)
    return most if most >= ADVANCE_MIN else 0


def has_room(used: Occupied, limits: Limits) -> bool:
    """Whether maps may ask."""
    return used.pending < _for_maps(limits.pending) and used.total < _for_maps(limits.total)


def _for_maps(limit: int) -> int:
    """What maps may fill of a limit; one input at least, or a map would wait for ever."""
    return max(1, int(ROOM_FRACTION * limit))
