"""Dynamic autoscaler updates: at once, merged, and until the app ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

import flexray
from flexray.errors import InvalidError
from tests.integration.conftest import Cluster
from tests.integration.gates import Gate, at, calls, results
from tests.waiting import wait_until

Enter = flexray.Function[[object], int]


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


@pytest.fixture
def enter(cluster: Cluster, gate: Gate) -> Iterator[Enter]:
    app = flexray.App("updated")
    function = app.function(cpu=0, name="enter", scaledown_window=600)(gate.enter)
    with app.run():
        yield function


def test_updates_merge_and_give_all_settings_in_force(enter: Enter) -> None:
    first = enter.update_autoscaler(min_containers=2, max_containers=10)
    assert (first.min_containers, first.max_containers, first.scaledown_window) == (2, 10, 600)
    second = enter.update_autoscaler(min_containers=1)
    assert (second.min_containers, second.max_containers) == (1, 10)
    assert enter.get_current_stats().settings == second


def test_a_higher_minimum_starts_containers_without_inputs(enter: Enter) -> None:
    assert enter.get_current_stats().num_total_runners == 0
    enter.update_autoscaler(min_containers=2)
    wait_until(lambda: at(enter, input_headroom=2))


def test_a_lower_maximum_stops_idle_containers_at_once(enter: Enter) -> None:
    enter.update_autoscaler(min_containers=3)
    wait_until(lambda: at(enter, input_headroom=3))
    enter.update_autoscaler(min_containers=0, max_containers=1)
    wait_until(lambda: at(enter, num_total_runners=1), timeout_s=3)


def test_a_lower_maximum_lets_running_inputs_end_and_then_drains(enter: Enter, gate: Gate) -> None:
    under_way = calls(enter, range(3))
    wait_until(lambda: len(gate.entered) == 3)
    enter.update_autoscaler(max_containers=1)
    under_way += calls(enter, ["waits"])
    wait_until(lambda: at(enter, backlog=1))
    gate.open()
    assert len(set(results(under_way))) == 3
    wait_until(lambda: at(enter, num_total_runners=1))


def test_a_higher_maximum_starts_containers_for_what_waits(enter: Enter, gate: Gate) -> None:
    enter.update_autoscaler(max_containers=1)
    under_way = calls(enter, range(3))
    wait_until(lambda: at(enter, backlog=2))
    assert len(gate.entered) == 1
    enter.update_autoscaler(max_containers=3)
    wait_until(lambda: len(gate.entered) == 3)
    gate.open()
    assert len(set(results(under_way))) == 3


def test_a_buffer_set_while_active_is_filled_at_once(enter: Enter, gate: Gate) -> None:
    under_way = calls(enter, [0])
    wait_until(lambda: gate.entered)
    enter.update_autoscaler(buffer_containers=2)
    wait_until(lambda: at(enter, input_headroom=2))
    gate.open()
    results(under_way)


def test_a_shorter_window_ends_what_idles(enter: Enter, gate: Gate) -> None:
    gate.open()
    enter.remote(0)
    assert enter.get_current_stats().num_total_runners == 1
    enter.update_autoscaler(scaledown_window=2)
    wait_until(lambda: at(enter, num_total_runners=0), timeout_s=6)


def test_a_wrong_update_is_refused_and_changes_nothing(enter: Enter) -> None:
    before = enter.update_autoscaler(max_containers=2)
    with pytest.raises(InvalidError, match="min_containers is 3") as caught:
        enter.update_autoscaler(min_containers=3)
    assert caught.value.hint
    with pytest.raises(InvalidError, match="scaledown_window is 1"):
        enter.update_autoscaler(scaledown_window=1)
    assert enter.get_current_stats().settings == before


def test_updates_have_an_asynchronous_form(enter: Enter) -> None:
    settings = asyncio.run(enter.update_autoscaler.aio(max_containers=7))
    assert settings.max_containers == 7


def test_an_update_of_a_variant_is_its_own(enter: Enter) -> None:
    variant = enter.with_options(max_containers=5)
    assert variant.update_autoscaler(buffer_containers=1).max_containers == 5
    assert enter.get_current_stats().settings.buffer_containers == 0


def test_an_update_from_inside_of_a_function_reaches_another(cluster: Cluster, gate: Gate) -> None:
    app = flexray.App("pattern")
    server = app.function(cpu=0, name="inference_server")(gate.enter)

    @app.function(cpu=0)
    def increase_warm_pool() -> int:
        return server.update_autoscaler(min_containers=1).min_containers

    with app.run():
        assert increase_warm_pool.remote() == 1
        wait_until(lambda: at(server, input_headroom=1))


def test_settings_revert_when_the_app_starts_again(cluster: Cluster, gate: Gate) -> None:
    app = flexray.App("reverting")
    function = app.function(cpu=0, name="enter", max_containers=3)(gate.enter)
    with app.run():
        function.update_autoscaler(max_containers=9)
    with app.run():
        assert function.get_current_stats().settings.max_containers == 3
