from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flexray.config import AutoscalerSettings
from flexray.core.blocking import NOTICE_AFTER_S, Place, Standstill, Watch, held_up, notices
from flexray.core.events import (
    ContainerLost,
    ContainerPlaced,
    ContainerReady,
    Report,
    ReportReceived,
    StartContainer,
    StartFailed,
    Ticked,
)
from flexray.core.pool import Pool, PoolConfig

NAMES = {name: name for name in "fgh"}


def unplaced(name: str, **homes: int) -> Standstill:
    return Standstill(name, "waits for {CPU: 1} since 20 s", 0, homes=homes)


def bounded(name: str, ready: int, **homes: int) -> Standstill:
    return Standstill(name, f"may have no more than {ready}", ready, bounded=True, homes=homes)


def test_a_pool_that_nobody_in_a_container_waits_for_says_only_what_it_waits_for() -> None:
    assert notices({"g": unplaced("g")}, NAMES) == {"g": "waits for {CPU: 1} since 20 s"}


def test_callers_in_containers_are_counted_and_told_the_same_as_those_they_call() -> None:
    said = notices({"g": unplaced("g", f=4)}, NAMES)
    assert said["g"] == "4 containers of f wait for g, which waits for {CPU: 1} since 20 s"
    assert said["f"] == said["g"]


def test_one_container_waits_and_several_pools_wait() -> None:
    one = notices({"g": unplaced("g", f=1)}, NAMES)
    assert one["g"].startswith("1 container of f waits for g, ")
    two = notices({"g": unplaced("g", f=1, h=1200)}, NAMES)
    assert two["g"].startswith("1 container of f and 1,200 of h wait for g, ")


def test_what_no_node_can_hold_is_said_as_a_sentence() -> None:
    pool = Standstill("g", "no node can hold {CPU: 64}", 0, link="but", homes={"f": 2})
    assert notices({"g": pool}, NAMES)["f"] == "2 containers of f wait for g, but no node can hold {CPU: 64}"


def test_a_chain_of_calls_is_told_along_its_whole_length() -> None:
    said = notices({"h": unplaced("h", g=2), "g": bounded("g", 2, f=3)}, NAMES)
    assert said["h"].startswith("2 containers of g wait for h, which waits for {CPU: 1}")
    assert said["g"] == "3 containers of f wait for g, which may have no more than 2"
    assert said["f"] in (said["g"], said["h"])


def test_a_full_pool_is_no_standstill_while_one_of_its_containers_waits_for_nobody() -> None:
    assert notices({"f": bounded("f", 3, f=2)}, NAMES) == {}
    assert notices({"f": bounded("f", 3)}, NAMES) == {}


def test_recursion_that_fills_its_own_pool_is_a_standstill() -> None:
    said = notices({"f": bounded("f", 3, f=3)}, NAMES)
    assert said == {"f": "3 containers of f wait for f, which may have no more than 3"}


def test_pools_that_wait_for_each_other_are_a_standstill_and_one_that_moves_ends_it() -> None:
    ring = {"f": bounded("f", 2, g=1), "g": bounded("g", 1, f=2)}
    assert set(notices(ring, NAMES)) == {"f", "g"}
    ring["g"] = bounded("g", 1, f=1)
    assert notices(ring, NAMES) == {}


def test_a_pool_that_has_ended_is_not_named() -> None:
    assert notices({"g": unplaced("g", gone=2)}, NAMES) == {"g": "waits for {CPU: 1} since 20 s"}


class Watched:
    """A pool in which one input waits, and what is found to hold it up."""

    def __init__(self, **settings: Any) -> None:
        self.pool = Pool(PoolConfig("f", 1, AutoscalerSettings(**settings)), 0.0)
        self.watch = Watch("f", self.pool)
        self.asked = 0
        self.impossible: str | None = None
        self.sold_out: str | None = None
        report = Report("d", number=1, seen=0, asked=2, arrived=2, waiting=2)
        (self.started,) = self._starts(self.pool.handle(ReportReceived(report), 0.0))

    def _starts(self, effects: list[Any]) -> list[str]:
        return [effect.container_id for effect in effects if isinstance(effect, StartContainer)]

    def place(self) -> Place:
        self.asked += 1
        return Place("{CPU: 1}", self.impossible, self.sold_out)

    def look(self, now: float) -> str | None:
        found = self.watch.look(now, self.place)
        return None if found is None else found.reason


