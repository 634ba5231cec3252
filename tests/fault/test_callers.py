"""Callers die, stop, or lose their Ray: what they opened ends, and nobody else is disturbed."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from itertools import pairwise
from pathlib import Path

import pytest

import flexray
from tests.fault.actors import Actors, is_gone, kill
from tests.fault.drivers import wait_for_line
from tests.fault.runs import Runs
from tests.integration.conftest import Cluster
from tests.waiting import wait_until

DRIVER = """
import os, sys, threading
import flexray
from pathlib import Path
from tests.fault.drivers import wait_for_line
from tests.fault.runs import Runs
app = flexray.App({name!r})
runs = Runs(Path({folder!r}))

@app.function(cpu=0, max_containers=2)
def work(x):
    with runs.of(x, lasting_s=0.05):
        return x

with app.run():
    assert work.remote(-1) == -1
    print("inside", flush=True)
    {use}
print("left", flush=True)
"""


def start(cluster: Cluster, name: str, folder: Path, use: str) -> subprocess.Popen[str]:
    """A driver that is in the middle of `use`."""
    driver = cluster.start_driver(DRIVER.format(name=name, folder=str(folder), use=use))
    wait_until(lambda: len(Runs(folder).all()) > 10, timeout_s=60)
    return driver


def test_a_killed_caller_takes_its_app_along_and_disturbs_nobody(
    cluster: Cluster, actors: Actors, runs: Runs, tmp_path: Path
) -> None:
    app = flexray.App("survivor")

    @app.function(cpu=0, max_containers=2)
    def work(x: int) -> tuple[int, int]:
        with runs.of(x, lasting_s=0.02):
            return x, os.getpid()

    other = tmp_path / "other"
    other.mkdir()
    with app.run():
        driver = start(cluster, "victim", other, "list(work.map(range(100_000)))")
        containers = actors.containers("victim").values()
        assert containers
        results = []
        for result in work.map(iter(int, 1)):  # Without an end.
            results.append(result)
            if len(results) == 50:
                driver.kill()
            if len(results) > 50 and all(is_gone(pid) for pid in containers):
                break
            assert len(results) < 2000, "20 s at the least"
        assert not actors.containers("victim")
        assert actors.containers("survivor")
        seen = runs.all()
        assert max(b.began_at - a.began_at for a, b in pairwise(seen)) < 2


@pytest.mark.parametrize(
    "use",
    [
        "list(zip(work.map(range(40)), range(20))); os._exit(0)",
        "list(zip(work.map(range(40)), range(20))); sys.exit(3)",
    ],
    ids=["os._exit", "sys.exit"],
)
def test_a_caller_that_leaves_without_a_word_takes_its_app_along(
    cluster: Cluster, actors: Actors, tmp_path: Path, use: str
) -> None:
    driver = start(cluster, "left", tmp_path, use)
    driver.wait(timeout=30)
    wait_until(lambda: not actors.containers("left"), timeout_s=20)


@pytest.mark.long
def test_a_caller_that_was_stopped_for_long_finishes_its_map(
    cluster: Cluster, actors: Actors, runs: Runs, tmp_path: Path
) -> None:
    driver = start(cluster, "stopped", tmp_path, "assert list(work.map(range(100))) == list(range(100))")
    driver.send_signal(signal.SIGSTOP)
    try:
        threading.Event().wait(7)  # Past the 5 s after which a silent caller loses its leases.
        assert actors.containers("stopped")
        assert len(runs.all()) < 80
    finally:
        driver.send_signal(signal.SIGCONT)
    wait_for_line(driver, "left")
    assert runs.counts() == {str(x): 1 for x in range(-1, 100)}


@pytest.mark.long
def test_a_stopped_caller_does_not_keep_its_slots_from_another(
    cluster: Cluster, actors: Actors, runs: Runs, tmp_path: Path
) -> None:
    """A container that calls another function is a caller too, and shares its pool with this process."""
    app = flexray.App("shared")

    @app.function(cpu=0, max_containers=2)
    def work(name: str) -> str:
        with runs.of(name, lasting_s=0.05):
            return name

    @app.function(cpu=0)
    def relay(count: int) -> list[str]:
        (tmp_path / "relay").write_text(str(os.getpid()))
        return list(work.map([f"relayed-{x}" for x in range(count)]))

    relayed: list[str] = []
    with app.run():
        caller = threading.Thread(target=lambda: relayed.extend(relay.remote(80)))
        caller.start()
        wait_until(lambda: len(runs.all()) > 10, timeout_s=30)
        pid = int((tmp_path / "relay").read_text())
        os.kill(pid, signal.SIGSTOP)
        try:
            mine = [f"mine-{x}" for x in range(200)]  # 5 s of work for both containers.
            assert list(work.map(mine)) == mine
            assert caller.is_alive()
        finally:
            os.kill(pid, signal.SIGCONT)
        caller.join(timeout=60)
    assert relayed == [f"relayed-{x}" for x in range(80)]
    assert not runs.overlapping()
    assert set(runs.counts().values()) == {1}


def test_slots_and_inputs_of_a_dead_caller_are_free(actors: Actors, runs: Runs, tmp_path: Path) -> None:
    app = flexray.App("dead-caller")

    @app.function(cpu=0, max_containers=2)
    def work(name: str) -> str:
        with runs.of(name, lasting_s=0.02):
            return name

    @app.function(cpu=0, at_most_once=True)
    def relay(count: int) -> int:
        (tmp_path / "relay").write_text(str(os.getpid()))
        return len(list(work.map([f"relayed-{x}" for x in range(count)])))

    with app.run():
        caller = threading.Thread(target=lambda: relay.for_each([100_000], ignore_exceptions=True))
        caller.start()
        wait_until(lambda: len(runs.all()) > 10, timeout_s=30)
        kill(int((tmp_path / "relay").read_text()))
        mine = [f"mine-{x}" for x in range(100)]
        assert list(work.map(mine)) == mine
        caller.join(timeout=30)
        wait_until(lambda: work.get_current_stats().backlog == 0, timeout_s=20)
        ran = len(runs.all())
        assert work.remote("last") == "last"
        assert len(runs.all()) == ran + 1


SHUTDOWN = """
import threading
import ray, flexray
from flexray.errors import Error
app = flexray.App("shutdown")

