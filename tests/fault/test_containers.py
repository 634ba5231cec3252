"""Containers die under their inputs."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

import flexray
from flexray.errors import InputLostError
from tests.fault.actors import Actors, kill
from tests.fault.runs import Runs
from tests.waiting import wait_until


def test_a_map_gives_every_result_in_order_though_a_container_is_killed(actors: Actors, runs: Runs) -> None:
    app = flexray.App("killed-container")

    @app.function(cpu=0, max_containers=3)
    def work(x: int) -> tuple[int, int]:
        with runs.of(x, lasting_s=0.02):
            return x, os.getpid()

    with app.run():
        outputs = iter(work.map(range(200)))
        results = [next(outputs) for _ in range(40)]
        victim = results[-1][1]
        kill(victim)
        results += outputs
    assert [x for x, _ in results] == list(range(200))
    lost = {run.name for run in runs.unended()}
    assert runs.repeated() <= {run.name for run in runs.all() if run.pid == victim}
    assert lost <= runs.repeated()
    assert len(runs.repeated()) <= 2  # The one that ran, and at most one batch of one ahead of its turn.
    assert not runs.overlapping()


def test_containers_killed_one_after_another_lose_nothing(actors: Actors, runs: Runs) -> None:
    app = flexray.App("many-killed")

    @app.function(cpu=0, max_containers=4)
    def work(x: int) -> int:
        with runs.of(x, lasting_s=0.01):
            return x

    with app.run():
        results = []
        for x in work.map(range(240), order_outputs=False):
            results.append(x)
            if len(results) % 60 == 0:
                for pid in list(actors.containers("many-killed").values())[:2]:
                    kill(pid)
    assert sorted(results) == list(range(240))
    assert not runs.overlapping()


def test_under_a_map_over_a_concurrent_class_deaths_lose_nothing_and_repeat_only_what_died(
    actors: Actors, runs: Runs
) -> None:
    app = flexray.App("concurrent-killed")

    @app.cls(cpu=0, max_containers=2)
    @flexray.concurrent(max_inputs=20)
    class Model:
        @flexray.method()
        async def work(self, x: int) -> int:
            with runs.of(x):
                await asyncio.sleep(0.02 + 0.01 * (x % 5))  # Inputs that began together end apart.
            return x

    killed: set[int] = set()
    with app.run():
        results = []
        for x in Model().work.map(range(800), order_outputs=False):
            results.append(x)
            if len(results) % 200 == 50:
                (pid, *_) = actors.containers("concurrent-killed").values()
                kill(pid)
                killed.add(pid)
    assert sorted(results) == list(range(800))
    assert runs.repeated() <= {run.name for run in runs.all() if run.pid in killed}
    assert {run.name for run in runs.unended()} <= runs.repeated()
    assert not runs.overlapping()


def test_gathered_inputs_that_travelled_together_run_again_together(actors: Actors, runs: Runs) -> None:
    app = flexray.App("gathered")

    @app.function(cpu=0, max_containers=2)
    @flexray.batched(max_batch_size=8, wait_ms=20)
    def work(numbers: list[int]) -> list[tuple[int, int]]:
        with runs.of(numbers[0], lasting_s=0.02):
            return [(x, os.getpid()) for x in numbers]

    with app.run():
        outputs = iter(work.map(range(400)))
        results = [next(outputs) for _ in range(80)]
        kill(results[-1][1])
        results += outputs
        assert [x for x, _ in results] == list(range(400))
        assert len(runs.all()) < 120  # Mostly full batches, also after the death.


def test_a_call_whose_container_is_killed_runs_again(actors: Actors, runs: Runs) -> None:
    app = flexray.App("killed-call")

    @app.function(cpu=0)
    def die_once() -> str:
        with runs.of("x"):
            if runs.counts()["x"] == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return "done"

    with app.run():
        assert die_once.remote() == "done"
    assert runs.counts()["x"] == 2


def test_an_input_that_kills_its_container_takes_no_other_along(actors: Actors, runs: Runs) -> None:
    app = flexray.App("poison")

    @app.function(cpu=0, max_containers=1)
    @flexray.concurrent(max_inputs=4)
    def die_at_three(x: int) -> int:
        with runs.of(x, lasting_s=0.05):
            if x == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return x

    with app.run():
        results = list(die_at_three.map(range(12), return_exceptions=True))
    assert isinstance(results.pop(3), InputLostError)
    assert results == [x for x in range(12) if x != 3]
    deaths = [run for run in runs.all() if run.name == "3"]
    assert 1 + 3 <= len(deaths) <= 2 + 3
    for death in deaths[-3:]:  # It had those containers to itself.
        others = [run for run in runs.all() if run.pid == death.pid and run.name != "3"]
        assert all(run.ended_at is not None and run.ended_at < death.began_at for run in others)


def test_an_at_most_once_input_that_is_lost_ran_once(actors: Actors, runs: Runs) -> None:
    app = flexray.App("at-most-once")

    @app.function(cpu=0, max_containers=2, at_most_once=True)
    def die_at_five(x: int) -> int:
        with runs.of(x):
            if x == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            return x

    with app.run():
        outputs: list[object] = list(die_at_five.map(range(20), return_exceptions=True))
        with pytest.raises(InputLostError, match="an input of die_at_five is lost: the container died"):
            die_at_five.remote(5)
    lost = outputs.pop(5)
    assert isinstance(lost, InputLostError)
    assert lost.losses == 1
    assert outputs == [x for x in range(20) if x != 5]
    assert runs.counts().pop("5") == 2
    assert runs.repeated() == {"5"}


def test_an_input_that_kills_its_containers_is_lost_and_its_neighbours_return(
    actors: Actors, runs: Runs
) -> None:
    app = flexray.App("poison")

    @app.function(cpu=0, max_containers=3)
    def die_at_seven(x: int) -> int:
        with runs.of(x):
            if x == 7:
                os._exit(1)
            return x

    with app.run():
        outputs: list[object] = list(die_at_seven.map(range(30), return_exceptions=True))
        wait_until(lambda: die_at_seven.get_current_stats().backlog == 0)
    lost = outputs.pop(7)
    assert isinstance(lost, InputLostError)
    assert lost.losses == 3
    assert outputs == [x for x in range(30) if x != 7]
    assert runs.counts()["7"] in {3, 4}  # The first loss is not its fault where it travelled with others.


def test_a_function_that_fails_is_retried_and_counts_its_attempts(actors: Actors, runs: Runs) -> None:
    app = flexray.App("retried")

    @app.function(cpu=0, retries=flexray.Retries(max_retries=2, initial_delay=0.1, backoff_coefficient=1.0))
    def fail_twice(x: int) -> list[int | None]:
        with runs.of(f"{x}-{flexray.current_attempt()}"):
            if (flexray.current_attempt() or 0) < 3:
                raise ValueError(x)
            return [x, flexray.current_attempt()]

    @app.function(cpu=0, retries=flexray.Retries(max_retries=1, initial_delay=0.1))
    def fail_always() -> None:
        raise ValueError(flexray.current_attempt())

    with app.run():
        assert list(fail_twice.map(range(10))) == [[x, 3] for x in range(10)]
        with pytest.raises(ValueError, match="2"):
            fail_always.remote()
    assert runs.counts() == {f"{x}-{attempt}": 1 for x in range(10) for attempt in (1, 2, 3)}
