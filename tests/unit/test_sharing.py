from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flexray.core.sharing import PoolNeed, Shares, share, spare_containers


def need(pool_id: str, want: int, live: int, waited_s: float = 0.0, spare: int = 0) -> PoolNeed:
    return PoolNeed(pool_id, want, live, waited_s, spare)


@st.composite
def needs_of_any_kind(draw: st.DrawFn) -> list[PoolNeed]:
    return [
        need(
            f"p{number}",
            draw(st.integers(0, 50)),
            draw(st.integers(0, 50)),
            draw(st.floats(0, 100)),
            draw(st.integers(0, 20)),
        )
        for number in range(draw(st.integers(0, 6)))
    ]


def test_with_room_for_all_everybody_gets_what_is_missing() -> None:
    assert share([need("a", 5, 2), need("b", 3, 3), need("c", 4, 0)], room=100).grants == {"a": 3, "c": 4}


def test_a_pool_without_any_container_comes_first() -> None:
    assert share([need("a", 100, 10, 9.0), need("b", 1, 0, 0.1)], room=1).grants == {"b": 1}


def test_a_pool_that_wants_little_gets_all_of_it() -> None:
    grants = share([need("large", 1000, 0, 50.0), need("small", 10, 0, 1.0)], room=101).grants
    assert grants == {"large": 91, "small": 10}
    assert share([need("a", 10, 0), need("b", 10, 0)], room=10).grants == {"a": 5, "b": 5}
    assert share([need("a", 10, 4), need("b", 10, 0)], room=6).grants == {"a": 1, "b": 5}


def test_among_equals_the_oldest_input_comes_first() -> None:
    assert share([need("a", 4, 1, 1.0), need("b", 4, 1, 2.0)], room=1).grants == {"b": 1}


def test_idle_containers_are_given_up_for_a_pool_that_waits() -> None:
    shares = share([need("a", 3, 3, spare=2), need("b", 6, 6, spare=5), need("c", 4, 0, 1.0)], room=0)
    assert shares == Shares({}, {"b": 3, "a": 1})


def test_nothing_is_given_up_for_a_minimum_where_no_input_waits() -> None:
    assert share([need("a", 3, 3, spare=2), need("b", 4, 0, waited_s=0.0)], room=0).give_ups == {}


def test_launches_without_a_place_take_what_is_given_up_first() -> None:
    needs = [need("a", 3, 3, spare=3), need("b", 4, 2, 1.0)]
    assert share(needs, room=0, unplaced=1).give_ups == {"a": 1}
    assert share(needs, room=2).give_ups == {}


@given(needs_of_any_kind(), st.integers(0, 100), st.integers(0, 10))
def test_no_more_is_granted_than_there_is_room_nor_than_anybody_misses(
    needs: list[PoolNeed], room: int, unplaced: int
) -> None:
    shares = share(needs, room, unplaced)
    missing = {one.pool_id: one.missing for one in needs}
    assert sum(shares.grants.values()) == min(room, sum(missing.values()))
    assert all(0 < count <= missing[pool_id] for pool_id, count in shares.grants.items())


@given(needs_of_any_kind(), st.integers(0, 100))
def test_only_spare_ones_are_given_up_and_only_for_inputs_that_wait(needs: list[PoolNeed], room: int) -> None:
    shares = share(needs, room)
    spare = {one.pool_id: one.spare for one in needs if not one.missing}
    assert all(0 < count <= spare[pool_id] for pool_id, count in shares.give_ups.items())
    still = sum(one.missing - shares.grants.get(one.pool_id, 0) for one in needs if one.waited_s > 0)
    assert sum(shares.give_ups.values()) == min(still, sum(spare.values()))


@given(needs_of_any_kind(), st.integers(0, 100))
def test_whoever_was_granted_one_has_at_most_one_more_than_whoever_misses_any(
    needs: list[PoolNeed], room: int
) -> None:
    grants = share(needs, room).grants
    has = {one.pool_id: one.live + grants.get(one.pool_id, 0) for one in needs}
    short = [has[one.pool_id] for one in needs if one.missing > grants.get(one.pool_id, 0)]
    assert all(has[pool_id] <= fewest + 1 for pool_id in grants for fewest in short)


def test_what_is_needed_is_not_to_spare() -> None:
    assert spare_containers(ready=8, idle=3, needed=6) == 2
    assert spare_containers(ready=8, idle=1, needed=2) == 1
    assert spare_containers(ready=2, idle=2, needed=6) == 0
