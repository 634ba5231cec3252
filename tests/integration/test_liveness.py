"""Ray's own word on who is alive, for every kind of process that can hold a dispatcher."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from flexray.runtime import liveness
from tests.integration.conftest import Cluster
from tests.waiting import wait_until

DRIVER = """
import sys
import ray
from flexray.runtime import liveness
ray.init(log_to_driver=False, logging_level="WARNING")
print(liveness.process_id(), flush=True)
sys.stdin.readline()
"""


@ray.remote(num_cpus=0)
class Watcher:
    """Asks as the controller does: a detached actor, from a thread of an async actor or not."""

    def identity(self) -> str:
        return liveness.process_id()

    def is_alive(self, process: str) -> bool | None:
        return liveness.is_alive(process)

    def leave(self) -> None:
        ray.actor.exit_actor()


@pytest.fixture
def watcher(cluster: Cluster) -> Iterator[Any]:
    actor = Watcher.options(lifetime="detached", name=f"watcher-{os.getpid()}").remote()
    yield actor
    ray.kill(actor)


def start_driver(cluster: Cluster) -> tuple[subprocess.Popen[str], str]:
    driver = cluster.start_driver(DRIVER)
    assert driver.stdout
    return driver, driver.stdout.readline().strip()


def says(watcher: Any, process: str) -> bool | None:
    return ray.get(watcher.is_alive.remote(process), timeout=10)


def test_this_driver_and_an_actor_are_alive(watcher: Any) -> None:
    process = ray.get(watcher.identity.remote(), timeout=10)
    assert liveness.is_alive(process) is True
    assert says(watcher, liveness.process_id()) is True


def test_a_killed_driver_is_dead_within_two_seconds(cluster: Cluster, watcher: Any) -> None:
    driver, process = start_driver(cluster)
    assert says(watcher, process) is True
    driver.kill()
    wait_until(lambda: says(watcher, process) is False, timeout_s=2)


def test_a_stopped_driver_stays_alive(cluster: Cluster, watcher: Any) -> None:
    driver, process = start_driver(cluster)
    driver.send_signal(signal.SIGSTOP)
    wait_until(lambda: _state(driver) == "T", timeout_s=5)
    end = time.monotonic() + 2
    while time.monotonic() < end:
        assert says(watcher, process) is True
    driver.kill()


def test_a_driver_that_ended_well_is_dead(cluster: Cluster, watcher: Any) -> None:
    driver, process = start_driver(cluster)
    driver.communicate("go\n", timeout=30)
    assert driver.returncode == 0
    wait_until(lambda: says(watcher, process) is False, timeout_s=2)


def test_a_killed_actor_is_dead_within_two_seconds(watcher: Any) -> None:
    actor = Watcher.remote()
    process = ray.get(actor.identity.remote(), timeout=10)
    assert says(watcher, process) is True
    ray.kill(actor)
    wait_until(lambda: says(watcher, process) is False, timeout_s=2)


def test_an_actor_that_left_is_dead_within_two_seconds(watcher: Any) -> None:
    actor = Watcher.remote()
    process = ray.get(actor.identity.remote(), timeout=10)
    actor.leave.remote()
    wait_until(lambda: says(watcher, process) is False, timeout_s=2)


def test_the_worker_of_a_task_is_alive_until_killed(watcher: Any) -> None:
    @ray.remote(num_cpus=0, max_retries=0)
    def identity() -> tuple[str, int]:
        return liveness.process_id(), os.getpid()

    process, pid = ray.get(identity.remote(), timeout=30)
    assert says(watcher, process) is True
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: says(watcher, process) is False, timeout_s=2)


def test_a_process_of_an_unknown_worker_or_node_is_dead(watcher: Any) -> None:
    worker, node = liveness.process_id().split("@")
    assert says(watcher, f"{'ab' * 28}@{node}") is False
    assert says(watcher, f"{worker}@{'ab' * 28}") is False


def test_what_is_no_identity_is_not_known(cluster: Cluster) -> None:
    for nobody in ("", "nobody", "beef@cafe", f"{liveness.process_id()}@"):
        assert liveness.is_alive(nobody) is None


def _state(process: subprocess.Popen[str]) -> str:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
