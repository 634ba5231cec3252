"""Dask's adaptive clusters: as many threads as finish all known work in 5 s, never more than tasks.

Source: dask/distributed, distributed/scheduler.py (`adaptive_target`: occupancy over target-duration, whole
workers; of the idle ones all may close) and distributed/deploy/adaptive_core.py (every second; a worker
closes when that was recommended three times in a row). A kind of task that never finished counts half a
second; its duration is a moving average with half the weight on the newest.
"""

from __future__ import annotations

import math

from flexray.core.ledger import Container, LeaseOut, State
from tests.bench.policies.simulator import Policy, Simulation

TARGET_S = 5.0
UNKNOWN_S = 0.5
CLOSES_AFTER = 3


class Dask(Policy):
    """See the module."""

    name = "Dask adaptive"
    interval_s = 1.0

    def __init__(self) -> None:
        self._duration_s: float | None = None
        self._to_close: dict[str, int] = {}

    def finished(self, lease: LeaseOut, service_s: float) -> None:
        known = self._duration_s
        self._duration_s = service_s if known is None else (known + service_s) / 2

    def act(self, pool: Simulation, *, ticked: bool) -> None:
        if not ticked:
            return
        target = self._target(pool)
        if target >= pool.live:
            self._to_close.clear()
            pool.start(target - pool.live)
        else:
            self._close(pool, pool.live - target)

    def _target(self, pool: Simulation) -> int:
        duration_s = UNKNOWN_S if self._duration_s is None else self._duration_s
        threads = math.ceil(pool.in_flight * duration_s / TARGET_S)
        workers = math.ceil(min(threads, pool.in_flight) / pool.trace.slots)
        return max(1, workers) if pool.waiting and not pool.ledger.ready else workers

    def _close(self, pool: Simulation, excess: int) -> None:
        """Close what is idle, as far as it is too much and has been so for three looks."""
        idle: list[Container] = []
        for container in pool.ledger.by_state[State.READY].values():
            if not container.leases and len(idle) < excess:
                idle.append(container)
        self._to_close = {c.container_id: self._to_close.get(c.container_id, 0) + 1 for c in idle}
        for container in idle:
            if self._to_close[container.container_id] >= CLOSES_AFTER:
                pool.end(container)
