"""Why there are as many containers as there are: in words, while it happens and afterwards."""

from __future__ import annotations

import json
import os
import secrets
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray

import flexray
from flexray import backend
from tests.integration.conftest import NAMESPACE, Cluster, Run
from tests.integration.gates import Gate, calls, results
from tests.waiting import wait_until


@pytest.fixture
def name(cluster: Cluster) -> Iterator[str]:
    """Of an app that is gone after the test."""
    name = f"why-{secrets.token_hex(4)}"
    yield name
    connected = backend.connect()
    if any(one.name == name for one in connected.deployments()):
        connected.stop_app(name)


def controller() -> Any:
    return ray.get_actor("flexray:controller", namespace=NAMESPACE)


def test_a_pool_says_what_it_decided_and_why(run: Run, name: str, tmp_path: Any) -> None:
    gate = Gate(tmp_path)
    app = flexray.App(name)
    app.function(cpu=0, max_containers=2, scaledown_window=2, name="hold")(gate.enter)
    app.deploy()
    hold = flexray.Function.from_name(name, "hold")
    held = calls(hold, range(3))
    wait_until(lambda: len(gate.entered) == 2)
    printed = run("function", "explain", f"{name}/hold")[1]
    assert printed.startswith(f"{name}/hold: 1 waiting, 2 running\ncontainers: 2 ready\n")
    assert "now: kept 2: max_containers=2 with 1 waiting\n" in printed
    assert "0 -> " in printed
    shown = run("top", "--once")[1]
    assert any(line.split()[:4] == [f"{name}/hold", "1", "2", "2"] for line in shown.splitlines())
    gate.open()
    assert len(results(held)) == 3
    wait_until(lambda: hold.get_current_stats().num_total_runners == 0, timeout_s=20)
    (told,) = json.loads(run("function", "explain", f"{name}/hold", "--json")[1])
    decisions = [one["decision"] for one in told["decisions"]]
    assert "ended, idle for" in decisions[0]
    assert decisions[-1].startswith("0 -> ")
    assert hold.get_current_stats().last_decision == decisions[0]
    assert "hold" not in run("top", "--once")[1]


@pytest.mark.long
def test_what_no_node_can_hold_is_told_though_nobody_waits_for_it(run: Run, name: str) -> None:
    app = flexray.App(name)
    app.function(cpu=1000, name="huge")(os.getpid)
    app.deploy()
    huge = flexray.Function.from_name(name, "huge")
    call = huge.spawn()
    wait_until(lambda: huge.get_current_stats().notice, timeout_s=20)
    for command in ("explain", "stats"):
        printed = run("function", command, f"{name}/huge")[1]
        assert "note: " in printed
        assert "CPU: 1,000" in printed
    call.cancel()


def test_classes_and_wrong_names_are_told(run: Run, name: str) -> None:
    app = flexray.App(name)

    class Model:
        size: int = flexray.parameter(default=1)

        @flexray.method()
        def f(self) -> int:
            return self.size

    app.cls(cpu=0)(Model)
    app.deploy()
    assert "none of its parameter sets" in run("function", "explain", f"{name}/Model")[1]
    model = flexray.Cls.from_name(name, "Model")
    assert [model(size=n).f.remote() for n in (1, 2)] == [1, 2]
    explained = run("function", "explain", f"{name}/Model")[1]
    assert explained.count(f"{name}/Model~") == 2
    listed = run("container", "list", name)[1]
    assert all(f"size={size}" in printed for size in (1, 2) for printed in (explained, listed))
    assert "has no function 'Modell'" in run("function", "explain", f"{name}/Modell")[2]
    assert "names no function" in run("function", "explain", name)[2]


def test_idle_containers_make_room_for_a_function_that_waits(name: str) -> None:
    """Four CPUs are kept idle for a minute by one function; another gets one after a second or two."""
    app = flexray.App(name)
    for function in ("first", "second"):
        app.function(cpu=2, scaledown_window=60, name=function)(os.getpid)
    app.deploy()
    first, second = (flexray.Function.from_name(name, function) for function in ("first", "second"))
    first.update_autoscaler(min_containers=2)
    wait_until(lambda: first.get_current_stats().containers["ready"] == 2, timeout_s=30)
    first.update_autoscaler(min_containers=0)
    assert second.remote() > 0
    decision = first.get_current_stats().last_decision
    assert decision is not None
    assert decision.endswith("another function waits for their room")
    assert first.get_current_stats().containers["ready"] == 1


def test_what_was_learned_of_the_load_survives_the_controller(name: str) -> None:
    app = flexray.App(name)
    app.function(cpu=0, name="learn")(time.sleep)
    app.deploy()
    learn = flexray.Function.from_name(name, "learn")
    learn.for_each([0.02] * 20)
    wait_until(lambda: ray.get(controller().__ray_call__.remote(_service_s, f"{name}/learn")) is not None)
    before = ray.get(controller().__ray_call__.remote(_service_s, f"{name}/learn"))
    ray.get(controller().__ray_call__.remote(lambda own: own.behind._apps.save_learned()))
    os.kill(ray.get(controller().__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)
    learn.get_current_stats()
    after = ray.get(controller().__ray_call__.remote(_service_s, f"{name}/learn"))
    assert after == pytest.approx(before, rel=0.5)


def _service_s(own: Any, pool_id: str) -> float | None:
    service_s: float | None = own.behind._pools[pool_id].pool.scaling.lessons.service.mean
    return service_s
