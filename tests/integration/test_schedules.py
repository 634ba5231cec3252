"""Functions that run by the clock, which the test moves where it would take too long."""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import ray

import flexray
from flexray import backend
from flexray.errors import InvalidError
from tests.integration.conftest import NAMESPACE, Cluster
from tests.waiting import wait_until

NEW_YORK = ZoneInfo("America/New_York")


def note(diary: str) -> None:
    """Called in containers: which call this is."""
    with Path(diary).open("a") as file:
        file.write(f"{flexray.current_function_call_id()}\n")


def notes(diary: str) -> list[str]:
    path = Path(diary)
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def diary(cluster: Cluster, tmp_path: Path) -> str:
    return str(tmp_path / "diary")


@pytest.fixture
def name(cluster: Cluster) -> Iterator[str]:
    """Of an app that is gone after the test."""
    name = f"clock-{secrets.token_hex(4)}"
    yield name
    connected = backend.connect()
    if any(one.name == name for one in connected.deployments()):
        connected.stop_app(name)


def wait_a_while() -> None:
    """Long enough for what should not happen."""
    until = time.monotonic() + 1
    wait_until(lambda: time.monotonic() > until)


class Clock:
    """The clock of the controller's schedules."""

    def __init__(self) -> None:
        self.controller: Any = ray.get_actor("flexray:controller", namespace=NAMESPACE)

    def set(self, day: int, hour: int, minute: int, second: int = 0) -> None:
        """To that time of July 2026 in New York; it stands still then."""
        at = datetime(2026, 7, day, hour, minute, second, tzinfo=NEW_YORK).timestamp()
        ray.get(self.controller.__ray_call__.remote(_set_clock, at))


def _set_clock(controller: Any, at: float | None) -> None:
    controller.behind.clock = time.time if at is None else lambda: at


@pytest.fixture
def clock(cluster: Cluster) -> Iterator[Clock]:
    backend.connect()
    clock = Clock()
    yield clock
    ray.get(clock.controller.__ray_call__.remote(_set_clock, None))


def test_a_function_runs_again_and_again_while_its_app_does(diary: str) -> None:
    app = flexray.App("ticking")

    @app.function(cpu=0, schedule=flexray.Period(seconds=1))
    def tick() -> None:
        note(diary)

    with app.run():
        wait_until(lambda: len(notes(diary)) >= 3, timeout_s=15)
    after = len(notes(diary))
    assert len(set(notes(diary))) == after
    until = time.monotonic() + 2.5
    wait_until(lambda: time.monotonic() > until)
    assert len(notes(diary)) <= after + 1  # One may have been under way.


def test_a_pool_is_kept_warm_by_day_as_the_guide_says(name: str, clock: Clock) -> None:
    clock.set(1, 5, 59, 50)
    app = flexray.App(name)
    app.function(cpu=0, name="serve")(os.getpid)

    @app.function(cpu=0, schedule=flexray.Cron("0 6 * * *", timezone="America/New_York"))
    def open_shop() -> None:
        flexray.Function.from_name(name, "serve").update_autoscaler(min_containers=2)

    @app.function(cpu=0, schedule=flexray.Cron("0 22 * * *", timezone="America/New_York"))
    def close_shop() -> None:
        flexray.Function.from_name(name, "serve").update_autoscaler(min_containers=0)

    app.deploy()
    serve = flexray.Function.from_name(name, "serve")
    assert serve.get_current_stats().num_total_runners == 0
    for day in (1, 2):
        clock.set(day, 6, 0, 1)
        wait_until(lambda: serve.get_current_stats().containers["ready"] == 2, timeout_s=20)
        clock.set(day, 22, 0, 1)
        wait_until(lambda: serve.get_current_stats().settings.min_containers == 0, timeout_s=20)


