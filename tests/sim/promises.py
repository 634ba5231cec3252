"""Single promises, each in a world made for it. Every function raises `Violation`, or the assertion's error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from flexray.config import AutoscalerSettings, Limits
from flexray.core.events import OK, REFUSED, StartContainer
from tests.sim.invariants import Checks
from tests.sim.scenarios import Faults, Scenario, scenario
from tests.sim.truth import Violation
from tests.sim.world import World


def _played(world: World, until_s: float) -> World:
    checks = Checks(world)
    while world.now < until_s and world.step():
        checks.check_event()
    return world


def _promise(condition: bool, what: str) -> None:
    if not condition:
        raise Violation(what)


def admission_is_exact() -> None:
    """Of 400 inputs that 50 callers submit within 10 ms, exactly those beyond the limit are refused."""
    for seed in range(3):
        world = World(Scenario(seed, callers=50, limits=Limits(pending=200), cold_start_s=3.0))
        for number, caller in enumerate(world.callers.values()):
            for step in range(8):
                when = world.random.uniform(0.0, 0.01)
                world.at(when, lambda c=caller, i=8 * number + step: c.submit([i], patient=False))
        _played(world, 1.0)
        refused = sum(REFUSED in truth.settled for truth in world.truth.values())
        _promise(refused == 200, f"4: {refused} of 400 refused, the limit is 200")


def a_map_waits_quietly_for_room() -> None:
    """A map beyond the limit is neither refused nor asks again and again."""
    limits, settings = Limits(pending=20), AutoscalerSettings(max_containers=1)
    world = World(Scenario(1, callers=2, limits=limits, settings=settings, service_s=1.0, service_spread=0.0))
    filling, mapping = world.callers.values()
    world.at(0.0, lambda: filling.submit(list(range(20)), patient=False))
    world.at(0.5, lambda: mapping.submit(list(range(20, 80)), patient=True))
    _played(world, 5.0)
    statuses = [truth.settled for truth in world.truth.values() if REFUSED in truth.settled]
    _promise(not statuses, f"4: {len(statuses)} inputs refused")
    _promise(mapping.reports_sent < 30, f"4: {mapping.reports_sent} reports within 5 s")


def callers_share_a_container_evenly() -> None:
    """One container, three callers that come one after the other: near-equal shares, and few moves."""
    settings, limits = AutoscalerSettings(max_containers=1), Limits(pending=10_000)
    world = World(Scenario(3, callers=3, service_s=0.02, service_spread=0.2, settings=settings, limits=limits))
    for number, caller in enumerate(world.callers.values()):
        inputs = list(range(2000 * number, 2000 * (number + 1)))
        world.at(0.4 * number, lambda c=caller, i=inputs: c.submit(i, patient=True))
    _played(world, 21.0)
    ran = Counter(truth.caller_id for truth in world.truth.values() if OK in truth.settled)
    _promise(max(ran.values()) <= 1.25 * min(ran[name] for name in world.callers), f"11: {dict(ran)}")
    assert world.pool is not None
    moves = world.pool._next_lease - (world.epoch << 40)
    _promise(moves <= 21.0 / 0.1, f"11: {moves} grants in 21 s: a holder keeps a slot for 100 ms at least")


def a_dead_callers_slots_come_back() -> None:
    """A caller dies with inputs under way: its slots go to the other caller, and no input of it runs on."""
    settings = AutoscalerSettings(max_containers=1, scaledown_window=2.0)
    world = World(Scenario(4, callers=2, service_s=0.5, slots=2, service_spread=0.0, settings=settings))
    dying, living = world.callers.values()
    world.at(0.0, lambda: dying.submit(list(range(40)), patient=True))
    world.at(1.8, lambda: living.submit(list(range(40, 50)), patient=False))
    world.at(2.5, lambda: world.kill_caller(dying))
    _played(world, 20.0)
    settled = sum(OK in world.truth[i].settled for i in range(40, 50))
    _promise(settled == 10, f"5: {settled} of 10 inputs of the living caller have settled")
    _promise(not world.live, f"8: {world.live} containers are left")


def one_input_starts_one_container() -> None:
    """In calm worlds of single calls no more containers start than inputs need: a lease given is demand met."""
    starts = 0
    for seed in range(40):
        settings = AutoscalerSettings(scaledown_window=2.0)
        world = World(Scenario(seed, callers=3, service_s=0.4, cold_start_s=0.5, settings=settings))
        for number, caller in enumerate(world.callers.values()):
            for step in range(3):
                when = 0.8 * step + world.random.uniform(0.0, 0.3)
                world.at(when, lambda c=caller, i=3 * number + step: c.submit([i], patient=False))
        starts += _played(world, 6.0).starts
    _promise(starts <= STARTS_OF_40_WORLDS, f"10: {starts} starts")


STARTS_OF_40_WORLDS = 230


def no_input_waits_behind_a_long_one() -> None:
    """A batch whose first input takes long gives the others back, though messages overtake each other."""
    for seed in range(8):
        world = World(Scenario(seed, callers=1, service_s=0.001, service_spread=0.0, slots=1))
        (caller,) = world.callers.values()
        world.at(0.0, lambda c=caller: c.submit(list(range(40)), patient=True))
        world.at(3.0, lambda w=world: _make_slow(w))
        world.at(3.0, lambda c=caller: c.submit(list(range(40, 70)), patient=True))
        _played(world, 8.0)
        late = sum(not truth.settled for truth in world.truth.values())
        _promise(late <= 1, f"8: {late} inputs wait behind one that takes a minute")


def _make_slow(world: World) -> None:
    """The next input takes a minute, those after it a millisecond."""
    times = iter((60.0,))
    world.service_time = lambda: next(times, 0.001)  # type: ignore[method-assign]


def a_call_on_a_warm_pool_takes_a_few_hops() -> None:
    """A single call that finds an idle container is over within a few messages, also beside a parked report."""
    settings = AutoscalerSettings(min_containers=1, max_containers=1)
    world = World(Scenario(5, callers=1, service_s=0.001, service_spread=0.0, settings=settings))
    (caller,) = world.callers.values()
    for number in range(12):
        world.at(4.0 + 1.7 * number, lambda i=number: caller.submit([i], patient=False))
    _played(world, 30.0)
    longest_s = max((t.settled_at or 99.0) - 4.0 - 1.7 * t.input_id for t in world.truth.values())
    _promise(longest_s < 0.03, f"16: a call took {longest_s:.3f} s")


def long_inputs_get_one_container_each_in_the_same_event() -> None:
    """The report that brings eight inputs starts eight containers before its handling ends."""
    world = World(Scenario(6, callers=1, cold_start_s=1.0))
    (caller,) = world.callers.values()
    started: list[float] = []
    obey = world.obey

    def watch(effect: object) -> None:
        if isinstance(effect, StartContainer):
            started.append(world.now)
        obey(effect)

    world.obey = watch  # type: ignore[method-assign]
    world.at(0.1, lambda: caller.submit(list(range(8)), patient=False))
    _played(world, 0.5)
    _promise(len(started) == 8 and len(set(started)) == 1, f"6: starts at {started}")
    _promise(started[0] - 0.1 < 0.01, f"6: the starts came {started[0] - 0.1:.3f} s after the inputs")


def starts_that_fail_are_spaced_out() -> None:
    """1, 2, 4, 8, 16, 30 s between starts that fail; after ten of them the inputs fail with the error."""
    settings = AutoscalerSettings(max_containers=1, scaledown_window=2.0)
    world = World(Scenario(7, callers=1, never_starts=True, cold_start_s=0.2, settings=settings))
    (caller,) = world.callers.values()
    started: list[float] = []
    obey = world.obey

    def watch(effect: object) -> None:
        if isinstance(effect, StartContainer):
            started.append(world.now)
        obey(effect)

    world.obey = watch  # type: ignore[method-assign]
    world.at(0.0, lambda: caller.submit([0], patient=False))
    _played(world, 300.0)
    gaps = [later - earlier for earlier, later in zip(started, started[1:], strict=False)]
    least = [1, 2, 4, 8, 16, 30, 30, 30, 30]
    _promise(len(started) == 10, f"{len(started)} starts")
    _promise(all(gap >= pause for gap, pause in zip(gaps, least, strict=True)), f"starts came after {gaps}")
    _promise(world.truth[0].settled == [5], f"settled as {world.truth[0].settled}")


PROMISES: dict[str, Callable[[], None]] = {
    promise.__name__: promise
    for promise in (
        admission_is_exact,
        a_map_waits_quietly_for_room,
        callers_share_a_container_evenly,
        a_dead_callers_slots_come_back,
        one_input_starts_one_container,
        no_input_waits_behind_a_long_one,
        a_call_on_a_warm_pool_takes_a_few_hops,
        long_inputs_get_one_container_each_in_the_same_event,
        starts_that_fail_are_spaced_out,
    )
}
