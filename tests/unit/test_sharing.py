from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexray.config import Resources
from flexray.core.sharing import AGAIN_S, PoolNeed, Shape, Sharing, spare_containers

CORE = Shape.of(Resources())
TWO_CORES = Shape.of(Resources(cpu=2))


def idle(pool_id: str, spare: int, shape: Shape = CORE) -> PoolNeed:
    return PoolNeed(pool_id, shape, spare=spare)


def waits(pool_id: str, missing: int, shape: Shape = CORE, spare: int = 0) -> PoolNeed:
    return PoolNeed(pool_id, shape, missing, spare, lacks_room=True)


@st.composite
def needs_of_any_kind(draw: st.DrawFn) -> list[PoolNeed]:
    counts = st.integers(0, 20)
    return [
        PoolNeed(
            f"p{number}",
            draw(st.sampled_from([CORE, TWO_CORES])),
            missing=(missing := draw(counts)),
            spare=draw(counts),
            lacks_room=missing > 0 and draw(st.booleans()),
        )
        for number in range(draw(st.integers(0, 6)))
    ]


def test_idle_containers_are_given_up_for_a_pool_that_waits() -> None:
    given_up = Sharing().give_ups([idle("a", 2), idle("b", 5), waits("c", 4)], 0.0)
    assert given_up == {"b": 3, "a": 1}


def test_nothing_is_given_up_for_a_minimum_where_no_input_waits() -> None:
    assert Sharing().give_ups([idle("a", 2), PoolNeed("b", CORE, missing=4)], 0.0) == {}


def test_a_pool_that_misses_some_itself_gives_none() -> None:
    assert Sharing().give_ups([PoolNeed("a", CORE, missing=1, spare=2), waits("b", 1)], 0.0) == {}


def test_room_that_was_made_is_waited_for_and_then_more_is_made() -> None:
    sharing = Sharing()
    needs = [idle("a", 5), waits("b", 1)]
    assert sharing.give_ups(needs, 0.0) == {"a": 1}
    assert sharing.give_ups(needs, AGAIN_S - 0.1) == {}
    assert sharing.give_ups(needs, AGAIN_S + 0.1) == {"a": 1}


def test_whoever_comes_later_gets_room_of_its_own_at_once() -> None:
    sharing = Sharing()
    assert sharing.give_ups([idle("a", 5), waits("b", 1)], 0.0) == {"a": 1}
    assert sharing.give_ups([idle("a", 4), waits("b", 3)], 1.0) == {"a": 2}
    assert sharing.give_ups([idle("a", 2), waits("b", 3), waits("c", 1)], 2.0) == {"a": 1}
    assert (
        sharing.give_ups([idle("a", 1), waits("b", 1)], 3.0) == {}
    )  # It still waits; the others have a place.
    assert sharing.give_ups([idle("a", 1)], 4.0) == {}
    assert sharing.give_ups([idle("a", 1), waits("c", 1)], 5.0) == {"a": 1}
    smaller = waits("d", 1, Shape.of(Resources(cpu=0.5)))
    assert sharing.give_ups([idle("e", 1), waits("c", 1), smaller], 6.0) == {"e": 1}


def test_where_nothing_could_be_given_up_the_next_look_does_not_wait() -> None:
    sharing = Sharing()
    assert sharing.give_ups([waits("b", 1)], 0.0) == {}
    assert sharing.give_ups([idle("a", 1), waits("b", 1)], 0.1) == {"a": 1}


def test_pools_of_two_shapes_do_not_count_on_the_same_container() -> None:
    needs = [idle("a", 3, TWO_CORES), waits("b", 2, TWO_CORES), waits("c", 2)]
    assert Sharing().give_ups(needs, 0.0) == {"a": 3}


@pytest.mark.parametrize(
    ("has", "asked", "holds"),
    [
        (Resources(cpu=2), Resources(cpu=1), True),
        (Resources(cpu=1), Resources(cpu=2), False),
        (Resources(cpu=0), Resources(cpu=0), False),  # What asks for nothing is not waiting for room.
        (Resources(memory=512), Resources(memory=1024), False),
        (Resources(gpu="H100"), Resources(gpu="any"), True),
        (Resources(gpu="any"), Resources(gpu="H100"), False),
        (Resources(gpu=["A100", "H100"]), Resources(gpu="H100"), True),
        (Resources(num_gpus=0.5), Resources(gpu="any"), False),
        (Resources(), Resources(resources={"license": 1}), False),
        (Resources(), Resources(label_selector={"zone": "a"}), False),
        (Resources(label_selector={"zone": "a"}), Resources(label_selector={"zone": "a"}), True),
    ],
)
def test_a_container_makes_room_for_another_if_it_holds_at_least_what_that_asks_for(
    has: Resources, asked: Resources, holds: bool
) -> None:
    assert Shape.of(has).holds(Shape.of(asked)) is holds


@given(needs_of_any_kind())
def test_only_spare_ones_are_given_up_and_as_many_as_help(needs: list[PoolNeed]) -> None:
    given_up = Sharing().give_ups(needs, 0.0)
    spare = {one.pool_id: one.spare for one in needs if not one.missing}
    assert all(0 < count <= spare[pool_id] for pool_id, count in given_up.items())
    alike = [replace(one, shape=CORE) for one in needs]
    wanted = sum(one.missing for one in alike if one.lacks_room)
    assert sum(Sharing().give_ups(alike, 0.0).values()) == min(wanted, sum(spare.values()))


def test_what_is_needed_is_not_to_spare() -> None:
    assert spare_containers(ready=8, idle=3, needed=6) == 2
    assert spare_containers(ready=8, idle=1, needed=2) == 1
    assert spare_containers(ready=2, idle=2, needed=6) == 0
