"""A whole day of a deployed app, on a clock that the test moves, with deploys and deaths."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import ray
from ray.exceptions import RayError

import flexray
from flexray import backend
from flexray.call import FunctionCall
from tests.fault.actors import Actors, kill
from tests.integration.conftest import NAMESPACE, Cluster
from tests.integration.gates import in_background
from tests.waiting import wait_until

NEW_YORK = "America/New_York"
YEAR = 2031
"""Later than any clock that a restarted controller finds: until the test sets its clock nothing is due."""
INPUTS = 40
"""Of each hour's map."""


class Clock:
    """The clock of the controller's schedules; one that comes back has none until it is set again."""

    def set(self, hour: int, minute: int = 0, second: int = 1) -> None:
        at = datetime(YEAR, 7, 1, hour, minute, second, tzinfo=ZoneInfo(NEW_YORK)).timestamp()
        wait_until(lambda: self._is_set(at), timeout_s=30)

    def _is_set(self, at: float) -> bool:
        try:
            controller: Any = ray.get_actor("flexray:controller", namespace=NAMESPACE)
            ray.get(controller.__ray_call__.remote(_set_clock, at))
        except (RayError, ValueError):
            return False
        return True


def _set_clock(controller: Any, at: float | None) -> None:
    controller.behind.clock = time.time if at is None else lambda: at


def shop(name: str, release: int, diary: Path) -> flexray.App:
    """An app that serves, is kept warm from six to ten, and writes a report each hour."""
    app = flexray.App(name)

    @app.function(cpu=0, max_containers=2)
    def serve(x: int) -> tuple[int, int]:
        return release, 2 * x

    @app.function(cpu=0, schedule=flexray.Cron("0 6 * * *", timezone=NEW_YORK))
    def open_shop() -> None:
        flexray.Function.from_name(name, "serve").update_autoscaler(min_containers=1, scaledown_window=33)

    @app.function(cpu=0, schedule=flexray.Cron("0 22 * * *", timezone=NEW_YORK))
    def close_shop() -> None:
        flexray.Function.from_name(name, "serve").update_autoscaler(min_containers=0)

    @app.function(cpu=0, schedule=flexray.Cron("0 * * * *", timezone=NEW_YORK))
    def report() -> None:
        with diary.open("a") as file:
            file.write(f"{flexray.current_function_call_id()}\n")

    return app


class Day:
    """The app's hours, and what its callers got."""

    def __init__(self, name: str, diary: Path, actors: Actors) -> None:
        self.name = name
        self.diary = diary
        self.actors = actors
        self.clock = Clock()
        self.serve = flexray.Function.from_name(name, "serve")
        self.outputs: list[tuple[int, tuple[int, int]]] = []
        """(argument, result) of every call that was waited for."""
        self.spawned: dict[int, FunctionCall[Any]] = {}

    def deploy(self, release: int, strategy: str = "rolling") -> None:
        shop(self.name, release, self.diary).deploy(strategy=strategy)

    def reports(self) -> list[str]:
        return self.diary.read_text().splitlines() if self.diary.exists() else []

    def serve_for_an_hour(self, hour: int) -> Future[list[tuple[int, int]]]:
        """A map in the background and a spawned call; whatever happens now happens to them."""
        first = 1000 * hour
        self.spawned[first] = self.serve.spawn(first)
        return in_background(lambda: list(self.serve.map(range(first + 1, first + 1 + INPUTS))))

    def end_hour(self, hour: int, served: Future[list[tuple[int, int]]]) -> None:
        first = 1000 * hour + 1
        self.outputs += zip(range(first, first + INPUTS), served.result(60), strict=True)

    @property
    def settings(self) -> Any:
        return self.serve.get_current_stats().settings


@pytest.fixture
def day(cluster: Cluster, actors: Actors, tmp_path: Path) -> Iterator[Day]:
    name = f"day-{secrets.token_hex(3)}"
    backend.connect()
    one = Day(name, tmp_path / "diary", actors)
    yield one
    backend.connect().stop_app(name)
    controller: Any = ray.get_actor("flexray:controller", namespace=NAMESPACE)
    ray.get(controller.__ray_call__.remote(_set_clock, None))


@pytest.mark.long
def test_a_whole_day_of_a_deployed_app(day: Day) -> None:
    day.clock.set(0)
    day.deploy(1)
    for hour in range(1, 24):
        day.clock.set(hour)
        served = day.serve_for_an_hour(hour)
        match hour:
            case 3 | 11 | 17 | 21:
                day.actors.wait_for_restart(day.actors.kill_controller())
                day.clock.set(hour, 0, 10)
            case 7:
                wait_until(lambda: day.settings.min_containers == 1)
                assert day.settings.scaledown_window == 33
            case 9:
                day.deploy(2)
                assert day.settings.min_containers == 0  # A deploy wipes what was changed.
            case 12:
                containers = wait_until(lambda: _serving(day), timeout_s=20)
                kill(containers[0])
            case 13:
                day.deploy(3, "recreate")
            case 15:
                assert backend.connect().rollback(day.name, 2) == 4
            case 18:
                day.actors.wait_for_call_queue(day.actors.kill_call_queue())
            case 20:
                day.actors.kill_controller()  # Alone, and with the call queue.
                day.actors.kill_call_queue()
                day.clock.set(hour, 0, 10)
            case _:
                pass
        day.end_hour(hour, served)
        wait_until(lambda hour=hour: len(set(day.reports())) == hour, timeout_s=40)  # type: ignore[misc]
    wait_until(lambda: day.settings.min_containers == 0)
    assert len(day.outputs) == 23 * INPUTS
    assert all(result == 2 * x for x, (_, result) in day.outputs)
    assert [_release(day, hour) for hour in (8, 14, 23)] == [{1}, {3}, {2}]
    assert {x: call.get(timeout=30)[1] for x, call in day.spawned.items()} == {x: 2 * x for x in day.spawned}
    assert set(Counter(day.reports()).values()) == {1}


def _serving(day: Day) -> list[int]:
    return list(day.actors.containers_like(f"{day.name}/serve#").values())


def _release(day: Day, hour: int) -> set[int]:
    """The releases that served in that hour."""
    return {release for x, (release, _) in day.outputs if x // 1000 == hour}
