"""beta9: inputs in flight over inputs per container, looked at once a second.

Source: beam-cloud/beta9, pkg/abstractions/common/autoscaler.go (a sample a second) and
pkg/abstractions/taskqueue/autoscaler.go (the ratio); a container that is idle keeps itself warm for
keep_warm_seconds, 10 by default for task queues, and only such as have not been used since are stopped.
"""

from __future__ import annotations

from tests.bench.policies.simulator import Policy, Simulation

KEEP_WARM_S = 10.0


class Beta9(Policy):
    """See the module."""

    name = "beta9"
    interval_s = 1.0

    def act(self, pool: Simulation, *, ticked: bool) -> None:
        if not ticked:
            return
        wanted = -(-pool.in_flight // pool.trace.slots)
        pool.start(wanted - pool.live)
        while pool.live > wanted:
            container = pool.ledger.least_recently_used()
            if container is None or pool.now - container.idle_since < KEEP_WARM_S:
                return
            pool.end(container)