def test_a_pool_of_which_nothing_is_placed_says_so_after_a_while_and_then_how_long() -> None:
    watched = Watched(max_containers=1)
    assert watched.look(NOTICE_AFTER_S - 0.1) is None
    assert watched.asked == 0
    assert watched.look(NOTICE_AFTER_S) == "waits for {CPU: 1} since 10 s"
    assert watched.look(NOTICE_AFTER_S + 5.0) == "waits for {CPU: 1} since 10 s"
    assert watched.asked == 1
    assert watched.look(2 * NOTICE_AFTER_S) == "waits for {CPU: 1} since 20 s"
    watched.pool.handle(ContainerPlaced(watched.started), 21.0)
    assert watched.look(21.0) is None


def test_what_no_node_can_hold_is_said_instead() -> None:
    watched = Watched(max_containers=1)
    watched.impossible = "no node can hold {CPU: 1}"
    assert watched.look(NOTICE_AFTER_S) == "no node can hold {CPU: 1}"


def test_what_the_cloud_says_is_said_beside_how_long() -> None:
    watched = Watched(max_containers=1)
    watched.sold_out = "no l4 node can be had: none is left"
    assert (
        watched.look(NOTICE_AFTER_S) == "waits for {CPU: 1} since 10 s: no l4 node can be had: none is left"
    )


def test_a_pool_at_its_maximum_is_bounded_only_after_a_while() -> None:
    watched = Watched(max_containers=1)
    watched.pool.handle(ContainerPlaced(watched.started), 1.0)
    watched.pool.handle(ContainerReady(watched.started), 1.0)
    assert watched.pool.is_bounded
    assert watched.look(5.0) is None
    found = watched.watch.look(5.0 + NOTICE_AFTER_S, watched.place)
    assert found is not None
    assert (found.bounded, found.ready) == (True, 1)
    assert found.reason == "may have no more containers (max_containers=1)"


@pytest.mark.parametrize(("starts", "of_all"), [(1, "1 of 10"), (2, "2 of 10")])
def test_starts_that_fail_are_told_at_once_with_their_last_failure(starts: int, of_all: str) -> None:
    watched = Watched(max_containers=1)
    container, now = watched.started, 0.0
    for _ in range(starts):
        watched.pool.handle(StartFailed(container, "no module named x"), now)
        started = watched._starts(watched.pool.handle(ContainerLost(container, "it exited"), now))
        while not started and now < 60.0:
            now += 0.25
            started = watched._starts(watched.pool.handle(Ticked(), now))
        (container,) = started
    assert watched.look(now) == f"has had {of_all} failed starts, the last by no module named x"


def called(*homes: str, ready: bool = False) -> Pool:
    """A pool for which two inputs from a container of each of these pools wait; it may have one container."""
    pool = Pool(PoolConfig("x", 1, AutoscalerSettings(max_containers=1)), 0.0)
    for home in homes:
        asks = Report(f"of {home}", 1, 0, asked=2, home=home)
        pool.handle(ReportReceived(asks), 0.0)
        waits = replace(asks, number=2, seen=1, decided=2, admitted=2, waiting=2)
        pool.handle(ReportReceived(waits), 0.1)
    if ready:
        pool.handle(ContainerPlaced("x#1"), 1.0)
        pool.handle(ContainerReady("x#1"), 1.0)
    return pool


def test_whoever_waits_for_a_pool_without_a_container_is_held_up_and_so_is_who_waits_for_that() -> None:
    pools = {
        "h": called("g"),
        "g": called("f", ready=True),
        "f": called(ready=True),
        "e": called("d", ready=True),
    }
    assert held_up(pools) == {"g", "f"}
    assert held_up({**pools, "h": called("g", ready=True)}) == set()
    assert held_up({"h": called("who is not awake")}) == {"who is not awake"}
