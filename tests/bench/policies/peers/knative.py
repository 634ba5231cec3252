"""Knative's KPA: the mean concurrency of 60 s over 70 % of a container's, of 6 s when that doubles.

Source: knative/serving, pkg/autoscaler/scaling/autoscaler.go (stable and panic mode, rates),
pkg/autoscaler/aggregation/bucketing.go (a window that has just begun is averaged over what it has) and the
defaults of config-autoscaler: target 70 %, stable window 60 s, panic window 10 % of it, panic threshold
200 %, scale-up at most 1000 times, scale-down at most by half, tick 2 s, scale-to-zero grace period 30 s.
An input that finds no container at all makes it decide at once (the activator's poke).
"""

from __future__ import annotations

import math

from tests.bench.policies.peers.averages import Concurrency
from tests.bench.policies.simulator import Policy, Simulation

STABLE_S = 60.0
PANIC_S = 6.0
TARGET = 0.7
PANICS_AT = 2.0
UP_MAX = 1000.0
DOWN_MAX = 2.0
GRACE_S = 30.0


class Knative(Policy):
    """See the module."""

    name = "Knative KPA"
    interval_s = 2.0

    def __init__(self) -> None:
        self._concurrency = Concurrency(STABLE_S)
        self._panics_since: float | None = None
        self._panic_most = 0
        self._zero_since: float | None = None

    def act(self, pool: Simulation, *, ticked: bool) -> None:
        self._concurrency.note(pool)
        if ticked or (pool.waiting and not pool.live):
            self._scale(pool, self._wanted(pool))

    def _scale(self, pool: Simulation, wanted: int) -> None:
        if wanted or not pool.live:
            self._zero_since = None
        elif self._zero_since is None:
            self._zero_since = pool.now
        if self._zero_since is not None and pool.now - self._zero_since < GRACE_S:
            wanted = 1  # The last one stays until traffic has been rerouted.
        pool.start(wanted - pool.live)
        pool.shrink(pool.live - wanted)

    def _wanted(self, pool: Simulation) -> int:
        target = TARGET * pool.trace.slots
        ready = max(1.0, float(pool.ledger.ready))
        most, least = math.ceil(UP_MAX * ready), math.floor(ready / DOWN_MAX) if pool.live else 0
        stable = math.ceil(round(self._concurrency.mean(STABLE_S), 6) / target)
        panic = math.ceil(round(self._concurrency.mean(PANIC_S), 6) / target)
        over = panic / ready >= PANICS_AT
        if over:
            self._panics_since = pool.now
        elif self._panics_since is not None and pool.now > self._panics_since + STABLE_S:
            self._panics_since, self._panic_most = None, 0
        wanted = min(max(stable, least), most)
        if self._panics_since is not None:
            self._panic_most = max(self._panic_most, wanted, min(max(panic, least), most))
            wanted = self._panic_most
        return wanted