def test_each_tick_is_one_call_however_often_the_controller_dies(name: str, diary: str) -> None:
    app = flexray.App(name)

    @app.function(cpu=0, min_containers=1, schedule=flexray.Period(seconds=1))
    def tick() -> None:
        note(diary)

    app.deploy()
    began = time.monotonic()
    wait_until(lambda: notes(diary), timeout_s=20)
    for _ in range(2):
        controller: Any = ray.get_actor("flexray:controller", namespace=NAMESPACE)
        process = ray.get(controller.__ray_call__.remote(lambda _: os.getpid()))
        os.kill(process, signal.SIGKILL)
        so_far = len(notes(diary))
        wait_until(lambda so_far=so_far: len(notes(diary)) > so_far + 2, timeout_s=30)  # type: ignore[misc]
    ran = Counter(notes(diary))
    elapsed_s = time.monotonic() - began
    assert set(ran.values()) == {1}
    assert elapsed_s - 3 <= len(ran) <= elapsed_s + 1


def test_a_container_is_ready_when_the_schedule_fires(name: str, clock: Clock, diary: str) -> None:
    clock.set(1, 8, 30)
    app = flexray.App(name)

    @app.function(cpu=0, schedule=flexray.Cron("0 9 * * *", timezone="America/New_York"))
    def at_nine() -> None:
        note(diary)

    app.deploy()
    function = flexray.Function.from_name(name, "at_nine")
    wait_a_while()
    assert function.get_current_stats().num_total_runners == 0
    clock.set(1, 8, 59, 58)
    wait_until(lambda: function.get_current_stats().containers["ready"] == 1, timeout_s=20)
    assert notes(diary) == []
    clock.set(1, 9, 0, 0)
    wait_until(lambda: notes(diary), timeout_s=20)


def test_what_was_due_too_long_ago_is_not_made_up(name: str, clock: Clock, diary: str) -> None:
    clock.set(1, 9, 0)
    app = flexray.App(name)

    @app.function(cpu=0, schedule=flexray.Cron("0 * * * *", timezone="America/New_York"))
    def hourly() -> None:
        note(diary)

    app.deploy()
    clock.set(1, 15, 30)  # Six hours were missed.
    clock.set(1, 16, 0, 2)
    wait_until(lambda: len(notes(diary)) == 1, timeout_s=20)
    clock.set(1, 16, 59)
    wait_a_while()
    assert len(notes(diary)) == 1


def test_another_version_starts_a_period_anew_and_removes_what_is_scheduled_no_more(
    name: str, clock: Clock, diary: str
) -> None:
    def version(**options: Any) -> flexray.App:
        app = flexray.App(name)

        @app.function(cpu=0, **options)
        def sometimes() -> None:
            note(diary)

        return app

    clock.set(1, 9, 0)
    version(schedule=flexray.Period(hours=2)).deploy()
    clock.set(1, 10, 30)
    version(schedule=flexray.Period(hours=2)).deploy()
    clock.set(1, 11, 0, 1)  # When it was due by the first.
    wait_a_while()
    clock.set(1, 12, 30, 1)
    wait_until(lambda: len(notes(diary)) == 1, timeout_s=20)
    version().deploy()
    clock.set(1, 14, 30, 1)
    wait_a_while()
    assert len(notes(diary)) == 1


def needs(x: int) -> int:
    return x


def gives() -> Iterator[int]:
    yield 1


HOURLY = flexray.Period(hours=1)


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda app: app.function(schedule=HOURLY)(needs), "needs is scheduled and cannot be called.*'x'"),
        (lambda app: app.function(schedule=HOURLY)(gives), "gives.*schedule.*nobody would read"),
        (lambda app: app.function(schedule="0 6 * * *")(needs), "schedule is '0 6.*flexray.Cron"),
        (
            lambda app: app.function()(needs).with_options(schedule=HOURLY),
            "a decorated function has one",
        ),
        (lambda app: app.cls(schedule=HOURLY)(Model), "class Model has a schedule"),
        (lambda app: app.function(schedule=flexray.Cron("0 0 30 2 *"))(os.getpid), "which never comes"),
        (
            lambda app: app.function(schedule=HOURLY)(
                flexray.batched(max_batch_size=2, wait_ms=0)(lambda x=1: x)
            ),
            "a batched function takes inputs",
        ),
    ],
)
def test_what_cannot_be_scheduled_is_refused(use: Callable[[flexray.App], Any], words: str) -> None:
    with pytest.raises(InvalidError, match=f"(?s){words}") as caught:
        use(flexray.App("wrong"))
    assert caught.value.hint


class Model:
    @flexray.method()
    def work(self) -> None: ...
