"""Promises about idle containers, schedules and sharing: what is kept, for how long, and for whom."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from flexray.config import AutoscalerSettings, Resources
from flexray.core.events import (
    ContainerLost,
    ContainerPlaced,
    ContainerReady,
    GiveUp,
    NodeLeaving,
    PoolEffect,
    SettingsChanged,
    StartContainer,
    StopContainer,
    Ticked,
    TickExpected,
)
from flexray.core.pool import Pool, PoolConfig
from flexray.core.sharing import PoolNeed, Shape, Sharing
from tests.bench.policies.ours import Ours
from tests.bench.policies.simulator import Input, Outcome, Simulation, Trace
from tests.sim.truth import Violation

BURST = 4


def _promise(condition: bool, what: str) -> None:
    if not condition:
        raise Violation(what)


def _bursts(starts_s: Sequence[float], *, inputs: int = BURST, service_s: float = 0.3) -> Outcome:
    """At each of these times so many inputs arrive, one a little longer than the other.

    A cold start takes about 1.5 s; after the last burst nothing arrives for 200 s.
    """
    bursts = [Input(at, service_s * (1 + number / 10)) for at in starts_s for number in range(inputs)]
    trace = Trace("bursts", bursts, starts_s[-1] + 200.0)
    return Simulation(trace, Ours(trace), seed=1).run()


def gaps_that_pay_are_bridged() -> None:
    """Bursts of long inputs every 20 s: from the third on nobody waits for a cold start."""
    outcome = _bursts([20.0 * turn for turn in range(6)], inputs=12, service_s=2.0)
    waited = sum(wait_s > 1.0 for wait_s in outcome.waits_s[2 * 12 :])
    _promise(waited == 0, f"{waited} inputs of later bursts wait for containers that it paid to keep")


def gaps_that_do_not_pay_are_not_bridged() -> None:
    """Bursts every 150 s: all but the last container leave within seconds, and in the end that one, too."""
    cost_s = _bursts([150.0 * turn for turn in range(6)]).container_s
    _promise(cost_s < 6 * (BURST * 5.0 + 30.0), f"bursts far apart cost {cost_s:.0f} container-seconds")


def a_miss_among_many_busy_is_cheap() -> None:
    """Twenty inputs a second of 0.5 s, at random: few containers are kept for the peaks of chance."""
    rng, at, steady = random.Random(1), 0.0, []
    while at < 200.0:
        at += rng.expovariate(20.0)
        steady.append(Input(at, rng.expovariate(2.0)))
    trace = Trace("steady", steady, 200.0)
    outcome = Simulation(trace, Ours(trace), seed=1).run()
    _promise(outcome.container_s < 200.0 * 17.2, f"it costs {outcome.container_s / 200.0:.1f} containers")


def the_last_container_keeps_the_window_at_first() -> None:
    """Single inputs every 50 s: the second finds a container."""
    outcome = _bursts([0.0, 50.0], inputs=1)
    _promise(outcome.launches == 1, f"{outcome.launches} containers for two inputs within the window")


def the_last_container_goes_where_the_window_is_too_long() -> None:
    """Single inputs every 100 s: after three of them nothing waits a whole window for the next."""
    outcome = _bursts([100.0 * turn for turn in range(10)], inputs=1)
    cost_s = outcome.container_s
    _promise(cost_s < 4 * 63.0 + 6 * 8.0, f"ten inputs far apart cost {cost_s:.0f} container-seconds")


def containers_are_ready_when_a_schedule_fires() -> None:
    """A pool told of the next tick starts in time, and keeps what it started."""
    pool = Pool(PoolConfig("f", 1, AutoscalerSettings(scaledown_window=2.0)), 0.0)
    pool.handle(TickExpected(100.0), 0.0)
    started = _started(pool, [0.25 * step for step in range(419)], cold_start_s=1.5)
    _promise(len(started) == 1, f"{len(started)} containers are started for one tick")
    _promise(97.0 < started[0] < 98.5, f"the container for the tick at 100 s begins at {started[0]:.1f} s")
    _promise(pool.ledger.ready == 1, "the container for the tick has gone before its input could arrive")


def nothing_waits_for_a_far_tick() -> None:
    """When the next tick is far, the container that ran the last one leaves before the window is over."""
    pool = Pool(PoolConfig("f", 1, AutoscalerSettings()), 0.0)
    pool.handle(TickExpected(10.0), 0.0)
    _started(pool, [0.25 * step for step in range(60)], cold_start_s=1.5)
    pool.handle(TickExpected(1000.0), 15.0)
    effects: list[PoolEffect] = []
    for step in range(40):
        effects += pool.handle(Ticked(), 15.0 + 0.25 * step)
    _promise(any(isinstance(e, StopContainer) for e in effects), "it stays although the next tick is far")


def _started(pool: Pool, times: Sequence[float], cold_start_s: float) -> list[float]:
    """Play ticks; returns when containers were started, each of which becomes ready."""
    started: dict[str, float] = {}
    ready: set[str] = set()
    for now in times:
        effects = pool.handle(Ticked(), now)
        started.update({e.container_id: now for e in effects if isinstance(e, StartContainer)})
        for name, at in started.items():
            if name not in ready and now - at >= cold_start_s:
                ready.add(name)
                pool.handle(ContainerPlaced(name), now)
                pool.handle(ContainerReady(name), now)
    return list(started.values())


def idle_containers_make_way_for_inputs_that_wait() -> None:
    """What is idle above the need goes to a pool that waits, and to nobody else."""
    core, two = Shape.of(Resources()), Shape.of(Resources(cpu=2))
    small, large = PoolNeed("small", core, spare=9), PoolNeed("large", two, spare=3)
    minimum = PoolNeed("minimum", two, missing=1, spare=5)
    given = Sharing().give_ups([small, large, minimum, PoolNeed("waits", two, 2, lacks_room=True)], 0.0)
    _promise(given == {"large": 2}, f"given up: {given}")
    both = PoolNeed("waits", core, 2, lacks_room=True), PoolNeed("others", two, 2, lacks_room=True)
    given = Sharing().give_ups([large, *both], 0.0)
    _promise(given == {"large": 3}, f"given up for two: {given}")
    sharing = Sharing()
    for now in (0.0, 1.0):
        given = sharing.give_ups([large, PoolNeed("waits", core, 1, lacks_room=True)], now)
        _promise(given == ({} if now else {"large": 1}), f"given up at {now}: {given}")


def _idle_pool(count: int) -> Pool:
    """So many containers that are ready and idle, on two nodes in turn; nothing keeps them."""
    pool = Pool(PoolConfig("f", 1, AutoscalerSettings(min_containers=count)), 0.0)
    pool.handle(Ticked(), 0.0)
    for number in range(1, count + 1):
        pool.handle(ContainerPlaced(f"f#{number}", f"node {number % 2}"), 1.0)
        pool.handle(ContainerReady(f"f#{number}"), 1.0)
    pool.handle(SettingsChanged(AutoscalerSettings()), 1.0)
    return pool


def _stopped(effects: Sequence[PoolEffect]) -> list[str]:
    return [effect.container_id for effect in effects if isinstance(effect, StopContainer)]


def only_what_is_spare_is_given_up() -> None:
    """A pool asked for room keeps its minimum, and starts nothing in the place of what it gave."""
    pool = _idle_pool(4)
    pool.scaling._active_at = 1.2  # As if an input had just been there.
    pool.handle(SettingsChanged(AutoscalerSettings(min_containers=3)), 1.2)
    given = _stopped(pool.handle(GiveUp(4), 1.3))
    _promise(len(given) == 1, f"{len(given)} of 4 are given up, where 3 are the minimum")
    pool.handle(SettingsChanged(AutoscalerSettings()), 1.4)
    effects = pool.handle(GiveUp(4), 1.5)
    given = _stopped(effects)
    _promise(len(given) == 3, f"{len(given)} of the last 3 idle containers are given up")
    effects += pool.handle(Ticked(), 1.8)
    _promise(not any(isinstance(e, StartContainer) for e in effects), "it comes back though nothing waits")


def whole_nodes_become_empty() -> None:
    """Of containers that are idle for as long, those on the node with fewest go first."""
    pool = _idle_pool(5)
    given: list[str] = []
    for step in range(2):
        given += _stopped(pool.handle(GiveUp(1), 1.5 + step / 10))
        pool.handle(ContainerLost(given[-1], "stopped"), 1.55 + step / 10)
    _promise(set(given) == {"f#2", "f#4"}, f"{given} go first, and no node is empty")


def what_a_leaving_node_has_is_replaced_first() -> None:
    """What is kept warm on a node that will go stays until another is ready; what is idle just ends."""
    pool = _idle_pool(1)
    pool.handle(SettingsChanged(AutoscalerSettings(min_containers=1)), 1.2)
    effects = pool.handle(NodeLeaving("f#1"), 1.3)
    _promise(not _stopped(effects), "the only warm container is stopped before there is another")
    _promise(StartContainer("f#2") in effects, "nothing replaces what is on a node that will go")
    pool.handle(ContainerPlaced("f#2", "node 2"), 1.5)
    effects = pool.handle(ContainerReady("f#2"), 2.3)
    _promise(_stopped(effects) == ["f#1"], "it stays when its replacement is ready")
    idle = _idle_pool(1)
    _promise(_stopped(idle.handle(NodeLeaving("f#1"), 1.3)) == ["f#1"], "what nobody needs stays there")
    many = _idle_pool(4)
    many.handle(SettingsChanged(AutoscalerSettings(min_containers=4)), 1.2)
    started = [many.handle(NodeLeaving(f"f#{number}"), 1.3 + number / 10) for number in range(1, 5)]
    count = sum(isinstance(effect, StartContainer) for effects in started for effect in effects)
    _promise(count == 4, f"{count} of 4 containers on a node that will go are replaced at once")


def _waits(*inputs: Input) -> Outcome:
    """What becomes of these after 300 of 10 ms, the last of which ends before 10 s."""
    trace = Trace("stalls", [*(Input(number / 50, 0.01) for number in range(300)), *inputs], 100.0)
    return Simulation(trace, Ours(trace), seed=1).run()


def a_long_input_after_short_ones_holds_up_nothing() -> None:
    """What waits behind it gets a container about two cold starts later."""
    outcome = _waits(Input(70.0, 60.0), Input(80.0, 0.01))
    _promise(max(outcome.waits_s[300:]) < 4.0, f"it waits {max(outcome.waits_s[300:]):.1f} s")


def many_long_inputs_after_short_ones_get_a_container_each() -> None:
    """Where short inputs were the rule, it takes some cold starts more until that is known."""
    waits_s = _waits(*[Input(70.0, 60.0)] * 500).waits_s[300:]
    _promise(max(waits_s) < 12.0, f"the last of them waits {max(waits_s):.1f} s")


def inputs_that_end_as_expected_are_no_stall() -> None:
    """Ten run at a time, all of them for two seconds, and ten wait for their places: nothing is started."""
    trace = Trace("rounds", [Input(at, 2.0) for at in (0.0, 8.0, 8.1) for _ in range(10)], 60.0, 4.0)
    outcome = Simulation(trace, Ours(trace), seed=1).run()
    _promise(outcome.launches == 10, f"{outcome.launches} containers for rounds of ten")


THRIFT: tuple[Callable[[], None], ...] = (
    gaps_that_pay_are_bridged,
    gaps_that_do_not_pay_are_not_bridged,
    a_miss_among_many_busy_is_cheap,
    the_last_container_keeps_the_window_at_first,
    the_last_container_goes_where_the_window_is_too_long,
    containers_are_ready_when_a_schedule_fires,
    nothing_waits_for_a_far_tick,
    idle_containers_make_way_for_inputs_that_wait,
    only_what_is_spare_is_given_up,
    whole_nodes_become_empty,
    what_a_leaving_node_has_is_replaced_first,
    a_long_input_after_short_ones_holds_up_nothing,
    many_long_inputs_after_short_ones_get_a_container_each,
    inputs_that_end_as_expected_are_no_stall,
)
