"""One container per waiting input, as serverless platforms do; an idle one stays for a window.

Source: Modal's guide, "Scaling out": it starts a container for each input that finds none, and ends one that
was idle for `scaledown_window` (60 s; 2 s to 20 min).
"""

from __future__ import annotations

from flexray.core.ledger import Container
from tests.bench.policies.simulator import Policy, Simulation


class OnePerInput(Policy):
    """As many slots starting as inputs wait."""

    def __init__(self, window_s: float) -> None:
        self.name = f"one per input, {window_s:g} s"
        self._window_s = window_s

    def act(self, pool: Simulation, *, ticked: bool) -> None:
        missing = pool.waiting - pool.starting * pool.trace.slots
        if missing > 0:
            pool.start(-(-missing // pool.trace.slots))
        pool.stop_idle(self._window_s)
        oldest: Container | None = pool.ledger.least_recently_used()
        if oldest is not None:
            pool.act_at(oldest.idle_since + self._window_s)
