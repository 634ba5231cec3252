"""The controller dies: what runs goes on, and what it knew is there again."""

from __future__ import annotations

import os
import signal

import pytest
import ray

import flexray
from flexray.errors import ExecutionError
from flexray.runtime import roster
from tests.fault.actors import CONTROLLER, Actors, kill
from tests.fault.drivers import wait_for_line
from tests.fault.runs import Runs
from tests.integration.conftest import NAMESPACE, Cluster
from tests.integration.gates import in_background
from tests.waiting import wait_until

DRIVER = """
import sys
import ray, flexray
ray.init(log_to_driver=False, logging_level="ERROR")
app = flexray.App("at-once")
work = app.function(cpu=0, name="work")(lambda x: x)
print("ready", flush=True)
sys.stdin.readline()
with app.run():
    assert list(work.map(range(20))) == list(range(20))
print("passed", flush=True)
"""


def make_app(
    name: str, runs: Runs, lasting_s: float = 0.02
) -> tuple[flexray.App, flexray.Function[[int], tuple[int, int]]]:
    app = flexray.App(name)

    @app.function(cpu=0, max_containers=3)
    def work(x: int) -> tuple[int, int]:
        with runs.of(x, lasting_s):
            return x, os.getpid()

    return app, work


@pytest.mark.long
def test_no_container_is_named_like_one_that_died_before_the_controller(actors: Actors, runs: Runs) -> None:
    app, work = make_app("names", runs, lasting_s=3.0)
    with app.run():
        outputs = in_background(lambda: list(work.map(range(3))))
        wait_until(lambda: len(runs.all()) == 3, timeout_s=20)
        before = actors.containers("names")
        controller = actors.controller
        os.kill(controller, signal.SIGSTOP)  # Or it would replace them before it dies.
        for process in before.values():
            kill(process)
        wait_until(lambda: not actors.containers("names"), timeout_s=20)
        kill(controller)
        # It hung once: callers use no container of whose death they know.
        assert [x for x, _ in outputs.result(30)] == [0, 1, 2]
        assert actors.wait_for_restart(controller) != controller
        assert not set(actors.containers("names")) & set(before)


def test_a_map_goes_on_and_its_containers_are_adopted(actors: Actors, runs: Runs) -> None:
    app, work = make_app("orphans", runs)
    with app.run():
        work.update_autoscaler(min_containers=3, scaledown_window=37)
        outputs = iter(work.map(range(300)))
        results = [next(outputs) for _ in range(60)]
        before = actors.containers("orphans")
        controller = actors.kill_controller()
        results += outputs
        assert actors.wait_for_restart(controller) != controller
        assert [x for x, _ in results] == list(range(300))
        assert not runs.repeated()
        assert actors.containers("orphans") == before
        stats = work.get_current_stats()
        assert stats.containers["ready"] == 3
        assert (stats.settings.min_containers, stats.settings.scaledown_window) == (3, 37)
        assert work.remote(1000)[1] in before.values()
    assert not actors.containers("orphans")


def test_controller_and_container_die_together_and_nothing_is_lost(actors: Actors, runs: Runs) -> None:
    app, work = make_app("both", runs)
    with app.run():
        outputs = iter(work.map(range(300)))
        results = [next(outputs) for _ in range(60)]
        victim = results[-1][1]
        controller = actors.kill_controller()
        kill(victim)
        results += outputs
        assert [x for x, _ in results] == list(range(300))
        assert runs.repeated() <= {run.name for run in runs.all() if run.pid == victim}
        assert not runs.overlapping()
        actors.wait_for_restart(controller)
        wait_until(lambda: work.get_current_stats().num_running_inputs == 0)
    wait_until(lambda: not on_the_roster("both"))


@pytest.mark.parametrize("kills", [1, 3])
def test_a_controller_killed_while_idle_serves_the_next_call(actors: Actors, runs: Runs, kills: int) -> None:
    app, work = make_app("idle", runs)
    with app.run():
        pid = work.remote(0)[1]
        for _ in range(kills):
            actors.wait_for_restart(actors.kill_controller())
        assert work.remote(1)[1] == pid


def test_a_controller_killed_while_containers_start_starts_them(actors: Actors, runs: Runs) -> None:
    app, work = make_app("starting", runs)
    with app.run():
        work.update_autoscaler(min_containers=2)
        actors.kill_controller()
        assert sorted(x for x, _ in work.map(range(20), order_outputs=False)) == list(range(20))
        assert not runs.repeated()
        assert work.get_current_stats().settings.min_containers == 2
        assert len(actors.containers("starting")) <= 3


def test_a_controller_that_somebody_ended_for_good_is_succeeded(actors: Actors, runs: Runs) -> None:
    app, work = make_app("succeeded", runs)
    with app.run():
        outputs = iter(work.map(range(200)))
        results = [next(outputs) for _ in range(40)]
        before = actors.containers("succeeded")
        ray.kill(ray.get_actor(CONTROLLER, namespace=NAMESPACE), no_restart=True)
        assert work.with_options(max_containers=1).remote(1000)[0] == 1000
        results += outputs
        assert [x for x, _ in results] == list(range(200))
        assert not runs.repeated()
        assert before.items() <= actors.containers("succeeded").items()
        assert work.get_current_stats().settings.max_containers == 3
    assert not actors.containers("succeeded")


def test_a_controller_that_cannot_start_again_fails_what_waits_and_says_why(
    cluster: Cluster, actors: Actors, runs: Runs
) -> None:
    app, work = make_app("unstartable", runs)
    state, away = cluster.directory / "state", cluster.directory / "away"
    with app.run():
        work.remote(0)
        state.rename(away)
        state.touch()
        try:
            controller = actors.kill_controller()
            for call in (
                lambda: list(work.map(range(3000))),
                lambda: work.remote(1),
                work.get_current_stats,
            ):
                with pytest.raises(ExecutionError, match=r"state in .* cannot be used.*\n\nhint: .*DIR"):
                    call()
        finally:
            state.unlink()
            away.rename(state)
    assert not actors.containers("unstartable")
    assert actors.controller != controller


@pytest.mark.long
def test_drivers_that_start_at_once_on_a_fresh_cluster_share_one_controller(
    cluster: Cluster, actors: Actors
) -> None:
    ray.kill(ray.get_actor(CONTROLLER, namespace=NAMESPACE), no_restart=True)
    wait_until(lambda: CONTROLLER not in actors.alive())
    drivers = [cluster.start_driver(DRIVER) for _ in range(2)]
    for driver in drivers:
        wait_for_line(driver, "ready")
    for driver in drivers:
        assert driver.stdin
        driver.stdin.write("go\n")
        driver.stdin.flush()
    for driver in drivers:
        wait_for_line(driver, "passed")


def test_an_app_that_ends_while_the_controller_restarts_leaves_nothing(actors: Actors, runs: Runs) -> None:
    app, work = make_app("ends", runs)
    with app.run():
        assert len(list(work.map(range(50)))) == 50
        actors.kill_controller()
    assert not actors.containers("ends")
    wait_until(lambda: not on_the_roster("ends"))


def on_the_roster(app_name: str) -> list[str]:
    """Containers of the app that can be found, dead ones included."""
    return [one for one in roster.container_ids() if one.startswith(f"{app_name}.")]


def test_an_app_can_start_while_the_controller_restarts(actors: Actors, runs: Runs) -> None:
    app, work = make_app("opens", runs)
    with app.run():
        work.remote(0)
    actors.kill_controller()
    with app.run():
        assert work.remote(1)[0] == 1
