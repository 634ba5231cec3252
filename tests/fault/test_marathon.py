"""Minutes of random deaths under steady work; run by `make fault`.

FLEXRAY_FAULT_SEED repeats the order of the deaths, FLEXRAY_FAULT_S says how many seconds it lasts.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import ray

import flexray
from flexray.runtime import container
from tests import living
from tests.fault.actors import CALL_QUEUE, CONTROLLER, Actors, is_gone
from tests.fault.drivers import wait_for_line
from tests.fault.runs import Runs
from tests.integration.conftest import NAMESPACE, Cluster
from tests.waiting import wait_until

LASTS_S = float(os.environ.get("FLEXRAY_FAULT_S", "180"))
SEED = int(os.environ.get("FLEXRAY_FAULT_SEED") or random.SystemRandom().randrange(10**6))


@dataclass
class Mapper:
    """A thread that maps one batch of names after another until it is told to end."""

    work: Callable[[list[str]], list[str]]
    name: str
    count: int
    until: float
    finished: int = 0
    failure: BaseException | None = None
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        turn = 0
        try:
            while time.monotonic() < self.until:
                turn += 1
                names = [f"{self.name}-{turn}-{x}" for x in range(self.count)]
                assert self.work(names) == names
                self.finished += self.count
        except BaseException as error:
            self.failure = error
            raise


def kill_some(actors: Actors, chance: random.Random) -> set[int]:
    """Perhaps the controller, perhaps a container; returns their processes."""
    alive = actors.alive()
    victims = [alive[CONTROLLER]] if CONTROLLER in alive and chance.random() < 0.3 else []
    containers = sorted(actors.containers_like("").values())
    if containers and chance.random() < 0.8:
        victims.append(chance.choice(containers))
    victims = [pid for pid in victims if not is_gone(pid)]
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    return set(victims)


@pytest.mark.long
@pytest.mark.timeout(LASTS_S + 300)
def test_under_random_deaths_every_input_settles_once_and_nothing_is_left(actors: Actors, runs: Runs) -> None:
    app = flexray.App("marathon")

    @app.function(cpu=0, max_containers=4)
    def work(name: str, lasting_s: float) -> str:
        with runs.of(name, lasting_s):
            return name

    @app.function(cpu=0, max_containers=2)
    @flexray.concurrent(max_inputs=16)
    async def wide(name: str) -> str:
        with runs.of(name):
            await asyncio.sleep(0.03)
        return name

    @app.function(cpu=0, max_containers=2)
    def relay(name: str) -> str:
        names = [f"{name}-{x}-{os.getpid()}-{time.monotonic_ns()}" for x in range(30)]
        assert list(work.map(names, [0.02] * 30)) == names
        return name

    until = time.monotonic() + LASTS_S
    killed: set[int] = set()
    chance = random.Random(SEED)
    with app.run():
        mappers = [
            Mapper(lambda names: list(work.map(names, kwargs={"lasting_s": 0.0})), "0", 500, until),
            Mapper(lambda names: list(work.map(names, kwargs={"lasting_s": 0.01})), "1", 100, until),
            Mapper(lambda names: list(work.map(names, kwargs={"lasting_s": 0.2})), "2", 10, until),
            Mapper(lambda names: list(wide.map(names)), "w", 200, until),
            Mapper(lambda names: list(relay.map(names)), "r", 4, until),
        ]
        while time.monotonic() < until and not any(mapper.failure for mapper in mappers):
            threading.Event().wait(chance.uniform(0.2, 3))  # Until the next death.
            killed |= kill_some(actors, chance)
        for mapper in mappers:
            mapper.thread.join(timeout=120)
        assert not any(mapper.thread.is_alive() for mapper in mappers), f"seed {SEED}: a map hangs"
        assert [mapper.failure for mapper in mappers] == [None] * 5, f"seed {SEED}"
        wait_until(lambda: work.get_current_stats().backlog == 0, timeout_s=30)
    assert sum(mapper.finished for mapper in mappers) > 10 * LASTS_S
    assert len(killed) > LASTS_S / 10
    touched = {run.name for run in runs.all() if run.pid in killed}
    assert runs.repeated() <= touched, f"seed {SEED}"
    assert not runs.overlapping(), f"seed {SEED}"
    assert [run for run in runs.all() if not is_gone(run.pid, run.began_at)] == []
    assert set(actors.alive()) <= {CONTROLLER, CALL_QUEUE}
    assert actors.containers_like("") == {}
    assert living.strays() == []


ORPHANED = """
import flexray, os, ray, signal, threading
app = flexray.App("orphaned")
work = app.function(cpu=0, name="work")(lambda x: os.getpid())
with app.run():
    list(work.map(range(100)))
    print("ready", flush=True)
    threading.Event().wait()
"""


@pytest.mark.long
@pytest.mark.timeout(300)
def test_containers_whose_controller_is_gone_for_good_exit_by_themselves(
    cluster: Cluster, actors: Actors
) -> None:
    driver = cluster.start_driver(ORPHANED)
    wait_for_line(driver, "ready")
    assert actors.containers("orphaned")
    driver.kill()
    ray.kill(ray.get_actor(CONTROLLER, namespace=NAMESPACE), no_restart=True)
    wait_until(lambda: not actors.containers("orphaned"), timeout_s=3 * container.HELLO_S)
