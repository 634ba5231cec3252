"""What the policy must reach beside the table: one spike, a crash loop, and the price of a decision."""

from __future__ import annotations

import time
from dataclasses import dataclass

from flexray.config import AutoscalerSettings
from flexray.core.autoscaler import RAMP_FIRST
from flexray.core.callers import Callers
from flexray.core.events import Report
from flexray.core.ledger import Ledger, State
from flexray.core.scaling import Scaling
from tests.bench.policies.comparison import Table
from tests.bench.policies.ours import Ours
from tests.bench.policies.simulator import Input, Simulation, Trace

SPIKE, ONE_PER_INPUT = "spike of tiny inputs", "one per input, 60 s"
CRASH_LOOP_S = 120.0


@dataclass(frozen=True)
class Reach:
    """One figure and its bound."""

    what: str
    figure: str
    bound: str
    reached: bool


def spike(table: Table) -> list[Reach]:
    """Cost of the tiny inputs against one container for each of them, and their waits."""
    ours, other = table[SPIKE][Ours.name], table[SPIKE][ONE_PER_INPUT]
    share = other.container_s / ours.container_s
    return [
        Reach(
            "spike: container-seconds, times fewer than one per input", f"{share:.0f}", ">= 50", share >= 50
        ),
        Reach(
            "spike: p99 wait, against one per input",
            f"{ours.p99_s:.2f} s, {other.p99_s:.2f} s",
            "a tenth more",
            ours.p99_s <= 1.1 * other.p99_s,
        ),
    ]


def crash_loop(waiting: int) -> Reach:
    """Failed starts within two minutes, where every start fails; those of the first wave count as one."""
    trace = Trace("crash loop", [Input(1.0, 1.0)] * waiting, CRASH_LOOP_S, starts_fail=True)
    simulation = Simulation(trace, Ours(trace), seed=1)
    simulation.run()
    first_wave = min(waiting, RAMP_FIRST) - 1
    failed = len(simulation.failures) - first_wave
    what = f"failed starts in a crash loop of {CRASH_LOOP_S:g} s, {waiting} waiting"
    if first_wave:
        what += f", after the first {first_wave + 1}"
        failed -= 1
    return Reach(what, str(failed), "<= 10", failed <= 10)


def decision(containers: int, turns: int = 2000) -> Reach:
    """Microseconds for a whole look at a pool with so many containers, half of them starting."""
    scaling = _scaling(containers)
    best_s = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(turns // 5):
            scaling.run(100.0, ticked=True, may_shrink=True)
        best_s = min(best_s, (time.perf_counter() - began) / (turns // 5))
    cost_us = best_s * 1e6
    return Reach(
        f"one decision with {containers:,} containers", f"{cost_us:.0f} us", "<= 50 us", cost_us <= 50
    )


def _scaling(containers: int) -> Scaling:
    """A pool in the middle of a burst, with everything learned that can be learned."""
    ledger, callers = Ledger(1), Callers(1)
    callers.add(Report("d", 1, 0), 0.0)
    caller = callers.get("d")
    assert caller is not None
    scaling = Scaling(ledger, callers, AutoscalerSettings(), 300.0, lambda: "")
    for number in range(containers):
        starting = number % 2 == 0
        container = ledger.add(f"c{number}", State.LOADING, 98.0 + number / containers)
        if not starting:
            ledger.set_state(container, State.READY)
            caller.leases[number] = ledger.grant(number, container, "d", 99.0)
    for number in range(600):
        scaling.lessons.service.add(0.2 + number % 7 / 10)
        scaling.lessons.cold_starts.add(1.5)
        scaling.lessons.arrivals.add(3, number / 6)
        scaling.lessons.occupancy.observe(number % 30, number / 6, 3)
    caller.report = Report("d", 2, 0, waiting=containers, assigned=containers // 2)
    callers.recount("d", caller)
    return scaling


def all_reached(table: Table) -> list[Reach]:
    """Everything, measured now."""
    return [*spike(table), crash_loop(1), crash_loop(100), decision(10), decision(10_000)]
