"""Minutes of random deaths under steady work: `make fault`. FLEXRAY_FAULT_SEED repeats the order of deaths."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import pytest
import ray

import flexray
from flexray.runtime import container
from tests.fault.actors import CONTROLLER, Actors, is_gone
from tests.fault.runs import Runs
from tests.integration.conftest import NAMESPACE, Cluster
from tests.waiting import wait_until

MINUTES_S = float(os.environ.get("FLEXRAY_FAULT_S", "180"))
SEED = int(os.environ.get("FLEXRAY_FAULT_SEED") or random.SystemRandom().randrange(10**6))


@pytest.mark.long
@pytest.mark.timeout(MINUTES_S + 300)
def test_under_random_deaths_every_input_settles_once_and_nothing_is_left(
    actors: Actors, runs: Runs, record_property: pytest.RecordProperty
) -> None:
    record_property("seed", SEED)
    app = flexray.App("marathon")

    @app.function(cpu=0, max_containers=4)
    def work(name: str, lasting_s: float) -> str:
        with runs.of(name, lasting_s):
            return name

    @app.function(cpu=0, max_containers=2)
    def relay(name: str) -> list[str]:
        names = [f"{name}-{x}-{os.getpid()}" for x in range(30)]
        assert list(work.map(names, [0.02] * 30)) == names
        return names

    until = time.monotonic() + MINUTES_S
    failures: list[BaseException] = []
    finished = 0

    def keep_mapping(number: int, lasting_s: float, count: int) -> None:
        nonlocal finished
        turn = 0
        try:
            while time.monotonic() < until:
                turn += 1
                names = [f"{number}-{turn}-{x}" for x in range(count)]
                assert list(work.map(names, [lasting_s] * count)) == names
                finished += count
        except BaseException as error:
            failures.append(error)
            raise

    def keep_relaying() -> None:
        turn = 0
        try:
            while time.monotonic() < until:
                turn += 1
                assert len(list(relay.map([f"r-{turn}-{x}" for x in range(4)]))) == 4
        except BaseException as error:
            failures.append(error)
            raise

    killed: set[int] = set()
    threads = [
        threading.Thread(target=keep_mapping, args=(0, 0.0, 500)),
        threading.Thread(target=keep_mapping, args=(1, 0.01, 100)),
        threading.Thread(target=keep_mapping, args=(2, 0.2, 10)),
        threading.Thread(target=keep_relaying),
    ]
    chance = random.Random(SEED)
    with app.run():
        for thread in threads:
            thread.start()
        while time.monotonic() < until and not failures:
            threading.Event().wait(chance.uniform(0.2, 3))
            alive = actors.alive()
            victims = [alive[CONTROLLER]] if CONTROLLER in alive and chance.random() < 0.3 else []
            containers = sorted(pid for name, pid in alive.items() if "#" in name)
            if containers and chance.random() < 0.8:
                victims.append(chance.choice(containers))
            for pid in victims:
                if not is_gone(pid):
                    killed.add(pid)
                    os.kill(pid, signal.SIGKILL)
        for thread in threads:
            thread.join(timeout=120)
            assert not thread.is_alive(), f"seed {SEED}: a map hangs"
        assert not failures, f"seed {SEED}"
        wait_until(lambda: work.get_current_stats().backlog == 0, timeout_s=30)
    assert finished > 10 * MINUTES_S
    assert len(killed) > MINUTES_S / 10
    touched = {run.name for run in runs.all() if run.pid in killed}
    assert runs.repeated() <= touched, f"seed {SEED}"
    assert not runs.overlapping(), f"seed {SEED}"
    assert {run.pid for run in runs.unended()} <= killed, f"seed {SEED}"
    assert all(is_gone(run.pid) for run in runs.all())
    assert set(actors.alive()) <= {CONTROLLER}


ORPHANED = """
import flexray, os, ray, signal, threading
app = flexray.App("orphaned")
work = app.function(cpu=0, name="work")(lambda x: os.getpid())
with app.run():
    work.update_autoscaler(min_containers=2)
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
    assert driver.stdout
    assert driver.stdout.readline() == "ready\n"
    wait_until(lambda: len(actors.containers("orphaned")) >= 2, timeout_s=30)
    driver.kill()
    ray.kill(ray.get_actor(CONTROLLER, namespace=NAMESPACE), no_restart=True)
    wait_until(lambda: not actors.containers("orphaned"), timeout_s=2.5 * container.HELLO_S)
