"""What a seed stands for: one scenario of one of a few kinds."""

from __future__ import annotations

import random

from flexray.config import AutoscalerSettings, Limits, Retries
from tests.sim.invariants import Checks
from tests.sim.world import Faults, Scenario, World, plan

KINDS = ("calm", "burst", "limits", "settings", "losses", "partitions", "deaths", "restarts", "everything")


def scenario(seed: int, kind: str | None = None) -> Scenario:
    """The scenario of this seed; its kind is the seed's remainder unless named."""
    rng = random.Random(seed)
    kind = kind or KINDS[seed % len(KINDS)]
    base = Scenario(
        seed=seed,
        callers=rng.choice((1, 2, 3, 5)),
        inputs=rng.choice((5, 30, 80)),
        service_s=rng.choice((0.0005, 0.005, 0.03, 0.2)),
        service_spread=rng.choice((0.0, 0.5, 1.0)),
        slots=rng.choice((1, 1, 2, 4)),
        settings=_settings(rng),
        retries=rng.choice((None, None, Retries(max_retries=2, initial_delay=0.3))),
        at_most_once=rng.random() < 0.15,
        fail_chance=rng.choice((0.0, 0.0, 0.2)),
        cancel_chance=rng.choice((0.0, 0.0, 0.3)),
        cold_start_s=rng.choice((0.2, 0.8, 3.0)),
        cluster_containers=rng.choice((3, 16)),
    )
    return _of_kind(base, kind, rng)


def _settings(rng: random.Random) -> AutoscalerSettings:
    minimum = rng.choice((0, 0, 0, 1, 2))
    return AutoscalerSettings(
        min_containers=minimum,
        max_containers=rng.choice((None, 1, 2, 4, 10)) if minimum == 0 else rng.choice((None, 2, 4)),
        buffer_containers=rng.choice((0, 0, 1, 2)),
        scaledown_window=rng.choice((2.0, 5.0)),
    )


def _of_kind(base: Scenario, kind: str, rng: random.Random) -> Scenario:
    from dataclasses import replace

    faults = {
        "calm": Faults(),
        "burst": Faults(),
        "limits": Faults(),
        "settings": Faults(),
        "losses": Faults(lose=0.1, repeat=0.1, unreached=0.05, slow=0.03),
        "partitions": Faults(stall_caller=0.4, stall_controller=0.2, slow=0.05, lose=0.05),
        "deaths": Faults(kill_container=1.0, kill_caller=0.2, fail_start=0.2),
        "restarts": Faults(restart_controller=0.3, kill_container=0.2, kill_caller=0.1),
        "everything": Faults(0.05, 0.05, 0.03, 0.03, 0.5, 0.1, 0.2, 0.15, 0.1, 0.1),
    }[kind]
    changes = ()
    if kind in ("settings", "everything"):
        changes = tuple((rng.uniform(0.5, 9.0), _settings(rng)) for _ in range(rng.randint(1, 4)))
    if kind == "burst":
        base = replace(base, inputs=300, spread_s=0.01, service_spread=rng.choice((0.0, 1.0)))
    if kind == "limits":
        base = replace(base, limits=Limits(pending=rng.choice((3, 10, 40)), total=rng.choice((4, 20, 60))), spread_s=1.0)
    return replace(base, faults=faults, settings_changes=changes)


def run(scenario: Scenario) -> World:
    """Play it to its end with every check; raises Violation."""
    world = World(scenario)
    plan(world)
    checks = Checks(world)
    over_at = None
    while world.now < scenario.ends_s and world.step():
        checks.check_event()
        if over_at is None and world.is_over:
            over_at = world.now + world.settings.scaledown_window + 15.0
        if over_at is not None and world.now > over_at:
            break
    checks.check_end()
    return world
