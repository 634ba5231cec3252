"""Ray Serve: inputs in flight, averaged, over the target per replica; a change must be wanted for a while.

Source: ray-project/ray, python/ray/serve/autoscaling_policy.py (proportional policy, delays) and the
defaults of AutoscalingConfig in python/ray/serve/config.py: target 2 ongoing requests, look-back 30 s,
metrics pushed every 10 s, up after 30 s, down after 600 s, at least 1 replica; the control loop runs every
0.1 s. With no replica at all one starts at once.

`tuned` is what a user would set for fast functions: as many ongoing requests as a replica has slots, a
look-back of 3 s pushed every second, up at once, down after 30 s, to zero.
"""

from __future__ import annotations

import math

from tests.bench.policies.peers.averages import Concurrency
from tests.bench.policies.simulator import Policy, Simulation


class Serve(Policy):
    """See the module."""

    interval_s = 0.1

    def __init__(self, *, tuned: bool) -> None:
        self.name = "Ray Serve, tuned" if tuned else "Ray Serve, default"
        self._target_ongoing = None if tuned else 2
        self._look_back_s, self._push_s = (3.0, 1.0) if tuned else (30.0, 10.0)
        self._up_s, self._down_s = (0.0, 30.0) if tuned else (30.0, 600.0)
        self._min = 0 if tuned else 1
        self._concurrency = Concurrency(self._look_back_s)
        self._pushed_at = float("-inf")
        self._ongoing = 0.0
        self._target = self._min
        self._wants: int = 0
        """1: more, -1: fewer."""
        self._wants_since = 0.0

    def act(self, pool: Simulation, *, ticked: bool) -> None:
        self._concurrency.note(pool)
        if not ticked:
            return
        if pool.now - self._pushed_at >= self._push_s or not (pool.live or self._ongoing):
            self._pushed_at = pool.now
            self._ongoing = self._concurrency.mean(self._look_back_s)
        if pool.live or self._ongoing or self._min:
            self._decide(pool)
        pool.start(self._target - pool.live)
        pool.shrink(pool.live - self._target)

    def _decide(self, pool: Simulation) -> None:
        current = pool.live
        if current == 0:
            self._target = max(1, self._target, self._min)
            return
        desired = math.ceil(self._ongoing / (self._target_ongoing or pool.trace.slots) - 1e-9)
        desired = min(max(desired, self._min), pool.trace.containers_max)
        wants = (desired > self._target) - (desired < self._target)
        if wants != self._wants:
            self._wants, self._wants_since = wants, pool.now
        held_s = pool.now - self._wants_since + 1e-6
        if wants > 0 and held_s >= self._up_s:
            self._target, self._wants = desired, 0
        elif wants < 0 and held_s >= self._down_s:
            self._target = desired if self._target == 1 else max(1, desired)
            self._wants = 0
