"""What happens to a world: its inputs, cancellations, new settings and faults, each at its time."""

from __future__ import annotations

import random
from collections.abc import Callable

from flexray.core.events import GiveUp
from tests.sim.world import LONGEST_PAUSE_S, World


def plan(world: World) -> None:
    """Schedule the scenario's inputs, cancellations, settings and faults."""
    scenario, rng = world.scenario, world.random
    next_id = 0
    for caller in world.callers.values():
        left = scenario.inputs
        poisons = scenario.poison if next_id == 0 else 0
        bad = frozenset(rng.sample(range(next_id, next_id + left), poisons))
        while left > 0:
            patient = rng.random() < scenario.patient_share
            count = min(left, rng.randint(1, 40) if patient else 1)
            input_ids = list(range(next_id, next_id + count))
            next_id += count
            left -= count
            when = rng.uniform(0.0, scenario.spread_s)
            once = scenario.once_share > 0 and rng.random() < scenario.once_share
            if caller.spawned:
                assert world.queue is not None
                world.at(when, lambda i=input_ids: world.queue.submit(i))
                cancel = world.queue.cancel
            else:
                world.at(
                    when,
                    lambda c=caller, i=input_ids, p=patient, b=bad, o=once: c.submit(
                        i, patient=p, poison=b, once=o
                    ),
                )
                cancel = caller.cancel
            if rng.random() < scenario.cancel_chance:
                world.at(when + rng.uniform(0.0, 1.0), lambda c=cancel, i=input_ids: c(i))
    for when, settings in scenario.settings_changes:
        world.at(when, lambda s=settings: world.change_settings(s))
    for when, slots, recreate in scenario.redeploys:
        world.at(when, lambda s=slots, r=recreate: world.redeploy(s, recreate=r))
    _plan_room(world)
    _plan_faults(world)


def _plan_room(world: World) -> None:
    """Other pools ask for room, and nodes go; drawn apart, so that everything else is as it was without."""
    rng = random.Random(f"room {world.scenario.seed}")
    for _ in range(rng.randint(0, 3)):
        when, count = rng.uniform(0.0, world.scenario.spread_s + 10.0), rng.randint(1, 3)
        world.at(when, lambda count=count: world.control(GiveUp(count)))
    for _ in range(rng.choice((0, 0, 1, 2))):
        when, choice = rng.uniform(0.0, world.scenario.spread_s + 10.0), rng.random()
        world.at(when, lambda choice=choice: world.leave_node(choice))


def _plan_faults(world: World) -> None:
    faults, rng, until = world.scenario.faults, world.random, world.scenario.faults_until_s

    def repeatedly(rate: float, action: Callable[[], None]) -> None:
        when = 0.0
        while rate > 0:
            when += rng.expovariate(rate)
            if when > until:
                return
            world.at(when, action)

    def kill_container() -> None:
        alive = [c for c in world.containers.values() if c.alive and c.placed]
        if alive:
            rng.choice(alive).die()

    def kill_caller() -> None:
        alive = [c for c in world.callers.values() if c.alive and not c.spawned]
        if len(alive) > 1:
            world.kill_caller(rng.choice(alive))

    def pause_caller() -> None:
        caller = rng.choice([c for c in world.callers.values() if not c.spawned] or [None])
        if caller is None:
            return
        if faults.restart_controller and world.now < caller.paused_until:
            return  # One cut off for longer than a restarted controller waits is told to be dead.
        longest_s = 9.0 if faults.restart_controller else rng.choice((9.0, 9.0, LONGEST_PAUSE_S))
        caller.paused_until = max(caller.paused_until, world.now + rng.uniform(0.5, longest_s))

    def pause_controller() -> None:
        world.paused_until = world.now + rng.uniform(0.2, 3.0)

    repeatedly(faults.kill_container, kill_container)
    repeatedly(faults.kill_caller, kill_caller)
    if world.queue is not None:
        repeatedly(faults.kill_queue, world.queue.kill)
    repeatedly(faults.pause_caller, pause_caller)
    repeatedly(faults.pause_controller, pause_controller)
    repeatedly(faults.restart_controller, world.restart_controller)
