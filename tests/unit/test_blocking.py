from __future__ import annotations

from flexray.core.blocking import Standstill, notices

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