@app.function(cpu=0, max_containers=2)
def work(x):
    threading.Event().wait(0.01)
    return x

caught = {}
def use(name, call):
    try:
        caught[name] = call()
    except BaseException as error:
        caught[name] = error

def endless():
    for x in work.map(iter(int, 1)):
        started.set()

def calls():
    while True:
        work.remote(1)

@app.function(cpu=0, max_containers=1)
def hold():
    threading.Event().wait()

running = app.run().start()
started = threading.Event()
held = hold.spawn()

def gets():
    held.get()

threads = [threading.Thread(target=use, args=(f.__name__, f)) for f in (endless, calls, gets, endless)]
for thread in threads:
    thread.start()
started.wait()
threading.Event().wait(1.0)  # Until what is got is waited for.
ray.shutdown()
for thread in threads:
    thread.join(timeout=10)
    assert not thread.is_alive()
assert not ray.is_initialized(), "a new Ray was started"
for name, error in caught.items():
    assert isinstance(error, Error), (name, repr(error))
running.stop()
assert not ray.is_initialized(), "a new Ray was started by stop"
print("passed", flush=True)
"""


def test_shutting_ray_down_fails_the_maps_that_run_and_starts_no_other(
    cluster: Cluster, actors: Actors, tmp_path: Path
) -> None:
    driver = cluster.start_driver(SHUTDOWN)
    wait_for_line(driver, "passed")
    wait_until(lambda: not actors.containers("shutdown"), timeout_s=20)
