"""How many spawned inputs of one pool are in memory; the rest is only stored.

One rule: what containers can run within a moment is there, and however much is stored, no more than a window.
"""

from __future__ import annotations

from dataclasses import dataclass

INPUTS = 4096
BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Window:
    """The most that is in memory, in inputs and in bytes of their arguments."""

    inputs: int = INPUTS
    bytes: int = BYTES
    per_running: int = 4
    """For each input that runs there may be so many."""

    def has_room(self, in_memory: int, size: int, *, more: int, more_size: int) -> bool:
        """Whether inputs that have just been stored need not be read again: they fit beside what is there."""
        return in_memory + more <= self.inputs and size + more_size <= self.bytes

    def to_read(self, in_memory: int, size: int, *, stored: int, assigned: int) -> int:
        """How many of the stored inputs to read now; few reads of many, so none while half of it is there.

        It grows with what runs: a quarter of it can be running, and the rest waits behind that. However large
        arguments are, some are read where all that is in memory runs.
        """
        most = max(self.inputs, self.per_running * assigned)
        if in_memory >= most / 2 or (size >= self.bytes and in_memory > assigned):
            return 0
        return min(stored, most - in_memory)
