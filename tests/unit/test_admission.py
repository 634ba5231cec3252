from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexray.config import Limits
from flexray.core.admission import ADVANCE_MAX, ADVANCE_MIN, Occupied, admissible, advance, has_room, occupied

COUNTS = st.integers(0, 1000)


@pytest.mark.parametrize(
    ("waiting", "unseen", "assigned", "idle_slots", "expected"),
    [
        (0, 0, 0, 0, Occupied(0, 0)),
        (3, 2, 0, 0, Occupied(5, 5)),
        (3, 2, 4, 0, Occupied(5, 9)),
        (0, 0, 1, 6, Occupied(0, 7)),
        (5, 0, 1, 6, Occupied(5, 7)),
        (9, 0, 1, 6, Occupied(9, 10)),
    ],
)
def test_an_idle_slot_counts_as_an_input_unless_one_waits_for_it(
    waiting: int, unseen: int, assigned: int, idle_slots: int, expected: Occupied
) -> None:
    assert occupied(waiting=waiting, unseen=unseen, assigned=assigned, idle_slots=idle_slots) == expected


@given(
    asks=COUNTS, pending=COUNTS, total=COUNTS, limit=st.integers(1, 1000), total_limit=st.integers(1, 1000)
)
def test_as_many_are_admitted_as_fit_within_both_limits(
    asks: int, pending: int, total: int, limit: int, total_limit: int
) -> None:
    limits = Limits(pending=limit, total=total_limit)
    admitted = admissible(asks, 0, Occupied(pending, total), limits)
    assert 0 <= admitted <= asks
    assert admitted == 0 or (pending + admitted <= limit and total + admitted <= total_limit)
    assert admitted == asks or pending + admitted >= limit or total + admitted >= total_limit


@pytest.mark.parametrize(
    ("calls", "patient", "waiting", "admitted"),
    [(1, 10, 15, 3), (0, 30, 0, 18), (30, 30, 0, 20), (3, 5, 18, 2), (0, 5, 18, 0), (0, 0, 3, 0)],
)
def test_maps_leave_a_tenth_of_the_limit_to_single_calls(
    calls: int, patient: int, waiting: int, admitted: int
) -> None:
    assert admissible(calls, patient, Occupied(waiting, waiting), Limits(pending=20)) == admitted


def test_a_map_is_admitted_however_small_the_limit() -> None:
    assert admissible(0, 5, Occupied(), Limits(pending=1)) == 1


@pytest.mark.parametrize(
    ("pending", "total", "room"), [(89, 0, True), (90, 0, False), (0, 180, False), (89, 179, True)]
)
def test_maps_may_ask_below_nine_tenths_of_both_limits(pending: int, total: int, room: bool) -> None:
    assert has_room(Occupied(pending, total), Limits(pending=100, total=200)) is room


@pytest.mark.parametrize(
    ("pending", "own", "limit", "expected"),
    [
        (0, 0, 2000, ADVANCE_MAX),
        (1000, 0, 2000, 400),
        (1400, 400, 2000, 400),
        (1800, 0, 2000, 0),
        (0, 0, 2 * ADVANCE_MIN, 0),
        (0, 0, 40, 18),
    ],
)
def test_an_advance_is_half_of_the_room_and_nothing_where_there_is_little(
    pending: int, own: int, limit: int, expected: int
) -> None:
    assert advance(Occupied(pending, pending), own, Limits(pending=limit)) == expected
