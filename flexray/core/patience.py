"""Whether to wait for what often comes soon.

One rule: where it has not come it is waited for less and less often, so that those who ask are not held up by
waits in vain; the first that comes in time makes up for it.
"""

from __future__ import annotations

IN_VAIN_MAX = 6
"""So often in a row in vain makes the pause no longer: one wait in 64 is made whatever happens."""


class Patience:
    """Counts waits, made and left out."""

    def __init__(self) -> None:
        self._in_vain = 0
        """Waits in a row that were in vain..."""
        self._left_out = 0
        """...and how many are left out after that."""

    def is_worth(self) -> bool:
        """Whether to wait this time; `waited` tells what came of it."""
        if self._left_out > 0:
            self._left_out -= 1
            return False
        return True

    def waited(self, *, in_vain: bool) -> None:
        """A wait has ended."""
        self._in_vain = self._in_vain + 1 if in_vain else 0
        self._left_out = 2 ** min(self._in_vain, IN_VAIN_MAX) - 1
