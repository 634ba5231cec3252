"""FlexRay's policy, as it is shipped: `core/scaling.py` decides, on the ledger that the controller has.

What is left out is the protocol: a caller's report takes no time, and no slot is promised before an input
takes it.
"""

from __future__ import annotations

from dataclasses import replace

from flexray.config import AutoscalerSettings
from flexray.core.callers import Callers
from flexray.core.events import Report, StartContainer, StopContainer
from flexray.core.ledger import Container, LeaseOut
from flexray.core.pool import TICK_S
from flexray.core.scaling import Scaling
from tests.bench.policies.simulator import Policy, Simulation, Trace

CALLER = "inputs"


class Ours(Policy):
    """One caller's inputs at one pool's `Scaling`."""

    name = "FlexRay"
    interval_s = TICK_S

    def __init__(self, trace: Trace) -> None:
        self._names = 0
        self._arrived = 0
        self._new = 0
        self._callers = Callers(trace.slots)
        self._report = Report(CALLER, 1, 0)
        self._callers.add(self._report, 0.0)
        self._settings = AutoscalerSettings(max_containers=trace.containers_max)
        self._scaling: Scaling | None = None
        self._pool: Simulation | None = None
        self._fails = trace.starts_fail

    def arrived(self, inputs: int) -> None:
        self._new += inputs

    def began(self, lease: LeaseOut) -> None:
        caller = self._callers.get(CALLER)
        assert caller is not None
        caller.leases[lease.number] = lease

    def finished(self, lease: LeaseOut, service_s: float) -> None:
        caller, scaling = self._callers.get(CALLER), self._scaling
        assert caller is not None
        assert scaling is not None
        del caller.leases[lease.number]
        scaling.lessons.ended(1, service_s, (service_s,))

    def placed(self, container: Container) -> None:
        assert self._scaling is not None
        self._scaling.placed(container)

    def became_ready(self, container: Container) -> None:
        scaling, pool = self._scaling, self._pool
        assert scaling is not None
        assert pool is not None
        if self._fails:
            pool.end(container)
            scaling.start_failed(container, "it cannot start", pool.now)
        else:
            scaling.became_ready(container, pool.now)

    def act(self, pool: Simulation, *, ticked: bool) -> None:
        scaling = self._scaling or self._born(pool)
        self._tell(pool, scaling)
        for effect in scaling.run(pool.now, ticked=ticked, may_shrink=True):
            match effect:
                case StartContainer(container_id):
                    pool.launch(pool.ledger.containers[container_id])
                case StopContainer(container_id):
                    pool.end(pool.ledger.containers[container_id])
                case _:
                    raise AssertionError(effect)

    def _tell(self, pool: Simulation, scaling: Scaling) -> None:
        """What a report of the caller would say."""
        caller = self._callers.get(CALLER)
        assert caller is not None
        caller.report = replace(caller.report, waiting=pool.waiting, assigned=pool.running)
        self._callers.recount(CALLER, caller)
        if pool.running:
            scaling.lessons.ask()
            scaling.lessons.nothing_ended()
        scaling.lessons.arrivals.add(self._new, pool.now)
        scaling.lessons.occupancy.observe(self._callers.assigned, pool.now, self._new)
        self._new = 0

    def _born(self, pool: Simulation) -> Scaling:
        self._pool = pool
        self._scaling = Scaling(
            pool.ledger, self._callers, self._settings, startup_timeout_s=300.0, name_container=self._name
        )
        return self._scaling

    def _name(self) -> str:
        self._names += 1
        return f"c{self._names}"
