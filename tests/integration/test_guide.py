"""The guide to scaling out, section by section: what it says is so."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flexray
from tests.integration.conftest import Cluster
from tests.integration.gates import Gate, at, calls, in_background, results
from tests.waiting import wait_until

app = flexray.App("guide")


@app.function(cpu=0, max_containers=4)
def evaluate_model(x: int) -> int:
    return x * x


@app.function(cpu=0, name="fails_at_two")
def my_func(a: int) -> int:
    if a == 2:
        raise Exception("ohno")  # noqa: TRY002  # As the guide has it.
    return a**2


@app.function(cpu=0, name="added")
def added(a: int, b: int) -> int:
    return a + b


@app.function(cpu=0, max_containers=4)
def process(_: object = None) -> int:
    return os.getpid()


@pytest.fixture(scope="module")
def running(cluster: Cluster) -> Iterator[None]:
    with app.run():
        yield


def gated(gate: Gate, **options: Any) -> tuple[flexray.App, flexray.Function[[object], int]]:
    """An app with one function whose inputs wait at the gate."""
    own = flexray.App("gated")
    return own, own.function(cpu=0, name="enter", **options)(gate.enter)


@pytest.fixture
def gate(cluster: Cluster, tmp_path: Path) -> Gate:
    return Gate(tmp_path)


# How does autoscaling work


def test_every_function_is_a_pool_of_its_own(running: None) -> None:
    assert evaluate_model.get_current_stats().num_total_runners <= 1
    assert process.remote() == process.remote()
    other = flexray.App("other")
    same = other.function(cpu=0, name="process")(os.getpid)
    with other.run():
        assert same.remote() != process.remote()


def test_containers_come_when_there_is_no_capacity_and_go_when_idle(gate: Gate) -> None:
    own, enter = gated(gate, scaledown_window=2)
    with own.run():
        assert enter.get_current_stats().num_total_runners == 0
        outputs = in_background(lambda: list(enter.map(range(3))))
        wait_until(lambda: len(gate.entered) == 3)
        gate.open()
        assert len(set(outputs.result(30))) == 3  # Each in a container of its own, all at once.
        assert enter.get_current_stats().num_total_runners == 3
        wait_until(lambda: enter.get_current_stats().num_total_runners == 0, timeout_s=10)
        assert enter.remote("again") > 0


# Configuring autoscaling behavior


def test_max_containers_is_the_upper_limit(gate: Gate) -> None:
    own, enter = gated(gate, max_containers=2)
    with own.run():
        under_way = calls(enter, range(6))
        wait_until(lambda: len(gate.entered) == 2)
        wait_until(lambda: at(enter, backlog=4, num_total_runners=2))
        assert len(gate.entered) == 2
        gate.open()
        assert len(set(results(under_way))) == 2


def test_min_containers_are_warm_without_inputs_and_stay(gate: Gate) -> None:
    gate.open()
    own, enter = gated(gate, min_containers=2, scaledown_window=2)
    with own.run():
        wait_until(lambda: at(enter, input_headroom=2))
        results(calls(enter, range(4)))
        idle_since = time.monotonic()
        lowest = 9
        while time.monotonic() - idle_since < 4:
            lowest = min(lowest, enter.get_current_stats().num_total_runners)
        assert lowest == 2


def test_buffer_containers_idle_beside_an_active_function_and_go_after_it(gate: Gate) -> None:
    own, enter = gated(gate, buffer_containers=2, scaledown_window=2)
    with own.run():
        assert enter.get_current_stats().num_total_runners == 0
        under_way = calls(enter, [0])
        wait_until(lambda: at(enter, num_running_inputs=1, input_headroom=2))
        under_way += calls(enter, [1])
        wait_until(lambda: len(gate.entered) == 2, timeout_s=1)  # It need not queue for a container.
        wait_until(lambda: at(enter, num_running_inputs=2, input_headroom=2))
        gate.open()
        assert len(set(results(under_way))) == 2
        wait_until(lambda: at(enter, num_total_runners=0), timeout_s=12)


def test_scaledown_window_is_the_longest_that_a_container_idles(gate: Gate) -> None:
    gate.open()
    own, enter = gated(gate, scaledown_window=2)
    with own.run():
        enter.remote(0)
        began = time.monotonic()
        wait_until(lambda: at(enter, num_total_runners=0), timeout_s=5)
        assert time.monotonic() - began > 1.5


def test_a_longer_window_lets_the_last_container_idle(gate: Gate) -> None:
    gate.open()
    own, enter = gated(gate, scaledown_window=600)
    with own.run():
        enter.remote(0)
        began = time.monotonic()
        while time.monotonic() - began < 3:
            assert enter.get_current_stats().num_total_runners == 1


def test_an_overprovisioned_pool_does_not_wait_for_the_whole_window(gate: Gate) -> None:
    own, enter = gated(gate, scaledown_window=600)
    with own.run():
        under_way = calls(enter, range(4))
        wait_until(lambda: len(gate.entered) == 4)
        gate.open()
        results(under_way)
        wait_until(lambda: at(enter, num_total_runners=1), timeout_s=20)


# Parallel execution of inputs


def test_map_runs_inputs_in_parallel_and_keeps_their_order(running: None, gate: Gate) -> None:
    inputs = list(range(100))
    assert list(evaluate_model.map(inputs)) == [x * x for x in inputs]
    own, enter = gated(gate)
    with own.run():
        outputs = in_background(lambda: list(enter.map(range(4))))
        wait_until(lambda: len(gate.entered) == 4)
        gate.open()
        assert len(outputs.result(30)) == 4


# Exceptions


def test_exceptions_are_propagated(running: None) -> None:
    with pytest.raises(Exception, match="ohno") as caught:
        list(my_func.map(range(3)))
    assert type(caught.value) is Exception


def test_exceptions_can_be_results(running: None, caplog: pytest.LogCaptureFixture) -> None:
    outputs: list[Any] = list(my_func.map(range(3), return_exceptions=True, wrap_returned_exceptions=False))
    assert repr(outputs) == "[0, 1, Exception('ohno')]"
    assert type(outputs[2]) is Exception
    assert "wrap_returned_exceptions does nothing" in caplog.text
    assert list(my_func.map(range(3), return_exceptions=True))[:2] == [0, 1]


# Starmap


def test_starmap_spreads_sequences_over_the_arguments(running: None) -> None:
    assert list(added.starmap([(1, 2), (3, 4)])) == [3, 7]
    assert list(added.map([1, 3], [2, 4])) == [3, 7]


# Gotchas


def test_a_function_is_mapped_and_not_called(running: None) -> None:
    with pytest.raises(TypeError, match=r"evaluate_model\.remote"):
        evaluate_model([1, 2]).map()  # type: ignore[attr-defined]


def test_builtin_map_works_in_sequence_over_remote(running: None) -> None:
    assert list(map(evaluate_model.remote, [1, 2, 3])) == [1, 4, 9]


# Asynchronous usage


def test_asynchronous_forms_make_arbitrary_parallel_patterns(running: None) -> None:
    async def main() -> list[int]:
        first, outputs = await asyncio.gather(
            evaluate_model.remote.aio(7), collect(evaluate_model.map.aio(range(3)))
        )
        return [first, *outputs, await added.remote.aio(1, b=2)]

    async def collect(outputs: Any) -> list[int]:
        return [output async for output in outputs]

    assert asyncio.run(main()) == [49, 0, 1, 4, 3]
