"""Plays one scenario to its end with every check."""

from __future__ import annotations

from collections.abc import Callable

from tests.sim.invariants import Checks
from tests.sim.scenarios import Scenario
from tests.sim.script import plan
from tests.sim.truth import Violation
from tests.sim.world import World

SETTLES_FOR_S = 17.0
"""After the last window; by then a cut-off holder's slot came back, and who never answered is given up."""
EVENTS_MAX = 150_000
"""Of one world: three times what the busiest needs. More is a state machine that goes round in circles."""
QUIET_FOR_S = 2.0
"""A world in which nothing happens any more is watched for this long."""


def play(
    scenario: Scenario, trace: Callable[[float, str], None] | None = None, *, events_max: int = EVENTS_MAX
) -> World:
    """The world at its end; raises `Violation`, or whatever a state machine raised.

    `trace` is called with the time and a line for each event that a state machine took in and each effect.
    """
    world = World(scenario)
    if trace is not None:
        world.trace = lambda line: trace(world.now, line)
    plan(world)
    checks = Checks(world)
    while world.now < scenario.ends_s and not world.is_over and world.step():
        checks.check_event()
        if world.count > events_max:
            raise Violation(f"6: {world.open_inputs} inputs are open after {events_max:,} events")
    ends_at = world.now + world.settings.scaledown_window + SETTLES_FOR_S
    quiet_since = world.now
    while world.now < min(ends_at, quiet_since + QUIET_FOR_S) and world.step():
        checks.check_event()
        if not world.is_quiet:
            quiet_since = world.now
    checks.check_end()
    return world


def failure_of(scenario: Scenario, *, events_max: int = EVENTS_MAX) -> str | None:
    """What went wrong, in one line; None: nothing."""
    try:
        play(scenario, events_max=events_max)
    except Exception as error:  # noqa: BLE001 - a crash of a state machine is a finding like any other.
        return f"{type(error).__name__}: {error}"
    return None
