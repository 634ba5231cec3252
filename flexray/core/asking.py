"""Inputs of one caller that wait for the controller's word before they may queue.

One rule: an input is asked for once, and the answer is two counts that only grow: how many asks are decided,
and how many of those are admitted (protocol rule 4).
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

    def ask(self, input_ids: Sequence[int], *, patient: bool) -> None:
        """Ask for these inputs; patient ones only while there is room."""
        if patient:
            self._held_back.extend(input_ids)
            self.set_room(room=self._room)
        else:
            self._calls.extend(input_ids)
            self._tally.asked += len(input_ids)

    def set_room(self, *, room: bool) -> None:
        """Whether maps may ask now."""
        self._room = room
        if room and self._held_back:
            self._tally.asked += len(self._held_back)
            self._maps.extend(self._held_back)
            self._held_back.clear()

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
