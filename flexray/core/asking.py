"""Inputs of one caller that wait for the controller's word before they may queue.

One rule: an input is asked for once, and the answer is two counts that only grow: how many asks are decided,
and how many of those are admitted (protocol rule 4). Where there is plenty of room, the controller decides
more than it was asked: what is ahead is the advance, and the next asks are admitted at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from flexray.core.reporting import Tally


class Asking:
    """Asks without a verdict, and inputs of maps that are not asked for while there is no room."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._held_back: deque[int] = deque()
        self._calls: deque[int] = deque()
        self._maps: deque[int] = deque()
        self._ghosts = 0
        """Asked for, then cancelled: their verdicts still come."""
        self._room = True

    @property
    def open_asks(self) -> int:
        """Asks whose verdict is to come."""
        return len(self._calls) + len(self._maps) + self._ghosts

    @property
    def patient(self) -> int:
        """Of them, the ones of maps."""
        return len(self._maps)

    @property
    def held_back(self) -> int:
        """Inputs of maps that are not asked for yet."""
        return len(self._held_back)

    @property
    def is_empty(self) -> bool:
        return not (self._held_back or self.open_asks)

    def ask(self, input_ids: Sequence[int], *, patient: bool) -> Sequence[int]:
        """Ask for these inputs; patient ones only while there is room. Returns what the advance admits."""
        if not patient:
            return self._ask(input_ids, self._calls)
        self._held_back.extend(input_ids)
        return self.set_room(room=self._room)

    def set_room(self, *, room: bool) -> Sequence[int]:
        """Whether maps may ask now; returns what the advance admits, which ends where there is no room."""
        self._room = room
        if not room:
            self.end_advance()
        if not (room and self._held_back):
            return ()
        asking = list(self._held_back)
        self._held_back.clear()
        return self._ask(asking, self._maps)

    def end_advance(self) -> None:
        """Give the rest of the advance back: it counts as asked for and over."""
        self._tally.asked = max(self._tally.asked, self._tally.decided)

    def _ask(self, input_ids: Sequence[int], place: deque[int]) -> Sequence[int]:
        tally = self._tally
        advance = max(0, tally.decided - tally.asked)
        tally.asked += len(input_ids)
        place.extend(input_ids[advance:])
        return input_ids[:advance]

    def take_verdicts(self, decided: int, admitted: int) -> tuple[list[int], list[int]]:
        """Take in the counts; returns (admitted, refused) inputs.

        The counts name nobody: admissions go to calls first, refusals to maps first, which ask again.
        """
        tally = self._tally
        admissions = max(0, admitted - tally.admitted)
        refusals = max(0, decided - tally.decided - admissions)
        tally.decided, tally.admitted = max(decided, tally.decided), max(admitted, tally.admitted)
        may_queue: list[int] = []
        for asking in (self._calls, self._maps):
            taken = min(admissions, len(asking))
            may_queue += [asking.popleft() for _ in range(taken)]
            admissions -= taken
        self._ghosts -= min(self._ghosts, admissions)
        ghosts = min(self._ghosts, refusals)
        self._ghosts -= ghosts
        back = min(len(self._maps), refusals - ghosts)
        self._held_back.extend([self._maps.popleft() for _ in range(back)])
        return may_queue, [self._calls.popleft() for _ in range(refusals - ghosts - back)]

    def drop(self, input_ids: set[int] | None = None) -> list[int]:
        """Drop these inputs, by default all; returns the ones that were here."""
        dropped: list[int] = []
        for place in (self._held_back, self._calls, self._maps):
            mine = [i for i in place if input_ids is None or i in input_ids]
            if mine:
                dropped += mine
                self._ghosts += 0 if place is self._held_back else len(mine)
                keep = [] if input_ids is None else [i for i in place if i not in input_ids]
                place.clear()
                place.extend(keep)
        return dropped
