"""Deployed apps: the first call by name, retuning, another version under load, many functions, a restart."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from statistics import median
from typing import Any

import psutil  # type: ignore[import-untyped]  # Ray brings it along.
import ray

from flexray import App, Function, backend
from flexray.runtime.wire import CONTROLLER_NAME, NAMESPACE
from tests import living
from tests.bench.measure import Plan, Row, percentile
from tests.bench.pools import echo
from tests.waiting import wait_until

CALLS_PER_S = 100
LOAD_S = 6.0
"""Of the steady load, before the redeploy and in its course each."""
IDLE_S = 10.0
BARE_NAME = "bench:bare"

FIRST_CALL = """
import sys, time, statistics, ray, flexray
ray.init(log_to_driver=False, logging_level="ERROR")
began = time.perf_counter()
function = flexray.Function.from_name(sys.argv[1], "echo")
function.remote(1)
first = time.perf_counter() - began
def one():
    began = time.perf_counter()
    function.remote(1)
    return time.perf_counter() - began
print(first * 1e3, statistics.median(one() for _ in range(200)) * 1e3)
"""


FIRST_CALL_OF_RAY = """
import sys, time, ray
ray.init(log_to_driver=False, logging_level="ERROR")
began = time.perf_counter()
actor = ray.get_actor(sys.argv[1], namespace=sys.argv[2])
ray.get(actor.process.remote())
print((time.perf_counter() - began) * 1e3)
"""


@contextmanager
def deployed(**options: Any) -> Iterator[Function[..., Any]]:
    """A function of a deployed app, by name."""
    name = f"bench-{secrets.token_hex(3)}"
    app = App(name)
    app.function(**options)(echo)
    app.deploy()
    try:
        yield Function.from_name(name, "echo")
    finally:
        backend.connect().stop_app(name)


def _name_of(function: Function[..., Any]) -> str:
    function.get_current_stats()  # Which finds its app.
    app_id = function._home.app_id
    assert app_id is not None
    return app_id


def first_call(plan: Plan) -> list[Row]:
    """The first call by name in a process that has just connected, beside a warm one there."""
    with deployed(min_containers=1) as function, bare_actor():
        wait_until(lambda: function.get_current_stats().containers["ready"], 60)
        told, rays = [], []
        for _ in range(plan.repeat):
            told.append(_in_a_new_process(FIRST_CALL, _name_of(function)))
            rays += _in_a_new_process(FIRST_CALL_OF_RAY, BARE_NAME, NAMESPACE)
    firsts, warms = ([row[column] for row in told] for column in (0, 1))
    note = f"a named actor of Ray's takes {median(rays):.0f} ms for its first call"
    return [
        Row(
            "first call through from_name in a new process",
            "ms",
            firsts,
            "a warm remote",
            warms,
            3,
            note=note,
        )
    ]


def _in_a_new_process(program: str, *args: str) -> list[float]:
    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    told = subprocess.check_output([sys.executable, "-c", program, *args], text=True, env=environment)
    return [float(word) for word in told.split()]


def retune(plan: Plan) -> list[Row]:
    """From `update_autoscaler(min_containers=4)` to four actors that Ray knows."""
    took = []
    for _ in range(plan.repeat):
        with deployed(cpu=0) as function:
            prefix = f"{_name_of(function)}/echo#"
            began = time.perf_counter()
            function.update_autoscaler(min_containers=4)
            while sum(living.exists(f"{prefix}{number}") for number in range(1, 5)) < 4:
                pass
            took.append((time.perf_counter() - began) * 1e3)
    return [Row("update_autoscaler(min_containers=4) to four starting actors", "ms", took, "-", (), 100)]


def redeploy(plan: Plan) -> list[Row]:
    """Calls that come steadily, before another version is deployed and while it takes over."""
    ratios, failures = [], 0
    for _ in range(plan.repeat):
        name = f"bench-{secrets.token_hex(3)}"
        app = App(name)
        app.function(cpu=0, min_containers=2)(echo)
        app.deploy()
        function = Function.from_name(name, "echo")
        wait_until(lambda f=function: f.get_current_stats().containers["ready"] == 2, 60)  # type: ignore[misc]
        load_s = max(1.0, LOAD_S * plan.share)
        _steadily(function, load_s / 2)
        before, failed = _steadily(function, load_s)
        threading.Timer(load_s / 6, app.deploy).start()
        during, more = _steadily(function, load_s)
        failures += failed + more
        ratios.append(percentile(during, 0.99) / percentile(before, 0.99))
        backend.connect().stop_app(name)
    note = f"{failures} calls failed"
    work = f"redeploy under {CALLS_PER_S} calls/s: p99 against that before"
    return [Row(work, "times", ratios, "-", (), 2, note=note)]


def _steadily(function: Function[..., Any], lasting_s: float) -> tuple[list[float], int]:
    """(latencies, how many failed) of calls at their times, however long those before take."""
    took: list[float] = []
    failed = 0

    def call() -> None:
        nonlocal failed
        began = time.perf_counter()
        try:
            function.remote(1)
        except Exception:  # noqa: BLE001  # Every kind counts.
            failed += 1
        else:
            took.append(time.perf_counter() - began)

    with ThreadPoolExecutor(32) as threads:
        began = time.perf_counter()
        for number in range(int(lasting_s * CALLS_PER_S)):
            time.sleep(max(0.0, began + number / CALLS_PER_S - time.perf_counter()))
            threads.submit(call)
    return took, failed


def idle(plan: Plan) -> list[Row]:
    """What the controller needs for functions that nobody calls."""
    count = plan.count(500)
    name = f"bench-{secrets.token_hex(3)}"
    app = App(name)
    for number in range(count):
        app.function(name=f"f{number}")(echo)
    app.deploy()
    controller = _controller()
    with bare_actor() as bare:
        processes = [controller, psutil.Process(ray.get(bare.process.remote()))]
        time.sleep(2.0)
        before, began = [_processor_s(process) for process in processes], time.perf_counter()
        time.sleep(max(1.0, IDLE_S * plan.share))
        after, took_s = [_processor_s(process) for process in processes], time.perf_counter() - began
    share, bares = (100 * (end - start) / took_s for start, end in zip(before, after, strict=True))
    memory_mb = controller.memory_info().rss / 1e6
    backend.connect().stop_app(name)
    what = f"{count} deployed functions, idle: the controller's"
    return [
        Row(f"{what} share of a core", "%", [share], "-", (), 1, note=f"{bares:.1f} % of it are any actor's"),
        Row(f"{what} memory", "MB", [memory_mb], "-", (), 250),
    ]


def _processor_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _controller() -> psutil.Process:
    handle: Any = ray.get_actor(CONTROLLER_NAME, namespace=NAMESPACE)
    return psutil.Process(ray.get(handle.__ray_call__.remote(lambda _: os.getpid())))


@ray.remote(num_cpus=0, max_restarts=-1)
class Bare:
    """A detached actor that does nothing."""

    async def process(self) -> int:
        return os.getpid()


@contextmanager
def bare_actor() -> Iterator[Any]:
    """A detached actor on the head node, with a name."""
    bare = Bare.options(  # type: ignore[attr-defined]
        name=BARE_NAME,
        namespace=NAMESPACE,
        lifetime="detached",
        resources={"node:__internal_head__": 0.001},
    ).remote()
    ray.get(bare.process.remote())
    try:
        yield bare
    finally:
        ray.kill(bare)


def restart(plan: Plan) -> list[Row]:
    """From the controller's death to the first call that needs it, beside a bare detached actor."""
    ours, theirs = [], []
    with bare_actor() as bare, deployed(cpu=0, min_containers=1) as function:
        for _ in range(plan.repeat):
            process = ray.get(bare.process.remote())
            theirs.append(_back_s(process, lambda: ray.get(bare.process.remote())))
            function.remote(1)
            time.sleep(1.5)  # No lease is left: the next call asks for one.
            ours.append(_back_s(_controller().pid, lambda: function.remote(1)))
    return [Row("controller killed, to the first new grant", "s", ours, "a bare detached actor", theirs, 1.2)]


def _back_s(process: int, ask: Any) -> float:
    os.kill(process, signal.SIGKILL)
    began = time.perf_counter()
    while True:
        try:
            ask()
        except ray.exceptions.RayError:
            time.sleep(0.005)
        else:
            return time.perf_counter() - began
